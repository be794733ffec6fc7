//! What is to be looked at.

use super::observed::Vips;
use super::{Diagnosis, judge, observe};
use crate::config::{Config, Host, Limits};
use crate::dataplane::af_xdp::XdpOptions;
use crate::error::ConfigError;
use crate::forwarding::{ProbeSources, TunnelSources};
use std::time::Duration;

/// How long answers are waited for: twice what a neighbour gets that takes a second to be asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Describes what a director would be started with. Only the interface has no default; without services
/// the host and the interface are looked at.
#[derive(Clone, Debug)]
pub struct Checkup {
    pub(super) interface: String,
    pub(super) xdp: XdpOptions,
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) answers: bool,
    pub(super) tunnel_sources: TunnelSources,
    pub(super) probe_sources: ProbeSources,
    pub(super) trial: bool,
    pub(super) patience: Duration,
}

impl Checkup {
    /// Of the interface that packets for the VIPs come in by.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            xdp: XdpOptions::default(),
            config: Config::default(),
            limits: Limits::default(),
            answers: false,
            tunnel_sources: TunnelSources::default(),
            probe_sources: ProbeSources::default(),
            trial: true,
            patience: PATIENCE,
        }
    }

    /// Sets modes, queues, memory and the interfaces that frames leave by.
    #[must_use]
    pub fn xdp(mut self, options: XdpOptions) -> Self {
        self.xdp = options;
        self
    }

    /// Sets services and backends.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets how many services and backends there can be.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether the director answers ARP and neighbour discovery for the VIPs.
    #[must_use]
    pub fn answer_for_vips(mut self, answers: bool) -> Self {
        self.answers = answers;
        self
    }

    /// Sets what tunnels send from.
    #[must_use]
    pub fn tunnel_sources(mut self, sources: TunnelSources) -> Self {
        self.tunnel_sources = sources;
        self
    }

    /// Sets what is probed from; the default is the interface's first address of each family.
    #[must_use]
    pub fn probe_sources(mut self, sources: ProbeSources) -> Self {
        self.probe_sources = sources;
        self
    }

    /// Sets whether sockets are bound and a program attached to see what the driver grants; they are
    /// unless told. Some drivers reset their link for that.
    #[must_use]
    pub fn trial(mut self, trial: bool) -> Self {
        self.trial = trial;
        self
    }

    /// Sets how long answers of neighbours and of backends are waited for, each; 2 seconds unless told.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Looks and judges, in the network namespace of the calling thread. Takes some seconds: at most
    /// three times the patience, and what the trial takes.
    ///
    /// Never fails: what cannot be looked at is among what was found.
    pub fn run(&self) -> Diagnosis {
        judge::judge(self, &observe::observe(self))
    }

    /// Whether a director would take the configuration, on a host with these addresses.
    pub(super) fn check(&self, vips: &Vips) -> Result<(), ConfigError> {
        let host = Host {
            addresses: vips.held.clone(),
            tunnel_sources: self.tunnel_sources,
            probe_sources: vips.sources,
        };
        crate::config::check(&self.config, &host, &self.limits)
    }

    /// The interfaces, the one that packets come in by first.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &str> {
        [self.interface.as_str()].into_iter().chain(self.xdp.egress.iter().map(String::as_str))
    }
}
