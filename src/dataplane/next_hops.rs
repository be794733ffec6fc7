//! The way to each backend.

use super::io::Port;
use super::snapshot::{Delivery, NextHop};
use crate::packet::{MacAddress, Tags};
use crate::verdict::BackendIndex;

/// Next hops by slot of the backend's index; none where no backend is or its next hop is unresolved.
#[derive(Clone, Debug, Default)]
pub struct NextHops {
    hops: Box<[Option<NextHop>]>,
    links: Box<[Link]>,
}

/// All that matters of the hop to a backend on the link that takes packets as they are: a third of a cache line, where a
/// hop has more than one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    index: BackendIndex,
    /// The largest IP packet it takes, in bytes: nothing where this is all that matters of no hop.
    pub(super) mtu: u16,
    pub(super) port: Port,
    /// The first bytes of each frame: to whom it goes, and from whom.
    pub(super) addresses: [u8; 12],
}

impl Link {
    const NONE: Self =
        Self { index: BackendIndex::new(0, 0), mtu: 0, port: Port::INGRESS, addresses: [0; 12] };

    fn of(hop: &Option<NextHop>) -> Self {
        match *hop {
            Some(NextHop {
                index,
                destination: MacAddress([a, b, c, d, e, f]),
                source: MacAddress([g, h, i, j, k, l]),
                port,
                tags: Tags::Keep,
                mtu,
                delivery: Delivery::L2,
            }) => Self { index, mtu, port, addresses: [a, b, c, d, e, f, g, h, i, j, k, l] },
            _ => Self::NONE,
        }
    }
}

impl NextHops {
    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// All slots in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Option<NextHop>> {
        self.hops.iter()
    }

    /// That of just this backend, if there is one.
    #[inline]
    pub fn get(&self, index: BackendIndex) -> Option<&NextHop> {
        self.hops.get(index.slot())?.as_ref().filter(|hop| hop.index == index)
    }

    /// The link that a packet of `length` bytes goes by to just this backend, if it needs nothing but that.
    #[inline(always)]
    pub(super) fn link(&self, index: BackendIndex, length: usize) -> Option<&Link> {
        self.links
            .get(index.slot())
            .filter(|link| link.index == index && length <= usize::from(link.mtu))
    }
}

impl FromIterator<Option<NextHop>> for NextHops {
    fn from_iter<I: IntoIterator<Item = Option<NextHop>>>(hops: I) -> Self {
        let hops: Box<[_]> = hops.into_iter().collect();
        Self { links: hops.iter().map(Link::of).collect(), hops }
    }
}

impl<'a> IntoIterator for &'a NextHops {
    type Item = &'a Option<NextHop>;
    type IntoIter = std::slice::Iter<'a, Option<NextHop>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
