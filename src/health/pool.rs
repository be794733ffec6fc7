//! How many threads there are for probes, and what they are given: counting only, no threads' lives.

use super::Job;
use std::collections::VecDeque;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After a thread could not be started, how long it is not tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The threads of a runner, and the jobs on their way to them.
#[derive(Debug)]
pub(super) struct Pool {
    most: usize,
    /// From one review to the next.
    idle_time: Duration,
    /// Threads that have been started, or are being, and have not ended.
    alive: usize,
    /// Those of them that wait for a job; it may be among `jobs` already.
    idle: usize,
    /// Given and not taken yet; never more than are idle.
    jobs: VecDeque<Job>,
    /// The fewest that were without a job at any time since the last review.
    least_spare: usize,
    review_at: Instant,
    /// How many are to end.
    surplus: usize,
    threads: Vec<JoinHandle<()>>,
    /// Until when no thread is started, since one could not be, and why.
    failed: Option<(Instant, String)>,
}

impl Pool {
    pub(super) fn new(most: usize, idle_time: Duration, now: Instant) -> Self {
        Self {
            most,
            idle_time,
            alive: 0,
            idle: 0,
            jobs: VecDeque::new(),
            least_spare: 0,
            review_at: now + idle_time,
            surplus: 0,
            threads: Vec::new(),
            failed: None,
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    fn spare(&self) -> usize {
        self.idle.saturating_sub(self.jobs.len())
    }

    /// Whether one is idle and has not been given a job.
    pub(super) fn has_spare(&self) -> bool {
        self.spare() > 0
    }

    /// Whether one more may be started.
    pub(super) fn may_hire(&self, now: Instant) -> bool {
        self.alive < self.most && self.failed.as_ref().is_none_or(|(until, _)| *until <= now)
    }

    /// Why there is not one thread, if that is so although there should be.
    pub(super) fn problem(&self) -> Option<String> {
        let (_, error) = self.failed.as_ref().filter(|_| self.alive == 0)?;
        Some(format!("no thread can be started for the probe: {error}"))
    }

    /// When what is due at `due` can be seen to; none while all threads are taken.
    pub(super) fn earliest(&self, due: Instant) -> Option<Instant> {
        if self.has_spare() || self.alive == 0 {
            return Some(due);
        }
        let until = self.failed.as_ref().map_or(due, |(until, _)| *until);
        (self.alive < self.most).then(|| due.max(until))
    }

    /// One more is being started, and is idle from the beginning.
    pub(super) fn hiring(&mut self) {
        self.alive += 1;
        self.idle += 1;
    }

    /// What became of that.
    pub(super) fn hired(&mut self, spawned: io::Result<JoinHandle<()>>, now: Instant) {
        match spawned {
            Ok(thread) => {
                self.failed = None;
                self.threads.retain(|thread| !thread.is_finished());
                self.threads.push(thread);
            }
            Err(error) => {
                self.failed = Some((now + RETRY_PAUSE, error.to_string()));
                self.idle -= 1;
                self.alive -= 1;
            }
        }
    }

    /// Gives a job to a spare one.
    pub(super) fn give(&mut self, job: Job) {
        self.jobs.push_back(job);
        self.least_spare = self.least_spare.min(self.spare());
    }

    /// An idle thread takes what it has been given, if anything.
    pub(super) fn take(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.idle -= 1;
        Some(job)
    }

    /// A thread has done its job.
    pub(super) fn becomes_idle(&mut self) {
        self.idle += 1;
    }

    /// An idle thread asks whether it is to end; it is no longer idle then.
    pub(super) fn dismisses(&mut self) -> bool {
        let dismissed = self.surplus > 0 && self.has_spare();
        if dismissed {
            self.surplus -= 1;
            self.idle -= 1;
        }
        dismissed
    }

    pub(super) fn ended(&mut self) {
        self.alive -= 1;
    }

    /// Whoever was not needed at any time since the last review is to end; returns whether anybody.
    ///
    /// Threads are not asked how long each has been idle: they take turns, so that a thousand short
    /// probes a second would keep hundreds of them, where a few are enough.
    pub(super) fn review(&mut self, now: Instant) -> bool {
        if now < self.review_at {
            return false;
        }
        self.review_at = now + self.idle_time;
        self.surplus = self.least_spare.min(self.spare());
        self.least_spare = self.spare() - self.surplus;
        self.surplus > 0
    }

    /// When [`Pool::review`] is to be called; none while there is nobody to dismiss.
    pub(super) fn next_review(&self) -> Option<Instant> {
        self.has_spare().then_some(self.review_at)
    }

    pub(super) fn take_threads(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{HealthPolicy, ProbeTarget, Tracker, monitor_fn};
    use std::sync::Arc;

    const IDLE: Duration = Duration::from_secs(5);

    fn job() -> Job {
        let now = Instant::now();
        let mut tracker = Tracker::new(now);
        let target = ProbeTarget {
            service: "s".into(),
            id: "a".into(),
            address: [192, 0, 2, 1].into(),
            monitor: Arc::new(monitor_fn(|_, _| Ok(()))),
            policy: HealthPolicy::default(),
        };
        tracker.set_targets(vec![target], now).unwrap();
        tracker.start_next(now).unwrap()
    }

    fn hire(pool: &mut Pool, now: Instant) {
        assert!(pool.may_hire(now));
        pool.hiring();
        pool.hired(Ok(std::thread::spawn(|| ())), now);
    }

    #[test]
    fn who_is_not_needed_for_a_while_is_dismissed_and_nobody_else() {
        let start = Instant::now();
        let mut pool = Pool::new(5, IDLE, start);
        assert_eq!(pool.next_review(), None);
        for _ in 0..5 {
            hire(&mut pool, start);
        }
        assert!(!pool.may_hire(start));
        // The first period has seen a time without any: nobody goes.
        let mut now = start + IDLE;
        assert_eq!(pool.next_review(), Some(now));
        assert!(!pool.review(now));
        // Two jobs at once are the most that there are in the second.
        for _ in 0..100 {
            pool.give(job());
            pool.give(job());
            assert!(pool.take().is_some() && pool.take().is_some());
            pool.becomes_idle();
            pool.becomes_idle();
        }
        now += IDLE;
        assert!(pool.review(now));
        let dismissed = (0..5).filter(|_| pool.dismisses()).count();
        assert_eq!(dismissed, 3);
        (0..dismissed).for_each(|_| pool.ended());
        assert_eq!((pool.alive(), pool.spare()), (2, 2));
        // Nothing to do at all: the last ones go too.
        now += IDLE;
        assert!(pool.review(now));
        pool.give(job());
        assert!(pool.dismisses());
        assert!(!pool.dismisses(), "this one has a job");
    }

    #[test]
    fn when_no_thread_can_be_started_it_is_tried_again_later() {
        let now = Instant::now();
        let mut pool = Pool::new(2, IDLE, now);
        let refused = || Err(io::Error::from(io::ErrorKind::OutOfMemory));
        pool.hiring();
        pool.hired(refused(), now);
        assert!(!pool.may_hire(now));
        assert!(pool.problem().unwrap().contains("out of memory"));
        assert_eq!(pool.earliest(now), Some(now), "to say so");
        let later = now + RETRY_PAUSE;
        hire(&mut pool, later);
        assert_eq!((pool.problem(), pool.alive()), (None, 1));
        pool.give(job());
        pool.hiring();
        pool.hired(refused(), later);
        // There is one, which will be free again.
        assert_eq!(pool.problem(), None);
        assert_eq!(pool.earliest(later), Some(later + RETRY_PAUSE));
    }
}
