//! Where a flow that is not in the table may go.
//!
//! What a set holds is unpredictable, so nothing here branches by it: a set is read once, into masks of
//! four bits, and places are compared as numbers.

use super::entry::Life;
use super::set::{Mask, Set, WAYS};
use super::state::State;
use std::hint::select_unpredictable;

/// What is in a set of which nothing is over, a bit for each entry.
#[derive(Clone, Copy)]
pub(super) struct Survey {
    free: Mask,
    /// Unproven, or free.
    open: Mask,
    unproven: Mask,
    /// What the unproven one is.
    guest: Life,
}

impl Survey {
    #[inline(always)]
    pub(super) fn of(set: &Set) -> Self {
        let (free, open) = (set.free().mask(), set.open().mask());
        let unproven = open.without(free);
        // An unproven flow is never given a place beside another one, so there is one at most.
        Self { free, open, unproven, guest: set.life(unproven.first()) }
    }

    /// The best place in this set, which has number `set`, for a flow in this state. An unproven one there gives way
    /// if it costs less than `limit`.
    #[inline(always)]
    pub(super) fn place(&self, set: usize, state: State, limit: Cost) -> Place {
        let Self { free, open, unproven, guest } = *self;
        let takes_free = free.any() & (state.is_proven() | !unproven.any());
        // Without an unproven one, the guest is whatever is in the first entry: proven, which is beyond any limit, or
        // nothing, so it is free.
        let guest = Cost::displacing(guest);
        let displacing = select_unpredictable(guest < limit, guest, Cost::NO_PLACE);
        Place {
            cost: select_unpredictable(takes_free, Cost::free(open), displacing),
            set,
            way: select_unpredictable(takes_free, free, unproven).first(),
        }
    }
}

/// What a place costs; the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost(u32);

impl Cost {
    const NO_PLACE: Self = Self(u32::MAX);

    /// What displacing costs less than if it is a flow of this rank or below; nobody has rank 0.
    #[inline]
    pub(super) const fn limit(rank: u32) -> Self {
        Self(Life::beyond(rank))
    }

    /// Nothing; as many proven flows are beside it as there are. Where fewer are, more can still come.
    #[inline]
    fn free(open: Mask) -> Self {
        Self(WAYS as u32 - open.count())
    }

    /// An unproven flow: a SYN before others, then what would be forgotten first.
    #[inline]
    const fn displacing(life: Life) -> Self {
        Self(life.rank_first())
    }
}

/// A place in a set, for a flow that is in none of its entries.
#[derive(Clone, Copy)]
pub(super) struct Place {
    cost: Cost,
    pub(super) set: usize,
    pub(super) way: usize,
}

impl Place {
    /// The cheaper one, the first if they are equal; none if neither is any.
    #[inline]
    pub(super) fn better(self, other: Self) -> Option<Self> {
        let better = select_unpredictable(other.cost < self.cost, other, self);
        (better.cost != Cost::NO_PLACE).then_some(better)
    }
}
