//! The monitor for those who learn health elsewhere.

use super::{Monitor, News, ProbeFailure, Target};
use crate::error::ParseError;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Backends are as well as somebody reports, as long as the reports keep coming.
///
/// A report holds for the time of a lease; after that the backend counts as failed, and says since
/// when nothing was heard. So who reports has to repeat itself, more often than the lease is long:
/// when it dies, what it last said is not believed for ever.
///
/// Reports count as results of probes: the [policy](super::HealthPolicy) of the service decides how
/// many it takes to be up or down. One that differs from the last is taken in at once, others at the
/// next turn; with `rise` and `fall` of one, a change is thus in force within milliseconds. The end of
/// a lease is noticed at the next turn.
///
/// ```
/// use dsrlb::health::{Monitor, ProbeFailure, Push, Target};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let push = Push::new(Duration::from_secs(10))?;
/// let target = Target::new("10.0.0.100:80/tcp", "web-1", "192.0.2.11".parse()?);
/// push.report("web-1", Ok(()));
/// assert_eq!(push.probe(&target, Duration::from_secs(1)), Ok(()));
///
/// push.report("web-1", Err("disk full".into()));
/// let failure = push.probe(&target, Duration::from_secs(1)).unwrap_err();
/// assert_eq!(failure.to_string(), "reported as down: disk full");
/// # Ok(())
/// # }
/// ```
///
/// Put it into an `Arc`: one clone is bound to services, another reports.
#[derive(Debug)]
pub struct Push {
    lease: Duration,
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reports: BTreeMap<String, Report>,
    news: Vec<News>,
}

#[derive(Debug)]
struct Report {
    up: Result<(), String>,
    at: Instant,
}

impl Push {
    /// A monitor that believes each report for the time of `lease`.
    ///
    /// # Errors
    ///
    /// When the lease is zero: no report would ever hold.
    pub fn new(lease: Duration) -> Result<Self, ParseError> {
        if lease.is_zero() {
            return Err(ParseError::new("lease", "0s", "a time longer than zero"));
        }
        Ok(Self { lease, since: Instant::now(), state: Mutex::default() })
    }

    /// Takes a report: the backend with this identifier is up, or down for this reason, in whatever
    /// services it is.
    ///
    /// Backends that are not there yet can be reported too. Reports are kept until they are replaced or
    /// [forgotten](Push::forget).
    pub fn report(&self, backend_id: &str, up: Result<(), String>) {
        let at = Instant::now();
        let mut state = self.lock();
        let is_news = state.reports.get(backend_id).is_none_or(|last| {
            last.up.is_ok() != up.is_ok() || at.saturating_duration_since(last.at) > self.lease
        });
        state.reports.insert(backend_id.to_owned(), Report { up, at });
        state.news.retain(|news| !news.is_over());
        let tell = if is_news { state.news.clone() } else { Vec::new() };
        // Runners have locks of their own, and may be about to subscribe.
        drop(state);
        tell.iter().for_each(|news| news.probe_now(backend_id));
    }

    /// Drops what was reported of a backend, such as of one that is no more.
    pub fn forget(&self, backend_id: &str) {
        self.lock().reports.remove(backend_id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verdict(&self, backend_id: &str, now: Instant) -> Result<(), ProbeFailure> {
        let lease = self.lease;
        match self.lock().reports.get(backend_id) {
            None => Err(ProbeFailure::NeverReported(now.saturating_duration_since(self.since))),
            Some(report) => match now.saturating_duration_since(report.at) {
                silence if silence > lease => Err(ProbeFailure::LeaseExpired { silence, lease }),
                _ => report.up.clone().map_err(ProbeFailure::Reported),
            },
        }
    }
}

impl Monitor for Push {
    fn probe(&self, target: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
        self.verdict(target.id, Instant::now())
    }

    fn sends_packets(&self) -> bool {
        false
    }

    fn subscribe(&self, news: News) {
        let mut state = self.lock();
        state.news.retain(|other| !other.is_over() && !other.is_same_as(&news));
        state.news.push(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Any, HealthPolicy, HealthState, Not, ProbeTarget, Runner, monitor_fn};
    use std::sync::{Arc, mpsc};

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn a_report_holds_for_the_lease_and_no_longer() {
        let push = Push::new(LEASE).unwrap();
        let early = push.verdict("a", push.since + Duration::from_secs(3)).unwrap_err();
        assert_eq!(early.to_string(), "never reported, for 3s now");

        push.report("a", Ok(()));
        let at = push.lock().reports["a"].at;
        assert_eq!(push.verdict("a", at + LEASE), Ok(()));
        let late = push.verdict("a", at + LEASE + Duration::from_millis(1)).unwrap_err();
        assert_eq!(late.to_string(), "no report for 10.001s, longer than the lease of 10s");
        assert!(push.verdict("b", at).is_err());

        // What was bad news is as old as good ones.
        push.report("a", Err("on fire".into()));
        let at = push.lock().reports["a"].at;
        let down = ProbeFailure::Reported("on fire".into());
        assert_eq!(push.verdict("a", at + LEASE), Err(down));
        let silence = 2 * LEASE;
        let late = ProbeFailure::LeaseExpired { silence, lease: LEASE };
        assert_eq!(push.verdict("a", at + silence), Err(late));
        push.forget("a");
        assert!(matches!(push.verdict("a", at), Err(ProbeFailure::NeverReported(_))));
        assert!(Push::new(Duration::ZERO).is_err());
    }

    /// The interval is a day: without news nothing would happen after the first probe.
    #[test]
    fn a_change_is_probed_at_once_also_within_combinations() {
        let day = Duration::from_secs(24 * 60 * 60);
        let policy = HealthPolicy { interval: day, rise: 1, fall: 1, ..HealthPolicy::default() };
        let push = Arc::new(Push::new(day).unwrap());
        push.report("plain", Ok(()));
        push.report("combined", Ok(()));
        let never: Arc<dyn Monitor> = Arc::new(monitor_fn(|_, _| Err(ProbeFailure::Refused)));
        let twice_not = Not::new(Arc::new(Not::new(push.clone())));
        let combined = Arc::new(Any::new(vec![never, Arc::new(twice_not)]).unwrap());
        let (sender, events) = mpsc::channel();
        let runner = Runner::start(2, sender).unwrap();
        let target = |id: &str, monitor: Arc<dyn Monitor>| ProbeTarget {
            service: "s".to_owned(),
            id: id.to_owned(),
            address: [192, 0, 2, 1].into(),
            monitor,
            policy,
        };
        let targets = || vec![target("plain", push.clone()), target("combined", combined.clone())];
        runner.set_targets(targets()).unwrap();
        runner.set_targets(targets()).unwrap();
        let next = |id: &str, to| {
            let event = events.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!((event.id.as_str(), event.to), (id, to), "{event}");
        };
        let first: Vec<_> = (0..2).map(|_| events.recv_timeout(day).unwrap().to).collect();
        assert_eq!(first, [HealthState::Up; 2]);
        for id in ["plain", "combined"] {
            push.report(id, Err("gone".into()));
            next(id, HealthState::Down);
            push.report(id, Ok(()));
            next(id, HealthState::Up);
        }
        // Once for each of the two monitors, however often targets are set.
        assert_eq!(push.lock().news.len(), 2);
        drop(runner);
        push.report("plain", Err("gone".into()));
        assert_eq!(push.lock().news.len(), 0);
    }
}
