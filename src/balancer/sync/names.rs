//! What directors call a backend between them.

use crate::balancer::VipKey;
use crate::flow::HashKey;
use crate::verdict::BackendIndex;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;

/// No secret: names are made of the configuration, in which nobody puts two that meet.
const KEY: HashKey = HashKey::new(*b"dsrlb sync names");
/// Two that meet stand for neither.
const NOBODY: Option<BackendIndex> = None;

/// The names of backends in [`SharedFlow`](super::SharedFlow)s: an index means something to one director
/// alone.
///
/// A name is the SipHash-1-3, under the key `dsrlb sync names` (ASCII), of the service's key as text (as
/// in `10.0.0.100:80/tcp`), a line feed and the backend's id. Two of `n` backends have one name with a
/// probability of `n * n / 2^65`; their flows are not shared then.
#[derive(Clone, Debug, Default)]
pub struct BackendNames {
    /// By slot.
    names: Box<[Option<(BackendIndex, u64)>]>,
    indices: HashMap<u64, Option<BackendIndex>, FixedState>,
    count: usize,
}

impl BackendNames {
    /// The names of these backends. No two of them have the same slot.
    pub fn new<'a>(
        backends: impl IntoIterator<Item = (BackendIndex, VipKey, &'a str), IntoIter: Clone>,
    ) -> Self {
        let backends = backends.into_iter();
        let slots = backends.clone().map(|(index, ..)| index.slot() + 1).max().unwrap_or_default();
        let mut new = Self { names: vec![None; slots].into_boxed_slice(), ..Self::default() };
        let mut text = String::new();
        for (index, service, id) in backends {
            text.clear();
            // Writing to a string does not fail.
            let _ = write!(text, "{service}\n{id}");
            let name = KEY.hash_bytes(text.as_bytes());
            match new.indices.entry(name) {
                Entry::Vacant(place) => drop(place.insert(Some(index))),
                Entry::Occupied(mut place) => drop(place.insert(NOBODY)),
            }
            if let Some(slot) = new.names.get_mut(index.slot()) {
                *slot = Some((index, name));
            }
            new.count += 1;
        }
        new
    }

    /// Whether these are the names of just these backends, as far as an index tells a backend.
    pub fn are_of(&self, mut backends: impl ExactSizeIterator<Item = BackendIndex>) -> bool {
        backends.len() == self.count && backends.all(|index| self.name(index).is_some())
    }

    /// The name of a backend.
    #[inline]
    pub fn name(&self, backend: BackendIndex) -> Option<u64> {
        let (index, name) = (*self.names.get(backend.slot())?)?;
        (index == backend).then_some(name)
    }

    /// The backend of this name, if just one has it.
    #[inline]
    pub fn backend(&self, name: u64) -> Option<BackendIndex> {
        self.indices.get(&name).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip() -> VipKey {
        "10.0.0.100:80/tcp".parse().unwrap()
    }

    #[test]
    fn names_are_as_specified_and_lead_back() {
        let (a, b) = (BackendIndex::new(3, 1), BackendIndex::new(0, 0));
        let names = BackendNames::new([(a, vip(), "a"), (b, vip(), "b")]);
        let expected = HashKey::new(*b"dsrlb sync names").hash_bytes(b"10.0.0.100:80/tcp\na");
        assert_eq!(names.name(a), Some(expected));
        assert_ne!(names.name(a), names.name(b));
        for index in [a, b] {
            assert_eq!(names.backend(names.name(index).unwrap()), Some(index));
        }
        // Another generation, and slots between and behind.
        for stranger in [BackendIndex::new(3, 0), BackendIndex::new(1, 0), BackendIndex::new(9, 0)]
        {
            assert_eq!(names.name(stranger), None);
        }
        assert_eq!(names.backend(expected ^ 1), None);
        assert!(names.are_of([b, a].into_iter()));
        assert!(!names.are_of([b].into_iter()));
        assert!(!names.are_of([b, BackendIndex::new(3, 2)].into_iter()));
    }

    #[test]
    fn what_has_one_name_is_named_by_none() {
        let [a, b] = [0, 1].map(|slot| BackendIndex::new(slot, 0));
        let names = BackendNames::new([(a, vip(), "a"), (b, vip(), "a")]);
        assert_eq!(names.backend(names.name(a).unwrap()), None);
    }
}
