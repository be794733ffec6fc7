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
        /// Whether backends are drained and undrained by `POST /drain` and `POST /undrain` there, from this
        /// host alone: by every user of it. It is `false` unless told.
        "commands" commands: Option<bool>,
    }
}

impl Examine for Metrics {}
