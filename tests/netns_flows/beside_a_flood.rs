//! The same connections while a flood of forged ones goes for the table that remembers them.

use crate::crowd::{Crowd, Tally};
use crate::flood::{self, Flood, Forgery};
use crate::lab::Lab;
use crate::pool::Pool;
use crate::random::Random;
use crate::{BACKENDS, FIRST, build, check, crowd, seed, start, step};
use dsrlb::balancer::FlowBalancer;
use dsrlb::config::Limits;
use dsrlb::flow::HashKey;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// As few entries as will do: of flows as many as a quarter of them, next to none finds no place.
const ENTRIES: usize = 1 << 13;
const FLOODED_AT_LEAST: u64 = 10 * ENTRIES as u64;
const FLOOD: Duration = Duration::from_secs(6);
const LONGEST_FLOOD: Duration = Duration::from_secs(40);

/// What the client's kernel has sent of TCP, retransmissions included.
fn segments_sent(lab: &Lab) -> u64 {
    let text = lab.client.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap().split(' '), tcp.next().unwrap().split(' '));
    let counts = names.zip(values).filter(|(name, _)| ["OutSegs", "RetransSegs"].contains(name));
    counts.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn no_flood_of_syns_costs_a_connection_its_backend() {
    beside("flood", Forgery::Syns, |lab| lab.vip4_port(80));
}

#[test]
fn no_flood_of_syns_by_ipv6_costs_a_connection_its_backend() {
    beside("flood6", Forgery::Syns, |lab| lab.vip6_port(80));
}

/// They cannot be told from connections, so they fill the table until their time is over: new flows are then hashed alone.
/// Those that were there keep their places.
#[test]
fn no_flood_of_forged_handshakes_costs_a_connection_its_backend() {
    beside("handshakes", Forgery::Handshakes, |lab| lab.vip4_port(80));
}

fn beside(name: &'static str, forgery: Forgery, vip: fn(&Lab) -> SocketAddr) {
    let Some((lab, _servers, _turn)) = build(name) else { return };
    lab.backends.iter().for_each(|host| flood::ignore_sources(host).unwrap());
    // What the flood crowds out is sent again soon, and not after ever longer times.
    lab.client.namespace.sysctl(&[("net/ipv4/tcp_thin_linear_timeouts", "1")]).unwrap();
    let seed = seed();
    let balancer =
        || FlowBalancer::new(ENTRIES, Limits::default().backends, HashKey::new([7; 16])).unwrap();
    let (director, services) = start(&lab, 1..=6, |builder| builder.balancer(balancer));
    let crowd = Crowd {
        // No new ones: what a flood does to a flow that is not proven yet is not the claim.
        short: 0,
        window: FIRST,
        timeout: Duration::from_secs(60),
        ..crowd(&services)
    };
    let clients = crowd.start(&lab);
    let mut pool = Pool { lab: &lab, director: &director, services, random: Random(seed) };
    for _ in 0..3 {
        step("before", &mut pool, &clients, |_, _| ());
    }

    let (begun, messages, segments) = (Instant::now(), clients.messages(), segments_sent(&lab));
    let received = || director.stats().counts.io.received;
    let before = received();
    let flood = Flood::start(&lab.client, vip(&lab), forgery, seed).unwrap();
    let (mut changes, mut moved) = (0, 0.0);
    let mut handled = 0;
    while begun.elapsed() < FLOOD || handled < FLOODED_AT_LEAST {
        assert!(begun.elapsed() < LONGEST_FLOOD, "only {handled} segments were handled");
        moved += move_most(&mut pool);
        changes += 1;
        check(&clients);
        std::thread::sleep(Duration::from_millis(250));
        // The rest are forged, but for a few neighbour discoveries.
        handled = (received() - before).saturating_sub(segments_sent(&lab) - segments);
    }
    let (sent, took) = (flood.sent(), begun.elapsed());
    let messages = clients.messages() - messages;
    drop(flood);
    println!(
        "{sent} segments sent in {took:.1?}, {:.0} a second; {handled} handled, {} times the {ENTRIES} entries, beside \
         {messages} messages and {changes} changes that moved {:.0} % of new flows each",
        sent as f64 / took.as_secs_f64(),
        handled / ENTRIES as u64,
        100.0 * moved / f64::from(changes),
    );
    for _ in 0..4 {
        moved += move_most(&mut pool);
        changes += 1;
        step("after", &mut pool, &clients, |_, _| ());
    }
    drop(pool);
    let Tally { opened, cut, survivors, wrong, .. } = clients.stop();
    println!("{survivors} of {opened} connections kept their backends, {} did not", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((survivors, cut), (FIRST as u64, 0));
    assert!(moved / f64::from(changes) > 0.5, "hashing alone would have moved too few");
    let counts = director.shutdown().counts;
    assert_eq!(counts.io.received, counts.verdicts(), "{counts:?}");
}

/// Changes a service so that most flows would go elsewhere if they were hashed alone, and none is cut; the share of them.
fn move_most(pool: &mut Pool<'_>) -> f64 {
    let number = pool.random.below(pool.services.len());
    let key = HashKey::new(pool.random.bytes());
    let without = 1 + pool.random.below(BACKENDS.into()) as u8;
    let applied = pool.apply(number, |next| {
        next.key = key;
        next.weights = (1..=BACKENDS).map(|n| (n, u16::from(n != without))).collect();
    });
    applied.moved.iter().map(|(_, share)| share).sum()
}
