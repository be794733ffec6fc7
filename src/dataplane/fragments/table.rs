//! The first fragments that have been seen.

use super::{Decision, FragmentKey};
use crate::flow::{HashInput, HashKey, Timestamp};

/// Entries that compete for a place.
const SET: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FragmentKey,
    ports: (u16, u16),
    decision: Decision,
    until: u64,
}

#[derive(Debug)]
pub(super) struct Table {
    hash_key: HashKey,
    sets: Box<[[Option<Entry>; SET]]>,
}

impl Table {
    pub(super) fn new(capacity: usize, hash_key: HashKey) -> Self {
        Self { hash_key, sets: vec![[None; SET]; capacity.div_ceil(SET)].into_boxed_slice() }
    }

    fn set(&self, key: &FragmentKey) -> usize {
        self.hash_key.hash_flow(HashInput::FiveTuple, &key.0).slot(self.sets.len())
    }

    fn entry(&self, key: &FragmentKey, now: Timestamp) -> Option<&Entry> {
        let set = self.sets.get(self.set(key))?;
        let entry = set.iter().flatten().find(|entry| entry.key == *key)?;
        (entry.until > now.0).then_some(entry)
    }

    pub(super) fn find(&self, key: &FragmentKey, now: Timestamp) -> Option<Decision> {
        Some(self.entry(key, now)?.decision)
    }

    /// Whether a first fragment with other ports is known.
    pub(super) fn conflicts(&self, key: &FragmentKey, ports: (u16, u16), now: Timestamp) -> bool {
        self.entry(key, now).is_some_and(|entry| entry.ports != ports)
    }

    /// Remembers a first fragment, unless one of its datagram is known.
    pub(super) fn insert(
        &mut self,
        key: &FragmentKey,
        decision: Decision,
        ports: (u16, u16),
        now: Timestamp,
        lifetime: u64,
    ) {
        let number = self.set(key);
        let Some(set) = self.sets.get_mut(number) else {
            return;
        };
        let same = |entry: &&mut Option<Entry>| entry.is_some_and(|entry| entry.key == *key);
        let place = match set.iter_mut().find(same) {
            Some(place) => place,
            // An empty one, else the one that expires first: all live equally long.
            None => match set.iter_mut().min_by_key(|entry| entry.map_or(0, |entry| entry.until)) {
                Some(place) => place,
                None => return,
            },
        };
        if let Some(known) = place
            && known.key == *key
            && known.until > now.0
        {
            return;
        }
        let until = now.0.saturating_add(lifetime);
        *place = Some(Entry { key: *key, ports, decision, until });
    }
}
