//! The ARP and neighbour discovery monitor.

use super::verify::{Unverified, verify};
use crate::health::{Monitor, ProbeFailure, Target};
use std::time::Duration;

/// Makes the kernel ask for the target by ARP or neighbour discovery, now; well is who answers.
///
/// For backends on the director's own link, probed at their own address
/// ([`Through::Backend`](crate::health::Through::Backend)): a VIP is not asked for. It tells that the
/// backend's host is there, not that it has the VIP, let alone that its service runs. Needs
/// `CAP_NET_ADMIN`, as the director does. Neighbours that are permanent entries of the kernel cannot be
/// verified, and fail with that reason.
///
/// A neighbour's MAC address is learned and kept fresh whatever monitor is used; this one notices a
/// neighbour that has gone silent within the time of the policy, instead of within a minute.
///
/// ```no_run
/// use dsrlb::dataplane::neighbour::NeighbourReachable;
/// use dsrlb::health::{MonitorBinding, Through};
///
/// let binding = MonitorBinding::new(NeighbourReachable).through(Through::Backend);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NeighbourReachable;

impl Monitor for NeighbourReachable {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        verify(target.address, timeout).map_err(|why| match why {
            Unverified::NotPermitted => ProbeFailure::NotPermitted(why.to_string()),
            Unverified::Netlink { .. } => ProbeFailure::System(why.to_string()),
            Unverified::NoRoute => ProbeFailure::NoRoute(why.to_string()),
            _ => ProbeFailure::NeighbourUnresolved(why.to_string()),
        })
    }
}
