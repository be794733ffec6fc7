//! What is done for the table as a whole: expiry, and copies of what is in it.

use super::entry::Entry;
use super::set::Set;
use super::times::Clock;
use super::{FlowKey, FlowTable, State};
use crate::flow::Timestamp;
use crate::verdict::BackendIndex;
use aligned_vec::AVec;
use std::ops::Range;
use std::time::Duration;

/// A flow as another table can learn of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowRecord {
    /// The flow. It says the same to tables with the same hash key only.
    pub key: FlowKey,
    /// Its backend, by the index it has here.
    pub backend: BackendIndex,
    /// What is known of it.
    pub state: State,
    /// For how much longer it is remembered if nothing is heard of it; whole ticks of 2^27 ns, about 134 ms.
    pub remaining: Duration,
}

impl FlowTable {
    /// Looks at the next `budget` sets and frees what is over there. To be called once a batch: then
    /// flows end by themselves, and the counts of live flows are right within one round of
    /// [`FlowTable::sets`].
    ///
    /// The whole table is swept where [`FlowTable::tick`] sets its clock anew.
    pub fn sweep(&mut self, now: Timestamp, budget: usize, usable: impl Fn(BackendIndex) -> bool) {
        let now = self.tick(now).ticks;
        let is_over = |entry: &Entry| entry.life.end() <= now || !usable(entry.backend);
        for _ in 0..budget.min(self.sets.len()) {
            if let Some(set) = self.sets.get_mut(self.swept) {
                set.purge(&mut self.tally, &is_over);
            }
            self.swept = if self.swept + 1 < self.sets.len() { self.swept + 1 } else { 0 };
        }
    }

    #[inline]
    pub(super) fn rebase(&mut self, now: Timestamp) {
        if let Some(moved) = self.clock.rebase(now) {
            self.move_up(moved);
        }
    }

    #[cold]
    fn move_up(&mut self, moved: u32) {
        for set in self.sets.iter_mut() {
            set.purge(&mut self.tally, &|entry| entry.life.end() <= moved);
            for (way, entry) in set.entries().enumerate() {
                set.set_life(way, entry.life.moved(moved));
            }
        }
    }

    /// The flows that are alive in these sets; a few sets at a time, if need be.
    pub fn records(&self, sets: Range<usize>, now: Timestamp) -> impl Iterator<Item = FlowRecord> {
        self.records_of(sets, now, |_| true)
    }

    /// Those of them that are proven, and were heard of here since another director told of them.
    pub fn own_records(
        &self,
        sets: Range<usize>,
        now: Timestamp,
    ) -> impl Iterator<Item = FlowRecord> {
        let proven = |entry: &Entry| entry.life.state().is_some_and(State::is_proven);
        self.records_of(sets, now, move |entry| !entry.life.is_told() && proven(entry))
    }

    fn records_of(
        &self,
        sets: Range<usize>,
        now: Timestamp,
        is_wanted: impl Fn(&Entry) -> bool,
    ) -> impl Iterator<Item = FlowRecord> {
        let now = self.clock.ticks(now);
        let end = sets.end.min(self.sets.len());
        let sets = self.sets.get(sets.start.min(end)..end).unwrap_or_default();
        let record = move |entry: Entry| {
            let left = entry.life.end().saturating_sub(now);
            let state = entry.life.state().filter(|_| left > 0 && is_wanted(&entry))?;
            let remaining = Clock::duration(left);
            Some(FlowRecord { key: FlowKey(entry.key), backend: entry.backend, state, remaining })
        };
        sets.iter().flat_map(Set::entries).filter_map(record)
    }

    /// A table of the sets that a flow may be in, and of nothing else: whatever is done there for that
    /// flow has the result that it would have here.
    pub(in crate::balancer) fn excerpt(&self, key: FlowKey) -> Self {
        let [first, second] = self.sets_of(key);
        let set = |number: usize| self.sets.get(number).copied().unwrap_or(Set::FREE);
        let count = if first == second { 1 } else { 2 };
        let sets = AVec::from_iter(align_of::<Set>(), std::iter::repeat_n(set(first), count));
        let sets = sets.into_boxed_slice();
        let mut excerpt = Self { sets, swept: 0, tally: self.tally.clone(), ..*self };
        let [_, other] = excerpt.sets_of(key);
        if let Some(place) = excerpt.sets.get_mut(other) {
            *place = set(second);
        }
        excerpt
    }

    /// What is known of a flow, unless its time is over.
    pub(in crate::balancer) fn record(&self, key: FlowKey, now: Timestamp) -> Option<FlowRecord> {
        let [first, second] = self.sets_of(key);
        let of = |set: usize| self.records(set..set + 1, now).find(|record| record.key == key);
        of(first).or_else(|| of(second))
    }
}
