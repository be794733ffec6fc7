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
//! not, it is as good. It is kept until no change has come for as long as a flow may be silent.

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

impl Elder {
    pub(super) fn new(method: &Arc<Method>, changed: Timestamp) -> Self {
        Self { method: Arc::clone(method), changed }
    }

    pub(super) fn method(&self) -> &Arc<Method> {
        &self.method
    }

    /// When the last flow that could need it is forgotten.
    pub(super) fn end(&self, lives: &Lifetimes) -> Timestamp {
        Timestamp(self.changed.0.saturating_add(lives.longest()))
    }

    pub(super) fn is_over(&self, lives: &Lifetimes, now: Timestamp) -> bool {
        now >= self.end(lives)
    }

    /// Where an unrecorded flow that is older than the change went, if anywhere, whose hash by the method of
    /// today is `hash`; none if it would have been forgotten by now.
    #[inline]
    pub(super) fn select(
        &self,
        today: &Method,
        lives: &Lifetimes,
        packet: &PacketInfo,
        hash: FlowHash,
        now: Timestamp,
    ) -> Option<Option<BackendIndex>> {
        if now.0 >= self.changed.0.saturating_add(lives.idle(packet.flow.protocol)) {
            return None;
        }
        let alike = self.method.hashes_alike(today);
        Some(self.method.select(if alike { hash } else { self.method.hash(packet) }))
    }
}
