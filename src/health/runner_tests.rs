//! Tests of the threads; what is decided is tested in virtual time with the tracker.

use super::*;
use crate::health::{HealthPolicy, Monitor, ProbeFailure, Target};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);

/// Does as the target's identifier says.
#[derive(Default)]
struct Told {
    running: AtomicUsize,
    most: AtomicUsize,
    hung: AtomicUsize,
}

impl Monitor for Told {
    fn probe(&self, target: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let result = match target.id {
            id if id.starts_with("well") => Ok(()),
            id if id.starts_with("hang") => {
                self.hung.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_secs(30));
                Ok(())
            }
            "panic" => {
                self.running.fetch_sub(1, Ordering::SeqCst);
                panic!("as told");
            }
            _ => Err(ProbeFailure::Refused),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

fn targets(monitor: &Arc<Told>, ids: &[&str]) -> Vec<ProbeTarget> {
    let policy = HealthPolicy {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(20),
        ..HealthPolicy::default()
    };
    let target = |id: &&str| ProbeTarget {
        service: "s".to_owned(),
        id: (*id).to_owned(),
        address: IpAddr::from([192, 0, 2, 1]),
        monitor: Arc::clone(monitor) as Arc<dyn Monitor>,
        policy,
    };
    ids.iter().map(target).collect()
}

#[test]
fn hanging_and_panicking_monitors_do_not_disturb_the_others() {
    let monitor = Arc::new(Told::default());
    let (sender, events) = mpsc::channel();
    let runner = Runner::start(4, sender).unwrap();
    let ids = ["hang-1", "hang-2", "hang-3", "panic", "well-1", "well-2", "refused"];
    runner.set_targets(targets(&monitor, &ids)).unwrap();
    let mut states = BTreeMap::new();
    while states.len() < ids.len() {
        let event = events.recv_timeout(PATIENCE).unwrap();
        match event.id.as_str() {
            "panic" => assert_eq!(event.reason, Some(ProbeFailure::Panicked("as told".into()))),
            "refused" => assert_eq!(event.reason, Some(ProbeFailure::Refused)),
            id if id.starts_with("hang") => {
                assert!(matches!(event.reason, Some(ProbeFailure::Overran(_))));
            }
            _ => assert_eq!(event.reason, None),
        }
        states.insert((event.service, event.id), event.to);
    }
    for ((_, id), state) in &states {
        let well = id.starts_with("well");
        let expected = if well { HealthState::Up } else { HealthState::Down };
        assert_eq!(*state, expected, "{id}");
    }
    assert_eq!(runner.states(), states);
    // Several intervals later each has hung once only, and never did more than 4 run.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(monitor.hung.load(Ordering::SeqCst), 3);
    assert!(monitor.most.load(Ordering::SeqCst) <= 4);

    let start = Instant::now();
    assert_eq!(runner.shut_down(Duration::from_millis(200)), 3);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn shutting_down_is_prompt_and_complete() {
    let monitor = Arc::new(Told::default());
    let (sender, events) = mpsc::channel();
    let runner = Runner::start(Runner::MOST_THREADS, sender).unwrap();
    runner.set_targets(targets(&monitor, &["well", "refused"])).unwrap();
    events.recv_timeout(PATIENCE).unwrap();
    let start = Instant::now();
    assert_eq!(runner.shut_down(PATIENCE), 0);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    // The threads are gone, and with them the sender.
    while let Ok(event) = events.recv_timeout(PATIENCE) {
        assert_ne!(event.to, HealthState::Unknown);
    }
    assert_eq!(Arc::strong_count(&monitor), 1);
}

#[test]
fn targets_are_replaced_while_it_runs() {
    let monitor = Arc::new(Told::default());
    let (sender, events) = mpsc::channel();
    let runner = Runner::start(2, sender).unwrap();
    runner.set_targets(targets(&monitor, &["well-1"])).unwrap();
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().id, "well-1");
    runner.set_targets(targets(&monitor, &["well-1", "well-2"])).unwrap();
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().id, "well-2");
    runner.set_targets(targets(&monitor, &["well-2"])).unwrap();
    let states = BTreeMap::from([(("s".to_owned(), "well-2".to_owned()), HealthState::Up)]);
    assert_eq!(runner.states(), states);
    assert!(runner.set_targets(targets(&monitor, &["x", "x"])).is_err());
    assert_eq!(runner.states(), states);
}

#[test]
fn threads_come_with_the_work_and_no_more_than_allowed() {
    let monitor = Arc::new(Told::default());
    let (sender, events) = mpsc::channel();
    let runner = Runner::start(8, sender).unwrap();
    assert_eq!(runner.threads(), 0);
    runner.set_targets(targets(&monitor, &["well-1"])).unwrap();
    events.recv_timeout(PATIENCE).unwrap();
    assert_eq!(runner.threads(), 1);
    // Its next probe finds the thread idle.
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(runner.threads(), 1);
    let ids: Vec<_> = (0..20).map(|number| format!("hang-{number}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    runner.set_targets(targets(&monitor, &ids)).unwrap();
    let start = Instant::now();
    while runner.threads() < 8 || monitor.hung.load(Ordering::SeqCst) < 8 {
        assert!(start.elapsed() < PATIENCE, "{}", runner.threads());
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((runner.threads(), monitor.most.load(Ordering::SeqCst)), (8, 8));
    assert_eq!(runner.shut_down(Duration::from_millis(50)), 8);
}

#[test]
fn a_monitor_that_panics_when_it_is_given_its_news_is_probed_all_the_same() {
    struct Odd;
    impl Monitor for Odd {
        fn probe(&self, _: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
            Ok(())
        }
        fn subscribe(&self, _: News) {
            panic!("no news is good news");
        }
    }
    let (sender, events) = mpsc::channel();
    let runner = Runner::start(1, sender).unwrap();
    let mut targets = targets(&Arc::default(), &["odd"]);
    targets[0].monitor = Arc::new(Odd);
    runner.set_targets(targets).unwrap();
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().to, HealthState::Up);
}

#[test]
fn threads_that_are_not_needed_end() {
    let monitor = Arc::new(Told::default());
    let (sender, _events) = mpsc::channel();
    let runner = Runner::start_with(64, Duration::from_millis(100), sender).unwrap();
    runner.set_targets(targets(&monitor, &["well-1", "well-2"])).unwrap();
    let until = |threads: std::ops::RangeInclusive<usize>| {
        let start = Instant::now();
        while !threads.contains(&runner.threads()) {
            assert!(start.elapsed() < PATIENCE, "{}", runner.threads());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until(1..=2);
    runner.set_targets(Vec::new()).unwrap();
    until(0..=0);
    // And they come again.
    runner.set_targets(targets(&monitor, &["well-1"])).unwrap();
    until(1..=1);
}
