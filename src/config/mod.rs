//! Configurations, checked as a whole before anything is applied.

#![forbid(unsafe_code)]

mod check;
mod forwarding;

pub use check::check_services;

use crate::forwarding::TunnelSources;
use crate::verdict::BackendIndex;
use ipnet::IpNet;

/// How much there can be of what is allocated once, at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Virtual services.
    pub services: usize,
    /// Backends, each counted once for every service it is in.
    pub backends: usize,
}

impl Default for Limits {
    /// 1,024 services and 16,384 backends: 16 bytes of next hop for each backend, and for each
    /// worker 16 bytes of counters.
    fn default() -> Self {
        Self { services: 1_024, backends: 16_384 }
    }
}

impl Limits {
    /// The most backends that can be told apart.
    pub const MAX_BACKENDS: usize = BackendIndex::MAX_SLOTS;
}

/// The director's own place in the network, against which VIPs and backends are checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// The addresses of the interface, each with the length of its on-link prefix.
    pub addresses: Vec<IpNet>,
    /// What its tunnels send from.
    pub tunnel_sources: TunnelSources,
}
