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

const SLOTS_A_LINE: usize = 32;

/// How many flows some backends have. Whatever the allocator puts beside them, another worker's for one, is on other
/// lines, and on other pairs of them.
#[derive(Clone, Debug)]
#[repr(align(128))]
struct Line([u32; SLOTS_A_LINE]);

const _: () = assert!(size_of::<Line>() == 128);

#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) counts: FlowCounts,
    slots: usize,
    live: Box<[Line]>,
}

impl Tally {
    pub(super) fn new(slots: usize) -> Self {
        let lines = vec![Line([0; SLOTS_A_LINE]); slots.div_ceil(SLOTS_A_LINE)];
        Self { counts: FlowCounts::default(), slots, live: lines.into_boxed_slice() }
    }

    pub(super) fn live(&self, slot: usize) -> u32 {
        let line = self.live.get(slot / SLOTS_A_LINE);
        line.and_then(|line| line.0.get(slot % SLOTS_A_LINE)).copied().unwrap_or(0)
    }

    /// Whether flows of this backend can be counted, and so be remembered.
    #[inline]
    pub(super) fn knows(&self, backend: BackendIndex) -> bool {
        backend.slot() < self.slots
    }

    #[inline]
    fn live_mut(&mut self, backend: BackendIndex) -> Option<&mut u32> {
        let slot = backend.slot();
        self.live.get_mut(slot / SLOTS_A_LINE)?.0.get_mut(slot % SLOTS_A_LINE)
    }

    #[inline]
    fn of(&mut self, state: State) -> &mut u64 {
        if state.is_proven() { &mut self.counts.proven } else { &mut self.counts.unproven }
    }

    #[inline]
    pub(super) fn add(&mut self, backend: BackendIndex, state: State) {
        *self.of(state) += 1;
        if let Some(live) = self.live_mut(backend) {
            *live = live.saturating_add(1);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, backend: BackendIndex, state: State) {
        let of = self.of(state);
        *of = of.saturating_sub(1);
        if let Some(live) = self.live_mut(backend) {
            *live = live.saturating_sub(1);
        }
    }

    /// An unproven flow had to go.
    #[inline]
    pub(super) fn displace(&mut self, backend: BackendIndex) {
        self.remove(backend, State::Opening);
        self.counts.displaced += 1;
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
