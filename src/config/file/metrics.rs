//! `[metrics]`: where the appliance tells how it does.

use super::table::{Examine, table};
use std::net::SocketAddr;

table! {
    /// Where the appliance tells how it does: `/metrics` for Prometheus, and `/health`. A change takes a
    /// restart.
    Metrics {
        /// The address and port that are listened on for HTTP. Whoever reaches them may read all that is
        /// there: an address of this host alone, or of a network for management.
        "listen" listen: SocketAddr,
    }
}

impl Examine for Metrics {}
