//! What only the inside can tell; the rest is in `tests/flow_table.rs`.

use super::*;
use crate::flow::{Protocol, Segment, TcpFlags};
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::IpAddr;

fn table(entries: usize) -> FlowTable {
    FlowTable::new(entries, 1, HashKey::new(*b"0123456789abcdef"), Timestamp(0)).unwrap()
}

#[test]
fn the_key_is_that_of_the_process_and_covers_the_whole_flow() {
    let flow = |source: &str, port| FiveTuple {
        source: source.parse().unwrap(),
        destination: IpAddr::from([10, 0, 0, 100]),
        source_port: 40_000,
        destination_port: port,
        protocol: Protocol::TCP,
    };
    let (table, other) =
        (table(4), FlowTable { keying: Keying::new(&HashKey::default()), ..table(4) });
    let keys = [flow("192.0.2.1", 80), flow("192.0.2.1", 443), flow("192.0.2.2", 80)];
    let mut seen: HashSet<_> = keys.iter().map(|flow| table.key(flow)).collect();
    seen.extend(keys.iter().map(|flow| other.key(flow)));
    assert_eq!(seen.len(), 6);
}

#[test]
fn memory_is_aligned_to_cache_lines() {
    let table = table(1000);
    assert_eq!(table.sets.as_ptr() as usize % 64, 0);
    assert_eq!(size_of_val(&*table.sets), 16_000);
}

proptest! {
    /// Whichever way a packet is told, it is of the same flow and says the same.
    #[test]
    fn a_brief_says_what_the_packet_says(
        ipv4 in any::<[[u8; 4]; 2]>(),
        ipv6 in any::<[[u8; 16]; 2]>(),
        ports in any::<[[u8; 2]; 2]>(),
        protocol in prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP]),
        flags: u8,
    ) {
        let (table, tcp_flags) = (table(4), TcpFlags(flags));
        let four = Segment { addresses: ipv4, ports, protocol, tcp_flags };
        let six = Segment { addresses: ipv6, ports, protocol, tcp_flags };
        let steady = [Signal::steady_of(&four), Signal::steady_of(&six)];
        for (brief, steady) in [Brief::Ipv4(four), Brief::Ipv6(six)].into_iter().zip(steady) {
            let info = brief.info();
            prop_assert_eq!(table.key_of(&brief), table.key(&info.flow));
            prop_assert_eq!(table.key_of(&info.into()), table.key(&info.flow));
            let signal = Some(Signal::of(&info)).filter(|signal| signal.steady().is_some());
            // Others than TCP and UDP are no segments.
            let signal = signal.filter(|_| protocol != Protocol::SCTP);
            prop_assert_eq!(steady, signal.unwrap_or(Signal::Stray));
        }
    }

    #[test]
    fn the_two_sets_are_two(key in any::<u64>(), entries in 1usize..5000) {
        let table = table(entries);
        let [first, second] = table.sets_of(FlowKey(key));
        prop_assert!(first < table.sets() && second < table.sets());
        prop_assert_eq!(first == second, table.sets() == 1);
    }
}

proptest! {
    /// What is done for a flow to an excerpt comes out as it does to the table, also where there is little
    /// room and much is over.
    #[test]
    fn an_excerpt_does_for_its_flow_what_the_table_does(
        entries in 1usize..40,
        steps in prop::collection::vec((0u64..60, 0usize..3, 0u64..40, any::<bool>()), 1..200),
    ) {
        let mut table = table(entries);
        let lives = Lifetimes::from(&FlowTimes::default());
        let mut now = Timestamp(0);
        for (number, signal, seconds, usable) in steps {
            let key = FlowKey(HashKey::default().hash_bytes(&number.to_le_bytes()));
            let signal = [Signal::Syn, Signal::Data, Signal::Fin][signal];
            now.0 += seconds / 20 * 1_000_000_000;
            let backend = BackendIndex::new(0, u32::from(usable));
            let is_usable = |index: BackendIndex| usable || index.generation() == 0;
            let mut excerpt = table.excerpt(key);
            prop_assert_eq!(excerpt.record(key, now), table.record(key, now));
            let go = |table: &mut FlowTable| {
                let found = table.lookup(key, signal, &lives, now, is_usable);
                let (lease, tick) = (lives.first(signal), table.tick(now));
                let inserted = table.insert(key, Spot::UNKNOWN, backend, lease, tick, is_usable);
                (found, inserted, table.record(key, now), table.counts())
            };
            prop_assert_eq!(go(&mut excerpt), go(&mut table));
        }
    }
}

/// Each set is a second choice as often as any other, whatever the first is.
#[test]
fn second_choices_are_spread_evenly() {
    let table = table(64);
    let mut pairs = vec![0u32; 256];
    let key = HashKey::default();
    for number in 0u32..240_000 {
        let [first, second] = table.sets_of(FlowKey(key.hash_bytes(&number.to_le_bytes())));
        pairs[first * 16 + second] += 1;
    }
    for (pair, count) in pairs.iter().enumerate() {
        let expected = if pair / 16 == pair % 16 { 0..=0 } else { 850..=1150 };
        assert!(expected.contains(count), "{pair}: {count}");
    }
}
