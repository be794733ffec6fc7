//! Everything the packet path reads, in one immutable value.
//!
//! Services and next hops are published together, so no packet ever sees a backend of one
//! configuration with the MAC address of another.

use crate::balancer::ServiceTable;
use crate::packet::MacAddress;
use crate::verdict::BackendIndex;
use std::sync::Arc;

/// How a backend is reached: 16 bytes, four to a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The backend's MAC address.
    pub destination: MacAddress,
    /// Our own, on the interface that leads there.
    pub source: MacAddress,
    /// Whose next hop this is: tells a slot's present holder from an earlier one.
    pub index: BackendIndex,
}

/// What the workers go by, from one publication to the next.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications, from one; zero is the empty snapshot before the first.
    pub generation: u64,
    /// The MAC address of the interface. Frames to others pass, frames from it have looped.
    pub station: MacAddress,
    /// Whether ARP requests and neighbour solicitations for VIPs are answered here.
    pub answers: bool,
    /// The virtual services.
    pub services: Arc<ServiceTable>,
    /// By slot of the backend's index; none where no backend is or its neighbour is unresolved.
    pub next_hops: Box<[Option<NextHop>]>,
}

impl Snapshot {
    /// The next hop of a backend, if this snapshot has one for just this backend.
    #[inline]
    pub fn next_hop(&self, index: BackendIndex) -> Option<&NextHop> {
        let hop = self.next_hops.get(index.slot())?.as_ref()?;
        (hop.index == index).then_some(hop)
    }
}
