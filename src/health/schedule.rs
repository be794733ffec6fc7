//! Who is due when: spread over the interval, without drift, in a time that is passed in.

use crate::flow::HashKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Periodic work, by key.
///
/// Each key has its own place within its interval, drawn from its seed, so work that begins
/// together does not stay together; the same seed always gives the same place. Times are counted
/// from the schedule's start: being late once does not make all later ones late. What is missed is
/// skipped, not made up for.
#[derive(Debug)]
pub struct Schedule<K> {
    start: Instant,
    slots: BTreeMap<K, Slot>,
    /// Those that are waiting, by time; who is being worked on is not here.
    queue: BTreeSet<(Instant, K)>,
}

#[derive(Debug)]
struct Slot {
    interval: Duration,
    phase: Duration,
    /// `None` while it is being worked on.
    due: Option<Instant>,
    /// When it was due last.
    last: Instant,
    /// Whether it is due again as soon as the work on it is done.
    again: bool,
}

impl<K: Ord + Clone> Schedule<K> {
    /// An empty schedule that counts from `start`.
    pub fn new(start: Instant) -> Self {
        Self { start, slots: BTreeMap::new(), queue: BTreeSet::new() }
    }

    /// Adds `key`, due at once, or changes its interval; a zero interval counts as a nanosecond.
    pub fn insert(&mut self, key: K, seed: &[u8], interval: Duration, now: Instant) {
        let interval = interval.max(Duration::from_nanos(1));
        let phase = phase(seed, interval);
        match self.slots.get_mut(&key) {
            Some(slot) if slot.interval == interval => {}
            Some(slot) => {
                slot.interval = interval;
                slot.phase = phase;
                // Who is being worked on takes the new interval when that is finished.
                if let Some(due) = slot.due {
                    self.queue.remove(&(due, key.clone()));
                    let sooner = due.min(now + interval);
                    slot.due = Some(sooner);
                    self.queue.insert((sooner, key));
                }
            }
            None => {
                let due = Some(now);
                self.queue.insert((now, key.clone()));
                self.slots.insert(key, Slot { interval, phase, due, last: now, again: false });
            }
        }
    }

    /// Forgets `key`, whether or not it is being worked on.
    pub fn remove(&mut self, key: &K) {
        if let Some(Slot { due: Some(due), .. }) = self.slots.remove(key) {
            self.queue.remove(&(due, key.clone()));
        }
    }

    /// When the next one is due; `None` when none is waiting.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// Takes the one that is due longest. It is not due again until [`Schedule::finished`].
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.next_due()? > now {
            return None;
        }
        let (due, key) = self.queue.pop_first()?;
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.due = None;
            slot.last = due;
            slot.again = false;
        }
        Some(key)
    }

    /// Makes `key` due now; or, while it is being worked on, once more as soon as that is done. Later
    /// times stay on its grid.
    pub fn hurry(&mut self, key: &K, now: Instant) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        match slot.due {
            Some(due) if due > now => {
                slot.due = Some(now);
                self.queue.remove(&(due, key.clone()));
                self.queue.insert((now, key.clone()));
            }
            Some(_) => {}
            None => slot.again = true,
        }
    }

    /// Notes that the work on `key` is done: it is due again at its next place, but not before half
    /// an interval after it was due last, which matters only after the first time.
    pub fn finished(&mut self, key: &K, now: Instant) {
        let start = self.start;
        if let Some(slot) = self.slots.get_mut(key)
            && slot.due.is_none()
        {
            let first = start + slot.phase;
            let earliest = now.max(slot.last + slot.interval / 2);
            let due = if slot.again { now } else { next_on_grid(first, slot.interval, earliest) };
            slot.due = Some(due);
            self.queue.insert((due, key.clone()));
        }
    }
}

/// The first of `first`, `first + interval`, … that is at or after `earliest`.
fn next_on_grid(first: Instant, interval: Duration, earliest: Instant) -> Instant {
    let behind = earliest.saturating_duration_since(first);
    let past = behind.as_nanos() % interval.as_nanos();
    if behind.is_zero() {
        first
    } else if past == 0 {
        earliest
    } else {
        // Below the interval, which is a `Duration` of less than 2^64 ns in all that is allowed.
        earliest + (interval - Duration::from_nanos_u128(past))
    }
}

/// A place within the interval that depends on the seed alone.
fn phase(seed: &[u8], interval: Duration) -> Duration {
    let fraction = u128::from(HashKey::default().hash_bytes(seed));
    // 64 bits times at most 2^64 ns; a longer interval loses no more than precision.
    let nanoseconds = interval.as_nanos().min(u128::from(u64::MAX));
    Duration::from_nanos(((fraction * nanoseconds) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// However long the work takes, as long as it is less than the interval: a probe that times out
    /// must not halve the pace at which a dead backend is found out.
    #[test]
    fn a_key_is_due_at_once_and_then_on_its_grid_without_drift() {
        for work in [0, 7, 500, 999].map(Duration::from_millis) {
            let start = Instant::now();
            let mut schedule = Schedule::new(start);
            schedule.insert("web-1", b"web-1", SECOND, start);
            let mut times = Vec::new();
            for _ in 0..1000 {
                let now = schedule.next_due().unwrap();
                assert_eq!(schedule.take_due(now), Some("web-1"));
                assert_eq!(schedule.take_due(now), None, "not twice");
                times.push(now - start);
                schedule.finished(&"web-1", now + work);
            }
            assert_eq!(times[0], Duration::ZERO);
            assert!(times[1] >= SECOND / 2);
            // The first work may reach past the first place on the grid.
            for pair in times[2..].windows(2) {
                assert_eq!(pair[1] - pair[0], SECOND, "{work:?}");
            }
        }
    }

    #[test]
    fn the_second_time_is_never_right_after_the_first() {
        let start = Instant::now();
        for seed in 0..100u8 {
            let mut schedule = Schedule::new(start);
            schedule.insert(seed, &[seed], SECOND, start);
            schedule.take_due(start).unwrap();
            schedule.finished(&seed, start);
            let gap = schedule.next_due().unwrap() - start;
            assert!((SECOND / 2..=SECOND * 3 / 2).contains(&gap), "{gap:?}");
        }
    }

    #[test]
    fn the_first_due_is_served_first_and_nobody_starves() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        for key in 0..50u32 {
            schedule.insert(key, &key.to_be_bytes(), SECOND, start);
        }
        // One worker that manages 25 a second: each gets half its share.
        let mut served = BTreeMap::new();
        for step in 0..1000u32 {
            let now = start + Duration::from_millis(40) * step;
            if let Some(key) = schedule.take_due(now) {
                *served.entry(key).or_insert(0) += 1;
                schedule.finished(&key, now);
            }
        }
        assert_eq!(served.len(), 50);
        assert!(served.values().all(|&count| (15..=25).contains(&count)), "{served:?}");
    }

    #[test]
    fn keys_are_spread_over_the_interval_the_same_way_each_time() {
        let mut tenths = [0; 10];
        for number in 0..1000 {
            let place = phase(format!("web-{number}").as_bytes(), SECOND);
            assert!(place < SECOND);
            tenths[place.as_millis() as usize / 100] += 1;
        }
        assert!(tenths.iter().all(|count| (70..=130).contains(count)), "{tenths:?}");
        // Pinned: neither a restart nor another version is to move every probe.
        assert_eq!(phase(b"web-1", SECOND), Duration::from_nanos(890_883_150));
    }

    #[test]
    fn late_work_skips_what_was_missed() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.insert(1, b"1", SECOND, start);
        schedule.take_due(start).unwrap();
        let late = start + Duration::from_millis(10_500);
        schedule.finished(&1, late);
        let due = schedule.next_due().unwrap();
        assert!(due >= late + SECOND / 2 && due <= late + SECOND * 3 / 2);
    }

    #[test]
    fn a_removed_key_is_gone_even_while_it_is_worked_on() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.insert(1, b"1", SECOND, start);
        schedule.take_due(start).unwrap();
        schedule.remove(&1);
        schedule.finished(&1, start);
        assert_eq!(schedule.next_due(), None);
        schedule.insert(1, b"1", SECOND, start);
        schedule.remove(&1);
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn who_is_hurried_is_due_at_once_and_then_on_its_grid_again() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.insert(1, b"1", SECOND, start);
        schedule.take_due(start).unwrap();
        schedule.finished(&1, start);
        let planned = schedule.next_due().unwrap();
        let news = start + SECOND / 4;
        schedule.hurry(&1, news);
        schedule.hurry(&1, news);
        schedule.hurry(&2, news);
        assert_eq!(schedule.take_due(news), Some(1));
        // News while it is worked on: what was found out may be older than they are.
        schedule.hurry(&1, news);
        schedule.finished(&1, news);
        assert_eq!(schedule.next_due(), Some(news));
        assert_eq!(schedule.take_due(news), Some(1));
        schedule.finished(&1, news);
        let next = schedule.next_due().unwrap();
        assert!(next == planned || next == planned + SECOND, "{:?}", next - planned);
    }

    proptest! {
        #[test]
        fn the_next_place_is_on_the_grid_and_the_first_not_too_early(
            first in 0u64..10_000, interval in 1u64..5_000, earliest in 0u64..100_000,
        ) {
            let origin = Instant::now();
            let at = |millis| origin + Duration::from_millis(millis);
            let due = next_on_grid(at(first), Duration::from_millis(interval), at(earliest));
            let mut slow = first;
            while slow < earliest {
                slow += interval;
            }
            prop_assert_eq!(due, at(slow));
        }

        #[test]
        fn changing_the_interval_keeps_one_place_in_the_queue(
            steps in proptest::collection::vec((0u8..5, 0u8..3, 1u64..5), 1..60),
        ) {
            let start = Instant::now();
            let mut schedule = Schedule::new(start);
            let mut now = start;
            for (action, key, seconds) in steps {
                match action {
                    0 => schedule.insert(key, &[key], Duration::from_secs(seconds), now),
                    1 => schedule.remove(&key),
                    2 => { schedule.take_due(now); }
                    3 => schedule.hurry(&key, now),
                    _ => schedule.finished(&key, now),
                }
                let waiting = schedule.slots.values().filter(|slot| slot.due.is_some()).count();
                prop_assert_eq!(schedule.queue.len(), waiting);
                for (due, key) in &schedule.queue {
                    prop_assert_eq!(schedule.slots[key].due, Some(*due));
                }
                now += Duration::from_millis(300 * seconds);
            }
        }
    }
}
