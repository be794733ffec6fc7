//! How many flows there are, and what happened to those that are not.

use super::entry::Life;
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

/// The flows of the backends in a slot.
#[derive(Clone, Copy, Debug)]
struct OfSlot {
    /// Those of `holder` that have begun.
    begun: u64,
    /// Those that there are, whosever they are.
    live: u32,
    holder: BackendIndex,
}

const SLOTS_A_LINE: usize = 128 / size_of::<OfSlot>();

/// Those of some slots. Whatever the allocator puts beside them, another worker's for one, is on other
/// lines, and on other pairs of them.
#[derive(Clone, Debug)]
#[repr(align(128))]
struct Line([OfSlot; SLOTS_A_LINE]);

const _: () = assert!(size_of::<Line>() == 128);

#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) counts: FlowCounts,
    slots: usize,
    of_slots: Box<[Line]>,
}

impl Tally {
    pub(super) fn new(slots: usize) -> Self {
        let none = OfSlot { begun: 0, live: 0, holder: BackendIndex::new(0, 0) };
        let lines = vec![Line([none; SLOTS_A_LINE]); slots.div_ceil(SLOTS_A_LINE)];
        Self { counts: FlowCounts::default(), slots, of_slots: lines.into_boxed_slice() }
    }

    fn of_slot(&self, slot: usize) -> Option<&OfSlot> {
        self.of_slots.get(slot / SLOTS_A_LINE)?.0.get(slot % SLOTS_A_LINE)
    }

    pub(super) fn live(&self, slot: usize) -> u32 {
        self.of_slot(slot).map_or(0, |of| of.live)
    }

    /// How many flows of this backend have begun.
    pub(super) fn begun(&self, backend: BackendIndex) -> u64 {
        let of = self.of_slot(backend.slot()).filter(|of| of.holder == backend);
        of.map_or(0, |of| of.begun)
    }

    /// Whether flows of this backend can be counted, and so be remembered.
    #[inline]
    pub(super) fn knows(&self, backend: BackendIndex) -> bool {
        backend.slot() < self.slots
    }

    #[inline]
    fn of_backend(&mut self, backend: BackendIndex) -> Option<&mut OfSlot> {
        let slot = backend.slot();
        self.of_slots.get_mut(slot / SLOTS_A_LINE)?.0.get_mut(slot % SLOTS_A_LINE)
    }

    #[inline]
    fn of(&mut self, is_proven: bool) -> &mut u64 {
        if is_proven { &mut self.counts.proven } else { &mut self.counts.unproven }
    }

    /// One more, which has not begun here.
    #[inline]
    pub(super) fn add(&mut self, backend: BackendIndex, state: State) {
        *self.of(state.is_proven()) += 1;
        if let Some(of) = self.of_backend(backend) {
            of.live = of.live.saturating_add(1);
        }
    }

    /// One that has got an entry with this life. It begins, unless another director told of it.
    #[inline(always)]
    pub(super) fn enter(&mut self, backend: BackendIndex, life: Life) {
        *self.of(life.is_proven()) += 1;
        let slot = backend.slot();
        let Some(line) = self.of_slots.get_mut(slot / SLOTS_A_LINE) else {
            return;
        };
        let of = &mut line.0[slot % SLOTS_A_LINE];
        // There are no more than entries: 2^28.
        of.live = of.live.wrapping_add(1);
        if life.is_told() {
            return;
        }
        self.counts.begun += 1;
        if of.holder != backend {
            (of.holder, of.begun) = (backend, 0);
        }
        of.begun += 1;
    }

    #[inline]
    pub(super) fn remove(&mut self, backend: BackendIndex, is_proven: bool) {
        let of = self.of(is_proven);
        *of = of.saturating_sub(1);
        if let Some(of) = self.of_backend(backend) {
            of.live = of.live.saturating_sub(1);
        }
    }

    /// An unproven flow had to go.
    #[inline]
    pub(super) fn displace(&mut self, backend: BackendIndex) {
        self.remove(backend, false);
        self.counts.displaced += 1;
    }

    /// A flow went from one state to another.
    #[inline]
    pub(super) fn change(&mut self, from: State, to: State) {
        if from.is_proven() != to.is_proven() {
            let of = self.of(from.is_proven());
            *of = of.saturating_sub(1);
            *self.of(to.is_proven()) += 1;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.of_slots)
    }
}
