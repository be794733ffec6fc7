//! Where a flow that is not in the table may go.
//!
//! What a set holds is unpredictable, so nothing here branches by it: a set is read into masks of four
//! bits, and places are compared as numbers.

use super::entry::{Entry, Set, WAYS};
use super::state::State;
use super::tally::Tally;
use crate::verdict::BackendIndex;

/// What a place costs; the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost(u64);

impl Cost {
    const NO_PLACE: Self = Self(u64::MAX);

    /// Nothing; this many proven flows are beside it. Where fewer are, more can still come.
    const fn free(proven: u32) -> Self {
        Self(proven as u64)
    }

    /// An unproven flow in this state, which would be forgotten at that tick.
    const fn displacing(state: State, end: u32) -> Self {
        Self(1 << 40 | (state as u64) << 32 | end as u64)
    }
}

/// A place in a set, for a flow that is in none of its entries.
#[derive(Clone, Copy)]
pub(super) struct Place {
    cost: Cost,
    set: usize,
    way: usize,
}

impl Place {
    /// The best place that set number `set`, which has been [purged](purge), offers to a flow in this
    /// state.
    #[inline]
    pub(super) fn offered(number: usize, set: &Set, state: State) -> Self {
        let free = set.mask(|entry| !entry.is_used());
        let unproven = set.mask(Entry::is_unproven);
        let proven = WAYS as u32 - (free | unproven).count_ones();
        let no_place = Self { cost: Cost::NO_PLACE, set: number, way: 0 };

        let of_free = match free {
            0 => no_place,
            _ => Self { cost: Cost::free(proven), way: first(free), ..no_place },
        };
        // There is one at most, since another unproven one is only given its place.
        let of_unproven = match set.0.get(first(unproven)) {
            Some(entry) => match entry.state() {
                Some(held) if held <= state => {
                    let cost = Cost::displacing(held, entry.end());
                    Self { cost, way: first(unproven), ..no_place }
                }
                _ => no_place,
            },
            None => no_place,
        };
        let prefers_free = free != 0 && (state.is_proven() || unproven == 0);
        if prefers_free { of_free } else { of_unproven }
    }

    /// The cheaper one, the first if they are equal; none if neither is any.
    #[inline]
    pub(super) fn better(self, other: Self) -> Option<Self> {
        let better = if other.cost < self.cost { other } else { self };
        (better.cost != Cost::NO_PLACE).then_some(better)
    }

    #[inline]
    pub(super) fn entry<'a>(&self, sets: &'a mut [Set]) -> Option<&'a mut Entry> {
        sets.get_mut(self.set)?.0.get_mut(self.way)
    }
}

/// The position of the first bit; out of range if there is none.
#[inline]
const fn first(mask: u32) -> usize {
    mask.trailing_zeros() as usize
}

/// Frees the entries of a set whose time is over or whose backend is gone.
#[inline]
pub(super) fn purge(
    set: &mut Set,
    now: u32,
    tally: &mut Tally,
    usable: &impl Fn(BackendIndex) -> bool,
) {
    // What is free is over, too: one mask says whether there is anything to do.
    let over = set.mask(|entry| entry.is_used() & ((entry.end() <= now) | !usable(entry.backend)));
    if over != 0 {
        free(set, over, tally);
    }
}

#[cold]
fn free(set: &mut Set, over: u32, tally: &mut Tally) {
    for (way, entry) in set.0.iter_mut().enumerate() {
        if let Some(state) = entry.state()
            && over >> way & 1 == 1
        {
            tally.remove(entry.backend, state);
            *entry = Entry::FREE;
        }
    }
}
