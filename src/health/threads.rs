//! What the threads of a runner share, and how each of them lives.
//!
//! One hands out what is due; the others take it, probe, and report. A probe that is due when all are
//! busy is taken by the first that becomes free.

use super::news::Listener;
use super::pool::Pool;
use super::{HealthEvent, Job, Monitor, ProbeFailure, ProbeTarget, Runner, Tracker};
use crate::error::ConfigError;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is a job, or an end, for all or for some: for threads that probe.
    work: Condvar,
    /// There is an end, or something due before `wakes`: for the thread that hands out.
    sooner: Condvar,
    /// A thread has ended: for who waits for that.
    ended: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) tracker: Tracker,
    /// None from the end on, so that who listens hears of the end, whatever a monitor does.
    events: Option<Sender<HealthEvent>>,
    stop: bool,
    pub(super) pool: Pool,
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
    pub(super) fn new(pool: Pool, events: Sender<HealthEvent>) -> Self {
        let state = State {
            tracker: Tracker::new(Instant::now()),
            events: Some(events),
            stop: false,
            pool,
            wakes: None,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            sooner: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    pub(super) fn set_targets(&self, targets: Vec<ProbeTarget>) -> Result<(), ConfigError> {
        let mut state = self.lock();
        let events = state.tracker.set_targets(targets, Instant::now())?;
        state.report(events);
        self.nudge(&state);
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
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
    pub(super) fn dispatch(self: Arc<Self>) {
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
    pub(super) fn stop(&self, patience: Duration) -> usize {
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
