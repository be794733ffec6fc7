//! The resolver against the kernel's routing tables: gateways, changes, rules, several interfaces.
//!
//! Needs root; says `SKIPPED: needs root` otherwise. The namespaces are those of `netns_neighbour.rs`.
#![cfg(all(feature = "af-xdp", target_os = "linux"))]

#[path = "support/pair.rs"]
mod pair;

use dsrlb::dataplane::neighbour::{NeighbourEvent, NeighbourState, Path, Unresolved};
use dsrlb::packet::MacAddress;
use pair::*;
use std::net::IpAddr;
use std::time::Duration;

const BACKEND: &str = "10.77.0.9";
/// Another router on the link: a macvlan of the peer's interface.
const OTHER_ROUTER: MacAddress = MacAddress([2, 0, 0, 9, 0, 3]);

fn backend() -> IpAddr {
    BACKEND.parse().unwrap()
}

/// Waits for the way to `of` to be one of which `wanted` holds.
#[track_caller]
fn until_path(watch: &Watch, of: IpAddr, what: &str, wanted: impl Fn(&Path) -> bool) -> Duration {
    watch.until(what, |event| {
        matches!(event, NeighbourEvent::Neighbour { address, state: NeighbourState::Resolved(path) }
            if address == of && wanted(&path))
    })
}

fn add_router(pair: &Pair) {
    pair.peer(&format!("link add r2 link eth0 address {OTHER_ROUTER} type macvlan mode bridge"));
    pair.peer("addr add 10.9.0.3/24 dev r2");
    // The peer has two interfaces on one link: each answers for its own address alone.
    for interface in ["all", "eth0", "r2"] {
        set(&pair.peer, &format!("net.ipv4.conf.{interface}.arp_ignore=1"));
    }
    pair.peer("link set r2 up");
}

#[test]
fn a_backend_behind_a_router_has_the_routers_address_and_the_routes_mtu_and_source() {
    let Some(pair) = Pair::new("gw") else { return };
    pair.director("addr add 10.9.0.77/24 dev eth0");
    pair.director("route add 10.77.0.0/16 via 10.9.0.2 src 10.9.0.77 mtu 1400");
    let watch = pair.watch([backend()]);
    until_path(&watch, backend(), "the router", |path| {
        *path
            == Path {
                mac: PEER_MAC,
                port: 0,
                vlan: None,
                gateway: Some(PEER_V4),
                source: Some([10, 9, 0, 77].into()),
                mtu: 1400,
            }
    });
}

#[test]
fn ipv6_routers_too_by_link_local_addresses_and_for_ipv4() {
    let Some(pair) = Pair::new("gw6") else { return };
    let v6: IpAddr = "fd77::9".parse().unwrap();
    let link_local = pair.peer("-o -6 addr show dev eth0 scope link");
    let link_local: IpAddr =
        link_local.split_whitespace().nth(3).unwrap().split('/').next().unwrap().parse().unwrap();
    pair.director(&format!("-6 route add fd77::/64 via {link_local} dev eth0"));
    pair.director("route add 10.77.0.0/16 via inet6 fd09::2 dev eth0");
    let watch = pair.watch([v6, backend()]);
    until_path(&watch, v6, "the link-local router", |path| {
        path.gateway == Some(link_local) && path.mac == PEER_MAC
    });
    let watch = pair.watch([backend()]);
    until_path(&watch, backend(), "an IPv6 router for IPv4 (RFC 8950)", |path| {
        path.gateway == Some(PEER_V6) && path.mac == PEER_MAC
    });
}

/// The kernel tells of each change; nothing is looked up otherwise, so none of this can be noticed
/// by polling.
#[test]
fn changes_of_routes_are_followed() {
    let Some(pair) = Pair::new("change") else { return };
    add_router(&pair);
    pair.director("route add 10.77.0.0/16 via 10.9.0.2");
    let watch = pair.watch([backend()]);
    until_path(&watch, backend(), "the first router", |path| path.mac == PEER_MAC);

    pair.director("route replace 10.77.0.0/16 via 10.9.0.3");
    until_path(&watch, backend(), "the other router", |path| path.mac == OTHER_ROUTER);

    pair.director("route add 10.77.0.9/32 via 10.9.0.2");
    until_path(&watch, backend(), "a more specific route", |path| path.mac == PEER_MAC);

    pair.director("route del 10.77.0.9/32");
    until_path(&watch, backend(), "the wider route again", |path| path.mac == OTHER_ROUTER);

    pair.director("route add 10.77.0.0/16 via 10.9.0.2 table 77");
    pair.director("rule add to 10.77.0.0/16 lookup 77 priority 77");
    until_path(&watch, backend(), "a rule", |path| path.mac == PEER_MAC);

    pair.director("rule del priority 77");
    pair.director("route del 10.77.0.0/16");
    watch.until_state(backend(), unresolved(Unresolved::NoRoute));

    pair.director("route add default via 10.9.0.3");
    until_path(&watch, backend(), "the default route", |path| path.mac == OTHER_ROUTER);

    pair.director("link set eth0 mtu 1400");
    until_path(&watch, backend(), "a smaller link", |path| path.mtu == 1400);

    pair.director("addr add 10.77.0.9/32 dev lo");
    watch.until_state(backend(), unresolved(Unresolved::OwnAddress));
}

#[test]
fn all_behind_a_router_follow_its_address_and_it_is_asked_once() {
    let Some(pair) = Pair::new("many") else { return };
    pair.director("route add 10.77.0.0/16 via 10.9.0.2");
    let backends: Vec<IpAddr> = (1..=100).map(|last| [10, 77, 0, last].into()).collect();
    let watch = pair.watch(backends.clone());
    let all_at = |mac| {
        let mut left = backends.clone();
        watch.until(&format!("all at {mac}"), |event| {
            if let NeighbourEvent::Neighbour { address, state: NeighbourState::Resolved(path) } =
                event
                && path.mac == mac
            {
                left.retain(|backend| *backend != address);
            }
            left.is_empty()
        });
    };
    all_at(PEER_MAC);
    let entries = pair.director("-4 neigh show dev eth0");
    assert_eq!(entries.lines().count(), 1, "one neighbour for a hundred backends: {entries}");
    pair.peer(&format!("link set eth0 address {NEW_MAC}"));
    pair.director("neigh flush dev eth0");
    all_at(NEW_MAC);
}

#[test]
fn another_port_is_told_by_its_number() {
    let Some(pair) = Pair::new("ports") else { return };
    let peer = &pair.peer;
    pair.director(&format!("link add arm type veth peer name arm netns {peer}"));
    for (side, last) in [(&pair.director, 1), (peer, 2)] {
        run(&format!("ip -n {side} addr add 10.66.0.{last}/24 dev arm"));
        run(&format!("ip -n {side} link set arm up mtu 1300"));
    }
    pair.director("route add 10.77.0.0/16 via 10.66.0.2");
    let (eth0, arm) = (pair.index("eth0"), pair.index("arm"));
    let watch = pair.watch_on(&[eth0], [backend()]);
    watch.until_state(backend(), unresolved(Unresolved::OtherInterface(arm)));
    let watch = pair.watch_on(&[eth0, arm], [backend(), PEER_V4]);
    until_path(&watch, backend(), "the second port", |path| (path.port, path.mtu) == (1, 1300));
    pair.peer("link set arm down");
    watch.until(
        "the link event",
        |event| matches!(event, NeighbourEvent::LinkChanged { port: 1, link } if !link.up),
    );
    watch.until_state(backend(), unresolved(Unresolved::LinkDown));
}
