//! Whether backends are healthy: what a monitor is, and the machinery that runs monitors.
//!
//! A [`Monitor`] probes one backend once and says whether it succeeded. When to probe, how many
//! failures make a backend unhealthy, on which threads, and what to do with a monitor that hangs or
//! panics is the library's business:
//!
//! - [`Hysteresis`] turns single results into states: `rise` successes up, `fall` failures down.
//! - [`Schedule`] says who is due when, spread over the interval and without drift.
//! - [`Tracker`] joins the two for a replaceable set of targets. All three are pure: the time is a
//!   parameter, so tests need not sleep.
//! - [`Runner`] is the threads around them, started on demand; it reports each [`HealthEvent`]
//!   through a channel.
//!
//! # Stock monitors
//!
//! | monitor | well is who |
//! |---|---|
//! | [`IcmpEcho`] | answers a ping |
//! | [`TcpConnect`] | accepts a TCP connection |
//! | [`UdpRequest`] | answers a datagram, as [`Answer`] says |
//! | `Http` (feature `http`) | answers an HTTP or HTTPS request with the right status and body |
//! | `dataplane::neighbour::NeighbourReachable` (feature `af-xdp`) | answers ARP or neighbour discovery |
//! | [`Push`] | is reported to be well, by an embedder who knows |
//! | [`All`], [`Any`], [`Not`] | is so by all of several monitors, by one of them, or not by one |
//! | [`monitor_fn`] | a function says is well |
//!
//! # A monitor of one's own
//!
//! ```
//! use dsrlb::health::{HealthPolicy, Monitor, ProbeFailure, ProbeTarget, Runner, Target};
//! use std::sync::{Arc, mpsc};
//! use std::time::Duration;
//!
//! struct AlwaysWell;
//!
//! impl Monitor for AlwaysWell {
//!     fn probe(&self, _: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (sender, events) = mpsc::channel();
//! let runner = Runner::start(Runner::MOST_THREADS, sender)?;
//! runner.set_targets(vec![ProbeTarget {
//!     service: "10.0.0.100:80/tcp".into(),
//!     id: "web-1".into(),
//!     address: "192.0.2.11".parse()?,
//!     monitor: Arc::new(AlwaysWell),
//!     policy: HealthPolicy::default(),
//! }])?;
//! let event = events.recv()?;
//! assert_eq!(event.to_string(), "10.0.0.100:80/tcp: web-1: unknown -> up");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod binding;
mod combine;
mod failure;
mod guard;
#[cfg(feature = "http")]
mod http;
mod hysteresis;
mod icmp;
mod icmp_filter;
mod icmp_message;
mod job;
mod monitor_fn;
mod news;
mod policy;
mod pool;
mod probes;
mod push;
mod reason;
mod runner;
mod schedule;
mod tcp;
mod threads;
mod tracker;
mod udp;

pub use binding::{MonitorBinding, Through};
pub use combine::{All, Any, Not};
pub use failure::ProbeFailure;
#[cfg(feature = "http")]
pub use http::{Http, Verification};
pub use hysteresis::{HealthState, Hysteresis, Transition};
pub use icmp::IcmpEcho;
pub use job::{HealthEvent, Job, ProbeTarget};
pub use monitor_fn::{MonitorFn, monitor_fn};
pub use news::News;
pub use policy::HealthPolicy;
pub use probes::ProbeCounts;
pub use push::Push;
pub use runner::Runner;
pub use schedule::Schedule;
pub use tcp::TcpConnect;
pub use tracker::Tracker;
pub use udp::{Answer, UdpRequest};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whom to probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Target<'a> {
    /// The service that the backend is in, as text.
    pub service: &'a str,
    /// The backend's identifier, as the configuration gives it.
    pub id: &'a str,
    /// Where to send: the VIP if the probe goes [through it](Through::Vip), else the backend's own
    /// address.
    pub address: IpAddr,
}

impl<'a> Target<'a> {
    /// A target, for calling a monitor oneself.
    pub const fn new(service: &'a str, id: &'a str, address: IpAddr) -> Self {
        Self { service, id, address }
    }
}

/// A way to find out whether a backend is well.
///
/// One monitor may probe many backends, several at the same time. It should give up by itself when
/// `timeout` is over: the [`Runner`] does not wait for it, but cannot end it either, and a monitor
/// that hangs keeps a thread. A panic counts as a failed probe.
///
/// Sockets are to be opened on the thread that probes: [through the VIP](Through::Vip), it is this
/// thread that is in a place from which all packets go to the one backend. A client library that opens
/// them on threads of its own would reach whatever is there; such a probe fails and says so.
pub trait Monitor: Send + Sync {
    /// Probes `target` once, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Why the backend is not to be taken for healthy.
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure>;

    /// Takes the means to have a backend probed at once, for monitors that learn of its health by
    /// themselves; others need not care. Called once by each [`Runner`] that has the monitor, before
    /// or after its first probes; it should return at once.
    ///
    /// A monitor that wraps others passes it on to them.
    fn subscribe(&self, news: News) {
        let _ = news;
    }

    /// Whether it finds out by packets. One that does not, for it learns of health in another way, is
    /// asked wherever its thread is, also if it is bound [through the VIP](Through::Vip).
    ///
    /// A monitor that wraps others asks them.
    fn sends_packets(&self) -> bool {
        true
    }
}

impl<M: Monitor + ?Sized> Monitor for &M {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        (**self).probe(target, timeout)
    }

    fn subscribe(&self, news: News) {
        (**self).subscribe(news);
    }

    fn sends_packets(&self) -> bool {
        (**self).sends_packets()
    }
}

impl<M: Monitor + ?Sized> Monitor for Box<M> {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        (**self).probe(target, timeout)
    }

    fn subscribe(&self, news: News) {
        (**self).subscribe(news);
    }

    fn sends_packets(&self) -> bool {
        (**self).sends_packets()
    }
}

impl<M: Monitor + ?Sized> Monitor for Arc<M> {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        (**self).probe(target, timeout)
    }

    fn subscribe(&self, news: News) {
        (**self).subscribe(news);
    }

    fn sends_packets(&self) -> bool {
        (**self).sends_packets()
    }
}
