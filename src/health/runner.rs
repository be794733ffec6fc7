//! The threads that probe.

use super::{HealthPolicy, HealthPolicyError, Hysteresis, Monitor, ProbeFailure, Schedule, Target};
use crate::flow::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many backends can be probed at the same time. One that does not answer takes a thread for
/// as long as the timeout, so with the default policy 32 silent backends do not delay the others.
const THREADS: usize = 16;
/// How long the end waits for probes that are under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// A backend that changed its state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthEvent {
    /// The backend.
    pub address: IpAddr,
    /// Well, or the last probe's reason why not.
    pub state: Result<(), ProbeFailure>,
}

/// Probes a changing set of backends with one monitor until dropped.
///
/// The threads are in the network namespace of the thread that starts the runner.
pub struct Runner {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// Why no runner was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The policy is not valid.
    #[error(transparent)]
    Policy(#[from] HealthPolicyError),
    /// A thread could not be started.
    #[error("cannot start a health thread: {0}")]
    Thread(#[from] io::Error),
}

struct Shared {
    monitor: Box<dyn Monitor>,
    policy: HealthPolicy,
    report: Box<dyn Fn(HealthEvent) + Send + Sync>,
    epoch: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stop: bool,
    schedule: Schedule,
    backends: HashMap<IpAddr, Hysteresis>,
}

impl Runner {
    /// Starts probing nothing; [`Runner::set_targets`] says whom. `report` is called with each
    /// change, on one of the runner's threads.
    ///
    /// # Errors
    ///
    /// If the policy is not valid or no thread can be started.
    pub fn start(
        monitor: impl Monitor + 'static,
        policy: HealthPolicy,
        report: impl Fn(HealthEvent) + Send + Sync + 'static,
    ) -> Result<Self, RunnerError> {
        policy.validate()?;
        let shared = Arc::new(Shared {
            monitor: Box::new(monitor),
            policy,
            report: Box::new(report),
            epoch: Instant::now(),
            state: Mutex::new(State {
                stop: false,
                schedule: Schedule::new(policy.interval),
                backends: HashMap::new(),
            }),
            changed: Condvar::new(),
        });
        let mut runner = Self { shared, threads: Vec::with_capacity(THREADS) };
        for number in 0..THREADS {
            let shared = Arc::clone(&runner.shared);
            let thread = std::thread::Builder::new()
                .name(format!("dsrlb-health-{number}"))
                .spawn(move || shared.work())?;
            runner.threads.push(thread);
        }
        Ok(runner)
    }

    /// Replaces the set of backends. What is known of those that stay is kept.
    pub fn set_targets(&self, backends: &BTreeSet<IpAddr>) {
        let policy = self.shared.policy;
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.schedule.set(backends, now);
        state.backends.retain(|address, _| backends.contains(address));
        for address in backends {
            let fresh = || Hysteresis::new(policy.rise, policy.fall, policy.initially_up);
            state.backends.entry(*address).or_insert_with(fresh);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Runner {
    /// Waits for the probes that are under way, but not for a monitor that hangs.
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        let deadline = Instant::now() + PATIENCE.max(self.shared.policy.timeout);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                // A panic of `report` has been told on standard error already.
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.epoch.elapsed().as_nanos() as u64)
    }

    fn work(&self) {
        while let Some(address) = self.next_turn() {
            let target = Target::new(address);
            let probed =
                catch_unwind(AssertUnwindSafe(|| self.monitor.probe(&target, self.policy.timeout)));
            let result = probed.unwrap_or_else(|panic| {
                Err(ProbeFailure::Panicked(crate::error::panic_message(panic.as_ref())))
            });
            if let Some(event) = self.take_in(address, result) {
                (self.report)(event);
            }
        }
    }

    /// Waits for a backend whose turn it is; none when the runner stops.
    fn next_turn(&self) -> Option<IpAddr> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = self.now();
            if let Some(address) = state.schedule.take(now) {
                return Some(address);
            }
            state = match state.schedule.next() {
                Some(next) => {
                    let wait = Duration::from_nanos(next.0.saturating_sub(now.0));
                    let waited = self.changed.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn take_in(&self, address: IpAddr, result: Result<(), ProbeFailure>) -> Option<HealthEvent> {
        let now = self.now();
        let mut state = self.lock();
        state.schedule.done(address, now);
        // Others may be asleep until a time later than this backend's next turn.
        self.changed.notify_one();
        let hysteresis = state.backends.get_mut(&address)?;
        hysteresis.observe(result.is_ok())?;
        Some(HealthEvent { address, state: result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::mpsc::channel;

    const FAST: HealthPolicy = HealthPolicy {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(10),
        rise: 2,
        fall: 3,
        initially_up: true,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// 1 is well while the switch is on, 2 panics, 3 hangs, all others are well.
    struct Mixed(Arc<AtomicBool>, Arc<AtomicU32>);

    impl Monitor for Mixed {
        fn probe(&self, target: &Target, _: Duration) -> Result<(), ProbeFailure> {
            match target.address {
                a if a == address(1) && !self.0.load(Ordering::Relaxed) => {
                    Err(ProbeFailure::Failed("switched off".into()))
                }
                a if a == address(2) => panic!("monitor bug"),
                a if a == address(3) => {
                    self.1.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_secs(3600));
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn reports_changes_and_survives_monitors_that_panic_or_hang() {
        let (on, hung) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (events, heard) = channel();
        let monitor = Mixed(Arc::clone(&on), Arc::clone(&hung));
        let report = move |event| drop(events.send(event));
        let runner = Runner::start(monitor, FAST, report).unwrap();
        runner.set_targets(&(1..=40).map(address).collect());
        let next = || heard.recv_timeout(Duration::from_secs(10)).unwrap();

        let panicked = next();
        assert_eq!(panicked.address, address(2));
        assert!(panicked.state.unwrap_err().to_string().contains("monitor bug"));

        on.store(false, Ordering::Relaxed);
        let down = next();
        assert_eq!(down.address, address(1));
        assert_eq!(down.state.unwrap_err().to_string(), "switched off");
        on.store(true, Ordering::Relaxed);
        assert_eq!(next(), HealthEvent { address: address(1), state: Ok(()) });
        assert_eq!(hung.load(Ordering::Relaxed), 1, "a hanging backend is not probed twice");

        let begun = Instant::now();
        drop(runner);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the end waited for a monitor that hangs"
        );
    }

    #[test]
    fn a_backend_that_was_removed_is_not_reported() {
        let on = Arc::new(AtomicBool::new(true));
        let (events, heard) = channel();
        let monitor = Mixed(Arc::clone(&on), Arc::default());
        let runner = Runner::start(monitor, FAST, move |event| drop(events.send(event))).unwrap();
        runner.set_targets(&BTreeSet::from([address(1)]));
        runner.set_targets(&BTreeSet::from([address(4)]));
        on.store(false, Ordering::Relaxed);
        heard.recv_timeout(Duration::from_millis(300)).unwrap_err();
    }
}
