//! Tests of the tracker, in virtual time.

use super::*;
use crate::health::Target;
use proptest::prelude::*;
use std::net::IpAddr;

struct Fails;

impl Monitor for Fails {
    fn probe(&self, _: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        Err(ProbeFailure::Timeout(timeout))
    }
}

fn target(id: &str, last: u8) -> ProbeTarget {
    ProbeTarget {
        service: "s".to_owned(),
        id: id.to_owned(),
        address: IpAddr::from([192, 0, 2, last]),
        monitor: Arc::new(Fails),
        policy: HealthPolicy::default(),
    }
}

const FAILED: Result<(), ProbeFailure> = Err(ProbeFailure::Refused);

/// Runs one probe when it is due, with `result`; returns the time and the event.
fn step(tracker: &mut Tracker, result: Result<(), ProbeFailure>) -> (Instant, Option<HealthEvent>) {
    let now = tracker.next_due().unwrap();
    let job = tracker.start_next(now).unwrap();
    (now, tracker.finish(&job, result, now))
}

fn state(tracker: &Tracker, id: &str) -> Option<HealthState> {
    tracker.states().find(|((_, name), _)| name == id).map(|(_, state)| state)
}

#[test]
fn a_backend_goes_up_at_once_down_after_three_and_up_after_two() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    let results = [Ok(()), FAILED, FAILED, FAILED, Ok(()), Ok(())];
    let events: Vec<_> = results
        .into_iter()
        .filter_map(|result| step(&mut tracker, result).1)
        .map(|event| event.to_string())
        .collect();
    assert_eq!(events, ["s: a: unknown -> up", "s: a: up -> down: refused", "s: a: down -> up"]);
}

/// What we lack ourselves is not held against a backend.
#[test]
fn a_probe_that_was_not_made_changes_nothing() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    let not_probed = || Err(ProbeFailure::NotProbed("no lane is free".to_owned()));
    assert_eq!(step(&mut tracker, not_probed()).1, None);
    assert_eq!(state(&tracker, "a"), Some(HealthState::Unknown));
    step(&mut tracker, Ok(()));
    for _ in 0..10 {
        assert_eq!(step(&mut tracker, not_probed()).1, None);
    }
    assert_eq!(state(&tracker, "a"), Some(HealthState::Up));
}

#[test]
fn a_hanging_probe_fails_again_and_again_and_is_never_doubled() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    step(&mut tracker, Ok(()));
    let begun = tracker.next_due().unwrap();
    let job = tracker.start_next(begun).unwrap();
    assert_eq!(tracker.next_due(), None);
    assert_eq!(tracker.overdue(begun + Duration::from_millis(500)), []);
    let mut events = Vec::new();
    while events.is_empty() {
        let now = tracker.next_overdue().unwrap();
        assert!(now <= begun + Duration::from_secs(10));
        assert!(tracker.start_next(now).is_none());
        events = tracker.overdue(now);
    }
    assert_eq!(events[0].to, HealthState::Down);
    assert_eq!(events[0].reason, Some(ProbeFailure::Overran(Duration::from_millis(2750))));
    // It comes back after all: too late to count, but in time to be probed again.
    let late = begun + Duration::from_secs(60);
    assert_eq!(tracker.finish(&job, Ok(()), late), None);
    assert_eq!(state(&tracker, "a"), Some(HealthState::Down));
    assert!(tracker.next_due().unwrap() <= late + Duration::from_millis(1500));
    assert_eq!(tracker.next_overdue(), None);
}

#[test]
fn probes_are_counted_and_timed() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    let counts = |tracker: &Tracker| {
        let (_, counts) = tracker.probes().next().unwrap();
        (counts.succeeded, counts.failed, counts.last)
    };
    assert_eq!(counts(&tracker), (0, 0, None));
    let probe = |tracker: &mut Tracker, result, takes| {
        let begun = tracker.next_due().unwrap();
        let job = tracker.start_next(begun).unwrap();
        tracker.finish(&job, result, begun + takes);
    };
    let [fast, slow] = [3, 40].map(Duration::from_millis);
    probe(&mut tracker, Ok(()), fast);
    probe(&mut tracker, FAILED, slow);
    assert_eq!(counts(&tracker), (1, 1, Some(slow)));
    // One that did not take place is none.
    probe(&mut tracker, Err(ProbeFailure::NotProbed("no way".to_owned())), fast);
    assert_eq!(counts(&tracker), (1, 1, Some(slow)));

    // One that hangs has failed, and again at the next interval, and has taken no time that it ended in.
    let begun = tracker.next_due().unwrap();
    let job = tracker.start_next(begun).unwrap();
    for failed in [2, 3] {
        let overdue = tracker.next_overdue().unwrap();
        tracker.overdue(overdue);
        assert_eq!(counts(&tracker), (1, failed, Some(slow)));
    }
    tracker.finish(&job, Ok(()), begun + Duration::from_secs(60));
    assert_eq!(counts(&tracker), (1, 3, Some(slow)));

    // Another machine has its own.
    tracker.set_targets(vec![target("a", 9)], start).unwrap();
    assert_eq!(counts(&tracker), (0, 0, None));
}

#[test]
fn replacing_targets_keeps_those_that_stay() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1), target("b", 2)], start).unwrap();
    step(&mut tracker, Ok(()));
    step(&mut tracker, Ok(()));
    let due = tracker.next_due();
    let events = tracker.set_targets(vec![target("b", 2), target("a", 1), target("c", 3)], start);
    assert_eq!(events.unwrap(), []);
    assert_eq!(state(&tracker, "a"), Some(HealthState::Up));
    assert_eq!(state(&tracker, "c"), Some(HealthState::Unknown));
    tracker.set_targets(vec![target("a", 1), target("b", 2)], start).unwrap();
    assert_eq!(tracker.next_due(), due);

    // The same identifier at another address is another machine.
    let events = tracker.set_targets(vec![target("a", 9)], start).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].to_string(), "s: a: up -> unknown");
    assert_eq!(state(&tracker, "b"), None);
}

#[test]
fn a_target_that_leaves_and_comes_back_during_its_probe_is_not_probed_twice() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    let job = tracker.start_next(start).unwrap();
    tracker.set_targets(vec![], start).unwrap();
    assert_eq!(tracker.states().count(), 0);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    assert!(tracker.start_next(start + Duration::from_secs(9)).is_none());
    // The old result says nothing about the new target.
    assert_eq!(tracker.finish(&job, FAILED, start), None);
    assert_eq!(state(&tracker, "a"), Some(HealthState::Unknown));
    assert!(tracker.next_due().is_some());

    // Gone for good: its last result is dropped and nothing is left behind.
    let now = tracker.next_due().unwrap();
    let job = tracker.start_next(now).unwrap();
    tracker.set_targets(vec![], now).unwrap();
    assert_eq!(tracker.finish(&job, Ok(()), now), None);
    assert!(tracker.slots.is_empty());
    assert_eq!(tracker.next_due(), None);
}

#[test]
fn bad_targets_change_nothing() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    let mut bad = target("b", 2);
    bad.policy.timeout = Duration::ZERO;
    let error = tracker.set_targets(vec![bad, target("c", 3), target("c", 4)], start).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("backend b: timeout: 0ns"), "{text}");
    assert!(text.contains("backend c: id: c: must be unique"), "{text}");
    assert_eq!(tracker.states().count(), 1);
}

#[test]
fn a_panic_is_a_failed_probe_with_its_message() {
    struct Panics;
    impl Monitor for Panics {
        fn probe(&self, target: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
            panic!("no luck with {}", target.id);
        }
    }
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    let monitor = Arc::new(Panics);
    tracker.set_targets(vec![ProbeTarget { monitor, ..target("a", 1) }], start).unwrap();
    let result = tracker.start_next(start).unwrap().run();
    assert_eq!(result, Err(ProbeFailure::Panicked("no luck with a".to_owned())));
}

#[test]
fn news_make_the_targets_of_that_monitor_due_now() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    let (ours, other) = (target("a", 1), ProbeTarget { service: "t".into(), ..target("a", 1) });
    let monitor = Arc::downgrade(&ours.monitor);
    tracker.set_targets(vec![ours, other, target("b", 2)], start).unwrap();
    for _ in 0..3 {
        step(&mut tracker, Ok(()));
    }
    assert!(tracker.start_next(start).is_none());
    tracker.hurry(&monitor, "a", start);
    let job = tracker.start_next(start).unwrap();
    assert_eq!((job.key.service.as_ref(), job.key.id.as_ref()), ("s", "a"));
    assert!(tracker.start_next(start).is_none());
}

proptest! {
    /// Any order of starts, ends, overruns and replacements: nobody is probed twice at once, who
    /// only listens knows every state, and no target is forgotten.
    #[test]
    fn any_history_is_survived(
        steps in proptest::collection::vec((0u8..6, any::<u8>(), 0u64..900), 0..120),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut tracker = Tracker::new(start);
        let mut jobs: Vec<Job> = Vec::new();
        let mut heard: BTreeMap<Name, HealthState> = BTreeMap::new();
        for (action, choice, millis) in steps {
            let mut events = Vec::new();
            match action {
                0 => if let Some(job) = tracker.start_next(now) {
                    prop_assert!(jobs.iter().all(|other| other.key != job.key));
                    jobs.push(job);
                },
                1 | 2 => if !jobs.is_empty() {
                    let job = jobs.swap_remove(usize::from(choice) % jobs.len());
                    let result = if action == 1 { Ok(()) } else { FAILED };
                    events.extend(tracker.finish(&job, result, now));
                },
                3 => events = tracker.overdue(now),
                4 => {
                    let id = ["a", "b", "c"][usize::from(choice) % 3];
                    let monitor = tracker.slots.values().next().map(|s| Arc::downgrade(&s.monitor));
                    monitor.into_iter().for_each(|monitor| tracker.hurry(&monitor, id, now));
                }
                _ => {
                    let mut targets = Vec::new();
                    for (bit, id) in ["a", "b", "c"].into_iter().enumerate() {
                        if choice & (1 << bit) != 0 {
                            targets.push(target(id, bit as u8 + (choice & 8)));
                        }
                    }
                    let ids: BTreeSet<_> = targets.iter().map(|t| t.id.clone()).collect();
                    events = tracker.set_targets(targets, now).unwrap();
                    heard.retain(|(_, id), _| ids.contains(id));
                }
            }
            for event in events {
                let before = heard.insert((event.service, event.id), event.to);
                prop_assert_eq!(before.unwrap_or_default(), event.from);
            }
            for (name, state) in tracker.states() {
                prop_assert_eq!(heard.get(&name).copied().unwrap_or_default(), state);
            }
            let waiting = tracker.slots.values().filter(|slot| slot.running.is_none()).count();
            prop_assert_eq!(tracker.slots.len() - waiting, jobs.len());
            prop_assert_eq!(tracker.next_due().is_some(), waiting > 0);
            let running = tracker.slots.values().filter_map(|slot| slot.running.as_ref());
            let first = running.map(|running| running.overdue).min();
            prop_assert_eq!(tracker.next_overdue(), first);
            prop_assert_eq!(tracker.deadlines.len(), jobs.len());
            now += Duration::from_millis(millis);
        }
    }
}

#[test]
fn a_backend_that_is_down_for_another_reason_says_so() {
    let start = Instant::now();
    let mut tracker = Tracker::new(start);
    tracker.set_targets(vec![target("a", 1)], start).unwrap();
    let unbound = || Err(ProbeFailure::VipNotBound("as told".to_owned()));
    let first = step(&mut tracker, Err(ProbeFailure::Refused)).1.unwrap();
    assert_eq!((first.to, first.reason), (HealthState::Down, Some(ProbeFailure::Refused)));
    assert_eq!(step(&mut tracker, unbound()).1, None);
    let second = step(&mut tracker, unbound()).1.unwrap();
    assert_eq!((second.from, second.to), (HealthState::Down, HealthState::Down));
    assert_eq!(second.reason, unbound().err());
    assert_eq!(step(&mut tracker, unbound()).1, None);
}
