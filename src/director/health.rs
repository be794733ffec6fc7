//! The health runner, and the thread that listens to it.

use super::control::Shared;
use super::error::StartError;
use super::through::{Prober, ThroughVip};
use crate::balancer::VipKey;
use crate::config::Config;
use crate::dataplane::neighbour::join;
use crate::health::{
    HealthEvent, HealthState, Monitor, MonitorBinding, ProbeCounts, ProbeTarget, Runner, Through,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How probes went, by service and backend.
pub(super) type Probes = BTreeMap<(String, String), ProbeCounts>;

/// What a first probe may take beyond its timeout before the start goes on without it.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long the start waits for the first results, whatever time a probe may take.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Probes every backend of every service that has a monitor.
#[derive(Debug)]
pub(super) struct Health {
    // Ended first: it closes the other end of the listener's channel.
    runner: Option<Runner>,
    listener: Option<JoinHandle<()>>,
    /// Into the same channel as the runner's events; none from the end on.
    resets: Option<Sender<HealthEvent>>,
    /// By service and backend, the state that each began in.
    known: Mutex<BTreeMap<(String, String), HealthState>>,
    /// For services that are probed through their VIP.
    prober: Arc<Prober>,
}

impl Health {
    /// Starts probing, and waits for the first results, which decide who takes traffic.
    pub(super) fn start(
        config: &Config,
        shared: &Arc<Shared>,
        prober: Arc<Prober>,
    ) -> Result<Self, StartError> {
        let thread = |source| StartError::Thread { thread: "health", source };
        let (events, heard) = channel();
        let resets = Some(events.clone());
        let runner = Runner::start(Runner::MOST_THREADS, events).map_err(thread)?;
        let report = Arc::clone(shared);
        let listener = std::thread::Builder::new()
            .name("dsrlb-health-events".to_owned())
            .spawn(move || listen(&heard, &report))
            .map_err(thread)?;
        let health = Self {
            runner: Some(runner),
            listener: Some(listener),
            resets,
            known: Mutex::default(),
            prober,
        };
        health.set_targets(config);
        let monitors = config.services.iter().filter_map(|bound| bound.monitor.as_ref());
        let longest = monitors.map(|monitor| monitor.policy.timeout).max();
        wait_for_first(shared, longest.unwrap_or_default().min(LONGEST_WAIT) + PATIENCE);
        Ok(health)
    }

    /// Sees to it that there can be probes through VIPs.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.prober.prepare()
    }

    /// How the probes of each backend went, by service and identifier.
    pub(super) fn probes(&self) -> Probes {
        self.runner.as_ref().map(Runner::probes).unwrap_or_default()
    }

    /// Has the listener look when the next drain is over.
    pub(super) fn look_at_deadlines(&self) {
        // An event about nobody: all that matters is that it looks up.
        let (service, id, state) = (String::new(), String::new(), HealthState::Unknown);
        let nudge = HealthEvent { service, id, from: state, to: state, reason: None };
        let _ = self.resets.as_ref().map(|resets| resets.send(nudge));
    }

    /// Replaces the set of backends. What is known of those that stay is kept.
    pub(super) fn set_targets(&self, config: &Config) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut targets, mut wanted) = (Vec::new(), BTreeMap::new());
        for bound in &config.services {
            let Some(binding) = &bound.monitor else {
                continue;
            };
            // One for all backends, so that it is given its news once.
            let monitor = self.monitor(bound.service.key, binding);
            for backend in &bound.service.backends {
                let (service, id) = (bound.service.key.to_string(), backend.id().to_owned());
                wanted.insert((service.clone(), id.clone()), binding.policy.initial);
                targets.push(ProbeTarget {
                    service,
                    id,
                    address: backend.address(),
                    monitor: Arc::clone(&monitor),
                    policy: binding.policy,
                });
            }
        }
        for ((service, id), initial) in wanted.iter().filter(|(name, _)| !known.contains_key(name))
        {
            // It may have been here before, and an event of that time may still wait to be heard.
            // This one comes after it, and before all that is found out from now on.
            let (service, id) = (service.clone(), id.clone());
            let reset = HealthEvent { service, id, from: *initial, to: *initial, reason: None };
            let _ = self.resets.as_ref().map(|resets| resets.send(reset));
        }
        *known = wanted;
        if let Some(runner) = &self.runner {
            // The configuration has been checked.
            let set = runner.set_targets(targets);
            debug_assert!(set.is_ok(), "{set:?}");
        }
    }
}

impl Health {
    /// The monitor as the runner is to call it.
    fn monitor(&self, service: VipKey, binding: &MonitorBinding) -> Arc<dyn Monitor> {
        let monitor = Arc::clone(&binding.monitor);
        match binding.through {
            Through::Vip if monitor.sends_packets() => {
                Arc::new(ThroughVip { prober: Arc::clone(&self.prober), service, monitor })
            }
            Through::Vip | Through::Backend => monitor,
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

/// Takes in what monitors find out, and in between ends what has its time. What has come
/// together goes into one plan.
fn listen(events: &Receiver<HealthEvent>, shared: &Shared) {
    loop {
        let now = Instant::now();
        let first = match shared.expire(now) {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(next) => events.recv_timeout(next.saturating_duration_since(now)),
        };
        match first {
            Ok(first) => shared.health([first].into_iter().chain(events.try_iter())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
