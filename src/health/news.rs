//! How monitors that learn of a backend's health by themselves have it probed at once.

use super::Monitor;
use std::fmt;
use std::sync::{Arc, Weak};

/// Who is told.
pub(super) trait Listener: Send + Sync {
    /// Makes targets due now; see [`super::Tracker::hurry`].
    fn hurry(&self, monitor: &Weak<dyn Monitor>, id: &str);
}

/// By this a monitor makes its [`Runner`](super::Runner) probe a backend now instead of in its turn.
///
/// It holds neither the runner nor the monitor: when the runner has ended, nothing happens any more,
/// and [`News::is_over`] says so.
#[derive(Clone)]
pub struct News {
    listener: Weak<dyn Listener>,
    monitor: Weak<dyn Monitor>,
}

impl News {
    pub(super) fn new(listener: &Arc<dyn Listener>, monitor: &Arc<dyn Monitor>) -> Self {
        Self { listener: Arc::downgrade(listener), monitor: Arc::downgrade(monitor) }
    }

    /// Makes the targets with this backend identifier due now, in every service that has the monitor.
    ///
    /// To be called when something has *changed*: each call brings a probe. A backend that is just
    /// being probed is probed once more, since that probe may have begun before. Must not be called
    /// with a lock that the monitor's own `subscribe` takes.
    pub fn probe_now(&self, backend_id: &str) {
        if let Some(listener) = self.listener.upgrade() {
            listener.hurry(&self.monitor, backend_id);
        }
    }

    /// Whether the runner or the monitor is no more, so that this can be thrown away.
    pub fn is_over(&self) -> bool {
        self.listener.strong_count() == 0 || self.monitor.strong_count() == 0
    }

    /// Whether both are for the same monitor of the same runner.
    pub fn is_same_as(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self.listener.as_ptr(), other.listener.as_ptr())
            && std::ptr::addr_eq(self.monitor.as_ptr(), other.monitor.as_ptr())
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("News").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}
