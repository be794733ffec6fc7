//! Backends beyond the link: each mode in each family mix with each option, and what is answered
//! instead. Another library builds what has to come out, from what went in.

use crate::support::frames::{
    CLIENT_MAC, DIRECTOR_MAC, Protocol, fragment, ipv4, ipv4_options, ipv6, tagged,
    with_extensions, with_ipv4, with_ipv6,
};
use crate::support::{beyond, pool};
use crate::table::{compare, decide};
use crate::{CLIENT, CLIENT6, DNS, HTTP, VIP, VIP6, cut, fragment_header, padded};
use dsrlb::forwarding::{Dscp, Encapsulation, Forwarding, GueVariant, Tunnel, TunnelDscp};
use dsrlb::verdict::{AnswerKind, Verdict};
use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header,
    Ipv6FragmentHeader, Ipv6Header, NetHeaders, PacketHeaders, TransportHeader, UdpHeader, icmpv6,
};
use ipnet::IpNet;
use proptest::prelude::*;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const ADDRESSES: [&str; 2] = ["10.9.0.1/32", "fd09::1/128"];
const PREFIXES: [&str; 2] = ["10.9.0.0/24", "fd09::/64"];
const ROUTER: [u8; 4] = [203, 0, 113, 1];
const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Of the first section of each mode.
const MTU: u32 = 1400;
/// AF11, so that a copied DSCP shows.
const CLASS: u8 = 10 << 2;

type Rows = Vec<(&'static str, Vec<u8>)>;

/// A backend, and how it is reached.
struct Way {
    forwarding: Forwarding,
    backend: &'static str,
    sources: [&'static str; 2],
    mtu: u32,
}

fn classed(traffic_class: u8) -> Vec<u8> {
    with_ipv4(ipv4(CLIENT, VIP, HTTP, b""), |header| {
        header.dscp = (traffic_class >> 2).try_into().unwrap();
        header.ecn = (traffic_class & 3).try_into().unwrap();
    })
}

fn classed6(traffic_class: u8) -> Vec<u8> {
    with_ipv6(ipv6(CLIENT6, VIP6, HTTP, b""), |header| header.traffic_class = traffic_class)
}

fn fragmentable(frame: Vec<u8>) -> Vec<u8> {
    with_ipv4(frame, |header| {
        (header.dont_fragment, header.identification) = (false, 0x1234);
    })
}

/// A packet of this many bytes.
fn long(length: usize) -> Vec<u8> {
    ipv4(CLIENT, VIP, HTTP, &vec![7; length - 40])
}

fn long6(length: usize) -> Vec<u8> {
    ipv6(CLIENT6, VIP6, HTTP, &vec![7; length - 60])
}

/// What a router says of a packet from port 80 of the VIP to port 40,000 of the client.
fn error() -> Vec<u8> {
    let quoted = ipv4(VIP, CLIENT, Protocol::Tcp(80, 40_000), b"");
    let too_big = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
    let icmp =
        Icmpv4Header::with_checksum(Icmpv4Type::DestinationUnreachable(too_big), &quoted[14..]);
    let message = [&icmp.to_bytes(), &quoted[14..]].concat();
    ipv4(ROUTER, VIP, Protocol::Other(1), &message)
}

fn error6() -> Vec<u8> {
    let quoted = ipv6(VIP6, CLIENT6, Protocol::Tcp(80, 40_000), b"");
    let kind = Icmpv6Type::PacketTooBig { mtu: 1300 };
    let icmp = Icmpv6Header::with_checksum(kind, ROUTER6, VIP6, &quoted[14..]).unwrap();
    let message = [&icmp.to_bytes(), &quoted[14..]].concat();
    ipv6(ROUTER6, VIP6, Protocol::Other(58), &message)
}

fn each_codepoint() -> Rows {
    vec![
        ("IPv4, not ECT", classed(CLASS)),
        ("IPv4, ECT(1)", classed(CLASS | 1)),
        ("IPv4, ECT(0)", classed(CLASS | 2)),
        ("IPv4, CE", classed(CLASS | 3)),
        ("IPv4 that may be fragmented", fragmentable(classed(CLASS))),
        ("IPv6, not ECT", classed6(CLASS)),
        ("IPv6, ECT(1)", classed6(CLASS | 1)),
        ("IPv6, ECT(0)", classed6(CLASS | 2)),
        ("IPv6, CE", classed6(CLASS | 3)),
    ]
}

/// Of packets of the size that fits, and one byte more.
fn each_size(fits: usize) -> Rows {
    vec![
        ("IPv4 that just fits", long(fits)),
        ("IPv4 that does not", long(fits + 1)),
        ("IPv4 that does not and may be fragmented", fragmentable(long(fits + 1))),
        ("IPv6 that just fits", long6(fits)),
        ("IPv6 that does not", long6(fits + 1)),
    ]
}

/// What does not depend on the encapsulation.
fn each_kind() -> Rows {
    let later = ipv4(CLIENT, VIP, Protocol::Other(17), &[7; 8]);
    let whole6 = ipv6(CLIENT6, VIP6, DNS, &[7; 16]);
    let first6 = with_extensions(&cut(whole6.clone(), 70), &[(44, fragment_header(1))]);
    let later6 = with_extensions(&cut(whole6, 70), &[(44, fragment_header(16 << 3))]);
    let atomic = with_extensions(&ipv6(CLIENT6, VIP6, HTTP, b""), &[(44, fragment_header(0))]);
    let last_hop = with_ipv4(ipv4(CLIENT, VIP, HTTP, b""), |header| header.time_to_live = 1);
    let last_hop_of_many = with_ipv4(long(MTU as usize), |header| header.time_to_live = 1);
    let last_hop6 = with_ipv6(ipv6(CLIENT6, VIP6, HTTP, b""), |header| header.hop_limit = 1);
    vec![
        ("padded to 60 bytes by Ethernet", padded(ipv4(CLIENT, VIP, HTTP, b""))),
        ("one VLAN tag", tagged(&ipv4(CLIENT, VIP, HTTP, b""), &[100])),
        ("IPv6, two VLAN tags", tagged(&ipv6(CLIENT6, VIP6, HTTP, b""), &[200, 100])),
        ("an ICMP error, to the backend of the flow it quotes", error()),
        ("an ICMPv6 error, to the backend of the flow it quotes", error6()),
        ("a first fragment", fragment(ipv4(CLIENT, VIP, DNS, &[7; 8]), 0, true)),
        ("a later fragment", fragment(later, 16, false)),
        ("an IPv6 first fragment", first6),
        ("an IPv6 later fragment", later6),
        ("an IPv6 atomic fragment", atomic),
        ("no hop left", last_hop.clone()),
        ("no hop left, one VLAN tag and padding", tagged(&padded(last_hop), &[100])),
        ("no hop left and too large: the hop comes first", last_hop_of_many),
        ("IPv6, no hop left", last_hop6),
        ("a ping", ipv4(CLIENT, VIP, Protocol::Echo, b"data")),
        ("a ping by IPv6", ipv6(CLIENT6, VIP6, Protocol::Echo6, b"data")),
    ]
}

/// What no IPv6 sender can be told is cut by the director.
fn narrow() -> Rows {
    vec![("IPv6 of 1280 bytes", long6(1280)), ("IPv6 of 1281 bytes", long6(1281))]
}

fn of_l3dsr() -> Rows {
    let whole = ipv4(CLIENT, VIP, DNS, b"query");
    vec![
        ("TCP, not ECT", classed(CLASS)),
        ("TCP, ECT(1)", classed(CLASS | 1)),
        ("TCP, ECT(0)", classed(CLASS | 2)),
        ("TCP, CE", classed(CLASS | 3)),
        ("TCP with IPv4 options", ipv4_options(CLIENT, VIP, &[7, 4, 4, 0], HTTP, b"")),
        ("UDP", whole.clone()),
        ("UDP without a checksum", without_checksum(whole, 40)),
        ("an ICMP error, to the backend of the flow it quotes", error()),
        (
            "a protocol without a checksum of the addresses",
            ipv4(CLIENT, VIP, Protocol::Other(47), &[0; 4]),
        ),
        ("padded to 60 bytes by Ethernet", padded(ipv4(CLIENT, VIP, HTTP, b""))),
        ("IPv4 that just fits", long(MTU as usize)),
        ("IPv4 that does not", long(MTU as usize + 1)),
        ("no hop left", with_ipv4(classed(0), |header| header.time_to_live = 1)),
    ]
}

fn of_l3dsr_v6() -> Rows {
    let whole = ipv6(CLIENT6, VIP6, DNS, b"query");
    vec![
        ("TCP, not ECT", classed6(CLASS)),
        ("TCP, ECT(1)", classed6(CLASS | 1)),
        ("TCP, ECT(0)", classed6(CLASS | 2)),
        ("TCP, CE", classed6(CLASS | 3)),
        ("UDP", whole.clone()),
        ("UDP without a checksum", without_checksum(whole, 60)),
        ("an ICMPv6 error, to the backend of the flow it quotes", error6()),
        (
            "a protocol without a checksum of the addresses",
            ipv6(CLIENT6, VIP6, Protocol::Other(47), &[0; 4]),
        ),
        ("IPv6 that just fits", long6(MTU as usize)),
        ("IPv6 that does not", long6(MTU as usize + 1)),
        ("no hop left", with_ipv6(classed6(0), |header| header.hop_limit = 1)),
    ]
}

fn without_checksum(mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    frame[at..at + 2].fill(0);
    frame
}

const ENCAPSULATIONS: [(&str, Encapsulation); 5] = [
    ("IP-in-IP", Encapsulation::IpIp),
    ("GUE version 0", gue(GueVariant::Zero, false)),
    ("GUE version 0 with a UDP checksum", gue(GueVariant::Zero, true)),
    ("GUE variant 1", gue(GueVariant::One, false)),
    ("GUE variant 1 with a UDP checksum", gue(GueVariant::One, true)),
];

const fn gue(variant: GueVariant, checksum: bool) -> Encapsulation {
    Encapsulation::Gue { port: 6080, variant, checksum }
}

fn sections() -> Vec<(String, Way, Rows)> {
    let mut sections = Vec::new();
    for (over, backend) in [("IPv4", "10.1.0.11"), ("IPv6", "fd01::11")] {
        for (name, encapsulation) in ENCAPSULATIONS {
            let tunnel = Tunnel::new(encapsulation);
            let way = |tunnel, mtu| Way {
                forwarding: Forwarding::Tunnel(tunnel),
                backend,
                sources: ADDRESSES,
                mtu,
            };
            let mut rows = each_codepoint();
            rows.extend(each_size(MTU as usize - tunnel.overhead(over == "IPv6")));
            if encapsulation == Encapsulation::IpIp {
                rows.extend(each_kind());
            }
            let title = format!("{name} over {over}, by a path that takes {MTU} bytes");
            sections.push((title, way(tunnel, MTU), rows));

            let dscp = TunnelDscp::Pipe(Dscp::new(46).unwrap());
            let piped = Tunnel { dscp, hop_limit: 9, ..tunnel };
            let rows = vec![("IPv4, CE", classed(CLASS | 3)), ("IPv6, CE", classed6(CLASS | 3))];
            let title = format!("{name} over {over}, DSCP 46 always, hop limit 9, from a prefix");
            sections.push((title, Way { sources: PREFIXES, ..way(piped, MTU) }, rows));

            let title = format!("{name} over {over}, by a path that takes 1280 bytes");
            sections.push((title, way(tunnel, 1280), narrow()));
        }
    }
    let l3dsr = |backend| Way {
        forwarding: Forwarding::L3Dsr(Dscp::new(9).unwrap()),
        backend,
        sources: ADDRESSES,
        mtu: MTU,
    };
    let title = |over| format!("L3DSR over {over}, DSCP 9, by a path that takes {MTU} bytes");
    sections.push((title("IPv4"), l3dsr("10.1.0.11"), of_l3dsr()));
    sections.push((title("IPv6"), l3dsr("fd01::11"), of_l3dsr_v6()));
    sections
}

#[test]
fn beyond_the_link() {
    let mut text = String::from(
        "# Two backends, a and b, behind 10.0.0.100 and fd00::100; tunnels come from 10.9.0.1 and\n\
         # fd09::1, or from 10.9.0.0/24 and fd09::/64. Each `out` is a frame that is sent.\n",
    );
    for (title, way, rows) in sections() {
        writeln!(text, "\n# {title}").unwrap();
        let plan = beyond::plan(way.forwarding, way.backend, way.sources, way.mtu);
        text += &decide(&plan, rows, |input, verdict, sent| check(&way, input, verdict, sent));
    }
    compare("tunnels.txt", &text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Any packet by any path: what it becomes, whole or in pieces, holds what went in, and else its
    /// sender is told how much fits.
    #[test]
    fn any_packet_by_any_path(
        (_, encapsulation) in prop::sample::select(ENCAPSULATIONS.to_vec()),
        over_ipv6: bool, from_prefix: bool, narrower in 0u32..900, is_ipv6: bool,
        traffic_class: u8, may_be_fragmented: bool,
        payload in prop::collection::vec(any::<u8>(), 0..=1440),
    ) {
        let way = Way {
            forwarding: Forwarding::Tunnel(Tunnel::new(encapsulation)),
            backend: if over_ipv6 { "fd01::11" } else { "10.1.0.11" },
            sources: if from_prefix { PREFIXES } else { ADDRESSES },
            mtu: (1500 - narrower).max(if over_ipv6 { 1280 } else { 0 }),
        };
        let input = match is_ipv6 {
            true => with_ipv6(ipv6(CLIENT6, VIP6, HTTP, &payload), |header| {
                header.traffic_class = traffic_class;
            }),
            false => with_ipv4(ipv4(CLIENT, VIP, HTTP, &payload), |header| {
                header.dscp = (traffic_class >> 2).try_into().unwrap();
                header.ecn = (traffic_class & 3).try_into().unwrap();
                header.dont_fragment = !may_be_fragmented;
            }),
        };
        let plan = beyond::plan(way.forwarding, way.backend, way.sources, way.mtu);
        let (verdict, sent) = pool::send(&mut pool::pipeline(), &plan, 0, &input);
        check(&way, &input, verdict, &sent);
    }
}

/// Where the IP packet begins.
fn network(frame: &[u8]) -> usize {
    let tags = frame[12..].chunks_exact(4).take_while(|tag| matches!(tag[0], 0x81 | 0x88)).count();
    14 + tags * 4
}

/// The IP packet, without padding.
fn packet(frame: &[u8]) -> &[u8] {
    let packet = &frame[network(frame)..];
    let length = match packet[0] >> 4 {
        4 => u16::from_be_bytes([packet[2], packet[3]]),
        _ => 40 + u16::from_be_bytes([packet[4], packet[5]]),
    };
    &packet[..usize::from(length)]
}

/// From the director, with the tags of `input`.
fn ethernet(input: &[u8], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let tags = &input[12..network(input) - 2];
    [&to[..], &DIRECTOR_MAC, tags, &ether_type, packet].concat()
}

/// The packet after a hop.
fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let (header, rest) = if packet[0] >> 4 == 4 {
        let (mut header, rest) = Ipv4Header::from_slice(packet).unwrap();
        header.time_to_live -= 1;
        header.header_checksum = header.calc_header_checksum();
        (header.to_bytes().to_vec(), rest)
    } else {
        let (mut header, rest) = Ipv6Header::from_slice(packet).unwrap();
        header.hop_limit -= 1;
        (header.to_bytes().to_vec(), rest)
    };
    [&header, rest].concat()
}

/// What is sent is what it has to be, byte for byte.
fn check(way: &Way, input: &[u8], verdict: Verdict, sent: &[Vec<u8>]) {
    if let Verdict::Forward(_) = verdict {
        assert!(sent.iter().all(|frame| packet(frame).len() <= way.mtu as usize));
    }
    let expected = match (verdict, way.forwarding) {
        (Verdict::Answer(AnswerKind::Echo), _) => {
            ethernet(input, CLIENT_MAC, &echo_reply(packet(input)))
        }
        (Verdict::Answer(kind), _) => {
            ethernet(input, CLIENT_MAC, &refusal(way, kind, packet(input)))
        }
        (Verdict::Forward(_), Forwarding::L3Dsr(dscp)) => {
            let packet = readdressed(packet(input), way.backend, dscp);
            let padding = &input[network(input) + packet.len()..];
            [&ethernet(input, BACKEND_MAC, &packet), padding].concat()
        }
        (Verdict::Forward(_), Forwarding::Tunnel(tunnel)) if sent.len() == 1 => {
            let inner = one_hop_on(packet(input));
            ethernet(input, BACKEND_MAC, &wrapped(way, &tunnel, &inner, packet(&sent[0])))
        }
        (Verdict::Forward(_), Forwarding::Tunnel(tunnel)) => {
            return check_pieces(way, &tunnel, input, sent);
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(sent, [expected]);
}

/// `inner` in the tunnel. What comes of the hash of the flow, and the identification of what may be
/// fragmented, is taken from `found`, if it is in its range.
fn wrapped(way: &Way, tunnel: &Tunnel, inner: &[u8], found: &[u8]) -> Vec<u8> {
    let (class, dont_fragment, protocol) = match Ipv4Header::from_slice(inner) {
        Ok((ip, _)) => (ip.dscp.value() << 2 | ip.ecn.value(), ip.dont_fragment, 4),
        Err(_) => (Ipv6Header::from_slice(inner).unwrap().0.traffic_class, true, 41),
    };
    let class = match tunnel.dscp {
        TunnelDscp::Uniform => class,
        TunnelDscp::Pipe(dscp) => dscp.value() << 2 | class & 3,
    };
    let is_ipv6 = way.backend.contains(':');
    let header = if is_ipv6 { 40 } else { 20 };
    let (next, udp_length) = match tunnel.encapsulation {
        Encapsulation::IpIp => (protocol, 0),
        Encapsulation::Gue { variant: GueVariant::Zero, .. } => (17, 12),
        Encapsulation::Gue { variant: GueVariant::One, .. } => (17, 8),
    };
    let payload_length = (udp_length + inner.len()) as u16;
    let gue: &[u8] = if udp_length == 12 { &[0, protocol, 0, 0] } else { &[] };
    let payload = [gue, inner].concat();
    let mut udp = (udp_length > 0).then(|| UdpHeader {
        source_port: u16::from_be_bytes([found[header], found[header + 1]]),
        destination_port: 6080,
        length: payload_length,
        checksum: 0,
    });
    assert!(udp.as_ref().is_none_or(|udp| udp.source_port >= 0x8000));
    let summed = matches!(tunnel.encapsulation, Encapsulation::Gue { checksum: true, .. });
    let outer = if is_ipv6 {
        let (found, _) = Ipv6Header::from_slice(found).unwrap();
        assert_ne!(found.flow_label.value(), 0, "RFC 6438 section 3");
        assert!(is_source(way, found.source.into()));
        let ip = Ipv6Header {
            traffic_class: class,
            flow_label: found.flow_label,
            payload_length,
            next_header: IpNumber(next),
            hop_limit: tunnel.hop_limit,
            source: found.source,
            destination: way.backend.parse::<Ipv6Addr>().unwrap().octets(),
        };
        if let Some(udp) = udp.as_mut().filter(|_| summed) {
            udp.checksum = udp.calc_checksum_ipv6(&ip, &payload).unwrap();
        }
        ip.to_bytes().to_vec()
    } else {
        let (found, _) = Ipv4Header::from_slice(found).unwrap();
        assert!(is_source(way, found.source.into()));
        let mut ip = Ipv4Header {
            dscp: (class >> 2).try_into().unwrap(),
            ecn: (class & 3).try_into().unwrap(),
            total_len: 20 + payload_length,
            identification: if dont_fragment { 0 } else { found.identification },
            dont_fragment,
            time_to_live: tunnel.hop_limit,
            protocol: IpNumber(next),
            source: found.source,
            destination: way.backend.parse::<Ipv4Addr>().unwrap().octets(),
            ..Default::default()
        };
        ip.header_checksum = ip.calc_header_checksum();
        if let Some(udp) = udp.as_mut().filter(|_| summed) {
            udp.checksum = udp.calc_checksum_ipv4(&ip, &payload).unwrap();
        }
        ip.to_bytes().to_vec()
    };
    let udp = udp.map(|udp| udp.to_bytes().to_vec()).unwrap_or_default();
    [outer, udp, payload].concat()
}

fn is_source(way: &Way, address: IpAddr) -> bool {
    way.sources.iter().any(|source| source.parse::<IpNet>().unwrap().contains(&address))
}

/// Pieces of a packet, wrapped one by one; or, of IPv6, pieces of the wrapped packet.
fn check_pieces(way: &Way, tunnel: &Tunnel, input: &[u8], sent: &[Vec<u8>]) {
    let whole = one_hop_on(packet(input));
    let over_ipv6 = way.backend.contains(':');
    let is_cut_inside = whole[0] >> 4 == 4;
    let (mut payload, mut identifications) = (Vec::new(), Vec::new());
    for (number, frame) in sent.iter().enumerate() {
        let found = packet(frame);
        let piece = match is_cut_inside {
            true => &found[tunnel.overhead(over_ipv6)..],
            false => found,
        };
        if is_cut_inside {
            assert_eq!(*frame, ethernet(input, BACKEND_MAC, &wrapped(way, tunnel, piece, found)));
        }
        let (offset, more, rest) = if piece[0] >> 4 == 4 {
            let (header, rest) = Ipv4Header::from_slice(piece).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert!(!header.dont_fragment);
            identifications.push(u32::from(header.identification));
            (header.fragment_offset, header.more_fragments, rest)
        } else {
            assert_eq!(piece[6], 44);
            let (header, rest) = Ipv6FragmentHeader::from_slice(&piece[40..]).unwrap();
            identifications.push(header.identification);
            (header.fragment_offset, header.more_fragments, rest)
        };
        assert_eq!(usize::from(offset.value()) * 8, payload.len());
        assert_eq!(more, number + 1 < sent.len());
        payload.extend_from_slice(rest);
    }
    identifications.dedup();
    assert_eq!(identifications.len(), 1, "all pieces have one");
    let carried = match is_cut_inside {
        true => &whole[20..],
        false => {
            payload.drain(..payload.len() - whole.len());
            &whole
        }
    };
    assert_eq!(payload, carried);
}

/// The packet addressed to the backend, after a hop, with checksums calculated anew.
fn readdressed(packet: &[u8], backend: &str, dscp: Dscp) -> Vec<u8> {
    let packet = one_hop_on(packet);
    let headers = PacketHeaders::from_ip_slice(&packet).unwrap();
    let payload = headers.payload.slice();
    let (ip, transport) = match (headers.net.unwrap(), headers.transport) {
        (NetHeaders::Ipv4(mut ip, _), mut transport) => {
            ip.dscp = dscp.value().try_into().unwrap();
            ip.destination = backend.parse::<Ipv4Addr>().unwrap().octets();
            ip.header_checksum = ip.calc_header_checksum();
            if let Some(transport) = transport.as_mut().filter(|transport| has_checksum(transport))
            {
                transport.update_checksum_ipv4(&ip, payload).unwrap();
            }
            (ip.to_bytes().to_vec(), transport)
        }
        (NetHeaders::Ipv6(mut ip, _), mut transport) => {
            ip.traffic_class = dscp.value() << 2 | ip.traffic_class & 3;
            ip.destination = backend.parse::<Ipv6Addr>().unwrap().octets();
            if let Some(transport) = transport.as_mut().filter(|transport| has_checksum(transport))
            {
                transport.update_checksum_ipv6(&ip, payload).unwrap();
            }
            (ip.to_bytes().to_vec(), transport)
        }
        other => panic!("{other:?}"),
    };
    let mut bytes = ip;
    if let Some(transport) = transport {
        transport.write(&mut bytes).unwrap();
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// UDP may have none (RFC 768), which has to stay so.
fn has_checksum(transport: &TransportHeader) -> bool {
    !matches!(transport, TransportHeader::Udp(UdpHeader { checksum: 0, .. }))
}

/// What is said of a packet that goes no further.
fn refusal(way: &Way, kind: AnswerKind, packet: &[u8]) -> Vec<u8> {
    let overhead = match way.forwarding {
        Forwarding::Tunnel(tunnel) => tunnel.overhead(way.backend.contains(':')),
        _ => 0,
    };
    let fits = way.mtu - overhead as u32;
    if packet[0] >> 4 == 4 {
        let quoted = &packet[..packet.len().min(576 - 28)];
        let next_hop_mtu = fits as u16;
        let kind = match kind {
            AnswerKind::PacketTooBig => {
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu,
                })
            }
            _ => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        };
        let icmp = Icmpv4Header::with_checksum(kind, quoted);
        let mut ip =
            Ipv4Header::new(8 + quoted.len() as u16, 64, IpNumber(1), VIP, CLIENT).unwrap();
        ip.dscp = 48.try_into().unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        [&ip.to_bytes()[..], &icmp.to_bytes(), quoted].concat()
    } else {
        let quoted = &packet[..packet.len().min(1280 - 48)];
        let kind = match kind {
            AnswerKind::PacketTooBig => Icmpv6Type::PacketTooBig { mtu: fits.max(1280) },
            _ => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        };
        let icmp = Icmpv6Header::with_checksum(kind, VIP6, CLIENT6, quoted).unwrap();
        let ip = Ipv6Header {
            payload_length: 8 + quoted.len() as u16,
            next_header: IpNumber(58),
            hop_limit: 64,
            source: VIP6,
            destination: CLIENT6,
            ..Default::default()
        };
        [&ip.to_bytes()[..], &icmp.to_bytes(), quoted].concat()
    }
}

fn echo_reply(packet: &[u8]) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 7, seq: 1 };
    if packet[0] >> 4 == 4 {
        let (mut ip, _) = Ipv4Header::from_slice(packet).unwrap();
        (ip.source, ip.destination, ip.time_to_live) = (VIP, CLIENT, 64);
        ip.header_checksum = ip.calc_header_checksum();
        let data = &packet[28..];
        let icmp = Icmpv4Header::with_checksum(Icmpv4Type::EchoReply(echo), data);
        [&ip.to_bytes()[..], &icmp.to_bytes(), data].concat()
    } else {
        let (mut ip, _) = Ipv6Header::from_slice(packet).unwrap();
        (ip.source, ip.destination, ip.hop_limit) = (VIP6, CLIENT6, 64);
        let data = &packet[48..];
        let kind = Icmpv6Type::EchoReply(echo);
        let icmp = Icmpv6Header::with_checksum(kind, VIP6, CLIENT6, data).unwrap();
        [&ip.to_bytes()[..], &icmp.to_bytes(), data].concat()
    }
}
