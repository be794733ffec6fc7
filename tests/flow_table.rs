//! The flow table against its model, and what it promises of floods and full tables.

mod support;

use dsrlb::balancer::{
    Assignment, Backend, Balancer, FlowBalancer, FlowKey, FlowRecord, FlowTable, FlowTimes, Found,
    HashBalancer, Imported, Inserted, Keeping, Lifetimes, Maglev, RealServer, Service,
    ServiceTable, Signal, Spot, State, VirtualService,
};
use dsrlb::flow::{FiveTuple, Fragment, HashKey, PacketInfo, Protocol, TcpFlags, Timestamp};
use dsrlb::verdict::BackendIndex;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use support::flow_model::check_flow_table;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_with_the_model(data in prop::collection::vec(any::<u8>(), 1..1200)) {
        check_flow_table(&data);
    }

    /// Few flows that many packets are of, so that they live through whole lives.
    #[test]
    fn agrees_with_the_model_on_long_lives(
        sets in 0u8..4,
        steps in prop::collection::vec(
            (prop_oneof![8 => 0u8..10, 3 => Just(11), 1 => 12u8..16], 0u8..12, 0u8..40, 0u8..21),
            1..300,
        ),
    ) {
        let steps = steps.into_iter().flat_map(|(operation, flow, a, b)| [operation, flow, a, b]);
        check_flow_table(&std::iter::once(sets).chain(steps).collect::<Vec<_>>());
    }
}

const ENTRIES: usize = 1 << 14;
const START: Timestamp = Timestamp(0);

fn table() -> FlowTable {
    FlowTable::new(ENTRIES, 8, HashKey::new(*b"no one's secret."), START).unwrap()
}

fn key(number: usize) -> FlowKey {
    FlowKey(HashKey::default().hash_bytes(&number.to_le_bytes()))
}

fn backend(number: usize) -> BackendIndex {
    BackendIndex::new(number % 8, 0)
}

/// Remembers a flow of which this packet came, if it is worth a place.
fn insert(
    table: &mut FlowTable,
    key: FlowKey,
    backend: BackendIndex,
    signal: Signal,
    now: Timestamp,
) -> Inserted {
    let lease = Lifetimes::from(&FlowTimes::default()).first(signal);
    let tick = table.tick(now);
    table.insert(key, Spot::UNKNOWN, backend, lease, tick, |_| true)
}

/// The packets of a TCP handshake; whether the flow is then known as proven.
fn connect(table: &mut FlowTable, number: usize, now: Timestamp) -> bool {
    let lives = Lifetimes::from(&FlowTimes::default());
    [Signal::Syn, Signal::Data].iter().any(|signal| {
        match table.lookup(key(number), *signal, &lives, now, |_| true) {
            Found::Known(_, state) => state == State::Established,
            _ => {
                insert(table, key(number), backend(number), *signal, now);
                false
            }
        }
    })
}

#[test]
fn a_flood_leaves_every_proven_flow_where_it_is() {
    let lives = Lifetimes::from(&FlowTimes::default());
    for flood in [Signal::Syn, Signal::Data, Signal::Udp, Signal::Other] {
        let mut table = table();
        let count = ENTRIES / 2;
        assert!((0..count).all(|number| connect(&mut table, number, START)));
        assert_eq!(table.counts().begun, count as u64);
        for number in 0..10 * ENTRIES {
            let (key, signal) = (key(1 << 32 | number), flood);
            assert_eq!(table.lookup(key, signal, &lives, START, |_| true), Found::Missing);
            insert(&mut table, key, backend(0), signal, START);
        }
        assert_eq!(table.counts().proven, count as u64);
        assert!(table.counts().unproven <= ENTRIES as u64 / 4);
        for number in 0..count {
            let found = table.lookup(key(number), Signal::Data, &lives, START, |_| true);
            assert_eq!(found, Found::Known(backend(number), State::Established), "{flood:?}");
        }
    }
}

/// Under a flood that washes out every SYN before the client's next packet comes, two packets more
/// prove a flow.
#[test]
fn no_flood_of_syns_keeps_a_client_from_being_known() {
    let lives = Lifetimes::from(&FlowTimes::default());
    let mut table = table();
    let mut flooded = 0;
    let mut flood = |table: &mut FlowTable| {
        for _ in 0..4 * ENTRIES {
            flooded += 1;
            insert(table, key(1 << 32 | flooded), backend(0), Signal::Syn, START);
        }
    };
    flood(&mut table);
    for number in 0..32 {
        for signal in [Signal::Syn, Signal::Data, Signal::Data] {
            if table.lookup(key(number), signal, &lives, START, |_| true) == Found::Missing {
                insert(&mut table, key(number), backend(number), signal, START);
            }
            flood(&mut table);
        }
        let found = table.lookup(key(number), Signal::Data, &lives, START, |_| true);
        assert_eq!(found, Found::Known(backend(number), State::Established));
    }
}

/// At twice the capacity: what is refused is counted, what was there stays.
#[test]
fn a_full_table_refuses_newcomers() {
    let mut table = table();
    let bytes = table.bytes();
    let mut kept = Vec::new();
    let mut shares = Vec::new();
    for number in 0..2 * ENTRIES {
        if connect(&mut table, number, START) {
            kept.push(number);
        }
        if (number + 1) % (ENTRIES / 8) == 0 {
            shares.push(kept.len() as f64 / (number + 1) as f64);
        }
    }
    println!("share of flows kept, by eighths of the capacity: {shares:.4?}");
    assert_eq!(shares[3], 1.0, "at half of the capacity");
    assert!(shares[5] > 0.99, "at three quarters");
    assert!(shares[15] > 0.49, "at twice the capacity, where a half is all there can be");
    assert!(table.counts().refused > 0);
    assert_eq!(table.counts().proven, kept.len() as u64);
    assert_eq!(table.bytes(), bytes);
    let lives = Lifetimes::from(&FlowTimes::default());
    for number in kept {
        let found = table.lookup(key(number), Signal::Stray, &lives, START, |_| true);
        assert_eq!(found, Found::Known(backend(number), State::Established));
    }
}

/// A service with this hash key and the backends 1 to `count`, all of which keep their flows.
fn services(key: u8, count: u8) -> ServiceTable {
    let policy = Maglev::with_table_size(1021).unwrap();
    let service = VirtualService::new("10.0.0.100:80/tcp".parse().unwrap()).policy(policy);
    let service = service.hash_key(HashKey::new([key; 16]));
    let member = |number: u8| -> (Arc<dyn Backend>, BackendIndex) {
        (Arc::new(RealServer::new([10, 0, 1, number].into())), BackendIndex::new(number.into(), 0))
    };
    let members: Vec<_> = (1..=count).map(member).collect();
    let keeping: Vec<_> =
        members.iter().map(|(_, index)| (*index, Keeping::Everything, 0)).collect();
    ServiceTable::new(vec![Arc::new(Service::build(&service, members))]).keeping(&keeping)
}

fn segment(flow: usize, flags: u8) -> PacketInfo {
    let flow = FiveTuple {
        source: [192, 0, 2, (flow >> 12) as u8].into(),
        destination: [10, 0, 0, 100].into(),
        source_port: 1024 + (flow & 0xfff) as u16,
        destination_port: 80,
        protocol: Protocol::TCP,
    };
    PacketInfo::new(flow, Fragment::Whole, TcpFlags(flags))
}

/// The same as a client sees it: at twice the capacity each flow is served, before a change and after it.
/// Those that are known keep their backends; those that are not go where hashing alone sends them.
#[test]
fn at_twice_the_capacity_all_are_served_and_the_known_ones_stay() {
    let (before, after) = (services(1, 4), services(2, 5));
    let mut balancer = FlowBalancer::new(ENTRIES, 8, HashKey::new([7; 16])).unwrap();
    let hashed =
        |services, flow| HashBalancer.assign(services, &segment(flow, TcpFlags::ACK), Timestamp(0));
    for flow in 0..2 * ENTRIES {
        for flags in [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::ACK] {
            let assigned = balancer.assign(&before, &segment(flow, flags), START);
            assert_eq!(assigned, hashed(&before, flow));
            assert!(matches!(assigned, Assignment::Backend(_)));
        }
    }
    let counts = balancer.counts();
    assert!(counts.proven + counts.unproven <= ENTRIES as u64 && counts.refused > 0, "{counts:?}");
    assert!(counts.proven > ENTRIES as u64 * 98 / 100, "{counts:?}");

    // What would move tells who is known: hardly anybody else is where it was.
    let would_move: Vec<usize> =
        (0..2 * ENTRIES).filter(|flow| hashed(&before, *flow) != hashed(&after, *flow)).collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for flow in would_move {
        let assigned = balancer.assign(&after, &segment(flow, TcpFlags::ACK), START);
        if assigned == hashed(&before, flow) {
            known.push(flow);
        } else {
            assert_eq!(assigned, hashed(&after, flow));
            unknown.push(flow);
        }
    }
    let share = known.len() as f64 / (known.len() + unknown.len()) as f64;
    println!("{} flows kept, {} moved: {share:.3}", known.len(), unknown.len());
    assert!((0.48..=0.52).contains(&share));
    // And so it stays.
    for (flows, table) in [(&known, &before), (&unknown, &after), (&known, &before)] {
        for flow in flows {
            let assigned = balancer.assign(&after, &segment(*flow, TcpFlags::ACK), START);
            assert_eq!(assigned, hashed(table, *flow));
        }
    }
    assert_eq!(balancer.counts().proven, counts.proven);
}

#[test]
fn flows_of_a_backend_are_counted_until_they_are_over() {
    let mut table = table();
    let lives = Lifetimes::from(&FlowTimes::default());
    let count = 4000;
    assert!((0..count).all(|number| connect(&mut table, number, START)));
    assert_eq!(table.live(3), 500);
    // One backend goes: no packet finds it any more, and a round of the sweeper forgets its flows.
    let usable = |index: BackendIndex| index.slot() != 3;
    assert_eq!(table.lookup(key(3), Signal::Data, &lives, START, usable), Found::Missing);
    let rounds = table.sets().div_ceil(16);
    for _ in 0..rounds {
        table.sweep(START, 16, usable);
    }
    assert_eq!((table.live(3), table.live(4), table.counts().proven), (0, 500, 3500));
    // Half of the rest close; both halves end in their time.
    let second = |number: u64| Timestamp(number * 1_000_000_000);
    for number in (0..count).step_by(2) {
        table.lookup(key(number), Signal::Fin, &lives, START, usable);
    }
    for (now, left) in [(29, 3500), (31, 1500), (899, 1500), (901, 0)] {
        table.sweep(second(now), table.sets(), usable);
        assert_eq!(table.counts().proven, left, "after {now} s");
    }
    assert!((0..8).all(|slot| table.live(slot) == 0));
}

#[test]
fn another_table_takes_over_where_one_stopped() {
    let mut first = table();
    assert!((0..6000).all(|number| connect(&mut first, number, START)));
    let mut second =
        FlowTable::new(2 * ENTRIES, 8, HashKey::default(), Timestamp(5_000_000_000_000_000))
            .unwrap();
    let now = Timestamp(5_000_000_000_000_000);
    for sets in 0..first.sets().div_ceil(100) {
        for record in first.records(sets * 100..(sets + 1) * 100, START) {
            let imported = second.import(record, now, |_| true);
            assert_eq!(imported, Imported::New);
        }
    }
    let lives = Lifetimes::from(&FlowTimes::default());
    for number in 0..6000 {
        let found = second.lookup(key(number), Signal::Data, &lives, now, |_| true);
        assert_eq!(found, Found::Known(backend(number), State::Established));
    }
    assert_eq!(second.records(0..second.sets(), now).count(), 6000);
}

/// By who holds the slot: the next one begins with nothing.
#[test]
fn flows_that_began_are_counted_by_backend() {
    let mut table = table();
    let [old, new, other] = [(1, 0), (1, 1), (2, 0)].map(|(slot, of)| BackendIndex::new(slot, of));
    let mut begin = |from: usize, count, backend| {
        for number in from..from + count {
            let key = key(number);
            insert(&mut table, key, backend, Signal::Syn, START);
            // Which is known by now, and begins nothing.
            insert(&mut table, key, backend, Signal::Syn, START);
        }
        [old, new, other].map(|backend| table.begun(backend))
    };
    assert_eq!(begin(0, 5, old), [5, 0, 0]);
    assert_eq!(begin(10, 3, other), [5, 0, 3]);
    assert_eq!(begin(20, 2, new), [0, 2, 3]);
    assert_eq!(table.counts().begun, 10);
}

#[test]
fn memory_is_what_was_asked_for() {
    assert_eq!(FlowTable::ENTRY_BYTES, 16);
    let bytes = |entries, slots| {
        let table = FlowTable::new(entries, slots, HashKey::default(), START).unwrap();
        (table.capacity(), table.bytes())
    };
    assert_eq!(bytes(1, 0), (4, 64));
    assert_eq!(bytes(1 << 20, 1024), (1 << 20, (16 << 20) + 16 * 1024));
    assert_eq!(bytes(1_000_001, 10), (1_000_004, 16_000_064 + 2 * 128));
}

#[test]
fn impossible_sizes_are_refused_with_the_limit() {
    let error =
        |entries| FlowTable::new(entries, 1, HashKey::default(), START).unwrap_err().to_string();
    assert_eq!(error(0), "a flow table of 0 entries cannot be made: it needs at least 1");
    let many = FlowTable::MAX_ENTRIES + 1;
    assert!(
        error(many).contains(&format!("at most {}", FlowTable::MAX_ENTRIES)),
        "{}",
        error(many)
    );
    assert!(error(usize::MAX).contains("at most"));
}

/// A flow that another director tells of is proven, and ranks as high as those that are here.
#[test]
fn what_is_told_takes_no_place_of_a_proven_one() {
    let mut table = FlowTable::new(8, 1, HashKey::default(), START).unwrap();
    let lives = Lifetimes::from(&FlowTimes::default());
    let backend = BackendIndex::new(0, 0);
    let told = |number| FlowRecord {
        key: key(number),
        backend,
        state: State::Closing,
        remaining: Duration::from_secs(5),
    };
    for number in 0..1000 {
        insert(&mut table, key(number), backend, Signal::Data, START);
        table.lookup(key(number), Signal::Data, &lives, START, |_| true);
    }
    assert_eq!(table.counts().proven, 8);
    let known: Vec<_> = table.records(0..2, START).collect();
    for number in 1000..2000 {
        assert_eq!(table.import(told(number), START, |_| true), Imported::Refused);
    }
    assert_eq!(table.records(0..2, START).collect::<Vec<_>>(), known);
}

/// In a process of its own, which may have no more than a gigabyte.
#[cfg(target_os = "linux")]
#[test]
fn a_table_beyond_the_memory_of_the_process_is_refused() {
    const NAME: &str = "a_table_beyond_the_memory_of_the_process_is_refused";
    const CHILD: &str = "DSRLB_LITTLE_MEMORY";
    if std::env::var_os(CHILD).is_some() {
        let most = FlowTable::MAX_ENTRIES;
        let error = FlowTable::new(most, 1, HashKey::default(), START).unwrap_err();
        assert!(error.to_string().ends_with("there is not enough memory"), "{error}");
        return;
    }
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 1048576 && exec \"$0\" --test-threads=1 --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
