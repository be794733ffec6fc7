//! From a packet to a backend.

use super::built::Service;
use super::flow_table::FlowCounts;
use super::placement::{Decider, Placement};
use super::sync::SyncCounts;
use super::table::{Lookup, ServiceTable};
use crate::flow::{Brief, Fragment, PacketInfo, Timestamp};
use crate::verdict::{BackendIndex, DropReason};

/// What a balancer decided about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assignment {
    /// It goes to this backend.
    Backend(BackendIndex),
    /// Its destination is no VIP.
    NotVip,
    /// It came for a VIP and is not forwarded.
    Drop(DropReason),
}

impl Assignment {
    /// The backend that it goes to.
    #[inline]
    pub(crate) const fn backend(self) -> Option<BackendIndex> {
        match self {
            Self::Backend(index) => Some(index),
            Self::NotVip | Self::Drop(_) => None,
        }
    }
}

/// Assigns packets to backends: to the one that its flow already uses if that is still right, else
/// to a fresh choice.
///
/// Each worker has one of its own and calls it with `&mut self`, so it may keep state without
/// locks. It runs for every packet: no I/O, no clock (`now` is given), no allocation, no panic.
pub trait Balancer: Send {
    /// Decides one packet. This is the specification.
    fn assign(
        &mut self,
        services: &ServiceTable,
        packet: &PacketInfo,
        now: Timestamp,
    ) -> Assignment;

    /// Decides a batch in order of arrival; `assigned` is as long as `packets`. Must agree with
    /// [`Balancer::assign`] called for one after the other.
    fn assign_batch(
        &mut self,
        services: &ServiceTable,
        packets: &[Brief],
        now: Timestamp,
        assigned: &mut [Assignment],
    ) {
        for (packet, assigned) in packets.iter().zip(assigned) {
            *assigned = self.assign(services, &packet.info(), now);
        }
    }

    /// What [`Balancer::assign`] would decide about a packet, and by what, while nothing is remembered,
    /// renewed or counted. None, as usual, if it cannot tell that.
    fn explain(
        &self,
        _services: &ServiceTable,
        _packet: &PacketInfo,
        _now: Timestamp,
    ) -> Option<Placement> {
        None
    }

    /// Whether a flow may go elsewhere than its hash says, so that a later fragment, which does not
    /// tell its flow, has to follow the first one wherever it has ports.
    fn remembers_flows(&self) -> bool {
        false
    }

    /// Puts what it remembers in order: called once with every batch, and again and again while there
    /// is no traffic, when it may take a millisecond.
    fn tend(&mut self, _services: &ServiceTable, _now: Timestamp, _is_idle: bool) {}

    /// How many flows it remembers of a backend; none if it remembers no flows.
    fn flows(&self, _backend: BackendIndex) -> u64 {
        0
    }

    /// How many flows of a backend it has begun to remember since it got to know the backend.
    fn flows_begun(&self, _backend: BackendIndex) -> u64 {
        0
    }

    /// How many flows it remembers in all, and did not; none if it remembers no flows.
    fn flow_counts(&self) -> FlowCounts {
        FlowCounts::default()
    }

    /// What it has told others of flows, and heard of them; nothing if it shares none.
    fn sync_counts(&self) -> SyncCounts {
        SyncCounts::default()
    }
}

impl<T: Balancer + ?Sized> Balancer for Box<T> {
    fn assign(
        &mut self,
        services: &ServiceTable,
        packet: &PacketInfo,
        now: Timestamp,
    ) -> Assignment {
        (**self).assign(services, packet, now)
    }

    fn assign_batch(
        &mut self,
        services: &ServiceTable,
        packets: &[Brief],
        now: Timestamp,
        assigned: &mut [Assignment],
    ) {
        (**self).assign_batch(services, packets, now, assigned);
    }

    fn explain(
        &self,
        services: &ServiceTable,
        packet: &PacketInfo,
        now: Timestamp,
    ) -> Option<Placement> {
        (**self).explain(services, packet, now)
    }

    fn remembers_flows(&self) -> bool {
        (**self).remembers_flows()
    }

    fn tend(&mut self, services: &ServiceTable, now: Timestamp, is_idle: bool) {
        (**self).tend(services, now, is_idle);
    }

    fn flows(&self, backend: BackendIndex) -> u64 {
        (**self).flows(backend)
    }

    fn flows_begun(&self, backend: BackendIndex) -> u64 {
        (**self).flows_begun(backend)
    }

    fn flow_counts(&self) -> FlowCounts {
        (**self).flow_counts()
    }

    fn sync_counts(&self) -> SyncCounts {
        (**self).sync_counts()
    }
}

/// Decides every packet by hashing alone, without memory: NetScaler's sessionless mode.
///
/// A flow keeps its backend for as long as the set of eligible backends stays the same; when it
/// changes, [`Maglev`](super::Maglev) moves few of the other flows and
/// [`Rendezvous`](super::Rendezvous) none.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashBalancer;

impl Balancer for HashBalancer {
    #[inline]
    fn assign(
        &mut self,
        services: &ServiceTable,
        packet: &PacketInfo,
        _now: Timestamp,
    ) -> Assignment {
        match find(services, packet) {
            Ok(service) => place(service, packet).0,
            Err(assignment) => assignment,
        }
    }

    fn explain(
        &self,
        services: &ServiceTable,
        packet: &PacketInfo,
        _now: Timestamp,
    ) -> Option<Placement> {
        Some(match find(services, packet) {
            Ok(service) => {
                let (assignment, decider) = place(service, packet);
                Placement::new(assignment, decider)
            }
            Err(assignment) => Placement::new(assignment, Decider::Lookup),
        })
    }
}

/// Decides without memory a packet whose service is found.
#[inline]
fn place(service: &Service, packet: &PacketInfo) -> (Assignment, Decider) {
    if let Some(backend) = packet.routed.backend() {
        return (Assignment::Backend(backend), Decider::ConnectionId);
    }
    let assignment = match service.select(service.hash(packet)) {
        Some(backend) => Assignment::Backend(backend),
        None => Assignment::Drop(DropReason::NoBackend),
    };
    (assignment, Decider::Selector)
}

/// The service that a packet belongs to, if it may be forwarded at all; else what becomes of it.
#[inline(always)]
pub(super) fn find<'a>(
    services: &'a ServiceTable,
    packet: &PacketInfo,
) -> Result<&'a Service, Assignment> {
    let service = match services.lookup(packet) {
        Lookup::Service(service) => service,
        Lookup::NoService => return Err(Assignment::Drop(DropReason::NoService)),
        Lookup::PortUnknown => return Err(Assignment::Drop(DropReason::FragmentWithoutPorts)),
        Lookup::NotVip => return Err(Assignment::NotVip),
    };
    let flow = &packet.flow;
    if flow.has_martian_source() {
        return Err(Assignment::Drop(DropReason::MartianSource));
    }
    if flow.source == flow.destination {
        return Err(Assignment::Drop(DropReason::SourceIsVip));
    }
    let portless = packet.fragment == Fragment::Later && flow.protocol.has_ports();
    if portless && service.needs_ports() {
        return Err(Assignment::Drop(DropReason::FragmentWithoutPorts));
    }
    Ok(service)
}
