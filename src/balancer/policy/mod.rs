//! Policies: how new flows are shared out among backends.

mod maglev;
mod rendezvous;

pub use maglev::{Maglev, TableSizeError};
pub use rendezvous::Rendezvous;

use super::connection::ConnectionRouter;
use crate::flow::FlowHash;
use std::fmt::Debug;
use std::sync::Arc;

/// A backend that may take new flows, as a policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// The backend's stable name.
    pub id: &'a str,
    /// Its share of new flows; never zero.
    pub weight: u16,
}

/// Builds selectors, off the packet path.
///
/// # Example
///
/// The simplest policy there is: everything to the first candidate that has the largest weight.
///
/// ```
/// use dsrlb::balancer::{Candidate, LookupTable, Policy, Selector};
///
/// #[derive(Debug)]
/// struct Heaviest;
///
/// impl Policy for Heaviest {
///     fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
///         let heaviest = (0u16..).zip(candidates).max_by_key(|(_, c)| c.weight);
///         Box::new(LookupTable::new(heaviest.map(|(position, _)| position).into_iter().collect()))
///     }
/// }
/// ```
pub trait Policy: Debug + Send + Sync {
    /// Builds the selector for these candidates, of which there may be none.
    ///
    /// They come sorted by id, without duplicates, at most 65,535 of them, so the order of the
    /// configuration cannot matter. Everything else that decides must be the same on every
    /// director too: no randomness, no clock, no floating-point functions of the platform.
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector>;

    /// The most candidates that it builds for in a time that a change may take; configurations with more
    /// backends in one service are refused. 65,535 unless it says otherwise, and never more.
    fn most_candidates(&self) -> usize {
        usize::from(u16::MAX)
    }

    /// What routes packets by their connection IDs, before their flow is looked at; none, as usual, if
    /// nothing does.
    ///
    /// `backends` are the ids of all backends of the service, sorted, without duplicates: those that
    /// take no new flows too, as connections stay where they are.
    fn connections(&self, _backends: &[&str]) -> Option<Box<dyn ConnectionRouter>> {
        None
    }

    /// What the selectors depend on besides the candidates, as a text that no other policy has: two
    /// policies with the same text build the same. So one that is configured anew, with nothing
    /// changed, need not build again. None: nothing can be said.
    fn fingerprint(&self) -> Option<String> {
        None
    }
}

impl<T: Policy + ?Sized> Policy for Box<T> {
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        (**self).build(candidates)
    }
    fn most_candidates(&self) -> usize {
        (**self).most_candidates()
    }
    fn connections(&self, backends: &[&str]) -> Option<Box<dyn ConnectionRouter>> {
        (**self).connections(backends)
    }
    fn fingerprint(&self) -> Option<String> {
        (**self).fingerprint()
    }
}

impl<T: Policy + ?Sized> Policy for Arc<T> {
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        (**self).build(candidates)
    }
    fn most_candidates(&self) -> usize {
        (**self).most_candidates()
    }
    fn connections(&self, backends: &[&str]) -> Option<Box<dyn ConnectionRouter>> {
        (**self).connections(backends)
    }
    fn fingerprint(&self) -> Option<String> {
        (**self).fingerprint()
    }
}

/// Chooses a candidate for a flow; immutable, and shared by all workers.
pub trait Selector: Debug + Send + Sync {
    /// The position of the chosen backend among the candidates that the selector was built from;
    /// none if there were none.
    fn select(&self, hash: FlowHash) -> Option<u16>;

    /// If it is a table that [`FlowHash::slot`] indexes: its slots, each the position of a candidate.
    /// They tell exactly what share of new flows a change moves.
    fn slots(&self) -> Option<&[u16]> {
        None
    }
}

impl<T: Selector + ?Sized> Selector for Box<T> {
    fn select(&self, hash: FlowHash) -> Option<u16> {
        (**self).select(hash)
    }
    fn slots(&self) -> Option<&[u16]> {
        (**self).slots()
    }
}

/// A selector that is a table: the hash picks a slot, the slot names a candidate.
///
/// Both stock policies build one, so a packet costs one multiplication and one load whichever of
/// them is used. Two bytes a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LookupTable {
    slots: Box<[u16]>,
}

impl LookupTable {
    /// A table of these slots, each the position of a candidate. May be empty.
    pub fn new(slots: Box<[u16]>) -> Self {
        Self { slots }
    }

    /// The slots, in order.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }
}

impl Selector for LookupTable {
    #[inline]
    fn select(&self, hash: FlowHash) -> Option<u16> {
        self.slots.get(hash.slot(self.slots.len())).copied()
    }

    fn slots(&self) -> Option<&[u16]> {
        Some(&self.slots)
    }
}

/// How many slots each candidate has, for the tests of both policies.
#[cfg(test)]
pub(crate) fn shares(table: &LookupTable, candidates: usize) -> Vec<usize> {
    let mut shares = vec![0; candidates];
    for slot in table.slots() {
        shares[usize::from(*slot)] += 1;
    }
    shares
}

/// SipHash of all slots as two little-endian bytes each, for the tests of both policies.
#[cfg(test)]
pub(crate) fn digest(table: &LookupTable) -> u64 {
    let bytes: Vec<u8> = table.slots().iter().flat_map(|slot| slot.to_le_bytes()).collect();
    crate::flow::HashKey::default().hash_bytes(&bytes)
}
