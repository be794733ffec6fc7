//! How many flows there are, and what happened to those that are not.

use super::state::State;
use crate::verdict::BackendIndex;
use std::ops::AddAssign;

/// What a table has counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct FlowCounts {
    /// Proven flows in the table now.
    pub proven: u64,
    /// Unproven flows in the table now.
    pub unproven: u64,
    /// Flows that began to be remembered, by a packet of their own: not those heard of from others.
    pub begun: u64,
    /// Flows that were not remembered since only flows of a higher rank have their places. Each of
    /// their packets asks again and counts again.
    pub refused: u64,
    /// Unproven flows that had to give their place to another one.
    pub displaced: u64,
}

impl AddAssign for FlowCounts {
    fn add_assign(&mut self, other: Self) {
        self.proven += other.proven;
        self.unproven += other.unproven;
        self.begun += other.begun;
        self.refused += other.refused;
        self.displaced += other.displaced;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) counts: FlowCounts,
    live: Box<[u32]>,
}

impl Tally {
    pub(super) fn new(slots: usize) -> Self {
        Self { counts: FlowCounts::default(), live: vec![0; slots].into_boxed_slice() }
    }

    pub(super) fn live(&self, slot: usize) -> u32 {
        self.live.get(slot).copied().unwrap_or(0)
    }

    /// Whether flows of this backend can be counted, and so be remembered.
    #[inline]
    pub(super) fn knows(&self, backend: BackendIndex) -> bool {
        backend.slot() < self.live.len()
    }

    #[inline]
    fn of(&mut self, state: State) -> &mut u64 {
        if state.is_proven() { &mut self.counts.proven } else { &mut self.counts.unproven }
    }

    #[inline]
    pub(super) fn add(&mut self, backend: BackendIndex, state: State) {
        *self.of(state) += 1;
        if let Some(live) = self.live.get_mut(backend.slot()) {
            *live = live.saturating_add(1);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, backend: BackendIndex, state: State) {
        let of = self.of(state);
        *of = of.saturating_sub(1);
        if let Some(live) = self.live.get_mut(backend.slot()) {
            *live = live.saturating_sub(1);
        }
    }

    /// A flow went from one state to another.
    #[inline]
    pub(super) fn change(&mut self, from: State, to: State) {
        if from.is_proven() != to.is_proven() {
            let of = self.of(from);
            *of = of.saturating_sub(1);
            *self.of(to) += 1;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.live)
    }
}
