//! The threads that probe.

use super::guard::subscribe_caught;
use super::news::Listener;
use super::pool::Pool;
use super::threads::Shared;
use super::{HealthEvent, HealthState, Monitor, News, ProbeCounts, ProbeTarget};
use crate::error::ConfigError;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Probes targets, on as many threads as it takes, and reports their changes of state.
///
/// # Bounds
///
/// One thread hands out what is due; it starts a thread whenever a probe is due and none is idle, up to
/// `most` of them. Those that were not needed for [`Runner::IDLE`] end. Each has a stack of
/// [`Runner::STACK`] bytes, of which only what is used takes memory: 512 threads reserve 128 MiB of
/// addresses and take some 10 MiB. A monitor that needs more stack has to bring a thread of its own.
///
/// A monitor that hangs occupies its own thread only and is never started a second time for the same
/// target; its target counts as failed at each interval. Up to `most - 1` of them may hang and all
/// others are still probed, the longest due first. When all threads are taken, states stay as they
/// are, except that those of the hanging ones fall. So `most` should be at least the number of
/// backends whose probes may time out in one interval, times the timeout over the interval: with the
/// default policy, 512 threads serve 1,024 dead backends without delaying the others. If not one
/// thread can be started, probes fail and say so.
///
/// The threads live in the network namespace of the thread that calls [`Runner::start`].
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    dispatcher: Option<JoinHandle<()>>,
    /// The monitors that have been given their [`News`].
    subscribed: Mutex<Vec<Weak<dyn Monitor>>>,
}

impl Runner {
    /// As many threads as most need; see the bounds above.
    pub const MOST_THREADS: usize = 512;
    /// The stack of a thread that probes, in bytes.
    pub const STACK: usize = 256 * 1024;
    /// For how long at least a thread is kept that is not needed, and at most twice that.
    pub const IDLE: Duration = Duration::from_secs(5);
    /// How long dropping a runner waits for probes that are running.
    pub const DROP_PATIENCE: Duration = Duration::from_secs(1);

    /// Starts the thread that hands out probes to at most `most` others (at least one), which are
    /// started when there is something to do; there are no targets yet.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(most: usize, events: Sender<HealthEvent>) -> io::Result<Self> {
        Self::start_with(most, Self::IDLE, events)
    }

    fn start_with(most: usize, idle: Duration, events: Sender<HealthEvent>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Pool::new(most.max(1), idle, Instant::now()), events));
        let theirs = Arc::clone(&shared);
        let dispatcher = std::thread::Builder::new()
            .name("dsrlb-health".to_owned())
            .spawn(move || theirs.dispatch())?;
        Ok(Self { shared, dispatcher: Some(dispatcher), subscribed: Mutex::default() })
    }

    /// Replaces the targets; see [`Tracker::set_targets`](super::Tracker::set_targets). Monitors that are new get their
    /// [`News`], on the calling thread.
    ///
    /// # Errors
    ///
    /// When a policy is not valid or an identifier is there twice; nothing is changed then.
    pub fn set_targets(&self, targets: Vec<ProbeTarget>) -> Result<(), ConfigError> {
        let monitors: Vec<_> = targets.iter().map(|target| Arc::clone(&target.monitor)).collect();
        self.shared.set_targets(targets)?;
        self.subscribe(&monitors);
        Ok(())
    }

    /// Gives their news to those of the monitors that have none yet, outside of the lock.
    fn subscribe(&self, monitors: &[Arc<dyn Monitor>]) {
        let listener: Arc<dyn Listener> = self.shared.clone();
        let mut by_place: BTreeMap<*const (), &Arc<dyn Monitor>> =
            monitors.iter().map(|monitor| (Arc::as_ptr(monitor).cast(), monitor)).collect();
        let mut subscribed = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
        // Held weakly: no other monitor comes to be at the same place while it is listed here.
        subscribed.retain(|known| by_place.remove(&known.as_ptr().cast()).is_some());
        subscribed.extend(by_place.values().map(|monitor| Arc::downgrade(monitor)));
        drop(subscribed);
        for monitor in by_place.into_values() {
            subscribe_caught(monitor.as_ref(), News::new(&listener, monitor));
        }
    }

    /// What each target counts as now, by service and identifier.
    pub fn states(&self) -> BTreeMap<(String, String), HealthState> {
        self.shared.lock().tracker.states().collect()
    }

    /// How the probes of each target went, by service and identifier.
    pub fn probes(&self) -> BTreeMap<(String, String), ProbeCounts> {
        self.shared.lock().tracker.probes().collect()
    }

    /// How many threads there are for probes now, idle ones included.
    pub fn threads(&self) -> usize {
        self.shared.lock().pool.alive()
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
        if let Some(dispatcher) = self.dispatcher.take() {
            // It calls nobody else's code, so it neither hangs nor panics.
            let _ = dispatcher.join();
        }
        for thread in self.shared.lock().pool.take_threads() {
            if hanging == 0 || thread.is_finished() {
                // Monitors that panic are caught.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
