//! Where a flow that is not in the table may go.
//!
//! What a set holds is unpredictable, so nothing here branches by it: a set is read once, into masks of
//! four bits, and places are compared as numbers.

use super::entry::{Entry, Set, WAYS};
use super::state::State;
use super::tally::Tally;
use crate::verdict::BackendIndex;

/// What the sets of a flow have for it.
pub(super) enum Offer {
    /// This place.
    At(Place),
    /// It is there already, with this backend.
    Known(BackendIndex),
    /// Nothing.
    Nowhere,
}

/// What is in a set, a bit for each entry.
#[derive(Clone, Copy)]
pub(super) struct Survey {
    /// The flow that is asked for.
    pub(super) same: u32,
    /// What [`purge`] would free.
    pub(super) over: u32,
    free: u32,
    unproven: u32,
}

impl Survey {
    pub(super) const NOTHING: Self = Self { same: 0, over: 0, free: 0, unproven: 0 };

    #[inline(always)]
    pub(super) fn of(set: &Set, key: u64, is_over: &impl Fn(&Entry) -> bool) -> Self {
        Self {
            same: set.holding(key),
            over: over(set, is_over),
            free: set.mask(|entry| !entry.is_used()),
            unproven: set.mask(Entry::is_unproven),
        }
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
    const fn displacing(entry: &Entry) -> Self {
        Self(1 << 40 | (entry.rank() as u64) << 32 | entry.end() as u64)
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
    /// The best place that set number `number`, in which nothing is over, offers to a flow in this state.
    #[inline]
    pub(super) fn offered(
        number: usize,
        set: &Set,
        survey: Survey,
        state: State,
        displaces: bool,
    ) -> Self {
        let Survey { free, unproven, .. } = survey;
        // An unproven flow is never given a place beside another one, so there is one at most.
        let weakest = unproven.trailing_zeros() as usize % WAYS;
        let displaces = displaces & (unproven != 0);
        let gives_way = |entry: &Entry| displaces & (entry.rank() <= state as u32);
        let of_unproven = match set.0.get(weakest) {
            Some(entry) if gives_way(entry) => Cost::displacing(entry),
            _ => Cost::NO_PLACE,
        };
        let proven = WAYS as u32 - (free | unproven).count_ones();
        let takes_free = (free != 0) & (state.is_proven() | (unproven == 0));
        let way = if takes_free { free.trailing_zeros() as usize } else { weakest };
        Self { cost: if takes_free { Cost::free(proven) } else { of_unproven }, set: number, way }
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

/// What is used, and over.
#[inline]
fn over(set: &Set, is_over: &impl Fn(&Entry) -> bool) -> u32 {
    set.mask(|entry| entry.is_used() & is_over(entry))
}

/// Frees the entries of a set that are over.
#[inline]
pub(super) fn purge(set: &mut Set, tally: &mut Tally, is_over: &impl Fn(&Entry) -> bool) {
    let over = over(set, is_over);
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
