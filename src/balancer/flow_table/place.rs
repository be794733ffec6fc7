//! Where a flow that is not in the table may go.
//!
//! What a set holds is unpredictable, so nothing here branches by it: a set is read once, into masks of
//! four bits, a table says what these come to, and places are compared as numbers.

use super::entry::Life;
use super::set::{Set, WAYS};
use super::state::State;
use std::hint::select_unpredictable;

/// What a set of which nothing is over has for a newcomer.
#[derive(Clone, Copy)]
struct Vacancy {
    /// The first free entry, or that of the unproven flow. The first entry if there is neither: it is proven.
    way: u8,
    /// How many proven flows are beside it.
    proven: u8,
    is_free: bool,
}

/// By which entries are free, below which are free or unproven.
type Vacancies = [Vacancy; 1 << (2 * WAYS)];

/// For a newcomer that is not proven: none is given a place beside another one, so there is one at most.
const UNPROVEN: Vacancies = vacancies(false);
const PROVEN: Vacancies = vacancies(true);

const fn vacancies(is_proven: bool) -> Vacancies {
    let mut all = [Vacancy { way: 0, proven: 0, is_free: false }; 1 << (2 * WAYS)];
    let mut number = 0;
    while number < all.len() {
        let (open, free) = (number % (1 << WAYS), number >> WAYS);
        let unproven = open & !free;
        let is_free = free != 0 && (is_proven || unproven == 0);
        let ways = if is_free { free } else { unproven };
        all[number] = Vacancy {
            way: (ways.trailing_zeros() as usize % WAYS) as u8,
            proven: (WAYS as u32 - open.count_ones()) as u8,
            is_free,
        };
        number += 1;
    }
    all
}

impl Vacancy {
    #[inline(always)]
    fn of(set: &Set, state: State) -> Self {
        let number = (set.free().bits() << WAYS | set.open().bits()) as usize;
        let all = if state.is_proven() { &PROVEN } else { &UNPROVEN };
        all[number % all.len()]
    }
}

/// What a place costs; the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost(u32);

impl Cost {
    const NO_PLACE: Self = Self(u32::MAX);

    /// Displacing an unproven flow costs less than this if a newcomer in this state may do that; displacing a proven
    /// one costs more.
    #[inline]
    pub(super) const fn limit(newcomer: State) -> Self {
        let rank = if newcomer.is_proven() { State::Single } else { newcomer } as u32;
        Self(Life::beyond(rank))
    }

    /// No displacing costs less.
    pub(super) const NONE: Self = Self(Life::beyond(0));

    /// Nothing; so many proven flows are beside it. Where fewer are, more can still come.
    #[inline]
    const fn free(proven: u8) -> Self {
        Self(proven as u32)
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
    /// The best one in this set, which has number `set`, for a flow in this state. An unproven one there gives way if
    /// it costs less than `limit`; what is proven is beyond any.
    #[inline(always)]
    pub(super) fn of(set: &Set, number: usize, state: State, limit: Cost) -> Self {
        let Vacancy { way, proven, is_free } = Vacancy::of(set, state);
        let way = way.into();
        let guest = Cost::displacing(set.life(way));
        let displacing = select_unpredictable(guest < limit, guest, Cost::NO_PLACE);
        Self {
            cost: select_unpredictable(is_free, Cost::free(proven), displacing),
            set: number,
            way,
        }
    }

    /// The cheaper one, the first if they are equal; none if neither is any.
    #[inline]
    pub(super) fn better(self, other: Self) -> Option<Self> {
        let better = select_unpredictable(other.cost < self.cost, other, self);
        (better.cost != Cost::NO_PLACE).then_some(better)
    }
}
