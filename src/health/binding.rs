//! Which monitor a service has, and which way its probes take.

use super::{HealthPolicy, Monitor};
use std::fmt;
use std::sync::Arc;

/// The way a probe takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Through {
    /// To the backend's own address, by the host's own routes. A backend that has lost the VIP, or
    /// whose tunnel does not decapsulate, passes for well.
    Backend,
    /// To the VIP, delivered to this very backend as a client's packet would be: by its forwarding
    /// mode and next hop. What serves no client is found unwell.
    #[default]
    Vip,
}

named!(Through, "way of probes", "backend or vip", ["backend" => Backend, "vip" => Vip]);

/// A monitor, how often it probes, and which way.
#[derive(Clone)]
pub struct MonitorBinding {
    /// How to probe.
    pub monitor: Arc<dyn Monitor>,
    /// How often, and what the results amount to.
    pub policy: HealthPolicy,
    /// Which way.
    pub through: Through,
}

impl MonitorBinding {
    /// Binds a monitor that probes through the VIP, with the default policy.
    pub fn new(monitor: impl Monitor + 'static) -> Self {
        Self {
            monitor: Arc::new(monitor),
            policy: HealthPolicy::default(),
            through: Through::default(),
        }
    }

    /// Sets how often it probes, and what the results amount to.
    #[must_use]
    pub fn policy(mut self, policy: HealthPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets which way probes take.
    #[must_use]
    pub fn through(mut self, through: Through) -> Self {
        self.through = through;
        self
    }
}

impl fmt::Debug for MonitorBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorBinding")
            .field("policy", &self.policy)
            .field("through", &self.through)
            .finish_non_exhaustive()
    }
}
