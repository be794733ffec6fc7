//! The ARP and neighbour discovery monitor between real hosts.
//!
//! Needs root; says `SKIPPED: needs root` otherwise. The namespaces are those of `netns_neighbour.rs`.
#![cfg(all(feature = "af-xdp", target_os = "linux"))]

#[path = "support/pair.rs"]
mod pair;

use dsrlb::dataplane::neighbour::NeighbourReachable;
use dsrlb::health::{Monitor, ProbeFailure, Target};
use pair::*;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_millis(500);

fn probe(pair: &Pair, address: IpAddr) -> Result<(), ProbeFailure> {
    pair.inside(move || NeighbourReachable.probe(&Target::new("s", "b", address), TIMEOUT))
}

/// A link that has just come up loses what is sent first, and the kernel repeats it after a second.
fn until_well(pair: &Pair, address: IpAddr) {
    let start = Instant::now();
    while probe(pair, address).is_err() {
        assert!(start.elapsed() < PATIENCE, "{}", entry(pair, address));
    }
}

fn reason(pair: &Pair, address: IpAddr) -> String {
    probe(pair, address).unwrap_err().to_string()
}

fn entry(pair: &Pair, address: IpAddr) -> String {
    pair.director(&format!("neigh show {address} dev eth0"))
}

#[test]
fn whoever_answers_now_is_well_in_both_families() {
    let Some(pair) = Pair::new("verify") else { return };
    for address in [PEER_V4, PEER_V6] {
        until_well(&pair, address);
        // Known; known for long; given up; unknown.
        for state in ["reachable", "stale", "delay", "failed", "none"] {
            match state {
                "none" => pair.director(&format!("neigh del {address} dev eth0")),
                _ => pair.director(&format!("neigh change {address} dev eth0 nud {state}")),
            };
            let start = Instant::now();
            assert_eq!(probe(&pair, address), Ok(()), "{address} {state}");
            assert!(start.elapsed() < TIMEOUT / 2, "{:?}", start.elapsed());
            assert!(entry(&pair, address).contains("REACHABLE"), "{}", entry(&pair, address));
        }
    }
}

#[test]
fn who_has_fallen_silent_is_not_believed_to_be_there_and_is_when_it_is_back() {
    let Some(pair) = Pair::new("vsilent") else { return };
    for address in [PEER_V4, PEER_V6] {
        until_well(&pair, address);
    }
    // Its MAC address is known, and confirmed a moment ago.
    pair.peer("link set eth0 arp off");
    pair.peer("addr flush dev eth0");
    for address in [PEER_V4, PEER_V6] {
        let start = Instant::now();
        let text = "neighbour unresolved: does not answer ARP or neighbour discovery within 500ms";
        assert_eq!(reason(&pair, address), text);
        assert!(start.elapsed() < TIMEOUT + Duration::from_millis(100), "{:?}", start.elapsed());
        // What is known is used as long as the kernel still asks.
        assert!(entry(&pair, address).contains(&PEER_MAC.to_string()));
    }
    pair.peer("link set eth0 arp on");
    pair.peer("addr add 10.9.0.2/24 dev eth0");
    pair.peer("addr add fd09::2/64 dev eth0 nodad");
    for address in [PEER_V4, PEER_V6] {
        until_well(&pair, address);
    }
    // Never there at all.
    let failure = probe(&pair, [10, 9, 0, 77].into()).unwrap_err();
    assert!(matches!(failure, ProbeFailure::NeighbourUnresolved(_)), "{failure}");
}

#[test]
fn who_cannot_be_asked_is_not_called_well() {
    let Some(pair) = Pair::new("vcannot") else { return };
    pair.director(&format!("neigh replace 10.9.0.2 dev eth0 lladdr {PEER_MAC} nud permanent"));
    assert!(reason(&pair, PEER_V4).contains("its entry is permanent"));
    assert!(entry(&pair, PEER_V4).contains("PERMANENT"), "it is left as it is");
    pair.director("route add 10.77.0.0/16 via 10.9.0.2");
    let behind = reason(&pair, [10, 77, 0, 1].into());
    assert!(behind.contains("behind the router 10.9.0.2"), "{behind}");
    let own = reason(&pair, [10, 9, 0, 1].into());
    assert_eq!(own, "neighbour unresolved: the address belongs to this host");
    let nowhere = reason(&pair, [192, 0, 2, 1].into());
    assert_eq!(nowhere, "no way to it from here: no route to it");
    assert!(reason(&pair, "fe80::1".parse().unwrap()).contains("link-local"));
}
