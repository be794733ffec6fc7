//! Who is probed when. Pure: time is given.

use crate::flow::{HashKey, Timestamp};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// Spreads probes over the interval, keeps each backend to its rhythm, and never has one probed
/// twice at once.
#[derive(Debug)]
pub struct Schedule {
    interval: u64,
    due: BTreeSet<(Timestamp, IpAddr)>,
    /// When each backend is or was last due; the next time follows from it, so nothing drifts.
    last: HashMap<IpAddr, Timestamp>,
}

impl Schedule {
    /// An empty schedule; each backend's turn comes once an interval, which is at least 1 ns.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1),
            due: BTreeSet::new(),
            last: HashMap::new(),
        }
    }

    /// Replaces the set of backends. Those that stay keep their rhythm; new ones begin at a point
    /// of the interval that their address decides, so a thousand of them do not begin at once.
    pub fn set(&mut self, backends: &BTreeSet<IpAddr>, now: Timestamp) {
        self.last.retain(|backend, _| backends.contains(backend));
        self.due.retain(|(_, backend)| backends.contains(backend));
        for backend in backends {
            if !self.last.contains_key(backend) {
                let first = Timestamp(now.0.saturating_add(self.phase(*backend)));
                self.last.insert(*backend, first);
                self.due.insert((first, *backend));
            }
        }
    }

    fn phase(&self, backend: IpAddr) -> u64 {
        let hash = HashKey::default().hash_bytes(backend.to_string().as_bytes());
        ((u128::from(hash) * u128::from(self.interval)) >> 64) as u64
    }

    /// Takes the backend whose turn it is, if there is one. It has no further turn until
    /// [`Schedule::done`].
    pub fn take(&mut self, now: Timestamp) -> Option<IpAddr> {
        let &(at, backend) = self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(backend)
    }

    /// The probe of a backend has ended: its next turn is the first of its rhythm that is still to
    /// come. One that was removed meanwhile has none.
    pub fn done(&mut self, backend: IpAddr, now: Timestamp) {
        let Some(last) = self.last.get_mut(&backend) else {
            return;
        };
        let missed = now.0.saturating_sub(last.0) / self.interval;
        let next = last.0.saturating_add((missed + 1).saturating_mul(self.interval));
        *last = Timestamp(next);
        self.due.insert((*last, backend));
    }

    /// When the next turn is.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn backends(count: u8) -> BTreeSet<IpAddr> {
        (0..count).map(|last| IpAddr::from([10, 0, 0, last])).collect()
    }

    /// Runs the schedule with probes that take `probe` nanoseconds; when each backend had turns.
    fn run(schedule: &mut Schedule, until: u64, probe: u64) -> HashMap<IpAddr, Vec<u64>> {
        let mut turns: HashMap<IpAddr, Vec<u64>> = HashMap::new();
        let mut ending: BTreeSet<(u64, IpAddr)> = BTreeSet::new();
        for now in (0..until).step_by(SECOND as usize / 1000) {
            while let Some(&(at, backend)) = ending.first()
                && at <= now
            {
                ending.pop_first();
                schedule.done(backend, Timestamp(now));
            }
            while let Some(backend) = schedule.take(Timestamp(now)) {
                assert!(!ending.iter().any(|(_, other)| *other == backend), "twice at once");
                turns.entry(backend).or_default().push(now);
                ending.insert((now + probe, backend));
            }
        }
        turns
    }

    #[test]
    fn everyone_has_a_turn_each_interval_without_drift() {
        let mut schedule = Schedule::new(Duration::from_secs(1));
        schedule.set(&backends(100), Timestamp(0));
        let turns = run(&mut schedule, 10 * SECOND, SECOND / 3);
        assert_eq!(turns.len(), 100);
        for times in turns.values() {
            // Ten, but for one who begins in the last step of the first interval.
            assert!((9..=10).contains(&times.len()), "{times:?}");
            assert!(
                times.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(SECOND) <= SECOND / 1000)
            );
        }
        let first_tenth = turns.values().filter(|times| times[0] < SECOND / 10).count();
        assert!((2..30).contains(&first_tenth), "{first_tenth} of 100 begin in the first tenth");
    }

    #[test]
    fn a_slow_probe_skips_turns_and_keeps_the_rhythm() {
        let mut schedule = Schedule::new(Duration::from_secs(1));
        schedule.set(&backends(1), Timestamp(0));
        let turns = run(&mut schedule, 10 * SECOND, 5 * SECOND / 2);
        let times = &turns[&IpAddr::from([10, 0, 0, 0])];
        assert!(
            times.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(3 * SECOND) <= SECOND / 1000)
        );
    }

    #[test]
    fn who_stays_keeps_the_rhythm_and_who_goes_has_no_turn() {
        let mut schedule = Schedule::new(Duration::from_secs(1));
        schedule.set(&backends(2), Timestamp(0));
        let next = schedule.next();
        schedule.set(&backends(2), Timestamp(SECOND / 2));
        assert_eq!(schedule.next(), next);
        let taken = schedule.take(Timestamp(SECOND)).unwrap();
        schedule.set(&BTreeSet::new(), Timestamp(SECOND));
        schedule.done(taken, Timestamp(SECOND));
        assert_eq!(schedule.next(), None);
    }
}
