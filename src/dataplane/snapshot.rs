//! Everything the packet path reads, in one immutable value.
//!
//! Services and next hops are published together, so no packet ever sees a backend of one
//! configuration with the MAC address of another.

use super::io::Port;
use super::next_hops::NextHops;
use crate::balancer::ServiceTable;
use crate::forwarding::{Dscp, ProbeSources};
use crate::packet::{MacAddress, Tags, TunnelPath};
use crate::verdict::BackendIndex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

/// How a backend is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// Whose next hop this is: tells a slot's present holder from an earlier one.
    pub index: BackendIndex,
    /// The MAC address of the backend, or of the router on the way to it.
    pub destination: MacAddress,
    /// Our own, on the interface that leads there.
    pub source: MacAddress,
    /// The interface that leads there.
    pub port: Port,
    /// What becomes of the VLAN tags that the frame came with.
    pub tags: Tags,
    /// The largest IP packet the way takes, in bytes, any outer header included.
    pub mtu: u16,
    /// What is done to the packet.
    pub delivery: Delivery,
}

/// What is done to a packet for a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Nothing.
    L2,
    /// It is addressed to the backend, and the VIP named by a DSCP value.
    L3Dsr(IpAddr, Dscp),
    /// Other headers are put before it.
    Tunnel(TunnelPath),
}

impl Delivery {
    /// Whether the director counts as a hop on the way: beyond its link.
    #[inline]
    pub fn is_routed(&self) -> bool {
        !matches!(self, Self::L2)
    }

    /// Bytes that are put before the packet.
    #[inline]
    pub fn overhead(&self) -> usize {
        match self {
            Self::L2 | Self::L3Dsr(..) => 0,
            Self::Tunnel(path) => path.overhead(),
        }
    }
}

/// What the director does about packets that cannot be delivered as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ErrorPolicy {
    /// What ICMP errors come from; the VIP that the packet was for if not set.
    pub source_ipv4: Option<Ipv4Addr>,
    /// What ICMPv6 errors come from; the VIP that the packet was for if not set.
    pub source_ipv6: Option<Ipv6Addr>,
    /// Whether IPv4 packets that are too large for the way to the backend, and may be fragmented,
    /// are; otherwise they are dropped and counted.
    pub fragment: bool,
}

impl Default for ErrorPolicy {
    fn default() -> Self {
        Self { source_ipv4: None, source_ipv6: None, fragment: true }
    }
}

/// What the workers go by, from one publication to the next.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications, from one; zero is the empty snapshot before the first.
    pub generation: u64,
    /// The MAC address of the interface. Frames to others pass, frames from it have looped.
    pub station: MacAddress,
    /// The largest IP packet that interface can have received, in bytes; larger ones were merged.
    pub station_mtu: u32,
    /// Whether ARP requests and neighbour solicitations for VIPs are answered here.
    pub answers: bool,
    /// What is done about packets that cannot be delivered as they are.
    pub errors: ErrorPolicy,
    /// What probes through the VIPs are sent from.
    pub probe_sources: ProbeSources,
    /// The backends that take no new flows, and whose old ones are counted therefore.
    pub leaving: Box<[BackendIndex]>,
    /// The virtual services.
    pub services: Arc<ServiceTable>,
    /// Where the frames for each backend go.
    pub next_hops: NextHops,
}

impl Snapshot {
    /// Where what packets of known flows read of each backend lies in memory, by its addresses; for whoever wants it in huge
    /// pages (`dataplane::af_xdp::prefer_huge_pages`), which matters with tens of thousands of backends.
    pub fn memory(&self) -> impl Iterator<Item = Range<usize>> {
        self.next_hops.memory().into_iter().chain([self.services.memory()])
    }

    /// The next hop of a backend, if this snapshot has one for just this backend.
    #[inline]
    pub fn next_hop(&self, index: BackendIndex) -> Option<&NextHop> {
        self.next_hops.get(index)
    }
}
