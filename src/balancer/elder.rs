//! What a service chose before it was changed.
//!
//! With that, flows need not be recorded for as long as nothing changes. When something does, a flow that
//! is not recorded and not new is older than the change, and went where the method before the change says.
//! Only where that and the method now differ, the flow is *contested*, and has to be recorded: as the old
//! one's when it speaks for the first time, as the new one's when it begins; also if the old one cannot
//! serve it now, since it may be back with the next change.
//!
//! One older method is enough, also when changes come one after the other: flows that began between
//! two of them are recorded wherever the oldest method differs from that of their time, and where it does
//! not, it is as good. So a flow that speaks for the first time is recorded for as long as any is: it may be silent
//! until the older method is gone. That is kept until no change has come for as long as a flow may be silent.

use super::built::Method;
use super::flow_table::Lifetimes;
use crate::flow::{FlowHash, PacketInfo, Timestamp};
use crate::verdict::BackendIndex;
use std::sync::Arc;

/// An older method, and when the last change came.
#[derive(Clone, Debug)]
pub(super) struct Elder {
    method: Arc<Method>,
    changed: Timestamp,
}

/// What was chosen for a flow before the change, whether or not there was such a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Former {
    /// None if there was no backend.
    pub(super) chosen: Option<BackendIndex>,
    /// Whether an unrecorded flow may be older than the change: one of a protocol whose flows are forgotten
    /// sooner than others is new before the older method goes, and contested until then.
    pub(super) may_be_older: bool,
}

impl Elder {
    pub(super) fn new(method: &Arc<Method>, changed: Timestamp) -> Self {
        Self { method: Arc::clone(method), changed }
    }

    pub(super) fn method(&self) -> &Arc<Method> {
        &self.method
    }

    /// When the last flow that could need it is forgotten.
    #[inline]
    pub(super) fn end(&self, lives: &Lifetimes) -> Timestamp {
        Timestamp(self.changed.0.saturating_add(lives.longest()))
    }

    #[inline]
    pub(super) fn is_over(&self, lives: &Lifetimes, now: Timestamp) -> bool {
        now >= self.end(lives)
    }

    /// What was chosen before for a flow whose hash by the method of today is `hash`; none if that is over.
    #[inline]
    pub(super) fn select(
        &self,
        today: &Method,
        lives: &Lifetimes,
        packet: &PacketInfo,
        hash: FlowHash,
        now: Timestamp,
    ) -> Option<Former> {
        if self.is_over(lives, now) {
            return None;
        }
        let alike = self.method.hashes_alike(today);
        let chosen = self.method.select(if alike { hash } else { self.method.hash(packet) });
        let forgotten = self.changed.0.saturating_add(lives.idle(packet.flow.protocol));
        Some(Former { chosen, may_be_older: now.0 < forgotten })
    }
}
