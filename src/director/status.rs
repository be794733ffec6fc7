//! What a director tells of its own accord.

use crate::balancer::VipKey;
use crate::config::Changes;
use crate::dataplane::Idle;
use crate::packet::MacAddress;
use std::fmt;
use std::net::IpAddr;

/// What a change of the configuration came to.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Applied {
    /// The number of the snapshot that it is in force with.
    pub generation: u64,
    /// What came, went and changed.
    pub changes: Changes,
    /// By service that was there before, the share of new flows, from 0 to 1, that go to another
    /// backend at once; those of which none does are left out. Backends that have come take theirs
    /// later, when they are known to be well.
    pub moved: Vec<(VipKey, f64)>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.changes)?;
        let each = |(service, share): &(VipKey, f64)| {
            write!(f, "; {service}: {:.1} % of new flows moved", share * 100.0)
        };
        self.moved.iter().try_for_each(each)
    }
}

/// Something that happened while a director runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A backend takes new flows from now on.
    BackendActive {
        /// The service.
        service: VipKey,
        /// The backend's name.
        id: String,
    },
    /// A backend takes no new flows from now on.
    BackendIdle {
        /// The service.
        service: VipKey,
        /// The backend's name.
        id: String,
        /// Why.
        why: Idle,
    },
    /// Another configuration is in force.
    ConfigApplied(Applied),
    /// What a configuration source came up with was refused as a whole; the configuration before
    /// it stays in force.
    ConfigRefused(String),
    /// No backend of a service may take new flows by right: what
    /// [`WhenAllDown`](crate::balancer::WhenAllDown) says holds from now on.
    AllDown {
        /// The service.
        service: VipKey,
        /// What becomes of its packets.
        what: &'static str,
    },
    /// A backend of the service may take new flows again.
    Recovered {
        /// The service.
        service: VipKey,
    },
    /// The interface came up or went down, or changed its MAC address.
    LinkChanged {
        /// Which: zero for the one that packets come in by, then those of
        /// [`DirectorBuilder::egress`](super::DirectorBuilder::egress) in their order.
        port: u8,
        /// Whether it is up and has a carrier.
        up: bool,
    },
    /// A host that is no backend which could be taken out for it tells the link to have a VIP. It is
    /// told once, when that begins; [`Director::warnings`](super::Director::warnings) has it while it
    /// lasts.
    VipClaimed {
        /// The VIP.
        vip: IpAddr,
        /// Where the host says it is.
        mac: MacAddress,
    },
    /// Neighbours cannot be followed; what is known of them stays in force.
    ResolverFailed(String),
    /// A worker ended before its time. The XDP program has been detached.
    WorkerFailed {
        /// The queue it served.
        queue: u32,
        /// What it ended with.
        error: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackendActive { service, id } => {
                write!(f, "{service}: backend {id} takes traffic")
            }
            Self::BackendIdle { service, id, why } => {
                write!(f, "{service}: backend {id} takes no new flows: {why}")
            }
            Self::ConfigApplied(applied) => write!(f, "configuration applied: {applied}"),
            Self::ConfigRefused(why) => {
                write!(f, "configuration refused, the one before stays in force: {why}")
            }
            Self::AllDown { service, what } => {
                write!(f, "{service}: every backend is down: {what}")
            }
            Self::Recovered { service } => write!(f, "{service}: no longer are all backends down"),
            Self::LinkChanged { port, up } => {
                let state = if *up { "up" } else { "down" };
                match port {
                    0 => write!(f, "the interface is {state}"),
                    _ => write!(f, "egress interface {port} is {state}"),
                }
            }
            Self::VipClaimed { vip, mac } => write!(
                f,
                "{mac} answers for the VIP {vip}: clients may bypass the director; take the VIP from that \
                 host, or have it not answer"
            ),
            Self::ResolverFailed(error) => write!(f, "neighbours cannot be followed: {error}"),
            Self::WorkerFailed { queue, error } => write!(
                f,
                "the worker of queue {queue} failed, traffic is the kernel's again: {error}"
            ),
        }
    }
}
