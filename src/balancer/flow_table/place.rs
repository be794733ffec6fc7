//! Where a flow that is not in the table may go.

use super::entry::{Set, WAYS};
use super::state::State;
use super::tally::Tally;
use crate::verdict::BackendIndex;

/// How many entries of a set unproven flows may hold: a quarter of the table at most, and of that
/// only what proven flows do not need.
const UNPROVEN_WAYS: usize = 1;

/// What a place costs; the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// Nothing; this many proven flows are beside it. Where fewer are, more can still come.
    Free(usize),
    /// This unproven flow, which would be forgotten at that tick.
    Displaces(State, u32),
}

/// A place in a set, for a flow that is in none of its entries.
#[derive(Clone, Copy)]
pub(super) struct Place {
    cost: Cost,
    pub(super) way: usize,
}

impl Place {
    /// Whether it costs less, wherever in its set it is.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        self.cost < other.cost
    }

    /// The best place that `set`, which has been [purged](purge), offers to a flow in this state.
    pub(super) fn offered(set: &Set, state: State) -> Option<Self> {
        let (mut free, mut proven, mut unproven) = (None, 0, 0);
        let mut weakest: Option<Self> = None;
        for (way, entry) in set.0.iter().enumerate() {
            match entry.state() {
                None => free = free.or(Some(way)),
                Some(held) if held.is_proven() => proven += 1,
                Some(held) => {
                    unproven += 1;
                    let place = Self { cost: Cost::Displaces(held, entry.end()), way };
                    let gives_way = held <= state;
                    if gives_way && weakest.is_none_or(|weakest| place.is_better_than(&weakest)) {
                        weakest = Some(place);
                    }
                }
            }
        }
        match free {
            Some(way) if state.is_proven() || unproven < UNPROVEN_WAYS => {
                Some(Self { cost: Cost::Free(proven), way })
            }
            _ => weakest,
        }
    }
}

/// Frees the entries of a set whose time is over or whose backend is gone.
#[inline]
pub(super) fn purge(
    set: &mut Set,
    now: u32,
    tally: &mut Tally,
    usable: &impl Fn(BackendIndex) -> bool,
) {
    for way in 0..WAYS {
        if let Some(entry) = set.0.get_mut(way)
            && let Some(state) = entry.state()
            && (entry.end() <= now || !usable(entry.backend))
        {
            tally.remove(entry.backend, state);
            *entry = super::entry::Entry::FREE;
        }
    }
}
