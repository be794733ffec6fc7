//! The threads that probe.

use super::{HealthEvent, HealthState, ProbeTarget, Tracker};
use crate::error::ConfigError;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Probes targets on a fixed number of threads and reports their changes of state.
///
/// # Bounds
///
/// `threads` probes run at once, and one more thread watches over them. A monitor that hangs
/// occupies its own thread only and is never started a second time for the same target; its target
/// counts as failed at each interval. Up to `threads - 1` of them may hang and all others are still
/// probed, the longest due first. When all threads are taken, states stay as they are, except that
/// those of the hanging ones fall. So `threads` should be at least the number of backends whose
/// probes may time out in one interval, times the timeout over the interval: with the default
/// policy, 16 threads serve 32 dead backends without delaying the others.
///
/// The threads live in the network namespace of the thread that calls [`Runner::start`].
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Work, an end, or a new time to wait for: for the threads.
    changed: Condvar,
    /// A thread has ended: for who waits for that.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    tracker: Tracker,
    /// None from the end on, so that who listens hears of the end, whatever a monitor does.
    events: Option<Sender<HealthEvent>>,
    stop: bool,
    alive: usize,
}

impl State {
    fn report(&self, events: impl IntoIterator<Item = HealthEvent>) {
        for event in events {
            if let Some(listener) = &self.events {
                // Nobody listens any more: the states can still be read.
                let _ = listener.send(event);
            }
        }
    }
}

impl Runner {
    /// As many threads as most need.
    pub const DEFAULT_THREADS: usize = 16;
    /// How long dropping a runner waits for probes that are running.
    pub const DROP_PATIENCE: Duration = Duration::from_secs(1);

    /// Starts `threads` threads (at least one), and the one that watches; there are no targets yet.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(threads: usize, events: Sender<HealthEvent>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                tracker: Tracker::new(Instant::now()),
                events: Some(events),
                stop: false,
                alive: 0,
            }),
            changed: Condvar::new(),
            ended: Condvar::new(),
        });
        // Dropped on an error, it ends those that have been started.
        let mut runner = Self { shared, threads: Vec::new() };
        runner.spawn("dsrlb-health", Shared::watch)?;
        for _ in 0..threads.max(1) {
            runner.spawn("dsrlb-probe", Shared::probe)?;
        }
        Ok(runner)
    }

    fn spawn(&mut self, name: &str, body: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.shared.lock().alive += 1;
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Counts the thread as ended however it ends.
            let _ended = Ended(&shared);
            body(&shared);
        });
        if spawned.is_err() {
            self.shared.lock().alive -= 1;
        }
        self.threads.push(spawned?);
        Ok(())
    }

    /// Replaces the targets; see [`Tracker::set_targets`].
    ///
    /// # Errors
    ///
    /// When a policy is not valid or an identifier is there twice; nothing is changed then.
    pub fn set_targets(&self, targets: Vec<ProbeTarget>) -> Result<(), ConfigError> {
        let mut state = self.shared.lock();
        let events = state.tracker.set_targets(targets, Instant::now())?;
        state.report(events);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// What each target counts as now, by service and identifier.
    pub fn states(&self) -> BTreeMap<(String, String), HealthState> {
        self.shared.lock().tracker.states().collect()
    }

    /// Ends the threads and waits for them for at most `patience`. Returns how many are still in a
    /// monitor that does not return: they end when it does, and report nothing any more.
    pub fn shut_down(self, patience: Duration) -> usize {
        self.shared.stop(patience)
        // Dropping waits for `DROP_PATIENCE` no more, since `stop` has been called.
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let hanging = self.shared.stop(Self::DROP_PATIENCE);
        for thread in self.threads.drain(..) {
            if hanging == 0 || thread.is_finished() {
                // Monitors that panic are caught.
                let _ = thread.join();
            }
        }
    }
}

struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().alive -= 1;
        self.0.ended.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Monitors run outside of the lock; what is inside does not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread that probes.
    fn probe(&self) {
        let mut state = self.lock();
        while !state.stop {
            let now = Instant::now();
            let Some(job) = state.tracker.start_next(now) else {
                state = self.wait(state, |tracker| tracker.next_due());
                continue;
            };
            drop(state);
            // The watching thread has one more probe to watch.
            self.changed.notify_all();
            let result = job.run();
            state = self.lock();
            if !state.stop {
                let event = state.tracker.finish(&job, result, Instant::now());
                state.report(event);
                self.changed.notify_all();
            }
        }
    }

    /// The life of the thread that counts probes as failed that do not end.
    fn watch(&self) {
        let mut state = self.lock();
        while !state.stop {
            let events = state.tracker.overdue(Instant::now());
            state.report(events);
            state = self.wait(state, |tracker| tracker.next_overdue());
        }
    }

    /// Waits until something changes or until the time that `until` gives.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: impl Fn(&Tracker) -> Option<Instant>,
    ) -> MutexGuard<'a, State> {
        match until(&state.tracker) {
            Some(time) => {
                let time = time.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(state, time);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    /// Tells the threads to end; the first call waits for them.
    fn stop(&self, patience: Duration) -> usize {
        let mut state = self.lock();
        if !state.stop {
            state.stop = true;
            self.changed.notify_all();
            let waited = self.ended.wait_timeout_while(state, patience, |state| state.alive > 0);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.events = None;
        }
        state.alive
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
