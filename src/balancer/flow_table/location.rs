//! Where in the table a flow is.

use super::set::WAYS;
use super::{FlowKey, FlowTable};
use crate::flow::FlowHash;
use crate::verdict::BackendIndex;
use prefetch_index::prefetch_index;

/// How many flows are located at a time; a driver lends no more packets at once.
const LOCATED: usize = 64;
/// How many of those are looked for before the second sets of what was not found are fetched.
const AT_A_TIME: usize = 16;

/// Where a flow is in the table, or that it was not found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Of a flow that was not found, the second one of its two.
    pub(super) set: u32,
    pub(super) way: u32,
}

/// Flows of a batch, and where each of them is.
#[derive(Debug)]
pub struct Located {
    flows: [(FlowKey, Spot); LOCATED],
    count: usize,
}

impl Located {
    /// In the order in which they were looked for.
    #[inline(always)]
    pub fn flows(&self) -> &[(FlowKey, Spot)] {
        self.flows.get(..self.count).unwrap_or_default()
    }
}

impl Spot {
    const NOT_FOUND: u32 = WAYS as u32;
    /// Of what was not looked for.
    pub const UNKNOWN: Self = Self { set: 0, way: Self::NOT_FOUND + 1 };

    /// Whether the flow was found.
    #[inline]
    pub const fn is_found(self) -> bool {
        self.way < Self::NOT_FOUND
    }

    /// Whether the flow was looked for in vain.
    #[inline]
    pub const fn is_missing(self) -> bool {
        self.way == Self::NOT_FOUND
    }
}

impl FlowTable {
    /// The two sets that a flow may be in; the same twice if there is only one.
    #[inline]
    pub(super) fn sets_of(&self, key: FlowKey) -> [usize; 2] {
        let first = self.first_set(key);
        [first, self.second_set(first as u32, key)]
    }

    /// The other one than the first.
    #[inline]
    fn second_set(&self, first: u32, key: FlowKey) -> usize {
        let count = self.sets.len();
        let others = count.saturating_sub(1);
        let further =
            first as usize + usize::from(others > 0) + FlowHash(key.0.rotate_left(32)).slot(others);
        if further < count { further } else { further - count }
    }

    /// The set that a flow is looked for first.
    #[inline]
    pub(super) fn first_set(&self, key: FlowKey) -> usize {
        FlowHash(key.0).slot(self.sets.len())
    }

    /// Where each of at most 64 flows is, if it is anywhere.
    ///
    /// The first set that each may be in is fetched as soon as its key is worked out, and then the second one of those that
    /// are not in the first, where three of four are: so the cache misses of a batch overlap, where
    /// [`FlowTable::lookup`] would wait for one after the other.
    #[inline(always)]
    pub fn locate(&self, keys: impl IntoIterator<Item = FlowKey>) -> Located {
        // Zero, so that it is quickly written.
        let mut flows = [(FlowKey(0), Spot { set: 0, way: 0 }); LOCATED];
        let mut count = 0;
        for ((place, spot), key) in flows.iter_mut().zip(keys) {
            let first = self.first_set(key);
            prefetch_index(&self.sets, first);
            (*place, spot.set) = (key, first as u32);
            count += 1;
        }
        self.look_for(flows.get_mut(..count).unwrap_or_default());
        Located { flows, count }
    }

    /// Looks for flows of which the first set is noted.
    #[inline(never)]
    fn look_for(&self, flows: &mut [(FlowKey, Spot)]) {
        // Noted and not branched to: whether it is in the first cannot be predicted.
        let (mut elsewhere, mut missing) = ([0u8; LOCATED], 0);
        // Some at a time, so that by the time a second set is looked at it has long been on its way.
        for (number, some) in (0..).zip(flows.chunks_mut(AT_A_TIME)) {
            let before = missing;
            for (position, (key, spot)) in (number * AT_A_TIME as u8..).zip(&mut *some) {
                if let Some(place) = elsewhere.get_mut(missing) {
                    *place = position;
                }
                *spot = self.look(spot.set, *key);
                missing += usize::from(spot.is_missing());
            }
            for position in elsewhere.get(before..missing).unwrap_or_default() {
                if let Some((key, spot)) = some.get_mut(usize::from(*position) % AT_A_TIME) {
                    let second = self.second_set(spot.set, *key);
                    prefetch_index(&self.sets, second);
                    spot.set = second as u32;
                }
            }
        }
        for position in elsewhere.get(..missing).unwrap_or_default() {
            if let Some((key, spot)) = flows.get_mut(usize::from(*position)) {
                *spot = self.look(spot.set, *key);
            }
        }
    }

    /// Where flows go that have been located, as far as they were found.
    #[inline(always)]
    pub(in crate::balancer) fn backends(
        &self,
        located: &Located,
    ) -> impl Iterator<Item = BackendIndex> {
        let found = located.flows().iter().filter(|(_, spot)| spot.is_found());
        found.filter_map(|(_, spot)| {
            Some(self.sets.get(spot.set as usize)?.backend(spot.way as usize))
        })
    }

    /// The same for a single flow; the second set is only looked at if it is not in the first.
    #[inline]
    pub fn locate_one(&self, key: FlowKey) -> Spot {
        let spot = self.look(self.first_set(key) as u32, key);
        if spot.is_missing() { self.look(self.second_set(spot.set, key) as u32, key) } else { spot }
    }

    /// Where a flow is in a set.
    #[inline]
    fn look(&self, set: u32, key: FlowKey) -> Spot {
        let way = match self.sets.get(set as usize) {
            Some(found) => found.holding(key.0).first(),
            None => Spot::NOT_FOUND,
        };
        Spot { set, way }
    }

    /// In which set a flow is, alive or not, and where in it.
    #[inline]
    pub(super) fn find(&self, key: FlowKey) -> Option<(usize, usize)> {
        let spot = self.locate_one(key);
        spot.is_found().then_some((spot.set as usize, spot.way as usize))
    }
}
