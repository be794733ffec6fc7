//! The neighbour resolver and the ARP and ND answers against the kernel, in namespaces of their own.
//!
//! Needs root; says `SKIPPED: needs root` otherwise. Each test has its own pair of namespaces named
//! `dsrlb-nb-…`, joined by a veth: `director` (`eth0`, 10.9.0.1, fd09::1) and `peer` (`eth0`,
//! 10.9.0.2, fd09::2).
#![cfg(all(feature = "af-xdp", target_os = "linux"))]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/skip.rs"]
mod skip;

use dsrlb::dataplane::neighbour::{
    NeighbourEvent, NeighbourState, Rejection, Resolver, Unresolved,
};
use dsrlb::packet::{MacAddress, arp, neighbor_discovery};
use pair::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn resolves_both_families_without_any_other_traffic() {
    let Some(pair) = Pair::new("both") else {
        return;
    };
    let watch = pair.watch([PEER_V4, PEER_V6]);
    let mut left = BTreeSet::from([PEER_V4, PEER_V6]);
    let took = watch.until("both resolved", |event| {
        if let NeighbourEvent::Neighbour { address, state } = event
            && matches!(state, NeighbourState::Resolved(path) if path.mac == PEER_MAC)
        {
            left.remove(&address);
        }
        left.is_empty()
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn an_entry_that_is_there_already_is_found_and_dropping_is_prompt() {
    let Some(pair) = Pair::new("there") else {
        return;
    };
    pair.director(&format!("neigh add 10.9.0.2 dev eth0 lladdr {PEER_MAC} nud stale"));
    let watch = pair.watch([PEER_V4]);
    watch.until_state(PEER_V4, at(PEER_MAC));
    // Stale is usable, but the kernel is made to confirm it: after 5 s it probes.
    let start = Instant::now();
    while !pair.director("neigh show 10.9.0.2").contains("REACHABLE") {
        assert!(start.elapsed() < PATIENCE, "{}", pair.director("neigh show"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let start = Instant::now();
    drop(watch.thread);
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}

#[test]
fn a_new_mac_is_heard_of_when_it_is_announced() {
    let Some(pair) = Pair::new("newmac") else {
        return;
    };
    let watch = pair.watch([PEER_V4]);
    watch.until_state(PEER_V4, at(PEER_MAC));
    // The kernel keeps a reachable entry for a second at least (`locktime`) against two hosts that
    // fight; and it announces the change of a MAC itself if `arp_notify` is set.
    std::thread::sleep(Duration::from_millis(1100));
    set(&pair.peer, "net.ipv4.conf.eth0.arp_notify=1");
    pair.peer(&format!("link set eth0 address {NEW_MAC}"));
    watch.until_state(PEER_V4, at(NEW_MAC));
}

#[test]
fn a_silent_peer_fails_and_comes_back() {
    let Some(pair) = Pair::new("silent") else {
        return;
    };
    pair.peer("link set eth0 arp off");
    let watch = pair.watch([PEER_V4]);
    let took = watch.until_state(PEER_V4, unresolved(Unresolved::NoAnswer));
    assert!(took >= Duration::from_secs(2), "{took:?}");
    pair.peer("link set eth0 arp on");
    // A FAILED entry is asked for again.
    watch.until_state(PEER_V4, at(PEER_MAC));
}

#[test]
fn a_peer_whose_link_goes_down_is_unresolved_and_comes_back() {
    let Some(pair) = Pair::new("down") else {
        return;
    };
    let watch = pair.watch([PEER_V4]);
    watch.until_state(PEER_V4, at(PEER_MAC));
    pair.peer("link set eth0 down");
    let took = watch.until_state(PEER_V4, unresolved(Unresolved::LinkDown));
    assert!(took < Duration::from_secs(2), "{took:?}");
    pair.peer("link set eth0 up");
    watch.until_state(PEER_V4, at(PEER_MAC));
    // A deleted entry is asked for at once.
    pair.director("neigh flush dev eth0");
    let took = watch.until_state(PEER_V4, at(PEER_MAC));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_peer_with_our_own_mac_is_rejected() {
    let Some(pair) = Pair::new("own") else { return };
    pair.peer(&format!("link set eth0 address {DIRECTOR_MAC}"));
    let watch = pair.watch([PEER_V4]);
    let rejected = |mac| {
        let why = Rejection::Own;
        NeighbourState::Rejected { mac, why }
    };
    watch.until_state(PEER_V4, rejected(DIRECTOR_MAC));
    pair.director(&format!("link set eth0 address {NEW_MAC}"));
    watch.until(
        "our new MAC",
        |event| matches!(event, NeighbourEvent::LinkChanged { link, .. } if link.mac == Some(NEW_MAC)),
    );
    watch.until_state(PEER_V4, at(DIRECTOR_MAC));
}

#[test]
fn what_is_not_on_the_link_says_why() {
    let Some(pair) = Pair::new("why") else { return };
    let peer = &pair.peer;
    pair.director(&format!("link add other type veth peer name other netns {peer}"));
    pair.peer("link set other up");
    pair.director("link set other up");
    pair.director("addr add 10.66.0.1/24 dev other");
    pair.director("route add blackhole 10.55.0.0/16");
    let other = pair.index("other");
    let expected = [
        ("10.77.0.9", Unresolved::NoRoute),
        ("10.66.0.9", Unresolved::OtherInterface(other)),
        ("10.55.0.9", Unresolved::NoRoute),
        ("10.44.0.9", Unresolved::NoRoute),
        ("fd44::9", Unresolved::NoRoute),
        ("10.9.0.1", Unresolved::OwnAddress),
        ("fd09::1", Unresolved::OwnAddress),
    ];
    let addresses = expected.map(|(address, _)| address.parse().unwrap());
    let watch = pair.watch(addresses);
    let mut left: BTreeSet<IpAddr> = addresses.into();
    watch.until("each reason", |event| {
        if let NeighbourEvent::Neighbour { address, state } = event {
            let expected = expected.iter().find(|e| e.0.parse() == Ok(address)).unwrap();
            if state == unresolved(expected.1) {
                left.remove(&address);
            }
        }
        left.is_empty()
    });
    // A route comes: the kernel tells.
    pair.director("route add 10.77.0.0/16 dev eth0");
    pair.peer("addr add 10.77.0.9/16 dev eth0");
    let address = addresses[0];
    watch.until_state(address, at(PEER_MAC));
}

#[test]
fn a_permanent_entry_is_used_as_it_is() {
    let Some(pair) = Pair::new("perm") else {
        return;
    };
    let nobody: IpAddr = "10.9.0.99".parse().unwrap();
    let static_mac = MacAddress([2, 0, 0, 9, 0, 0x99]);
    pair.director(&format!("neigh add {nobody} dev eth0 lladdr {static_mac} nud permanent"));
    let zero: IpAddr = "10.9.0.98".parse().unwrap();
    pair.director(&format!("neigh add {zero} dev eth0 lladdr 00:00:00:00:00:00 nud permanent"));
    let watch = pair.watch([nobody]);
    watch.until_state(nobody, at(static_mac));
    watch.thread.want(BTreeSet::from([nobody, zero]));
    let mac = MacAddress::ZERO;
    let why = Rejection::Zero;
    watch.until_state(zero, NeighbourState::Rejected { mac, why });
    // It is never asked for: that would make the kernel forget that it is permanent.
    assert!(pair.director(&format!("neigh show {nobody}")).contains("PERMANENT"));
    assert!(pair.director(&format!("neigh show {zero}")).contains("PERMANENT"));
}

#[test]
fn a_neighbour_on_a_vlan_of_the_interface_counts() {
    let Some(pair) = Pair::new("vlan") else {
        return;
    };
    if !has_vlan_devices(&pair) {
        skip::kernel_cannot("this kernel has no VLAN devices");
        return;
    }
    for (namespace, last) in [(&pair.director, 1), (&pair.peer, 2)] {
        run(&format!("ip -n {namespace} link add link eth0 name eth0.5 type vlan id 5"));
        run(&format!("ip -n {namespace} addr add 10.5.0.{last}/24 dev eth0.5"));
        run(&format!("ip -n {namespace} link set eth0.5 up"));
    }
    let address: IpAddr = "10.5.0.2".parse().unwrap();
    let watch = pair.watch([address]);
    watch.until_state(address, at(PEER_MAC));
}

#[test]
fn refuses_an_interface_that_is_not_there_or_not_ethernet() {
    let Some(pair) = Pair::new("open") else {
        return;
    };
    let missing = pair.inside(|| Resolver::open(&[4242]).unwrap_err().to_string());
    assert!(missing.contains("no interface with index 4242"), "{missing}");
    let loopback = pair.inside(|| Resolver::open(&[1]).unwrap_err().to_string());
    assert!(loopback.contains("not an Ethernet interface"), "{loopback}");
}

#[test]
fn an_interface_that_is_deleted_is_told_of() {
    let Some(pair) = Pair::new("gone") else {
        return;
    };
    let watch = pair.watch([PEER_V4]);
    watch.until_state(PEER_V4, at(PEER_MAC));
    pair.director("link del eth0");
    watch.until_state(PEER_V4, unresolved(Unresolved::LinkGone));
}

/// More changes than the socket holds: nothing of them is missed in the end.
#[test]
fn a_flood_of_changes_is_survived() {
    let Some(pair) = Pair::new("flood") else {
        return;
    };
    let index = pair.index("eth0");
    let director = pair.director.clone();
    pair.inside(move || {
        let mut resolver = Resolver::open(&[index]).unwrap();
        resolver.want(&BTreeSet::from([PEER_V4])).unwrap();
        // Not listening meanwhile: 20,000 messages are more than a megabyte.
        let script = std::env::temp_dir().join(format!("{director}.batch"));
        let mut lines = String::new();
        for turn in 0..40 {
            for last in 100..250 {
                for verb in ["replace", "del"] {
                    let mac = format!("02:00:00:00:{turn:02x}:{last:02x}");
                    lines += &match verb {
                        "replace" => format!("neigh replace 10.9.0.{last} dev eth0 lladdr {mac}\n"),
                        _ => format!("neigh del 10.9.0.{last} dev eth0\n"),
                    };
                }
            }
        }
        lines += &format!("neigh replace 10.9.0.2 dev eth0 lladdr {NEW_MAC} nud permanent\n");
        std::fs::write(&script, lines).unwrap();
        run(&format!("ip -batch {}", script.display()));
        std::fs::remove_file(&script).unwrap();
        let start = Instant::now();
        while !matches!(resolver.state(PEER_V4), Some(NeighbourState::Resolved(path)) if path.mac == NEW_MAC) {
            let state = resolver.state(PEER_V4);
            let kernel = || run("ip neigh show 10.9.0.2");
            assert!(start.elapsed() < PATIENCE, "{state:?}, kernel: {}", kernel());
            resolver.next_events(Duration::from_millis(100)).unwrap();
        }
    });
}

mod answers {
    use super::*;
    use socket2::{Domain, Protocol, SockAddr, Socket, Type};
    use std::mem::MaybeUninit;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const VIP_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);
    const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x100);

    /// A packet socket on interface `index` of this namespace.
    fn packet_socket(index: u32) -> Socket {
        let all = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all))).unwrap();
        #[allow(clippy::multiple_unsafe_ops_per_block)]
        // SAFETY: the storage is large enough for a `sockaddr_ll`, aligned for any address, and
        // zeroed; the length given back is that of what is written.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                let link = storage.cast::<libc::sockaddr_ll>();
                (*link).sll_family = libc::AF_PACKET as u16;
                (*link).sll_protocol = all as u16;
                (*link).sll_ifindex = index as i32;
                *length = size_of::<libc::sockaddr_ll>() as u32;
                Ok(())
            })
        }
        .unwrap();
        socket.bind(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket
    }

    /// Answers for the VIPs as a pipeline would, until `stop`.
    fn answer(socket: &Socket, stop: &AtomicBool) {
        let mut buffer = [MaybeUninit::new(0u8); 2048];
        while !stop.load(Ordering::Relaxed) {
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            // SAFETY: all of the buffer was initialised.
            let mut frame: Vec<u8> =
                buffer[..length].iter().map(|b| unsafe { b.assume_init() }).collect();
            let answered = match frame.get(12..14) {
                Some([0x08, 0x06]) => {
                    arp::requested_address(&frame, 14) == Some(VIP_V4)
                        && arp::answer_in_place(&mut frame, 14, DIRECTOR_MAC)
                }
                Some([0x86, 0xdd]) => {
                    neighbor_discovery::solicited_target(&frame, 14) == Some(VIP_V6)
                        && neighbor_discovery::answer_in_place(&mut frame, 14, DIRECTOR_MAC)
                }
                _ => false,
            };
            if answered {
                socket.send(&frame).unwrap();
            }
        }
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn the_kernel_takes_answers_and_announcements() {
        let Some(pair) = Pair::new("answers") else {
            return;
        };
        let index = pair.index("eth0");
        let (socket, sender) = pair.inside(move || (packet_socket(index), packet_socket(index)));
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || answer(&socket, &theirs));

        for vip in [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)] {
            // Nobody answers the echo; what counts is that the VIP is resolved.
            let ping = format!("netns exec {} ping -c 1 -W 1 {vip}", pair.peer);
            let _ = Command::new("ip").args(ping.split(' ')).stdout(Stdio::null()).status();
            let found = pair.peer(&format!("neigh show {vip}"));
            assert!(found.contains(&DIRECTOR_MAC.to_string()), "{vip}: {found}");
            assert!(!found.contains("FAILED"), "{vip}: {found}");

            // An announcement replaces what the peer believed.
            pair.peer(&format!("neigh replace {vip} dev eth0 lladdr {NEW_MAC} nud stale"));
            std::thread::sleep(Duration::from_millis(1100));
            match vip {
                IpAddr::V4(vip) => sender.send(&arp::announcement(DIRECTOR_MAC, vip)),
                IpAddr::V6(vip) => sender.send(&neighbor_discovery::unsolicited(DIRECTOR_MAC, vip)),
            }
            .unwrap();
            until("announcement is believed", || {
                let found = pair.peer(&format!("neigh show {vip}"));
                found.contains(&DIRECTOR_MAC.to_string())
            });
        }

        // Somebody else wants the VIP: duplicate address detection tells them no.
        set(&pair.peer, "net.ipv6.conf.eth0.accept_dad=1");
        pair.peer(&format!("addr add {VIP_V6}/64 dev eth0"));
        until("duplicate is detected", || pair.peer("-6 addr show dev eth0").contains("dadfailed"));
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}

mod monitors {
    use super::*;
    use dsrlb::health::{IcmpEcho, Monitor, ProbeFailure, Target};

    fn probe(pair: &Pair, address: &'static str, timeout: Duration) -> Result<(), ProbeFailure> {
        pair.inside(move || {
            let target = Target::new("service", "test", address.parse().unwrap());
            IcmpEcho::new().probe(&target, timeout)
        })
    }

    #[test]
    fn echo_tells_an_answer_from_silence_and_from_unreachable() {
        let Some(pair) = Pair::new("echo") else {
            return;
        };
        let second = Duration::from_secs(1);
        for address in ["10.9.0.2", "fd09::2"] {
            // The first solicitation may be lost on a link that has just come up; the next one
            // comes a second later.
            assert_eq!(probe(&pair, address, 3 * second), Ok(()), "{address}");
        }
        // The peer is a router that knows no way on.
        let forwarding = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
        for setting in forwarding {
            set(&pair.peer, setting);
        }
        for (family, net, router) in
            [("-4", "10.88.0.0/16", "10.9.0.2"), ("-6", "fd88::/64", "fd09::2")]
        {
            pair.director(&format!("{family} route add {net} via {router}"));
            pair.peer(&format!("{family} route add unreachable {net}"));
        }
        let cases = [("10.88.0.1", PEER_V4, 3, 1), ("fd88::1", PEER_V6, 1, 0)];
        for (address, from, kind, code) in cases {
            let expected = ProbeFailure::Unreachable { from, kind, code };
            assert_eq!(probe(&pair, address, second), Err(expected), "{address}");
        }
        // No route at all, seen by this host itself.
        for address in ["10.44.0.1", "fd44::1"] {
            let failure = probe(&pair, address, second).unwrap_err();
            assert!(matches!(failure, ProbeFailure::NoRoute(_)), "{address}: {failure}");
        }
        // Silence takes the timeout and no longer.
        let ignore = ["net.ipv4.icmp_echo_ignore_all=1", "net.ipv6.icmp.echo_ignore_all=1"];
        for setting in ignore {
            set(&pair.peer, setting);
        }
        for address in ["10.9.0.2", "fd09::2"] {
            let timeout = Duration::from_millis(300);
            let start = Instant::now();
            let failure = probe(&pair, address, timeout).unwrap_err();
            assert_eq!(failure, ProbeFailure::Timeout(timeout), "{address}");
            assert!(start.elapsed() < timeout * 2, "{:?}", start.elapsed());
        }
    }
}
