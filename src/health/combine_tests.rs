//! Tests of the combinators.

use super::*;
use crate::health::monitor_fn;
use std::sync::Mutex;

const SECOND: Duration = Duration::from_secs(1);

fn well() -> Arc<dyn Monitor> {
    Arc::new(monitor_fn(|_, _| Ok(())))
}

fn refuses() -> Arc<dyn Monitor> {
    Arc::new(monitor_fn(|_, _| Err(ProbeFailure::Refused)))
}

fn panics() -> Arc<dyn Monitor> {
    Arc::new(monitor_fn(|target, _| panic!("no luck with {}", target.id)))
}

/// Takes the whole of its time.
fn silent() -> Arc<dyn Monitor> {
    Arc::new(monitor_fn(|_, timeout| {
        std::thread::sleep(timeout);
        Err(ProbeFailure::Timeout(timeout))
    }))
}

fn probe(monitor: &dyn Monitor, timeout: Duration) -> Result<(), ProbeFailure> {
    monitor.probe(&Target::new("s", "b", [192, 0, 2, 1].into()), timeout)
}

#[test]
fn all_any_and_not_are_what_they_say() {
    for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
        let one = |is_well| if is_well { well() } else { refuses() };
        let both = || vec![one(a), one(b)];
        assert_eq!(probe(&All::new(both()).unwrap(), SECOND).is_ok(), a && b);
        assert_eq!(probe(&Any::new(both()).unwrap(), SECOND).is_ok(), a || b);
        assert_eq!(probe(&Not::new(one(a)), SECOND).is_ok(), !a);
    }
}

#[test]
fn the_reason_is_that_of_the_first_for_all_and_every_one_for_any() {
    let all = All::new(vec![well(), refuses(), panics()]).unwrap();
    assert_eq!(probe(&all, SECOND), Err(ProbeFailure::Refused));
    let any = Any::new(vec![refuses(), panics()]).unwrap();
    let reason = probe(&any, SECOND).unwrap_err().to_string();
    assert_eq!(reason, "none succeeded: refused; the monitor panicked: no luck with b");
    let reason = probe(&Not::new(well()), SECOND).unwrap_err().to_string();
    assert_eq!(reason, "the probe succeeded, though it is to fail");
}

#[test]
fn not_does_not_turn_ignorance_into_health() {
    for ignorance in [
        ProbeFailure::NotPermitted("x".into()),
        ProbeFailure::System("x".into()),
        ProbeFailure::NoneOf(vec![ProbeFailure::Refused, ProbeFailure::Panicked("x".into())]),
    ] {
        let given = ignorance.clone();
        let monitor = Arc::new(monitor_fn(move |_, _| Err(given.clone())));
        assert_eq!(probe(&Not::new(monitor), SECOND), Err(ignorance));
    }
}

#[test]
fn one_that_panics_does_not_keep_any_from_asking_the_next() {
    assert_eq!(probe(&Any::new(vec![panics(), well()]).unwrap(), SECOND), Ok(()));
}

#[test]
fn the_timeout_is_shared_out_and_kept_to() {
    let timeout = Duration::from_millis(120);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let looking = Arc::clone(&seen);
    let looks: Arc<dyn Monitor> = Arc::new(monitor_fn(move |_, timeout| {
        looking.lock().unwrap().push(timeout);
        Err(ProbeFailure::Refused)
    }));
    let start = Instant::now();
    let any = Any::new(vec![silent(), Arc::clone(&looks), silent()]).unwrap();
    assert!(probe(&any, timeout).is_err());
    let took = start.elapsed();
    assert!(took >= timeout * 9 / 10 && took < timeout + SECOND, "{took:?}");
    // Two thirds are left, for two.
    let share = seen.lock().unwrap()[0];
    assert!(share <= timeout / 3, "{share:?}");

    let slow: Arc<dyn Monitor> = Arc::new(monitor_fn(|_, _| {
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    }));
    let _ = probe(&All::new(vec![slow.clone(), looks]).unwrap(), timeout);
    assert!(seen.lock().unwrap()[1] <= timeout - Duration::from_millis(30));
    let all = All::new(vec![slow.clone(), slow]).unwrap();
    let short = Duration::from_millis(10);
    assert_eq!(probe(&all, short), Err(ProbeFailure::Timeout(short)));
}

#[test]
fn an_empty_list_is_refused() {
    for error in [All::new(vec![]).unwrap_err(), Any::new(vec![]).unwrap_err()] {
        let text = error.to_string();
        assert_eq!(text, "list of monitors \"[]\" is not valid: expected at least one monitor");
    }
}
