//! The health runner, and the thread that listens to it.

use super::control::Shared;
use super::error::StartError;
use crate::dataplane::neighbour::join;
use crate::health::{HealthEvent, HealthPolicy, Monitor, ProbeTarget, Runner};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a first probe may take beyond its timeout before the start goes on without it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Probes every backend's address, once for all the services it is in.
#[derive(Debug)]
pub(super) struct Health {
    // Ended first: it closes the other end of the listener's channel.
    runner: Option<Runner>,
    listener: Option<JoinHandle<()>>,
    /// Into the same channel as the runner's events; none from the end on.
    resets: Option<Sender<HealthEvent>>,
    known: Mutex<BTreeSet<IpAddr>>,
    monitor: Monitoring,
}

struct Monitoring(Arc<dyn Monitor>, HealthPolicy);

impl std::fmt::Debug for Monitoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.1.fmt(f)
    }
}

impl Health {
    /// Starts probing, and waits for the first results, which decide who takes traffic.
    pub(super) fn start(
        monitor: Arc<dyn Monitor>,
        policy: HealthPolicy,
        backends: &BTreeSet<IpAddr>,
        shared: &Arc<Shared>,
    ) -> Result<Self, StartError> {
        policy.validate()?;
        let thread = |source| StartError::Thread { thread: "health", source };
        let (events, heard) = channel();
        let resets = Some(events.clone());
        let runner = Runner::start(Runner::DEFAULT_THREADS, events).map_err(thread)?;
        let report = Arc::clone(shared);
        let listener = std::thread::Builder::new()
            .name("dsrlb-health-events".to_owned())
            .spawn(move || listen(&heard, &report))
            .map_err(thread)?;
        let monitor = Monitoring(monitor, policy);
        let known = Mutex::new(backends.clone());
        let health =
            Self { runner: Some(runner), listener: Some(listener), resets, known, monitor };
        health.set_backends(backends);
        wait_for_first(shared, policy.timeout + PATIENCE);
        Ok(health)
    }

    /// Replaces the set of backends. What is known of those that stay is kept.
    pub(super) fn set_backends(&self, backends: &BTreeSet<IpAddr>) {
        let Monitoring(monitor, policy) = &self.monitor;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for address in backends.difference(&known) {
            // It may have been here before, and an event of that time may still wait to be heard.
            // This one comes after it, and before all that is found out from now on.
            let (id, initial) = (address.to_string(), policy.initial);
            let reset = HealthEvent { id, from: initial, to: initial, reason: None };
            let _ = self.resets.as_ref().map(|resets| resets.send(reset));
        }
        known.clone_from(backends);
        let target = |address: &IpAddr| ProbeTarget {
            id: address.to_string(),
            address: *address,
            monitor: Arc::clone(monitor),
            policy: *policy,
        };
        if let Some(runner) = &self.runner {
            // The policy was checked at the start, and no address is in a set twice.
            let set = runner.set_targets(backends.iter().map(target).collect());
            debug_assert!(set.is_ok(), "{set:?}");
        }
    }
}

/// Waits until the first results have arrived where it is decided who takes traffic.
fn wait_for_first(shared: &Shared, patience: Duration) {
    let deadline = Instant::now() + patience;
    while shared.lock().awaits_probes() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.runner = None;
        self.resets = None;
        if let Some(listener) = self.listener.take() {
            // The runner has closed the channel, also on probes that hang.
            join(listener);
        }
    }
}

fn listen(events: &Receiver<HealthEvent>, shared: &Shared) {
    for event in events {
        if let Ok(address) = event.id.parse() {
            let reason = event.reason.map(|reason| reason.to_string());
            shared.health(address, event.to, reason);
        }
    }
}
