//! The director: give it an interface, services and a monitor, and get a handle.
//!
//! ```no_run
//! use dsrlb::balancer::{RealServer, VirtualService};
//! use dsrlb::director::Director;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = VirtualService::new("10.0.0.100:80/tcp".parse()?)
//!     .backend(RealServer::new("10.0.0.11".parse()?))
//!     .backend(RealServer::new("10.0.0.12".parse()?).with_weight(2));
//! let director = Director::builder("eth0").service(service).start()?;
//! println!("{:?}", director.granted());
//! std::thread::sleep(std::time::Duration::from_secs(60));
//! println!("{:?}", director.shutdown().counts);
//! # Ok(())
//! # }
//! ```
//!
//! Threads: one worker for each queue, one that follows routes and neighbours, one that listens to
//! what routers say about tunnels, if there are any, one that watches who else claims the VIPs, and those
//! of the health runner. Whatever they find out goes through one lock to the
//! [`Planner`](crate::dataplane::Planner) and comes out as one new [`Snapshot`](crate::dataplane::Snapshot); workers take no lock for a packet of a client's.
//!
//! Everything happens in the network namespace of the thread that calls [`DirectorBuilder::start`].

#![forbid(unsafe_code)]

mod board;
mod builder;
#[cfg(feature = "pcap")]
mod capture;
pub(crate) mod claims;
mod control;
mod difference;
mod drain;
mod error;
mod explain;
#[cfg(any(feature = "metrics", feature = "prometheus"))]
mod families;
mod feedback;
mod health;
mod icmp_socket;
mod memory;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "metrics")]
mod publisher;
mod sharing;
mod source;
mod stats;
mod status;
pub(crate) mod through;
#[cfg(feature = "tracing")]
mod trace;
mod updater;
mod workers;

pub use builder::DirectorBuilder;
pub(crate) use builder::probe_sources;
#[cfg(feature = "pcap")]
pub use capture::Capture;
pub use drain::{Drain, DrainEnd};
pub use error::{ExplainError, StartError, UpdateError};
pub use explain::{Explained, OfQueue};
#[cfg(feature = "prometheus")]
pub use prometheus::prometheus_text;
#[cfg(feature = "metrics")]
pub use publisher::MetricsPublisher;
pub use stats::{BackendStatus, ServiceState, ServiceStatus, Stats};
pub use status::{Applied, Event};

use crate::balancer::{AdminState, Backend, VipKey, VirtualService};
use crate::config::{Config, Preview};
use crate::dataplane::af_xdp::Granted;
#[cfg(feature = "pcap")]
use crate::dataplane::{Bounds, Chosen};
use crate::dataplane::{Counts, Question};
use crate::error::{ConfigError, ConfigProblem};
use crate::flow::FiveTuple;
use claims::ClaimWatch;
use control::Shared;
use feedback::FeedbackListener;
use source::SourceThread;
use std::sync::Arc;
use std::time::{Duration, Instant};
use updater::Updater;
use workers::Workers;

/// What is beyond all that can be counted is a hundred years.
const LONGEST_DRAIN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A running load balancer. Dropping it stops it.
#[derive(Debug)]
pub struct Director {
    // Declared in the order of dropping: traffic goes back to the kernel first.
    workers: Workers,
    source: Option<SourceThread>,
    feedback: Option<FeedbackListener>,
    claims: Option<ClaimWatch>,
    updater: Arc<Updater>,
    shared: Arc<Shared>,
}

impl Director {
    /// Begins to describe a director on this interface.
    pub fn builder(interface: impl Into<String>) -> DirectorBuilder {
        DirectorBuilder::new(interface.into())
    }

    /// What has been counted, and how each service and backend is. No worker is stopped or waited for;
    /// what they count is read as it is, and what the drivers and flow tables count as of a tenth of a
    /// second ago.
    pub fn stats(&self) -> Stats {
        self.shared.stats(self.updater.probes())
    }

    /// What each worker has counted, in the order of the queues.
    pub fn worker_counts(&self) -> Vec<Counts> {
        self.shared.worker_counts()
    }

    /// In which modes the interface runs.
    pub fn granted(&self) -> Granted {
        self.shared.lock().granted()
    }

    /// What works and yet may surprise, such as a service without backends; one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.shared.lock().warnings()
    }

    /// Why packets are no longer taken, if a worker has failed. The XDP program is detached then,
    /// and all traffic is the kernel's.
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failure()
    }

    /// The configuration that is in force.
    pub fn config(&self) -> Config {
        self.shared.lock().config().clone()
    }

    /// Replaces the whole configuration at once. Backends that stay keep their flows' places and
    /// what is known of them; services that stay are served without a gap. Returns what that came to.
    ///
    /// # Errors
    ///
    /// Every problem found in the new configuration; nothing has changed then.
    pub fn apply(&self, config: Config) -> Result<Applied, UpdateError> {
        self.update(|all| {
            *all = config;
            Ok(())
        })
    }

    /// What [`apply`](Self::apply) would do to new flows with what is known now: backends that are idle
    /// stay so, those of which nothing is known yet are taken to be well. Nothing is changed.
    ///
    /// Changes are locked out while the tables of the services that differ are built.
    ///
    /// # Errors
    ///
    /// Every problem found in the new configuration. Whether the host lets it probe through VIPs is
    /// not tried.
    pub fn preview(&self, config: Config) -> Result<Preview, ConfigError> {
        self.shared.preview(config)
    }

    /// What would become of the next packet of a flow that is on its way, and why, by each queue. Nothing
    /// is changed by it: no flow is remembered or renewed, nothing counted or sent.
    ///
    /// The packet has no data: of TCP it is a segment with ACK alone, of ICMP an echo request. Ask with
    /// [`explain_frame`](Self::explain_frame) about others.
    ///
    /// # Errors
    ///
    /// If the flow's addresses are of two families, or a worker has ended or does not answer for a
    /// second.
    pub fn explain(&self, flow: FiveTuple) -> Result<Explained, ExplainError> {
        explain::explain(&self.workers, &self.shared, &Question::Flow(flow))
    }

    /// The same of an Ethernet frame, as it comes in: addressed to the director, or it passes.
    ///
    /// # Errors
    ///
    /// If a worker has ended or does not answer for a second.
    pub fn explain_frame(&self, frame: &[u8]) -> Result<Explained, ExplainError> {
        explain::explain(&self.workers, &self.shared, &Question::Frame(frame.to_vec()))
    }

    /// Captures frames, as they come in, with their verdicts as comments, to a pcapng file, until it is
    /// told to stop, its bounds are reached, or the director ends. Several captures can go on at once.
    ///
    /// While it goes on, each worker copies every frame before it processes it, and hands those that are
    /// chosen to a thread that writes them, by a ring of 1 MiB: it waits for nobody. What finds no room is
    /// counted ([`TapCounts::missed`](crate::dataplane::TapCounts::missed)). Backends are chosen by their
    /// [index](BackendStatus::index), which one that leaves and comes back does not keep. A fragment
    /// that waits for the first of its datagram is there as held, and not again when it is let go of; what the
    /// director sends of its own is not there.
    ///
    /// ```no_run
    /// use dsrlb::dataplane::{Bounds, Chosen};
    /// use dsrlb::director::Director;
    /// use std::fs::File;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let director = Director::builder("eth0").start()?;
    /// let drops = director.capture(File::create("drops.pcapng")?, Chosen::Dropped, Bounds::default())?;
    /// std::thread::sleep(std::time::Duration::from_secs(60));
    /// println!("{} frames", drops.stop()?.written);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the output cannot be written, the bounds leave no room for the file's headers, or no thread can be
    /// started. What goes wrong later is told by [`Capture::stop`].
    #[cfg(feature = "pcap")]
    pub fn capture(
        &self,
        output: impl std::io::Write + Send + 'static,
        chosen: Chosen,
        bounds: Bounds,
    ) -> std::io::Result<Capture> {
        Capture::start(output, bounds, &self.shared, || self.workers.tap(&chosen))
    }

    /// Adds a backend to a service. It takes traffic as soon as its MAC address is known.
    ///
    /// # Errors
    ///
    /// If there is no such service, or the backend cannot be in it; nothing has changed then.
    pub fn add_backend(
        &self,
        service: VipKey,
        backend: impl Backend + 'static,
    ) -> Result<Applied, UpdateError> {
        self.update(|all| {
            find(all, service)?.backends.push(Arc::new(backend));
            Ok(())
        })
    }

    /// Removes a backend from a service. Its flows go to the others at once.
    ///
    /// # Errors
    ///
    /// If there is no such service, or no such backend in it.
    pub fn remove_backend(&self, service: VipKey, id: &str) -> Result<Applied, UpdateError> {
        self.update(|all| {
            let backends = &mut find(all, service)?.backends;
            let position = backends.iter().position(|backend| backend.id() == id);
            let position = position.ok_or_else(|| {
                missing(format!("service {service}"), format!("backend {id:?}"), "is not in it")
            })?;
            backends.remove(position);
            Ok(())
        })
    }

    /// Sets what the operator wants of a backend from now on, whatever the configuration says and
    /// will say of it, until it is set to `None`. Draining, it takes no new flows; disabled, nothing.
    ///
    /// # Errors
    ///
    /// If there is no such service, or no such backend in it.
    pub fn set_admin(
        &self,
        service: VipKey,
        id: &str,
        admin: impl Into<Option<AdminState>>,
    ) -> Result<(), ConfigError> {
        let set = self.shared.set_admin(service, id, admin.into(), None);
        set.map(drop).ok_or_else(|| no_backend(service, id))
    }

    /// Drains a backend: from now on it takes no new flows and keeps those it has, until they end
    /// or its time is over; what it then still has is cut.
    ///
    /// Old flows are kept by a balancer that remembers flows, as the usual one does;
    /// [`HashBalancer`] does not.
    ///
    /// # Errors
    ///
    /// If there is no such service, or no such backend in it.
    ///
    /// [`HashBalancer`]: crate::balancer::HashBalancer
    pub fn drain(
        &self,
        service: VipKey,
        id: &str,
        deadline: Duration,
    ) -> Result<Drain, ConfigError> {
        let now = Instant::now();
        let until = now.checked_add(deadline).unwrap_or(now + LONGEST_DRAIN);
        let draining = Some(AdminState::Draining);
        let begun = self.shared.set_admin(service, id, draining, Some(until));
        let begun = begun.ok_or_else(|| no_backend(service, id))?;
        self.updater.watch_deadlines();
        Ok(Drain::new(&self.shared, service, id, begun, until))
    }

    /// Cuts all flows of a backend at once: it is disabled.
    ///
    /// # Errors
    ///
    /// If there is no such service, or no such backend in it.
    pub fn flush(&self, service: VipKey, id: &str) -> Result<(), ConfigError> {
        self.set_admin(service, id, AdminState::Disabled)
    }

    fn update(
        &self,
        change: impl FnOnce(&mut Config) -> Result<(), ConfigError>,
    ) -> Result<Applied, UpdateError> {
        self.updater.update(change)
    }

    /// Stops: gives the traffic back to the kernel first, then ends the threads and closes the
    /// sockets. Returns the final counters. An event handler that is running is waited for, a
    /// monitor for a second.
    pub fn shutdown(self) -> Stats {
        let Self { workers, source, feedback, claims, updater, shared } = self;
        drop(workers);
        // While there is somebody to ask.
        let probes = updater.probes();
        drop((source, feedback, claims, updater));
        shared.stats(probes)
    }
}

fn find(config: &mut Config, key: VipKey) -> Result<&mut VirtualService, ConfigError> {
    let mut services = config.services.iter_mut().map(|bound| &mut bound.service);
    let service = services.find(|service| service.key == key);
    service.ok_or_else(|| missing(format!("service {key}"), key.to_string(), "is not configured"))
}

fn no_backend(service: VipKey, id: &str) -> ConfigError {
    let expected = "is not in it; the status names its backends";
    missing(format!("service {service}"), format!("backend {id:?}"), expected)
}

fn missing(path: String, value: String, expected: &str) -> ConfigError {
    ConfigError::new(vec![ConfigProblem { path, value, expected: expected.to_owned() }])
}
