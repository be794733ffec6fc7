//! Which index a backend has, for as long as it is configured.

use super::service::VipKey;
use crate::verdict::BackendIndex;
use std::collections::{HashMap, HashSet, VecDeque};

/// Gives each backend of each service an index that stays the same until the backend is removed.
///
/// A slot that becomes free is used again as late as possible and with the next generation, so an
/// index that someone kept names a stranger only after its slot has been given out 2,048 times
/// more.
#[derive(Clone, Debug)]
pub struct IndexRegistry {
    held: HashMap<VipKey, HashMap<String, BackendIndex>>,
    free: VecDeque<BackendIndex>,
    used: usize,
    capacity: usize,
}

impl IndexRegistry {
    /// A registry for at most `capacity` backends at a time, all services together.
    pub fn new(capacity: usize) -> Self {
        Self {
            held: HashMap::new(),
            free: VecDeque::new(),
            used: 0,
            capacity: capacity.min(BackendIndex::MAX_SLOTS),
        }
    }

    /// The index of this backend, a new one if it has none; none if there is no room.
    pub fn index(&mut self, service: VipKey, id: &str) -> Option<BackendIndex> {
        let held = self.held.entry(service).or_default();
        if let Some(index) = held.get(id) {
            return Some(*index);
        }
        // Fresh slots first: a freed one rests for as long as there are others.
        let index = if self.used < self.capacity {
            self.used += 1;
            BackendIndex::new(self.used - 1, 0)
        } else {
            self.free.pop_front()?
        };
        held.insert(id.to_owned(), index);
        Some(index)
    }

    /// Frees the index of every backend that is not in `keep`.
    pub fn retain(&mut self, keep: &HashSet<(VipKey, &str)>) {
        let mut gone: Vec<BackendIndex> = Vec::new();
        self.held.retain(|service, held| {
            let left = held.extract_if(|id, _| !keep.contains(&(*service, id.as_str())));
            gone.extend(left.map(|(_, index)| index));
            !held.is_empty()
        });
        gone.sort_unstable();
        let next = |index: BackendIndex| BackendIndex::new(index.slot(), index.generation() + 1);
        self.free.extend(gone.into_iter().map(next));
    }

    /// How many slots have ever been used: the length of an array indexed by slot.
    pub fn slots(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_kept_and_a_reused_slot_has_another_generation() {
        let vip: VipKey = "10.0.0.100:80/tcp".parse().unwrap();
        let mut registry = IndexRegistry::new(2);
        let a = registry.index(vip, "a").unwrap();
        let b = registry.index(vip, "b").unwrap();
        assert_ne!(a, b);
        assert_eq!(registry.index(vip, "a"), Some(a));
        assert_eq!(registry.index(vip, "c"), None, "full");

        registry.retain(&HashSet::from([(vip, "b")]));
        let c = registry.index(vip, "c").unwrap();
        assert_eq!(c.slot(), a.slot());
        assert_ne!(c, a);
        assert_eq!(registry.index(vip, "b"), Some(b));
        assert_eq!(registry.slots(), 2);
    }

    #[test]
    fn freed_slots_rest_as_long_as_possible_and_are_used_again_in_order() {
        let vip: VipKey = "10.0.0.100:80/tcp".parse().unwrap();
        let mut registry = IndexRegistry::new(4);
        let slot = |registry: &mut IndexRegistry, id: &str| {
            let index = registry.index(vip, id).unwrap();
            (index.slot(), index.generation())
        };
        for (id, number) in [("a", 0), ("b", 1), ("c", 2)] {
            assert_eq!(slot(&mut registry, id), (number, 0));
        }
        registry.retain(&HashSet::from([(vip, "b")]));
        assert_eq!(slot(&mut registry, "d"), (3, 0), "a fresh one first");
        registry.retain(&HashSet::from([(vip, "d")]));
        let reused = ["e", "f", "g"].map(|id| slot(&mut registry, id));
        assert_eq!(reused, [(0, 1), (2, 1), (1, 1)], "the longest free first");
        let limit = IndexRegistry::new(usize::MAX).capacity;
        assert_eq!(limit, BackendIndex::MAX_SLOTS);
    }
}
