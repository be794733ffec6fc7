//! Where a flow that is not in the table may go.
//!
//! What a set holds is unpredictable, so nothing here branches by it: a set is read once, into masks of
//! four bits, and places are compared as numbers.

use super::entry::Life;
use super::set::{Mask, Set, WAYS};
use super::state::State;

/// What is in a set, a bit for each entry.
#[derive(Clone, Copy)]
pub(super) struct Survey {
    /// The flow that is asked for, unless it is over.
    pub(super) same: Mask,
    /// Over.
    pub(super) over: Mask,
    /// Free, or over.
    free: Mask,
    /// Unproven, and neither free nor over.
    unproven: Mask,
    /// What the unproven one is.
    guest: Life,
}

impl Survey {
    #[inline(always)]
    pub(super) fn of(set: &Set, key: u64, now: u32) -> Self {
        let free = set.ended(now);
        let unproven = set.unproven().without(free);
        Self {
            same: set.holding(key).without(free),
            over: set.over(now),
            free,
            unproven,
            // An unproven flow is never given a place beside another one, so there is one at most.
            guest: set.life(unproven.first()),
        }
    }

    /// The best place in this set, which has number `set`, for a flow in this state.
    #[inline(always)]
    pub(super) fn place(&self, set: usize, state: State, displaces: bool) -> Place {
        let Self { free, unproven, guest, .. } = *self;
        let gives_way = displaces & unproven.any() & (guest.rank() <= state as u32);
        let proven = WAYS as u32 - free.or(unproven).count();
        let takes_free = free.any() & (state.is_proven() | !unproven.any());
        let displacing = if gives_way { Cost::displacing(guest) } else { Cost::NO_PLACE };
        let (cost, way) =
            if takes_free { (Cost::free(proven), free) } else { (displacing, unproven) };
        Place { cost, set, way: way.first() }
    }
}

/// What a place costs; the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost(u64);

impl Cost {
    const NO_PLACE: Self = Self(u64::MAX);

    /// Nothing; this many proven flows are beside it. Where fewer are, more can still come.
    #[inline]
    const fn free(proven: u32) -> Self {
        Self(proven as u64)
    }

    /// An unproven flow: a SYN before others, then what would be forgotten first.
    #[inline]
    const fn displacing(life: Life) -> Self {
        Self(1 << 40 | (life.rank() as u64) << 32 | life.end() as u64)
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
        let better = if other.cost < self.cost { other } else { self };
        (better.cost != Cost::NO_PLACE).then_some(better)
    }
}
