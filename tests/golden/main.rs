//! The golden packet table: what goes in, what becomes of it, what comes out, byte for byte.
//!
//! The tables in `tests/golden/` are meant to be read by people. After an intended change write them
//! anew with `DSRLB_GOLDEN=write cargo test --test golden` and review the difference.

#[path = "../support/mod.rs"]
mod support;
mod table;
mod tunnels;

use dsrlb::dataplane::{Frame, MAX_BATCH, MemoryIo, PacketIo};
use dsrlb::flow::Timestamp;
use etherparse::{Icmpv6Header, Icmpv6Type};
use std::fmt::Write;
use std::time::Duration;
use support::frames::{self, CLIENT_MAC, DIRECTOR_MAC, Protocol, fragment, ipv4, ipv6, tagged};
use support::pool;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const VIP: [u8; 4] = [10, 0, 0, 100];
const ANY_VIP: [u8; 4] = [10, 0, 0, 101];
const LOST_VIP: [u8; 4] = [10, 0, 0, 102];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const ANY_VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

const HTTP: Protocol = Protocol::Tcp(40_000, 80);
const DNS: Protocol = Protocol::Udp(40_000, 53);

/// Changes one byte.
fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

fn cut(frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame[..length].to_vec()
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(60, 0xee);
    frame
}

fn from_to(mut frame: Vec<u8>, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

fn tcp() -> Vec<u8> {
    ipv4(CLIENT, VIP, HTTP, b"")
}

fn tcp6() -> Vec<u8> {
    ipv6(CLIENT6, VIP6, HTTP, b"")
}

fn options(length: u8) -> Vec<u8> {
    let mut bytes = vec![0; (usize::from(length) + 1) * 8];
    bytes[1] = length;
    bytes
}

fn fragment_header(field: u16) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    vec![0, 0, high, low, 0, 0, 0, 9]
}

fn rows() -> Vec<(&'static str, Vec<u8>)> {
    let extended = |extensions: &[(u8, Vec<u8>)]| frames::with_extensions(&tcp6(), extensions);
    vec![
        ("TCP to a service by port", tcp()),
        ("the same, padded to 60 bytes by Ethernet", padded(tcp())),
        ("the same from another port", ipv4(CLIENT, VIP, Protocol::Tcp(40_001, 80), b"")),
        (
            "TCP with one hop left, which the link does not take",
            frames::with_ipv4(tcp(), |header| header.time_to_live = 1),
        ),
        ("TCP, one VLAN tag", tagged(&tcp(), &[100])),
        ("TCP, two VLAN tags", tagged(&tcp(), &[200, 100])),
        ("three VLAN tags", tagged(&tcp(), &[300, 200, 100])),
        (
            "TCP with IPv4 options, header length 6",
            frames::ipv4_options(CLIENT, VIP, &[7, 4, 4, 0], HTTP, b""),
        ),
        (
            "TCP with the longest IPv4 options, header length 15",
            frames::ipv4_options(CLIENT, VIP, &[1; 40], HTTP, b""),
        ),
        ("TCP to a port that no service has", ipv4(CLIENT, VIP, Protocol::Tcp(40_000, 81), b"")),
        ("UDP to any port, chosen by source address", ipv4(CLIENT, VIP, DNS, b"?")),
        (
            "UDP to any port from another port: the same backend",
            ipv4(CLIENT, VIP, Protocol::Udp(40_001, 54), b"?"),
        ),
        ("ping to a VIP without a service for it", ipv4(CLIENT, VIP, Protocol::Echo, b"")),
        ("ping to an HA-ports VIP", ipv4(CLIENT, ANY_VIP, Protocol::Echo, b"")),
        ("TCP to an HA-ports VIP", ipv4(CLIENT, ANY_VIP, HTTP, b"")),
        ("SCTP to an HA-ports VIP", ipv4(CLIENT, ANY_VIP, Protocol::Other(132), &[9; 12])),
        ("SCTP too short for its header", ipv4(CLIENT, ANY_VIP, Protocol::Other(132), &[9; 11])),
        ("ESP to an HA-ports VIP", ipv4(CLIENT, ANY_VIP, Protocol::Other(50), &[9; 16])),
        ("AH to an HA-ports VIP", ipv4(CLIENT, ANY_VIP, Protocol::Other(51), &[9; 16])),
        ("GRE to an HA-ports VIP", ipv4(CLIENT, ANY_VIP, Protocol::Other(47), &[0; 4])),
        (
            "an unassigned protocol without payload",
            ipv4(CLIENT, ANY_VIP, Protocol::Other(253), b""),
        ),
        (
            "TCP to a VIP inside a prefix",
            ipv4(CLIENT, [203, 0, 113, 77], Protocol::Tcp(1, 443), b""),
        ),
        ("TCP to an address that is no VIP", ipv4(CLIENT, [10, 0, 0, 1], HTTP, b"")),
        ("ping to an address that is no VIP", ipv4(CLIENT, [10, 0, 0, 1], Protocol::Echo, b"")),
        ("TCP to a VIP whose only backend is unresolved", ipv4(CLIENT, LOST_VIP, HTTP, b"")),
        ("a first fragment with its ports", fragment(ipv4(CLIENT, VIP, HTTP, &[7; 8]), 0, true)),
        (
            "a later fragment to a service by port",
            fragment(ipv4(CLIENT, VIP, HTTP, b""), 64, false),
        ),
        (
            "a later fragment to a service by source address",
            fragment(ipv4(CLIENT, VIP, DNS, b"?"), 64, true),
        ),
        (
            "a later fragment of a ping, which has no ports to miss",
            fragment(ipv4(CLIENT, ANY_VIP, Protocol::Echo, &[7; 16]), 64, false),
        ),
        (
            "the first fragment of it, so both are answered",
            fragment(ipv4(CLIENT, ANY_VIP, Protocol::Echo, &[7; 56]), 0, true),
        ),
        (
            "a tiny first fragment without its ports",
            fragment(ipv4(CLIENT, VIP, Protocol::Other(6), &[7; 8]), 0, true),
        ),
        ("IPv6 TCP to a service by port", tcp6()),
        ("IPv6 ping to an HA-ports VIP", ipv6(CLIENT6, ANY_VIP6, Protocol::Echo6, b"")),
        ("IPv6 ESP to an HA-ports VIP", ipv6(CLIENT6, ANY_VIP6, Protocol::Other(50), &[9; 16])),
        (
            "IPv6 with hop-by-hop and destination options",
            extended(&[(0, options(0)), (60, options(1))]),
        ),
        ("IPv6 with a routing header", extended(&[(43, options(2))])),
        ("IPv6 atomic fragment: an ordinary packet", extended(&[(44, fragment_header(0))])),
        ("IPv6 first fragment", extended(&[(44, fragment_header(1))])),
        ("IPv6 later fragment to a service by port", extended(&[(44, fragment_header(64 << 3))])),
        ("IPv6 with nine extension headers", extended(&vec![(60, options(0)); 9])),
        ("IPv6 extension header beyond the packet", extended(&[(60, with(options(0), 1, 200))])),
        ("IPv6 payload length beyond the frame", with(tcp6(), 19, 21)),
        ("IPv6 header cut short", cut(tcp6(), 53)),
        ("an empty frame", vec![]),
        ("a frame that ends in its addresses", cut(tcp(), 11)),
        ("a frame that ends before its type", cut(tcp(), 13)),
        ("a frame that ends in its VLAN tag", cut(tagged(&tcp(), &[100]), 16)),
        ("IPv4 header cut short", cut(tcp(), 33)),
        ("IPv4 type, IPv6 version", with(tcp(), 14, 0x65)),
        ("IPv6 type, IPv4 version", with(tcp6(), 14, 0x45)),
        ("IPv4 header length 4", with(tcp(), 14, 0x44)),
        ("IPv4 header length beyond the frame", with(tcp(), 14, 0x4f)),
        ("IPv4 total length below the header length", with(tcp(), 17, 19)),
        ("IPv4 total length beyond the frame", with(tcp(), 17, 41)),
        ("IPv4 total length that cuts the TCP header", with(tcp(), 17, 39)),
        ("a martian source: multicast", ipv4([224, 0, 0, 1], VIP, HTTP, b"")),
        ("a martian source: loopback", ipv4([127, 0, 0, 1], VIP, HTTP, b"")),
        ("source and destination are the VIP", ipv4(VIP, VIP, HTTP, b"")),
        ("a ping from a multicast address", ipv4([224, 0, 0, 1], VIP, Protocol::Echo, b"")),
        ("a ping of the VIP to itself", ipv4(VIP, VIP, Protocol::Echo, b"")),
        (
            "flooded by a bridge: for another station",
            from_to(tcp(), CLIENT_MAC, [2, 0, 0, 0, 0, 11]),
        ),
        ("to the broadcast MAC address", from_to(tcp(), CLIENT_MAC, [0xff; 6])),
        ("our own frame come back", from_to(tcp(), DIRECTOR_MAC, DIRECTOR_MAC)),
        ("an ARP request", [&[0xff; 6][..], &CLIENT_MAC, &[8, 6], &[0; 46]].concat()),
        (
            "an 802.3 frame with a length",
            [&DIRECTOR_MAC[..], &CLIENT_MAC, &[0, 46], &[0; 46]].concat(),
        ),
    ]
}

/// What asks for the MAC address of a VIP, for a director that answers.
fn questions() -> Vec<(&'static str, Vec<u8>)> {
    let arp = |to: [u8; 6], sender_ip: [u8; 4], target_ip: [u8; 4]| {
        let fixed: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
        padded([&to, &CLIENT_MAC, fixed, &CLIENT_MAC, &sender_ip, &[0; 6], &target_ip].concat())
    };
    let broadcast = [0xff; 6];
    let nobody = [0; 16];
    let asks = [1, 1].iter().chain(&CLIENT_MAC).copied().collect::<Vec<_>>();
    vec![
        ("ARP: who has the VIP?", arp(broadcast, CLIENT, VIP)),
        ("ARP in a VLAN", tagged(&arp(broadcast, CLIENT, VIP), &[100])),
        ("ARP by unicast, as a check that we are still there", arp(DIRECTOR_MAC, CLIENT, VIP)),
        ("ARP probe of somebody who wants the VIP for himself", arp(broadcast, [0; 4], VIP)),
        ("ARP announcement of somebody else", arp(broadcast, VIP, VIP)),
        ("ARP for an address inside a prefix of VIPs", arp(broadcast, CLIENT, [203, 0, 113, 9])),
        ("ARP for an address that is no VIP", arp(broadcast, CLIENT, [10, 0, 0, 1])),
        ("neighbour solicitation for the VIP", solicitation(CLIENT6, VIP6, &asks)),
        ("neighbour solicitation in a VLAN", tagged(&solicitation(CLIENT6, VIP6, &asks), &[100])),
        ("duplicate address probe for the VIP", solicitation(nobody, VIP6, &[])),
        ("neighbour solicitation for another", solicitation(CLIENT6, CLIENT6, &asks)),
        ("neighbour solicitation with a wrong checksum", {
            let asked = solicitation(CLIENT6, VIP6, &asks);
            with(asked.clone(), 57, !asked[57])
        }),
        ("neighbour solicitation from beyond the link", {
            with(solicitation(CLIENT6, VIP6, &asks), 21, 254)
        }),
        ("TCP to the VIP, as ever", tcp()),
        ("TCP to the VIP in a multicast frame", from_to(tcp(), CLIENT_MAC, [1, 0, 0x5e, 0, 0, 1])),
    ]
}

/// RFC 4861 section 4.3, to the group of the target.
fn solicitation(source: [u8; 16], target: [u8; 16], option: &[u8]) -> Vec<u8> {
    let group = [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff], &target[13..]].concat();
    let mac = [&[0x33, 0x33, 0xff], &target[13..]].concat();
    let body = [&[0; 4][..], &target, option].concat();
    let kind = Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    let group: [u8; 16] = group.try_into().unwrap();
    let icmp = Icmpv6Header::with_checksum(kind, source, group, &body[4..]).unwrap();
    let ip = etherparse::Ipv6Header {
        payload_length: (8 + body.len() - 4) as u16,
        next_header: etherparse::IpNumber(58),
        hop_limit: 255,
        source,
        destination: group,
        ..Default::default()
    };
    [&mac[..], &CLIENT_MAC, &[0x86, 0xdd], &ip.to_bytes(), &icmp.to_bytes(), &body[4..]].concat()
}

#[test]
fn beside_the_director() {
    let mut text = String::from("# configuration: 10.0.0.11 to 10.0.0.13 behind, with maglev,\n");
    for (key, input) in pool::SERVICES {
        writeln!(text, "#   {key} by {input:?}").unwrap();
    }
    text.push_str("# and 10.0.0.102:80/tcp with a backend that does not resolve\n");
    text += &table::decide(&pool::plan(), rows(), |_, _, _| {});
    text.push_str(
        "\n# the same, and ARP and neighbour discovery for the VIPs are ours to answer\n",
    );
    text += &table::decide(&pool::plan_with(true), questions(), |_, _, _| {});
    table::compare("l2.txt", &text);
}

/// The same packets through a driver, in batches: the same frames come out, in the same order.
#[test]
fn through_a_driver() {
    let plan = pool::plan();
    let mut scalar = pool::pipeline();
    let mut expected = Vec::new();
    let mut io = MemoryIo::new();
    let inputs: Vec<_> = rows().into_iter().map(|(_, input)| input).cycle().take(200).collect();
    for input in &inputs {
        let mut output = input.clone();
        let mut frame = Frame::new(&mut output);
        scalar.process_one(&plan.snapshot, Timestamp(0), &mut frame);
        if let dsrlb::dataplane::Action::Transmit(_) = frame.action() {
            expected.push(output);
        }
        io.push(input.clone());
    }
    let mut batched = pool::pipeline();
    let mut sizes = Vec::new();
    loop {
        let lent = io.poll(Duration::ZERO, &mut |frames| {
            batched.process(&plan.snapshot, Timestamp(0), frames);
        });
        match lent.unwrap() {
            0 => break,
            lent => sizes.push(lent),
        }
    }
    assert_eq!(sizes, [MAX_BATCH, MAX_BATCH, MAX_BATCH, 200 - 3 * MAX_BATCH]);
    let stats = io.stats();
    assert_eq!((stats.received, stats.transmitted), (200, expected.len() as u64));
    assert_eq!(io.take_sent(), expected);

    let (mut one, mut other) = (Default::default(), Default::default());
    scalar.counters().add_to(&mut one);
    batched.counters().add_to(&mut other);
    assert_eq!(one, other);
    assert_eq!(one.verdicts(), inputs.len() as u64);
}
