//! Deciding a flow once.

use super::assign::{Assignment, Balancer, find};
use super::flow_table::{CapacityError, FlowCounts, FlowKey, FlowTable, Found, Lifetimes, Signal};
use super::table::{Service, ServiceTable};
use crate::flow::{Fragment, HashKey, PacketInfo, Timestamp};
use crate::verdict::{BackendIndex, DropReason};

/// How many packets of a batch are looked at ahead; a driver lends no more at once.
const BATCH: usize = 64;
/// How many sets of the flow table are looked after with each batch, and while there is nothing else
/// to do. A table of a million entries is gone through in a second of idleness.
const SETS_A_BATCH: usize = 16;
const SETS_WHEN_IDLE: usize = 16_384;

/// Remembers which backend each flow was given: it keeps it through every change of the pool that
/// leaves that backend able to serve.
///
/// New flows are decided by the service's selector. A backend that takes no new flows (draining, or
/// with a weight of zero) keeps the ones it has; one that is unreachable or disabled does not, and one
/// that is ill as the service's [`Persistence`](super::Persistence) says.
/// Flows that find no place in the table are served by hashing alone.
#[derive(Debug)]
pub struct FlowBalancer {
    table: FlowTable,
}

impl FlowBalancer {
    /// Room for `entries` flows, of 16 bytes each; twice the number of flows at a time is a good
    /// choice. `slots` is the most backends there can be, as in
    /// [`Limits::backends`](crate::config::Limits), and `secret` is not to be known to clients.
    ///
    /// # Errors
    ///
    /// A number of entries that no table can have.
    pub fn new(entries: usize, slots: usize, secret: HashKey) -> Result<Self, CapacityError> {
        Ok(Self { table: FlowTable::new(entries, slots, secret, Timestamp::default())? })
    }

    /// How many flows there are and were not.
    pub fn counts(&self) -> FlowCounts {
        self.table.counts()
    }

    #[inline]
    fn place(
        &mut self,
        services: &ServiceTable,
        service: &Service,
        packet: &PacketInfo,
        key: FlowKey,
        now: Timestamp,
    ) -> Assignment {
        let protocol = packet.flow.protocol;
        let keeps = |index| services.keeps(index, protocol);
        let signal = Signal::of(packet);
        // A later fragment does not tell its flow; it is followed, or hashed by its addresses.
        let lives = service.lives().filter(|_| packet.fragment != Fragment::Later);
        if let Some(index) = packet.routed.backend() {
            if let Some(lives) = lives {
                self.note(services, lives, packet, key, index, now);
            }
            return Assignment::Backend(index);
        }
        if let Some(lives) = lives
            && let Found::Known(index, _) = self.table.lookup(key, signal, lives, now, keeps)
        {
            return Assignment::Backend(index);
        }
        let Some(chosen) = service.select(service.hash(packet)) else {
            return Assignment::Drop(DropReason::NoBackend);
        };
        if let Some(lives) = lives {
            // Refused or not: it is served. Others in its way may be of another protocol.
            let usable = |index| services.keeps_any(index);
            self.table.insert(key, chosen, signal, lives, now, usable);
        }
        Assignment::Backend(chosen)
    }

    /// Remembers where connection IDs lead a flow, for the packets of it that have none: ICMP errors, and
    /// those with IDs of the client. A flow that is elsewhere by its own packets stays there until they
    /// end: anybody can forge its addresses, with an ID of a connection of his own behind them.
    #[inline]
    fn note(
        &mut self,
        services: &ServiceTable,
        lives: &Lifetimes,
        packet: &PacketInfo,
        key: FlowKey,
        index: BackendIndex,
        now: Timestamp,
    ) {
        let keeps = |index| services.keeps(index, packet.flow.protocol);
        let signal = Signal::of(packet);
        match self.table.lookup(key, Signal::Stray, lives, now, keeps) {
            Found::Known(known, _) if known != index => {}
            Found::Known(..) => {
                self.table.lookup(key, signal, lives, now, keeps);
            }
            Found::Missing | Found::Reopened(_) => {
                let usable = |index| services.keeps_any(index);
                self.table.insert(key, index, signal, lives, now, usable);
            }
        }
    }
}

impl Balancer for FlowBalancer {
    fn assign(
        &mut self,
        services: &ServiceTable,
        packet: &PacketInfo,
        now: Timestamp,
    ) -> Assignment {
        match find(services, packet) {
            Ok(service) => {
                let key = self.table.key(&packet.flow);
                self.place(services, service, packet, key, now)
            }
            Err(assignment) => assignment,
        }
    }

    /// Reads the table for all packets first, so that their cache misses overlap.
    fn assign_batch(
        &mut self,
        services: &ServiceTable,
        packets: &[PacketInfo],
        now: Timestamp,
        assigned: &mut [Assignment],
    ) {
        for (packets, assigned) in packets.chunks(BATCH).zip(assigned.chunks_mut(BATCH)) {
            let mut keys = [FlowKey(0); BATCH];
            for (key, packet) in keys.iter_mut().zip(packets) {
                *key = self.table.key(&packet.flow);
            }
            self.table.touch(keys.iter().copied().take(packets.len()));
            for ((packet, key), assigned) in packets.iter().zip(keys).zip(assigned) {
                *assigned = match find(services, packet) {
                    Ok(service) => self.place(services, service, packet, key, now),
                    Err(assignment) => assignment,
                };
            }
        }
    }

    fn remembers_flows(&self) -> bool {
        true
    }

    fn tend(&mut self, services: &ServiceTable, now: Timestamp, is_idle: bool) {
        let counts = self.table.counts();
        // Nothing to look after, as on a director that stands by.
        if counts.proven + counts.unproven == 0 {
            return;
        }
        let sets = if is_idle { SETS_WHEN_IDLE } else { SETS_A_BATCH };
        self.table.sweep(now, sets, |index| services.keeps_any(index));
    }

    fn flows(&self, backend: BackendIndex) -> u64 {
        self.table.live(backend.slot()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{Backend, HashBalancer, Keeping, RealServer, Rendezvous, VirtualService};
    use crate::flow::{FiveTuple, Protocol, TcpFlags};
    use std::sync::Arc;

    const SECOND: u64 = 1_000_000_000;

    fn index(slot: usize) -> BackendIndex {
        BackendIndex::new(slot, 0)
    }

    /// A service whose backends in these slots take new flows, where those in `keeping` keep theirs.
    fn table(taking: &[usize], keeping: &[usize]) -> ServiceTable {
        let service = VirtualService::new("10.0.0.100".parse().unwrap()).policy(Rendezvous);
        let backend = |slot: &usize| -> (Arc<dyn Backend>, BackendIndex) {
            let server = RealServer::new([10, 0, 0, *slot as u8].into());
            (Arc::new(server), index(*slot))
        };
        let built = Service::build(&service, taking.iter().map(backend));
        let keeping: Vec<_> =
            keeping.iter().map(|slot| (index(*slot), Keeping::Everything)).collect();
        ServiceTable::new(vec![Arc::new(built)]).keeping(&keeping)
    }

    fn packet(port: u16, flags: u8) -> PacketInfo {
        let flow = FiveTuple {
            source: [192, 0, 2, 7].into(),
            destination: [10, 0, 0, 100].into(),
            source_port: port,
            destination_port: 80,
            protocol: Protocol::TCP,
        };
        PacketInfo::new(flow, Fragment::Whole, TcpFlags(flags))
    }

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    fn balancer() -> FlowBalancer {
        // Much room: no two of the flows here compete for a place.
        FlowBalancer::new(1 << 18, 16, HashKey::new([7; 16])).unwrap()
    }

    fn decide(
        balancer: &mut FlowBalancer,
        services: &ServiceTable,
        flags: u8,
        now: u64,
    ) -> Vec<usize> {
        let packets: Vec<_> = (1..=500).map(|port| packet(port, flags)).collect();
        let mut assigned = vec![Assignment::NotVip; packets.len()];
        balancer.assign_batch(services, &packets, Timestamp(now), &mut assigned);
        let slot = |assignment: &Assignment| match assignment {
            Assignment::Backend(index) => index.slot(),
            other => panic!("{other:?}"),
        };
        assigned.iter().map(slot).collect()
    }

    #[test]
    fn flows_stay_through_every_change_that_leaves_their_backend() {
        let mut balancer = balancer();
        let first = decide(&mut balancer, &table(&[1, 2], &[1, 2]), SYN, 0);
        assert_eq!(decide(&mut balancer, &table(&[1, 2], &[1, 2]), ACK, 1), first);
        // Others come, one is drained, and in the end none of those that had flows takes new ones.
        for (taking, keeping) in [
            (&[1, 2, 3, 4][..], &[1, 2, 3, 4][..]),
            (&[2, 3, 4], &[1, 2, 3, 4]),
            (&[5], &[1, 2, 5]),
        ] {
            assert_eq!(decide(&mut balancer, &table(taking, keeping), ACK, 2), first);
        }
        assert_eq!(balancer.flows(index(1)) + balancer.flows(index(2)), 500);
        // Those of one that is gone go elsewhere, and stay there.
        let moved = decide(&mut balancer, &table(&[3, 4], &[2, 3, 4]), ACK, 3);
        for (now, before) in moved.iter().zip(&first) {
            assert!(if *before == 2 { *now == 2 } else { [3, 4].contains(now) });
        }
        assert_eq!(decide(&mut balancer, &table(&[5], &[2, 3, 4, 5]), ACK, 4), moved);
    }

    #[test]
    fn a_backend_that_keeps_connections_alone_loses_other_flows() {
        let mut balancer = balancer();
        let (before, after) = (table(&[1], &[1, 2]), table(&[2], &[2]));
        let after =
            after.keeping(&[(index(1), Keeping::Connections), (index(2), Keeping::Everything)]);
        for (protocol, expected) in [(Protocol::TCP, 1), (Protocol::UDP, 2)] {
            let mut packet = packet(7, ACK);
            packet.flow.protocol = protocol;
            let go = |balancer: &mut FlowBalancer, services: &ServiceTable| {
                balancer.assign(services, &packet, Timestamp(0))
            };
            assert_eq!(go(&mut balancer, &before), Assignment::Backend(index(1)));
            assert_eq!(go(&mut balancer, &after), Assignment::Backend(index(expected)));
        }
    }

    #[test]
    fn a_sessionless_service_is_hashed_and_not_remembered() {
        let mut balancer = balancer();
        let of = |slot: usize| {
            let service = VirtualService::new("10.0.0.100".parse().unwrap()).sessionless();
            let backend: Arc<dyn Backend> = Arc::new(RealServer::new([10, 0, 0, 1].into()));
            let built = Service::build(&service, [(backend, index(slot))]);
            let keeping = [1, 2].map(|slot| (index(slot), Keeping::Everything));
            ServiceTable::new(vec![Arc::new(built)]).keeping(&keeping)
        };
        for slot in [1, 2] {
            let all = decide(&mut balancer, &of(slot), ACK, 0);
            assert!(all.iter().all(|chosen| *chosen == slot));
        }
        assert_eq!(balancer.counts(), FlowCounts::default());
    }

    #[test]
    fn a_port_that_is_used_again_is_a_new_flow_and_a_copy_of_a_syn_is_not() {
        let mut balancer = balancer();
        let (one, other) = (table(&[1], &[1, 2]), table(&[2], &[1, 2]));
        decide(&mut balancer, &one, SYN, 0);
        assert!(decide(&mut balancer, &other, SYN, SECOND).iter().all(|slot| *slot == 1));
        decide(&mut balancer, &other, ACK, 2 * SECOND);
        assert!(decide(&mut balancer, &other, SYN, 30 * SECOND).iter().all(|slot| *slot == 2));
    }

    #[test]
    fn flows_end_by_themselves_also_while_nothing_comes() {
        let mut balancer = balancer();
        let services = table(&[1], &[1]);
        decide(&mut balancer, &services, SYN, 0);
        decide(&mut balancer, &services, ACK, 1);
        balancer.tend(&services, Timestamp(800 * SECOND), true);
        assert_eq!(balancer.flows(index(1)), 500);
        for _ in 0..4 {
            balancer.tend(&services, Timestamp(1000 * SECOND), true);
        }
        assert_eq!(balancer.flows(index(1)), 0);
    }

    #[test]
    fn without_a_change_it_agrees_with_hashing_alone() {
        let services = table(&[1, 2, 3], &[1, 2, 3]);
        let mut balancer = balancer();
        for flags in [SYN, ACK, ACK] {
            for port in 1..=200 {
                let packet = packet(port, flags);
                assert_eq!(
                    balancer.assign(&services, &packet, Timestamp(0)),
                    HashBalancer.assign(&services, &packet, Timestamp(0))
                );
            }
        }
    }
}
