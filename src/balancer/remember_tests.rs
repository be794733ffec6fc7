//! Tests of remembering flows through changes.

use super::*;
use crate::balancer::{
    Backend, FlowRecord, HashBalancer, Imported, Keeping, RealServer, Rendezvous, State,
    VirtualService,
};
use crate::flow::{FiveTuple, Fragment, Protocol, TcpFlags};
use std::sync::Arc;
use std::time::Duration;

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
        keeping.iter().map(|slot| (index(*slot), Keeping::Everything, 0)).collect();
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

fn decide(balancer: &mut FlowBalancer, services: &ServiceTable, flags: u8, now: u64) -> Vec<usize> {
    let packets: Vec<_> = (1..=500).map(|port| packet(port, flags)).collect();
    let mut assigned = vec![Assignment::NotVip; packets.len()];
    let packets: Vec<_> = packets.into_iter().map(Brief::from).collect();
    balancer.assign_batch(services, &packets, Timestamp(now), &mut assigned);
    let slot = |assignment: &Assignment| match assignment {
        Assignment::Backend(index) => index.slot(),
        other => panic!("{other:?}"),
    };
    assigned.iter().map(slot).collect()
}

/// Without ports, every fragment tells its flow: all of a datagram go where the flow is kept.
#[test]
fn later_fragments_of_a_protocol_without_ports_stay_with_their_flow() {
    let services = [table(&[1, 2, 3], &[1, 2, 3]), table(&[4], &[1, 2, 3, 4])];
    let of = |protocol, fragment, source: u8| {
        let mut packet = packet(0, 0);
        packet.flow.source = [192, 0, 2, source].into();
        (packet.flow.source_port, packet.flow.destination_port) = (0, 0);
        packet.flow.protocol = protocol;
        PacketInfo { fragment, ..packet }
    };
    for source in 1..100 {
        let mut balancer = balancer();
        let mut assign = |services, protocol, fragment| {
            balancer.assign(services, &of(protocol, fragment, source), Timestamp(0))
        };
        let home = assign(&services[0], Protocol::ESP, Fragment::Whole);
        for fragment in [Fragment::Whole, Fragment::First, Fragment::Later, Fragment::Later] {
            assert_eq!(assign(&services[1], Protocol::ESP, fragment), home, "{fragment:?}");
        }
        // Of others it tells too little to be remembered by.
        for protocol in [Protocol::ICMP, Protocol::ICMPV6, Protocol(60)] {
            assign(&services[1], protocol, Fragment::Later);
        }
        assert_eq!(balancer.counts().proven + balancer.counts().unproven, 1);
    }
}

/// Where a whole datagram of the same addresses has left a record: what is behind a later fragment need not be of that
/// flow, though its key is the same for want of ports.
#[test]
fn later_fragments_that_do_not_tell_their_flow_are_not_taken_for_a_known_one() {
    let services = [table(&[1], &[1, 2]), table(&[2], &[1, 2])];
    for protocol in [Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6, Protocol(60)] {
        let mut balancer = balancer();
        let mut whole = packet(0, 0);
        (whole.flow.destination_port, whole.flow.protocol) = (0, protocol);
        let later = PacketInfo { fragment: Fragment::Later, ..whole };
        // The second of them goes by the record.
        for services in &services {
            let home = balancer.assign(services, &whole, Timestamp(0));
            assert_eq!(home, Assignment::Backend(index(1)), "{protocol:?}");
        }
        let hashed = HashBalancer.assign(&services[1], &later, Timestamp(0));
        assert_ne!(hashed, Assignment::Backend(index(1)), "{protocol:?}");
        assert_eq!(balancer.assign(&services[1], &later, Timestamp(0)), hashed, "{protocol:?}");
        let mut assigned = [Assignment::NotVip];
        balancer.assign_batch(&services[1], &[later.into()], Timestamp(0), &mut assigned);
        assert_eq!(assigned, [hashed], "{protocol:?}");
    }
}

/// As that of a host that has been up for two years, or of UNIX: its ticks do not fit into an entry.
#[test]
fn a_clock_that_has_long_been_running_is_as_good_as_any() {
    let services = [table(&[1, 2], &[1, 2]), table(&[1, 2, 3], &[1, 2, 3])];
    for now in [2 * 365 * 86_400 * SECOND, 1_800_000_000 * SECOND, u64::MAX - SECOND] {
        let mut balancer = balancer();
        let first = decide(&mut balancer, &services[0], SYN, now);
        assert_eq!(decide(&mut balancer, &services[1], ACK, now + 1), first);
        assert_eq!(balancer.counts().proven, 500);

        let mut standby = self::balancer();
        standby.tend(&services[0], Timestamp(now), true);
        let told = FlowRecord {
            key: FlowKey(7),
            backend: index(1),
            state: State::Established,
            remaining: Duration::from_secs(60),
        };
        assert_eq!(standby.table.import(told, Timestamp(now), |_| true), Imported::New);
        assert!(standby.table.record(FlowKey(7), Timestamp(now)).is_some());
    }
}

#[test]
fn flows_stay_through_every_change_that_leaves_their_backend() {
    let mut balancer = balancer();
    let first = decide(&mut balancer, &table(&[1, 2], &[1, 2]), SYN, 0);
    assert_eq!(decide(&mut balancer, &table(&[1, 2], &[1, 2]), ACK, 1), first);
    // Others come, one is drained, and in the end none of those that had flows takes new ones.
    for (taking, keeping) in
        [(&[1, 2, 3, 4][..], &[1, 2, 3, 4][..]), (&[2, 3, 4], &[1, 2, 3, 4]), (&[5], &[1, 2, 5])]
    {
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
        after.keeping(&[(index(1), Keeping::Connections, 0), (index(2), Keeping::Everything, 0)]);
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
        let keeping = [1, 2].map(|slot| (index(slot), Keeping::Everything, 0));
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

/// By the time that passes, not by the number of batches: many at once do what one does.
#[test]
fn flows_end_by_themselves_within_a_round_while_others_come() {
    let mut balancer = balancer();
    let services = table(&[1], &[1]);
    decide(&mut balancer, &services, SYN, 0);
    decide(&mut balancer, &services, ACK, 1);
    let begin = 1000 * SECOND;
    for _ in 0..1000 {
        balancer.tend(&services, Timestamp(begin), false);
    }
    assert!((400..=500).contains(&balancer.flows(index(1))), "{}", balancer.flows(index(1)));
    for passed in (0..=1u64 << ROUND_BITS).step_by(1 << 16) {
        balancer.tend(&services, Timestamp(begin + passed), false);
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

/// The same service with these backends taking new flows and all keeping theirs, in the place of that one.
fn changed(before: &ServiceTable, taking: &[usize], now: u64) -> ServiceTable {
    let new = table(taking, &[]);
    let [old, new] = [before, &new].map(|table| Service::clone(&table.services()[0]));
    let keeping = [1, 2, 3].map(|slot| (index(slot), Keeping::Everything, 0));
    ServiceTable::new(vec![Arc::new(new.after(&old, Timestamp(now)))]).keeping(&keeping)
}

#[test]
fn only_contested_flows_are_recorded_and_those_only_while_they_are() {
    let mut balancer = balancer().record(Record::Contested);
    let recorded = |balancer: &FlowBalancer| balancer.counts().proven + balancer.counts().unproven;
    let first = table(&[1, 2, 3], &[1, 2, 3]);
    let old = decide(&mut balancer, &first, SYN, 0);
    assert_eq!(decide(&mut balancer, &first, ACK, 1), old);
    assert_eq!(recorded(&balancer), 0, "nothing has changed");

    // Rendezvous hashing moves nobody else's.
    let second = changed(&first, &[1, 2], SECOND);
    assert_eq!(decide(&mut balancer, &second, ACK, SECOND), old);
    let of_3 = old.iter().filter(|slot| **slot == 3).count() as u64;
    assert_eq!(recorded(&balancer), of_3);
    let new: Vec<_> = (1..=500).map(|port| packet(port + 500, SYN)).collect();
    for packet in &new {
        let assignment = balancer.assign(&second, packet, Timestamp(SECOND));
        assert_ne!(assignment, Assignment::Backend(index(3)));
    }
    assert!(recorded(&balancer) > of_3, "a new flow of a contested slot is recorded too");

    // The backend is back, and in the end all is as it was: nothing needs to be known.
    let third = changed(&second, &[1, 2, 3], 2 * SECOND);
    assert_eq!(decide(&mut balancer, &third, ACK, 3 * SECOND), old);
    let service = &third.services()[0];
    let end = service.settles().unwrap();
    assert!(end.0 > 900 * SECOND && service.settled(Timestamp(end.0 - 1)).is_none());
    let settled = service.settled(end).unwrap();
    let settled = ServiceTable::new(vec![Arc::new(settled)])
        .keeping(&[1, 2, 3].map(|slot| (index(slot), Keeping::Everything, 0)));
    assert_eq!(decide(&mut balancer, &settled, ACK, 850 * SECOND), old);
    balancer.tend(&settled, Timestamp(850 * SECOND), true);
    assert_eq!(balancer.counts().proven, 0);
}

/// Where nothing is chosen before any more, with all backends keeping their flows.
fn settled(before: &ServiceTable, now: u64) -> ServiceTable {
    let service = before.services()[0].settled(Timestamp(now)).unwrap();
    let keeping = [1, 2, 3].map(|slot| (index(slot), Keeping::Everything, 0));
    ServiceTable::new(vec![Arc::new(service)]).keeping(&keeping)
}

/// What showed it: a keep-alive every few minutes, and the only one since the change shortly before its end.
#[test]
fn a_contested_flow_that_spoke_once_since_the_change_stays_after_its_end() {
    let mut balancer = balancer().record(Record::Contested);
    let first = table(&[1, 2, 3], &[1, 2, 3]);
    let old = decide(&mut balancer, &first, SYN, 0);
    let second = changed(&first, &[1, 2], SECOND);
    assert_eq!(decide(&mut balancer, &second, ACK, 800 * SECOND), old);
    let third = settled(&second, 1000 * SECOND);
    assert_eq!(decide(&mut balancer, &third, ACK, 1000 * SECOND), old);
}

/// UDP flows are forgotten long before the older method is, which the next change goes by again.
#[test]
fn a_flow_that_began_after_all_older_ones_were_forgotten_stays_through_the_next_change() {
    let mut balancer = balancer().record(Record::Contested);
    let mut decide = |services: &ServiceTable, now: u64| {
        let assign = |port| {
            let mut packet = packet(port, 0);
            packet.flow.protocol = Protocol::UDP;
            balancer.assign(services, &packet, Timestamp(now * SECOND))
        };
        (1..=500).map(assign).collect::<Vec<_>>()
    };
    let second = changed(&table(&[1, 2, 3], &[1, 2, 3]), &[1, 2], 0);
    let new = decide(&second, 100);
    assert!(!new.contains(&Assignment::Backend(index(3))));
    let third = changed(&second, &[1], 110 * SECOND);
    assert_eq!(decide(&third, 120), new);
}

/// Where there is no room to record what is new, it is treated as what is not recorded will be.
#[test]
fn a_contested_flow_that_finds_no_place_goes_where_its_next_packet_will() {
    let mut balancer = FlowBalancer::new(4, 16, HashKey::new([7; 16])).unwrap();
    balancer = balancer.record(Record::Contested);
    let second = changed(&table(&[1], &[1]), &[2], 0);
    let places = [SYN, ACK, ACK].map(|flags| decide(&mut balancer, &second, flags, 0));
    assert_eq!(places[1], places[2]);
    assert!(places[1].iter().filter(|slot| **slot == 1).count() > 400);
    assert_eq!(places[0], places[1]);
}
