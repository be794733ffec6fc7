//! Configurations, checked as a whole before anything is applied.
//!
//! A [`Config`] is made in code, or read from a file (feature `file`, module `file`). A running
//! director is given new ones by a [`ConfigSource`]. All is pure but what is in [`source`].

#![forbid(unsafe_code)]

mod changes;
mod check;
#[cfg(feature = "file")]
pub mod file;
mod forwarding;
mod preview;
pub mod source;

pub use changes::{BackendName, Changes};
pub use check::check;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub(crate) use preview::moves;
pub use preview::{BackendMoves, Moves, Preview};
#[cfg(feature = "file")]
pub use source::FileSource;
pub use source::{ChannelSource, ConfigSender, ConfigSource, SourceError, StaticSource, channel};

use crate::balancer::VirtualService;
use crate::forwarding::{ProbeSources, TunnelSources};
use crate::health::MonitorBinding;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
use crate::health::Through;
use crate::verdict::BackendIndex;
use ipnet::IpNet;

/// A whole configuration: all that a running director can be given anew.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The services, each with its monitor.
    pub services: Vec<ServiceConfig>,
}

impl Config {
    /// Gives a monitor to services that have none.
    #[cfg(all(feature = "af-xdp", target_os = "linux"))]
    pub(crate) fn with_default(&mut self, monitor: Option<&MonitorBinding>) {
        for bound in self.services.iter_mut().filter(|bound| bound.monitor.is_none()) {
            bound.monitor = monitor.cloned();
        }
    }

    /// Whether any service is probed through its VIP.
    #[cfg(all(feature = "af-xdp", target_os = "linux"))]
    pub(crate) fn probes_through_vips(&self) -> bool {
        let mut monitors = self.services.iter().filter_map(|bound| bound.monitor.as_ref());
        monitors.any(|monitor| monitor.through == Through::Vip)
    }
}

/// A service and how its backends are probed.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// What is balanced, among whom, and how.
    pub service: VirtualService,
    /// How each of its backends is probed; if not at all, each is taken to be well.
    pub monitor: Option<MonitorBinding>,
}

impl ServiceConfig {
    /// A service and its monitor.
    pub fn new(service: VirtualService, monitor: MonitorBinding) -> Self {
        Self { service, monitor: Some(monitor) }
    }
}

impl From<VirtualService> for ServiceConfig {
    /// A service whose backends are not probed.
    fn from(service: VirtualService) -> Self {
        Self { service, monitor: None }
    }
}

impl<S: Into<ServiceConfig>> FromIterator<S> for Config {
    fn from_iter<I: IntoIterator<Item = S>>(services: I) -> Self {
        Self { services: services.into_iter().map(Into::into).collect() }
    }
}

/// How much there can be of what is allocated once, at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", default, deny_unknown_fields)
)]
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
    /// What its probes through VIPs are sent from.
    pub probe_sources: ProbeSources,
}
