//! Where a flow that is not in the table may go.
//!
//! What a set holds is unpredictable, so nothing here branches by it: a set is read once, into a bit or two for
//! each entry, a table says what these come to, and offers are compared as numbers.

use super::entry::Life;
use super::set::{Set, WAYS};
use super::state::State;

/// What a set of which nothing is over has for a newcomer: a free entry, below the number of proven flows beside it,
/// or [`Offer::TAKEN`] and the entry of the unproven flow. The first entry if there is neither: it is proven.
#[derive(Clone, Copy)]
pub(super) struct Offer(u8);

/// By which entries are free, and above those, which are proven.
type Offers = [Offer; 1 << (2 * WAYS)];

/// For a newcomer that is not proven: none is given a place beside another one, so there is one at most. Then for one
/// that is.
const OFFERS: [Offers; 2] = [offers(false), offers(true)];

const fn offers(is_proven: bool) -> Offers {
    let mut all = [Offer(0); 1 << (2 * WAYS)];
    let mut number = 0;
    while number < all.len() {
        let (free, proven) = (number % (1 << WAYS), number >> WAYS);
        let unproven = ((1 << WAYS) - 1) & !free & !proven;
        let is_free = free != 0 && (is_proven || unproven == 0);
        let ways = if is_free { free } else { unproven };
        let way = (ways.trailing_zeros() as usize % WAYS) as u8;
        let beside = (proven.count_ones() as u8) << Offer::WAY_BITS;
        all[number] = Offer(way | if is_free { beside } else { Offer::TAKEN });
        number += 1;
    }
    all
}

impl Offer {
    const WAY_BITS: u32 = WAYS.ilog2();
    const WAY: u8 = WAYS as u8 - 1;
    const TAKEN: u8 = 1 << 7;

    /// For a flow with this life.
    #[inline(always)]
    pub(super) fn of(set: &Set, newcomer: Life) -> Self {
        let [unproven, proven] = &OFFERS;
        let offers = if newcomer.is_proven() { proven } else { unproven };
        offers[usize::from(set.free_and_proven())]
    }

    #[inline(always)]
    pub(super) const fn is_free(self) -> bool {
        self.0 & Self::TAKEN == 0
    }

    /// Whether fewer proven flows are beside it: where fewer are, more can still come. What is free is better than
    /// what is taken.
    #[inline(always)]
    pub(super) const fn is_better(self, other: Self) -> bool {
        self.0 | Self::WAY < other.0
    }

    #[inline(always)]
    pub(super) const fn way(self) -> usize {
        (self.0 & Self::WAY) as usize
    }
}

/// What it costs to take a flow's place; the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost(u32);

impl Cost {
    /// Displacing an unproven flow costs less than this if a newcomer with this life may do that; displacing a proven
    /// one costs more.
    #[inline]
    pub(super) const fn limit(newcomer: Life) -> Self {
        let rank = if newcomer.is_proven() { State::Single as u32 } else { newcomer.rank() };
        Self(Life::beyond(rank))
    }

    /// No displacing costs less.
    pub(super) const NONE: Self = Self(Life::beyond(0));

    /// Of unproven flows a SYN before others, then what would be forgotten first.
    #[inline]
    pub(super) const fn displacing(life: Life) -> Self {
        Self(life.rank_first())
    }
}

const _: () = assert!(Offer::WAY as usize == (1 << Offer::WAY_BITS) - 1);
const _: () = assert!(State::Opening as u32 == 1 && State::Single as u32 == 2);
