//! Taking a backend out of service without breaking what it has.

use super::control::Shared;
use crate::balancer::{AdminState, VipKey};
use crate::verdict::BackendIndex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How soon [`Drain::wait`] notices that a drain is over; workers count flows about as often.
const TICK: Duration = Duration::from_millis(50);

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DrainEnd {
    /// The backend has no flows left.
    Empty,
    /// Its time was over; the flows that it still had have been cut.
    Deadline,
    /// It has been removed, the operator wants something else of it, or the director has ended.
    Cancelled,
}

/// A backend that is being drained; see [`Director::drain`](super::Director::drain). Dropping this
/// changes nothing.
#[derive(Debug)]
pub struct Drain {
    shared: Arc<Shared>,
    service: VipKey,
    id: String,
    index: BackendIndex,
    /// The first snapshot in which it takes no new flows.
    generation: u64,
    deadline: Instant,
}

impl Drain {
    pub(super) fn new(
        shared: &Arc<Shared>,
        service: VipKey,
        id: &str,
        (index, generation): (BackendIndex, u64),
        deadline: Instant,
    ) -> Self {
        let (shared, id) = (Arc::clone(shared), id.to_owned());
        Self { shared, service, id, index, generation, deadline }
    }

    /// How many flows the backend still has; none until all workers have counted since the drain
    /// began, which takes a tenth of a second. A balancer that remembers no flows has none to keep.
    pub fn flows_left(&self) -> Option<u64> {
        self.shared.flows_of(self.index, self.generation)
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<DrainEnd> {
        let is_over = Instant::now() >= self.deadline;
        match self.shared.admin_of(self.service, &self.id) {
            Some((index, AdminState::Draining)) if index == self.index => {
                let is_stopped = self.shared.stop_flag().load(Ordering::Relaxed);
                match self.flows_left() {
                    Some(0) => Some(DrainEnd::Empty),
                    _ if is_over => Some(DrainEnd::Deadline),
                    _ => is_stopped.then_some(DrainEnd::Cancelled),
                }
            }
            Some((index, AdminState::Disabled)) if index == self.index && is_over => {
                Some(DrainEnd::Deadline)
            }
            _ => Some(DrainEnd::Cancelled),
        }
    }

    /// Waits until it has ended, which is at the deadline at the latest.
    pub fn wait(&self) -> DrainEnd {
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            std::thread::sleep(TICK);
        }
    }
}
