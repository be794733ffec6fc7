//! The way to each backend.

use super::io::Port;
use super::snapshot::{Delivery, NextHop};
use crate::addresses::addresses;
use crate::balancer::AT_HAND;
use crate::packet::{MacAddress, OuterIpv4, Tags};
use crate::verdict::BackendIndex;
use prefetch_index::prefetch_index;
use std::ops::Range;

/// Next hops by slot of the backend's index; none where no backend is or its next hop is unresolved.
#[derive(Clone, Debug, Default)]
pub struct NextHops {
    hops: Box<[Option<NextHop>]>,
    /// As far as there are any.
    links: Box<[Link]>,
    tunnels: Box<[PlainTunnel]>,
}

/// By what most packets go that need no more than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ways {
    Links,
    Tunnels,
    Both,
}

/// All that matters of the hop to a backend on the link that takes packets as they are: a third of a cache line, where a
/// hop has more than one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    index: BackendIndex,
    /// The largest IP packet it takes, in bytes; zero, so that nothing fits, where there is no such hop.
    mtu: u16,
    pub(super) port: Port,
    /// The first bytes of each frame: to whom it goes, and from whom.
    pub(super) addresses: [u8; 12],
}

/// The same of the hop to a backend behind a tunnel whose outer headers are alike for all packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainTunnel {
    pub(super) link: Link,
    pub(super) outer: OuterIpv4,
}

impl Link {
    const NONE: Self =
        Self { index: BackendIndex::new(0, 0), mtu: 0, port: Port::INGRESS, addresses: [0; 12] };

    fn to(hop: &NextHop) -> Self {
        let NextHop { index, mtu, port, .. } = *hop;
        let MacAddress([a, b, c, d, e, f]) = hop.destination;
        let MacAddress([g, h, i, j, k, l]) = hop.source;
        Self { index, mtu, port, addresses: [a, b, c, d, e, f, g, h, i, j, k, l] }
    }

    fn of(hop: &NextHop) -> Option<Self> {
        let is_plain = hop.delivery == Delivery::L2 && hop.tags == Tags::Keep;
        is_plain.then(|| Self::to(hop))
    }

    #[inline(always)]
    fn takes(&self, index: BackendIndex, length: usize) -> bool {
        self.index == index && length <= usize::from(self.mtu)
    }
}

impl PlainTunnel {
    fn of(hop: &NextHop) -> Option<Self> {
        match &hop.delivery {
            // What comes without tags goes without, unless there are to be some.
            Delivery::Tunnel(path) if !matches!(hop.tags, Tags::Set(_)) => {
                Some(Self { link: Link::to(hop), outer: path.plain()? })
            }
            _ => None,
        }
    }
}

/// What `of` makes of each of these, and `none` of the others; nothing at all if that is all.
fn table<T: Copy>(
    hops: &[Option<NextHop>],
    none: T,
    of: impl Fn(&NextHop) -> Option<T>,
) -> Box<[T]> {
    if !hops.iter().flatten().any(|hop| of(hop).is_some()) {
        return Box::default();
    }
    hops.iter().map(|hop| hop.as_ref().and_then(&of).unwrap_or(none)).collect()
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

    /// Where what packets read of this lies in memory, each by its addresses.
    pub(super) fn memory(&self) -> [Range<usize>; 2] {
        [addresses(&self.links), addresses(&self.tunnels)]
    }

    /// Whether there are links, or plain tunnels, to go by.
    #[inline]
    pub(super) fn ways(&self) -> Ways {
        match (self.links.is_empty(), self.tunnels.is_empty()) {
            (false, false) => Ways::Both,
            (_, true) => Ways::Links,
            (true, false) => Ways::Tunnels,
        }
    }

    /// That of just this backend, if there is one.
    #[inline]
    pub fn get(&self, index: BackendIndex) -> Option<&NextHop> {
        self.hops.get(index.slot())?.as_ref().filter(|hop| hop.index == index)
    }

    /// Has the ways to these backends fetched, if there are so many that they may not be at hand; says whether there are.
    #[inline(always)]
    pub(super) fn fetch(&self, indices: impl Iterator<Item = BackendIndex>) -> bool {
        let are_many = self.hops.len() > AT_HAND;
        if are_many {
            match self.ways() {
                Ways::Tunnels => {
                    indices.for_each(|index| prefetch_index(&self.tunnels, index.slot()))
                }
                Ways::Links | Ways::Both => {
                    indices.for_each(|index| prefetch_index(&self.links, index.slot()));
                }
            }
        }
        are_many
    }

    /// The link that a packet of `length` bytes goes by to just this backend, if it needs nothing but that.
    #[inline(always)]
    pub(super) fn link(&self, index: BackendIndex, length: usize) -> Option<&Link> {
        self.links.get(index.slot()).filter(|link| link.takes(index, length))
    }

    /// The tunnel that an IPv4 packet goes by to just this backend, if it needs nothing but that, and with the outer
    /// header has `length` bytes.
    #[inline(always)]
    pub(super) fn tunnel(&self, index: BackendIndex, length: usize) -> Option<&PlainTunnel> {
        self.tunnels.get(index.slot()).filter(|tunnel| tunnel.link.takes(index, length))
    }
}

impl FromIterator<Option<NextHop>> for NextHops {
    /// The first is that of slot zero.
    fn from_iter<I: IntoIterator<Item = Option<NextHop>>>(hops: I) -> Self {
        let hops: Box<[_]> = hops.into_iter().collect();
        let links = table(&hops, Link::NONE, Link::of);
        let nowhere = PlainTunnel { link: Link::NONE, outer: OuterIpv4::default() };
        Self { links, tunnels: table(&hops, nowhere, PlainTunnel::of), hops }
    }
}

impl<'a> IntoIterator for &'a NextHops {
    type Item = &'a Option<NextHop>;
    type IntoIter = std::slice::Iter<'a, Option<NextHop>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
