//! The threads that probe.

use super::guard::subscribe_caught;
use super::news::Listener;
use super::pool::Pool;
use super::{HealthEvent, HealthState, Job, Monitor, News, ProbeFailure, ProbeTarget, Tracker};
use crate::error::ConfigError;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
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

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or an end, for all or for some: for threads that probe.
    work: Condvar,
    /// There is an end, or something due before `wakes`: for the thread that hands out.
    sooner: Condvar,
    /// A thread has ended: for who waits for that.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    tracker: Tracker,
    /// None from the end on, so that who listens hears of the end, whatever a monitor does.
    events: Option<Sender<HealthEvent>>,
    stop: bool,
    pool: Pool,
    /// Until when the thread that hands out sleeps; none while it does not, or for ever.
    wakes: Option<Instant>,
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

    fn finish(&mut self, job: &Job, result: Result<(), ProbeFailure>) {
        let event = self.tracker.finish(job, result, Instant::now());
        self.report(event);
    }

    /// When there is something to do for the thread that hands out.
    fn next_wake(&self) -> Option<Instant> {
        // While no thread is to be had, the next to be free helps itself.
        let due = self.tracker.next_due().and_then(|due| self.pool.earliest(due));
        let others = [self.tracker.next_overdue(), self.pool.next_review()];
        due.into_iter().chain(others.into_iter().flatten()).min()
    }
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
        let now = Instant::now();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                tracker: Tracker::new(now),
                events: Some(events),
                stop: false,
                pool: Pool::new(most.max(1), now),
                wakes: None,
            }),
            work: Condvar::new(),
            sooner: Condvar::new(),
            ended: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let dispatcher = std::thread::Builder::new()
            .name("dsrlb-health".to_owned())
            .spawn(move || theirs.dispatch())?;
        Ok(Self { shared, dispatcher: Some(dispatcher), subscribed: Mutex::default() })
    }

    /// Replaces the targets; see [`Tracker::set_targets`]. Monitors that are new get their
    /// [`News`], on the calling thread.
    ///
    /// # Errors
    ///
    /// When a policy is not valid or an identifier is there twice; nothing is changed then.
    pub fn set_targets(&self, targets: Vec<ProbeTarget>) -> Result<(), ConfigError> {
        let monitors: Vec<_> = targets.iter().map(|target| Arc::clone(&target.monitor)).collect();
        let mut state = self.shared.lock();
        let events = state.tracker.set_targets(targets, Instant::now())?;
        state.report(events);
        self.shared.nudge(&state);
        drop(state);
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

impl Listener for Shared {
    fn hurry(&self, monitor: &Weak<dyn Monitor>, id: &str) {
        let mut state = self.lock();
        state.tracker.hurry(monitor, id, Instant::now());
        self.nudge(&state);
    }
}

/// Counts a thread as ended however it ends.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().pool.ended();
        self.0.ended.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Monitors run outside of the lock; what is inside does not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread that hands out if it would sleep for too long.
    fn nudge(&self, state: &State) {
        if state.next_wake().is_some_and(|wake| state.wakes.is_none_or(|wakes| wake < wakes)) {
            self.sooner.notify_one();
        }
    }

    /// The life of the thread that hands out probes, and counts those as failed that do not end.
    fn dispatch(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.stop {
            let now = Instant::now();
            let overdue = state.tracker.overdue(now);
            state.report(overdue);
            if state.pool.review(now) {
                self.work.notify_all();
            }
            while !state.stop && state.tracker.next_due().is_some_and(|due| due <= now) {
                if !state.pool.has_spare() && state.pool.may_hire(now) {
                    // Meanwhile others have had the lock.
                    state = self.hire(state);
                } else if !self.hand_out(&mut state, now) {
                    break;
                }
            }
            state = self.sleep(state);
        }
    }

    /// Gives the probe that is due longest to an idle thread; returns false if there is none, but will
    /// be.
    fn hand_out(&self, state: &mut State, now: Instant) -> bool {
        let problem = state.pool.problem();
        if problem.is_none() && !state.pool.has_spare() {
            return false;
        }
        if let Some(job) = state.tracker.start_next(now) {
            match problem {
                // A probe that nobody will ever make must not look like health.
                Some(problem) => state.finish(&job, Err(ProbeFailure::System(problem))),
                None => {
                    state.pool.give(job);
                    self.work.notify_one();
                }
            }
        }
        true
    }

    /// Starts one more thread. Not under the lock: those that become free meanwhile go on.
    fn hire<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.pool.hiring();
        drop(state);
        let shared = Arc::clone(self);
        let spawned = std::thread::Builder::new()
            .name("dsrlb-probe".to_owned())
            .stack_size(Runner::STACK)
            .spawn(move || {
                let _ended = Ended(&shared);
                shared.probe();
            });
        let mut state = self.lock();
        state.pool.hired(spawned, Instant::now());
        self.ended.notify_all();
        state
    }

    /// Sleeps until there is something to hand out or to give up.
    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.stop {
            return state;
        }
        state.wakes = state.next_wake();
        let mut state = match state.wakes {
            Some(wakes) => {
                let time = wakes.saturating_duration_since(Instant::now());
                let slept = self.sooner.wait_timeout(state, time);
                slept.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.sooner.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.wakes = None;
        state
    }

    /// The life of a thread that probes; it begins as an idle one.
    fn probe(&self) {
        let mut state = self.lock();
        while !state.stop {
            if let Some(job) = state.pool.take() {
                drop(state);
                state = self.serve(job);
            } else if state.pool.dismisses() {
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Does a job, and then whatever is due already, without its being handed out.
    fn serve(&self, mut job: Job) -> MutexGuard<'_, State> {
        loop {
            let result = job.run();
            let mut state = self.lock();
            if state.stop {
                return state;
            }
            state.finish(&job, result);
            let next = state.tracker.start_next(Instant::now());
            if next.is_none() {
                state.pool.becomes_idle();
            }
            self.nudge(&state);
            match next {
                Some(next) => job = next,
                None => return state,
            }
        }
    }

    /// Tells the threads to end; the first call waits for them. Returns how many still run.
    fn stop(&self, patience: Duration) -> usize {
        let mut state = self.lock();
        if !state.stop {
            state.stop = true;
            self.work.notify_all();
            self.sooner.notify_all();
            let going = |state: &mut State| state.pool.alive() > 0;
            let waited = self.ended.wait_timeout_while(state, patience, going);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.events = None;
            // What hangs keeps its own monitor, and no others.
            state.tracker = Tracker::new(Instant::now());
        }
        state.pool.alive()
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
