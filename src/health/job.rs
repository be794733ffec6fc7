//! What goes into the tracker and what comes out of it: targets, jobs, events.

use super::guard::probe_caught;
use super::{HealthPolicy, HealthState, Monitor, ProbeFailure, Target, Transition};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A backend to be probed.
#[derive(Clone)]
pub struct ProbeTarget {
    /// The service that the backend is in.
    pub service: String,
    /// The backend's identifier; unique within the service.
    pub id: String,
    /// The backend's address.
    pub address: IpAddr,
    /// How to probe it.
    pub monitor: Arc<dyn Monitor>,
    /// How often to probe it and what the results amount to.
    pub policy: HealthPolicy,
}

impl fmt::Debug for ProbeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeTarget")
            .field("service", &self.service)
            .field("id", &self.id)
            .field("address", &self.address)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// A backend's change of state, or of the reason for which it is down.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HealthEvent {
    /// The service.
    pub service: String,
    /// The backend.
    pub id: String,
    /// What it counted as.
    pub from: HealthState,
    /// What it counts as now: the same, if it is down for another kind of reason than before.
    pub to: HealthState,
    /// Why it is down: the last failure.
    pub reason: Option<ProbeFailure>,
}

impl fmt::Display for HealthEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} -> {}", self.service, self.id, self.from, self.to)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// Who a target is: with another address it is another machine, whatever its identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) service: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) address: IpAddr,
}

/// One probe to be made.
#[derive(Clone)]
pub struct Job {
    pub(super) key: Key,
    pub(super) monitor: Arc<dyn Monitor>,
    pub(super) timeout: Duration,
}

impl Job {
    /// Probes; whatever the monitor does, except to hang, comes back as a result.
    ///
    /// # Errors
    ///
    /// What the monitor says, or that it panicked.
    pub fn run(&self) -> Result<(), ProbeFailure> {
        let target = Target::new(&self.key.service, &self.key.id, self.key.address);
        probe_caught(self.monitor.as_ref(), &target, self.timeout)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("target", &self.key)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

pub(super) fn event(
    key: &Key,
    transition: Transition,
    reason: Option<ProbeFailure>,
) -> HealthEvent {
    HealthEvent {
        service: key.service.as_ref().to_owned(),
        id: key.id.as_ref().to_owned(),
        from: transition.from,
        to: transition.to,
        reason,
    }
}
