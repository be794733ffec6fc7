//! Which index a backend has, for as long as it is configured.

use super::service::VipKey;
use crate::verdict::BackendIndex;
use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque};

/// Gives each backend of each service an index that stays the same until the backend is removed.
///
/// A slot that becomes free is used again as late as possible and with the next generation, so an
/// index that someone kept names a stranger only after its slot has been given out 2,048 times
/// more.
#[derive(Clone, Debug)]
pub struct IndexRegistry {
    held: HashMap<VipKey, HashMap<String, Held, RandomState>, RandomState>,
    free: VecDeque<BackendIndex>,
    used: usize,
    capacity: usize,
    /// Counts calls; what a call has not named is gone.
    call: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    index: BackendIndex,
    /// When it was named last.
    call: u64,
}

impl IndexRegistry {
    /// A registry for at most `capacity` backends at a time, all services together.
    pub fn new(capacity: usize) -> Self {
        Self {
            held: HashMap::default(),
            free: VecDeque::new(),
            used: 0,
            capacity: capacity.min(BackendIndex::MAX_SLOTS),
            call: 0,
        }
    }

    /// The indices of these backends, which are all that there are from now on, in their order: a new one for each that
    /// had none; none if there is no room. Those of one service are best named in a row.
    pub fn indices<'a>(
        &mut self,
        backends: impl Iterator<Item = (VipKey, &'a str)> + Clone,
    ) -> Vec<Option<BackendIndex>> {
        self.call += 1;
        let call = self.call;
        let mut indices = Vec::with_capacity(backends.size_hint().0);
        let mut current = None;
        for (service, id) in backends.clone() {
            if current.as_ref().is_none_or(|(of, _)| *of != service) {
                current = Some((service, self.held.get_mut(&service)));
            }
            let held = current.as_mut().and_then(|(_, held)| held.as_mut()?.get_mut(id));
            indices.push(held.map(|held| {
                held.call = call;
                held.index
            }));
        }
        self.forget();
        for (index, (service, id)) in indices.iter_mut().zip(backends) {
            if index.is_none() {
                *index = self.add(service, id);
            }
        }
        indices
    }

    /// Frees the index of every backend that has not been named in this call.
    fn forget(&mut self) {
        let call = self.call;
        let mut gone: Vec<BackendIndex> = Vec::new();
        self.held.retain(|_, held| {
            gone.extend(held.extract_if(|_, held| held.call != call).map(|(_, held)| held.index));
            !held.is_empty()
        });
        gone.sort_unstable();
        let next = |index: BackendIndex| BackendIndex::new(index.slot(), index.generation() + 1);
        self.free.extend(gone.into_iter().map(next));
    }

    /// A new index, unless the backend has been named twice.
    fn add(&mut self, service: VipKey, id: &str) -> Option<BackendIndex> {
        let held = self.held.entry(service).or_default();
        if let Some(known) = held.get(id) {
            return Some(known.index);
        }
        // Fresh slots first: a freed one rests for as long as there are others.
        let index = if self.used < self.capacity {
            self.used += 1;
            BackendIndex::new(self.used - 1, 0)
        } else {
            self.free.pop_front()?
        };
        held.insert(id.to_owned(), Held { index, call: self.call });
        Some(index)
    }

    /// How many slots have ever been used: the length of an array indexed by slot.
    pub fn slots(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip() -> VipKey {
        "10.0.0.100:80/tcp".parse().unwrap()
    }

    fn indices(registry: &mut IndexRegistry, ids: &[&str]) -> Vec<Option<BackendIndex>> {
        registry.indices(ids.iter().map(|id| (vip(), *id)))
    }

    #[test]
    fn an_index_is_kept_and_a_reused_slot_has_another_generation() {
        let mut registry = IndexRegistry::new(2);
        let [Some(a), Some(b), None] = indices(&mut registry, &["a", "b", "c"])[..] else {
            panic!("room for two")
        };
        assert_ne!(a, b);
        assert_eq!(indices(&mut registry, &["b", "a"]), [Some(b), Some(a)]);
        // What is no longer named makes room in the same call.
        let [Some(c), kept] = indices(&mut registry, &["c", "b"])[..] else { panic!("room") };
        assert_eq!((c.slot(), kept), (a.slot(), Some(b)));
        assert_ne!(c, a);
        assert_eq!(registry.slots(), 2);
    }

    #[test]
    fn freed_slots_rest_as_long_as_possible_and_are_used_again_in_order() {
        let mut registry = IndexRegistry::new(4);
        let mut slots = |ids: &[&str]| -> Vec<(usize, u32)> {
            let indices = indices(&mut registry, ids);
            indices.into_iter().flatten().map(|index| (index.slot(), index.generation())).collect()
        };
        assert_eq!(slots(&["a", "b", "c"]), [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(slots(&["b", "d"]), [(1, 0), (3, 0)], "a fresh one first");
        assert_eq!(slots(&["d"]), [(3, 0)]);
        let reused = slots(&["d", "e", "f", "g"]);
        assert_eq!(reused, [(3, 0), (0, 1), (2, 1), (1, 1)], "the longest free first");
        let limit = IndexRegistry::new(usize::MAX).capacity;
        assert_eq!(limit, BackendIndex::MAX_SLOTS);
    }

    #[test]
    fn services_have_backends_of_their_own_in_whatever_order_they_are_named() {
        let other: VipKey = "10.0.0.100:443/tcp".parse().unwrap();
        let mut registry = IndexRegistry::new(8);
        let mixed = [(vip(), "a"), (other, "a"), (vip(), "b"), (other, "a")];
        let first = registry.indices(mixed.into_iter());
        assert_eq!(first[1], first[3], "named twice, it has one index");
        let sorted = [(vip(), "a"), (vip(), "b"), (other, "a")];
        assert_eq!(registry.indices(sorted.into_iter()), [first[0], first[2], first[1]]);
        assert_eq!(registry.slots(), 3);
    }
}
