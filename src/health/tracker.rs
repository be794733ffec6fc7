//! The targets, when each is to be probed and what its results amount to: no threads, no clock.

use super::job::{Key, event};
use super::probes::ProbeCounts;
use super::reason::Reason;
use super::{
    HealthEvent, HealthPolicy, HealthState, Hysteresis, Job, Monitor, ProbeFailure, ProbeTarget,
    Schedule, Transition,
};
use crate::error::{ConfigError, ConfigProblem};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A probe that is over its timeout by this much is counted as failed without waiting for it.
///
/// A monitor that keeps to its timeout returns a little after it, so some patience is needed.
const PATIENCE: Duration = Duration::from_millis(250);

/// A service and a backend in it.
type Name = (String, String);

struct Slot {
    monitor: Arc<dyn Monitor>,
    policy: HealthPolicy,
    hysteresis: Hysteresis,
    /// Why it is down, if it is.
    reason: Reason,
    probes: ProbeCounts,
    running: Option<Running>,
    /// No longer a target, but kept while its last probe is running: so it is not probed twice at
    /// once should it come back.
    retired: bool,
}

impl Slot {
    /// Notes how a probe went; says what is to be told, if anything is.
    fn note(
        &mut self,
        failure: Option<ProbeFailure>,
    ) -> Option<(Transition, Option<ProbeFailure>)> {
        self.probes.note(failure.is_none());
        let before = self.hysteresis.state();
        let transition = self.hysteresis.observe(failure.is_none());
        if transition.is_some() {
            self.reason.tell(failure.as_ref());
        }
        let renewed = || {
            let changes = before == HealthState::Down && self.reason.changes(failure.as_ref()?);
            changes.then_some(Transition { from: before, to: before })
        };
        transition.or_else(renewed).map(|transition| (transition, failure))
    }
}

struct Running {
    since: Instant,
    /// When it is counted as failed, or once more so, without being over.
    overdue: Instant,
    /// Whether it has been, so that its own result no longer counts.
    given_up: bool,
}

/// The state of a replaceable set of targets.
///
/// Ask for a [`Job`], run it, [`Tracker::finish`] it; call [`Tracker::overdue`] now and then.
pub struct Tracker {
    slots: BTreeMap<Key, Slot>,
    schedule: Schedule<Key>,
    /// What is running, by when it is overdue: with thousands of targets nobody looks through all.
    deadlines: BTreeSet<(Instant, Key)>,
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.states()).finish()
    }
}

impl Tracker {
    /// No targets yet.
    pub fn new(now: Instant) -> Self {
        Self { slots: BTreeMap::new(), schedule: Schedule::new(now), deadlines: BTreeSet::new() }
    }

    /// Replaces the targets. State and place in the schedule of those that stay, with the same
    /// identifier and address, are kept; their policy and monitor are replaced.
    ///
    /// Returns an event for each identifier that stays but has another address, and that counts as
    /// something else for it.
    ///
    /// # Errors
    ///
    /// When a policy is not valid or an identifier is there twice; nothing is changed then.
    pub fn set_targets(
        &mut self,
        targets: Vec<ProbeTarget>,
        now: Instant,
    ) -> Result<Vec<HealthEvent>, ConfigError> {
        validate(&targets)?;
        let before: BTreeMap<Name, HealthState> = self.states().collect();
        let mut wanted = BTreeSet::new();
        for target in targets {
            let seed = format!("{} {}", target.service, target.id);
            let (service, id) = (Arc::from(target.service), Arc::from(target.id));
            let key = Key { service, id, address: target.address };
            let interval = target.policy.interval;
            wanted.insert(key.clone());
            match self.slots.get_mut(&key) {
                Some(slot) => {
                    if slot.retired {
                        slot.retired = false;
                        slot.hysteresis = Hysteresis::new(&target.policy);
                        slot.reason = Reason::default();
                        slot.probes = ProbeCounts::default();
                        // What is still running was begun for the one that was removed.
                        if let Some(running) = &mut slot.running {
                            running.given_up = true;
                        }
                    }
                    slot.hysteresis.set_thresholds(&target.policy);
                    slot.monitor = target.monitor;
                    slot.policy = target.policy;
                }
                None => {
                    let slot = Slot {
                        monitor: target.monitor,
                        policy: target.policy,
                        hysteresis: Hysteresis::new(&target.policy),
                        reason: Reason::default(),
                        probes: ProbeCounts::default(),
                        running: None,
                        retired: false,
                    };
                    self.slots.insert(key.clone(), slot);
                }
            }
            self.schedule.insert(key, seed.as_bytes(), interval, now);
        }
        self.retire_all_but(&wanted);
        let changed = self.states().filter_map(|(name, to)| {
            let from = *before.get(&name)?;
            let ((service, id), reason) = (name, None);
            (from != to).then_some(HealthEvent { service, id, from, to, reason })
        });
        Ok(changed.collect())
    }

    fn retire_all_but(&mut self, wanted: &BTreeSet<Key>) {
        let schedule = &mut self.schedule;
        self.slots.retain(|key, slot| {
            if wanted.contains(key) {
                return true;
            }
            slot.retired = true;
            if slot.running.is_none() {
                schedule.remove(key);
            }
            slot.running.is_some()
        });
    }

    /// What each target counts as, by service and identifier.
    pub fn states(&self) -> impl Iterator<Item = (Name, HealthState)> + '_ {
        self.targets().map(|(name, slot)| (name, slot.hysteresis.state()))
    }

    /// How the probes of each target went, by service and identifier.
    pub fn probes(&self) -> impl Iterator<Item = (Name, ProbeCounts)> + '_ {
        self.targets().map(|(name, slot)| (name, slot.probes))
    }

    fn targets(&self) -> impl Iterator<Item = (Name, &Slot)> {
        let name = |key: &Key| (key.service.as_ref().to_owned(), key.id.as_ref().to_owned());
        let all = self.slots.iter().filter(|(_, slot)| !slot.retired);
        all.map(move |(key, slot)| (name(key), slot))
    }

    /// The probe that is due longest, if any is due; it counts as running from now on.
    pub fn start_next(&mut self, now: Instant) -> Option<Job> {
        while let Some(key) = self.schedule.take_due(now) {
            let Some(slot) = self.slots.get_mut(&key) else {
                self.schedule.remove(&key);
                continue;
            };
            let timeout = slot.policy.timeout;
            let overdue = now + timeout + PATIENCE;
            slot.running = Some(Running { since: now, overdue, given_up: false });
            self.deadlines.insert((overdue, key.clone()));
            let monitor = Arc::clone(&slot.monitor);
            return Some(Job { key, monitor, timeout });
        }
        None
    }

    /// Takes the result of a probe that was started.
    pub fn finish(
        &mut self,
        job: &Job,
        result: Result<(), ProbeFailure>,
        now: Instant,
    ) -> Option<HealthEvent> {
        let slot = self.slots.get_mut(&job.key)?;
        let running = slot.running.take()?;
        self.deadlines.remove(&(running.overdue, job.key.clone()));
        if slot.retired {
            self.slots.remove(&job.key);
            self.schedule.remove(&job.key);
            return None;
        }
        self.schedule.finished(&job.key, now);
        if running.given_up {
            return None;
        }
        if matches!(result, Err(ProbeFailure::NotProbed(_))) {
            return None;
        }
        slot.probes.last = Some(now.saturating_duration_since(running.since));
        slot.note(result.err()).map(|(transition, reason)| event(&job.key, transition, reason))
    }

    /// Counts probes that should have been over as failed, and again at each interval while they
    /// hang; returns the changes that brings.
    pub fn overdue(&mut self, now: Instant) -> Vec<HealthEvent> {
        let mut events = Vec::new();
        while self.deadlines.first().is_some_and(|(overdue, _)| *overdue <= now) {
            let Some((_, key)) = self.deadlines.pop_first() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            let Some(running) = &mut slot.running else {
                continue;
            };
            let overdue = now + slot.policy.interval;
            running.overdue = overdue;
            running.given_up = true;
            let failure = ProbeFailure::Overran(now.saturating_duration_since(running.since));
            if !slot.retired
                && let Some((transition, reason)) = slot.note(Some(failure))
            {
                events.push(event(&key, transition, reason));
            }
            self.deadlines.insert((overdue, key));
        }
        events
    }

    /// When the next probe is due; `None` when none is waiting.
    pub fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due()
    }

    /// When [`Tracker::overdue`] is to be called next; `None` while nothing is running.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(overdue, _)| overdue)
    }

    /// Makes the targets with this identifier due now, in all services that have this very monitor;
    /// those that are being probed are probed once more right after.
    pub fn hurry(&mut self, monitor: &Weak<dyn Monitor>, id: &str, now: Instant) {
        for (key, slot) in &self.slots {
            if key.id.as_ref() == id
                && !slot.retired
                && std::ptr::addr_eq(Arc::as_ptr(&slot.monitor), monitor.as_ptr())
            {
                self.schedule.hurry(key, now);
            }
        }
    }
}

fn validate(targets: &[ProbeTarget]) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for target in targets {
        let prefix = format!("service {}: backend {}: ", target.service, target.id);
        problems.extend(target.policy.problems(&prefix));
        if !seen.insert((&target.service, &target.id)) {
            problems.push(ConfigProblem {
                path: format!("{prefix}id"),
                value: target.id.clone(),
                expected: "must be unique within the service".to_owned(),
            });
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
