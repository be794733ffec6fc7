use super::*;
use crate::packet::{Parse, Parsed, parse};
use etherparse::{IpHeaders, PacketBuilder, TransportHeader};
use proptest::prelude::*;

const BACKEND_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const BACKEND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);

/// A whole packet with right checksums, by another library.
fn packet(is_ipv6: bool, protocol: u8, traffic_class: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    macro_rules! write {
        ($builder:expr) => {
            match protocol {
                6 => $builder.tcp(4000, 80, 1, 2).write(&mut bytes, payload),
                17 => $builder.udp(4000, 80).write(&mut bytes, payload),
                58 => $builder.icmpv6_echo_request(1, 2).write(&mut bytes, payload),
                _ => $builder.icmpv4_echo_request(1, 2).write(&mut bytes, payload),
            }
            .unwrap()
        };
    }
    if is_ipv6 {
        write!(PacketBuilder::ip(IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                traffic_class,
                flow_label: 0xabcde.try_into().unwrap(),
                hop_limit: 60,
                source: [0x20; 16],
                destination: [0x21; 16],
                ..Default::default()
            },
            Default::default()
        )));
    } else {
        let mut header = etherparse::Ipv4Header {
            time_to_live: 60,
            source: [192, 0, 2, 7],
            destination: [10, 0, 0, 100],
            ..Default::default()
        };
        header.dscp = (traffic_class >> 2).try_into().unwrap();
        header.ecn = (traffic_class & 3).try_into().unwrap();
        write!(PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default())));
    }
    bytes
}

fn parsed(packet: &[u8]) -> Parsed {
    let ether_type = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    match parse(&[&[0; 12][..], &ether_type, packet].concat()) {
        Parse::Ip(parsed) => parsed,
        other => panic!("{other:?}"),
    }
}

fn rewrite(packet: &mut [u8], dscp: u8) -> Result<(), DropReason> {
    let parsed = parsed(packet);
    let transport = usize::from(parsed.transport - parsed.network);
    let backend = if packet[0] >> 4 == 6 { BACKEND_V6.into() } else { BACKEND_V4.into() };
    let dscp = Dscp::new(dscp).unwrap();
    let (protocol, fragment) = (parsed.info.flow.protocol, parsed.info.fragment);
    rewrite_l3dsr(packet, transport, protocol, fragment, backend, dscp)
}

/// The checksum of the upper layer, found and calculated anew.
fn checksums(packet: &[u8]) -> (u16, u16) {
    let sliced = etherparse::PacketHeaders::from_ip_slice(packet).unwrap();
    let payload = sliced.payload.slice();
    let ip = match sliced.net.unwrap() {
        etherparse::NetHeaders::Ipv4(ip, _) => Ok(ip),
        etherparse::NetHeaders::Ipv6(ip, _) => Err(ip),
        _ => panic!("ARP"),
    };
    match sliced.transport.unwrap() {
        TransportHeader::Tcp(tcp) => (
            tcp.checksum,
            match &ip {
                Ok(ip) => tcp.calc_checksum_ipv4(ip, payload).unwrap(),
                Err(ip) => tcp.calc_checksum_ipv6(ip, payload).unwrap(),
            },
        ),
        TransportHeader::Udp(udp) => (
            udp.checksum,
            match &ip {
                Ok(ip) => udp.calc_checksum_ipv4(ip, payload).unwrap(),
                Err(ip) => udp.calc_checksum_ipv6(ip, payload).unwrap(),
            },
        ),
        TransportHeader::Icmpv4(icmp) => (icmp.checksum, icmp.icmp_type.calc_checksum(payload)),
        TransportHeader::Icmpv6(icmp) => {
            let ip = ip.unwrap_err();
            let calculated = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload);
            (icmp.checksum, calculated.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_vip_becomes_a_dscp_value_and_nothing_else_changes_but_checksums() {
    for (is_ipv6, protocols) in [(false, [6, 17, 1]), (true, [6, 17, 58])] {
        for protocol in protocols {
            for traffic_class in 0..=255 {
                let before = packet(is_ipv6, protocol, traffic_class, b"0123456");
                let mut after = before.clone();
                rewrite(&mut after, 10).unwrap();
                let (found, calculated) = checksums(&after);
                assert_eq!(found, calculated, "{is_ipv6} {protocol} {traffic_class}");
                let class = 10 << 2 | traffic_class & 3;
                let mut expected = before;
                if is_ipv6 {
                    expected[0] = 0x60 | class >> 4;
                    expected[1] = class << 4 | expected[1] & 0x0f;
                    expected[24..40].copy_from_slice(&BACKEND_V6.octets());
                } else {
                    expected[1] = class;
                    expected[16..20].copy_from_slice(&BACKEND_V4.octets());
                    let sum = etherparse::Ipv4HeaderSlice::from_slice(&after).unwrap();
                    let sum = sum.to_header().calc_header_checksum();
                    expected[10..12].copy_from_slice(&sum.to_be_bytes());
                }
                let at = parsed(&expected).transport as usize - 14
                    + checksum_offset(Protocol(protocol), is_ipv6).unwrap_or(2);
                expected[at..at + 2].copy_from_slice(&calculated.to_be_bytes());
                assert_eq!(after, expected);
            }
        }
    }
}

/// All values that a UDP checksum can have, the one that must not come out as zero among them.
#[test]
fn udp_checksums_never_become_none_and_none_stays_none() {
    for is_ipv6 in [false, true] {
        let mut became_ones = 0;
        for filling in 0..=u16::MAX {
            let mut packet = packet(is_ipv6, 17, 0, &filling.to_be_bytes());
            rewrite(&mut packet, 1).unwrap();
            let (found, calculated) = checksums(&packet);
            assert_eq!(found, calculated);
            became_ones += u32::from(found == 0xffff);
        }
        assert!(became_ones > 0);
        let mut none = packet(is_ipv6, 17, 0, b"x");
        let at = if is_ipv6 { 46 } else { 26 };
        none[at..at + 2].fill(0);
        rewrite(&mut none, 1).unwrap();
        assert_eq!(none[at..at + 2], [0, 0]);
    }
}

/// Zero is a checksum like others where it does not mean that there is none.
#[test]
fn a_tcp_checksum_of_zero_is_updated() {
    for is_ipv6 in [false, true] {
        let at = if is_ipv6 { 56 } else { 36 };
        let mut packets = (0..=u16::MAX).map(|word| packet(is_ipv6, 6, 0, &word.to_be_bytes()));
        let mut zero = packets.find(|packet| packet[at..at + 2] == [0, 0]).unwrap();
        rewrite(&mut zero, 1).unwrap();
        let (found, calculated) = checksums(&zero);
        assert_eq!(found, calculated);
        assert_ne!(found, 0);
    }
}

/// Of these no other library here knows the checksum: as a receiver sums it up (RFC 3828 section
/// 3.1, RFC 4340 section 9.1), over all values.
#[test]
fn checksums_of_udp_lite_and_dccp_follow_as_well() {
    for (protocol, zero_is_sent) in [(UDP_LITE, false), (DCCP, true)] {
        for is_ipv6 in [false, true] {
            let at = if is_ipv6 { 40 } else { 20 };
            let mut packet = packet(is_ipv6, 17, 0, b"word");
            packet[if is_ipv6 { 6 } else { 9 }] = protocol.0;
            let sum = |packet: &[u8]| {
                let (flow, rest) = (parsed(packet).info.flow, &packet[at..]);
                let pseudo_header = match (flow.source, flow.destination) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        checksum::pseudo_header_v4(from, to, protocol.0, rest.len() as u16)
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        checksum::pseudo_header_v6(from, to, protocol.0, rest.len() as u32)
                    }
                    other => panic!("{other:?}"),
                };
                checksum::finish(pseudo_header + checksum::sum(rest))
            };
            let mut zeros = 0;
            for filling in 0..=u16::MAX {
                let mut packet = packet.clone();
                packet[at + 8..at + 10].copy_from_slice(&filling.to_be_bytes());
                packet[at + 6..at + 8].fill(0);
                let before = match sum(&packet) {
                    0 if protocol == UDP_LITE => 0xffff,
                    before => before,
                };
                packet[at + 6..at + 8].copy_from_slice(&before.to_be_bytes());
                rewrite(&mut packet, 1).unwrap();
                assert_eq!(sum(&packet), 0, "{protocol} {filling:04x}");
                zeros += u32::from(packet[at + 6..at + 8] == [0, 0]);
            }
            assert_eq!(zeros > 0, zero_is_sent, "{protocol}");
        }
    }
}

#[test]
fn of_fragments_the_first_has_the_checksum_and_later_ones_have_data_there() {
    let whole = packet(false, 17, 0, &[7; 100]);
    let mut first = whole.clone();
    first[6] = 0x20;
    let sum = whole[26..28].to_vec();
    rewrite(&mut first, 1).unwrap();
    let mut rewritten = whole.clone();
    rewrite(&mut rewritten, 1).unwrap();
    assert_eq!(first[26..28], rewritten[26..28]);
    assert_ne!(first[26..28], sum);
    let mut later = whole;
    later[7] = 5;
    let data = later[20..].to_vec();
    rewrite(&mut later, 1).unwrap();
    assert_eq!(later[20..], data);
}

/// The transport header is behind options and extension headers, however long they are.
#[test]
fn checksums_are_found_behind_options_and_extension_headers() {
    for protocol in [6, 17] {
        for words in 0..=10 {
            let mut packet = packet(false, protocol, 0, b"data");
            packet.splice(20..20, vec![1; words * 4]);
            (packet[0], packet[3]) = (0x45 + words as u8, packet[3] + words as u8 * 4);
            packet[10..12].fill(0);
            let sum = checksum::checksum(&packet[..20 + words * 4]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            rewrite(&mut packet, 10).unwrap();
            let (found, calculated) = checksums(&packet);
            assert_eq!(found, calculated, "{protocol} {words}");
            assert_eq!(checksum::checksum(&packet[..20 + words * 4]), 0);
        }
        for units in 1..=8 {
            let mut packet = packet(true, protocol, 0, b"data");
            let mut options = vec![0; units * 8];
            options[..4].copy_from_slice(&[protocol, units as u8 - 1, 1, units as u8 * 8 - 4]);
            (packet[6], packet[5]) = (60, packet[5] + options.len() as u8);
            packet.splice(40..40, options);
            rewrite(&mut packet, 10).unwrap();
            let (found, calculated) = checksums(&packet);
            assert_eq!(found, calculated, "{protocol} {units}");
        }
    }
}

#[test]
fn what_cannot_be_rewritten_is_left_alone() {
    let dscp = Dscp::new(1).unwrap();
    let mut v4 = packet(false, 6, 0, b"");
    let before = v4.clone();
    let wrong = rewrite_l3dsr(&mut v4, 20, Protocol::TCP, Fragment::Whole, BACKEND_V6.into(), dscp);
    assert_eq!(wrong, Err(DropReason::IpVersionMismatch));
    let cut =
        rewrite_l3dsr(&mut v4[..37], 20, Protocol::TCP, Fragment::Whole, BACKEND_V4.into(), dscp);
    assert_eq!(cut, Err(DropReason::TransportTruncated));
    assert_eq!(v4, before);

    // A routing header with one segment left.
    let mut routed = packet(true, 6, 0, b"");
    routed.splice(40..40, [6, 2, 4, 1, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    (routed[6], routed[5]) = (43, routed[5] + 24);
    let before = routed.clone();
    assert_eq!(rewrite(&mut routed, 1), Err(DropReason::SourceRouted));
    assert_eq!(routed, before);
    // With none left the destination is the last one.
    routed[43] = 0;
    assert_eq!(rewrite(&mut routed.clone(), 1), Ok(()));
    // In other extension headers there is something else.
    (routed[6], routed[43]) = (60, 1);
    assert_eq!(rewrite(&mut routed, 1), Ok(()));
}

/// RFC 8200 section 4.5: the second byte of a fragment header is reserved, no length.
#[test]
fn a_routing_header_behind_a_fragment_header_is_found() {
    let mut routed = packet(true, 6, 0, b"");
    let routing = [6, 2, 4, 1, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    routed.splice(40..40, [&[43, 0xff, 0, 0, 0, 0, 0, 9][..], &routing].concat());
    (routed[6], routed[5]) = (44, routed[5] + 32);
    assert_eq!(rewrite(&mut routed, 1), Err(DropReason::SourceRouted));
}

proptest! {
    #[test]
    fn checksums_are_those_of_the_rewritten_packet(
        is_ipv6: bool, number in 0usize..3, traffic_class: u8, dscp in 1u8..64,
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let protocol = if is_ipv6 { [6, 17, 58][number] } else { [6, 17, 1][number] };
        let mut packet = packet(is_ipv6, protocol, traffic_class, &payload);
        rewrite(&mut packet, dscp).unwrap();
        let (found, calculated) = checksums(&packet);
        prop_assert_eq!(found, calculated);
    }

    #[test]
    fn any_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120), transport in 0usize..130,
        protocol: u8, ipv6: bool,
    ) {
        let backend = if ipv6 { BACKEND_V6.into() } else { BACKEND_V4.into() };
        let dscp = Dscp::new(1).unwrap();
        let _ = rewrite_l3dsr(&mut bytes, transport, Protocol(protocol), Fragment::Whole, backend, dscp);
    }
}
