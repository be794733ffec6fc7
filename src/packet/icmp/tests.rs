use super::*;
use crate::flow::{FiveTuple, TcpFlags};
use crate::packet::{Parse, Parsed, checksum, parse};
use crate::verdict::DropReason;
use etherparse::{Icmpv4Slice, Icmpv6Slice, PacketBuilder};
use proptest::prelude::*;
use std::net::IpAddr;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const VIP: [u8; 4] = [10, 0, 0, 100];
const ROUTER: [u8; 4] = [203, 0, 113, 1];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = ((20 + payload.len()) as u16).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 9, 0, 0, 64, protocol, 0, 0];
    header.extend([from, to].concat());
    let sum = checksum::checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header, payload].concat()
}

fn ipv6(from: [u8; 16], to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let fixed = [0x60, 0, 0, 0, length[0], length[1], next, 64];
    [&fixed[..], &from, &to, payload].concat()
}

fn parsed(packet: &[u8]) -> Parsed {
    let ether_type = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    match parse(&[&[0; 12][..], &ether_type, packet].concat()) {
        Parse::Ip(parsed) => parsed,
        other => panic!("{other:?}"),
    }
}

/// An error of this type and code to the VIP that quotes these bytes.
fn error(kind: u8, code: u8, quotation: &[u8]) -> Vec<u8> {
    ipv4(ROUTER, VIP, 1, &[&[kind, code, 0, 0, 0, 0, 5, 0xdc], quotation].concat())
}

fn error6(kind: u8, quotation: &[u8]) -> Vec<u8> {
    ipv6(ROUTER6, VIP6, 58, &[&[kind, 0, 0, 0, 0, 0, 5, 0], quotation].concat())
}

const PORTS: [u8; 8] = [0, 80, 0x9c, 0x40, 1, 2, 3, 4];

fn client_flow(protocol: Protocol) -> FiveTuple {
    FiveTuple {
        source: CLIENT.into(),
        destination: VIP.into(),
        source_port: 40_000,
        destination_port: 80,
        protocol,
    }
}

#[test]
fn an_error_has_the_flow_of_the_packet_it_quotes_turned_around() {
    for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
        let quoted = ipv4(VIP, CLIENT, protocol.0, &[&PORTS[..], &[9; 600]].concat());
        for (kind, code) in (0..=15).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0)]) {
            // Eight bytes of the transport header at least (RFC 792), or as much as there is.
            for length in [24, 28, 100, quoted.len()] {
                let info = parsed(&error(kind, code, &quoted[..length])).info;
                assert_eq!(info.kind, PacketKind::IcmpError, "{kind} {code} {length}");
                assert_eq!(info.flow, client_flow(protocol));
                assert_eq!((info.fragment, info.tcp_flags), (Fragment::Whole, TcpFlags(0)));
            }
        }
    }
    let packet = error(3, 4, &ipv4(VIP, CLIENT, 6, &PORTS));
    let parsed = parsed(&packet);
    assert_eq!((parsed.protocol, parsed.fragment), (Protocol::ICMP, Fragment::Whole));
    assert_eq!(parsed.length(), packet.len());
}

#[test]
fn quoted_options_are_walked() {
    for words in 0..=10 {
        let mut quoted = ipv4(VIP, CLIENT, 6, &[vec![1; words * 4], PORTS.to_vec()].concat());
        quoted[0] += words as u8;
        assert_eq!(parsed(&error(3, 3, &quoted)).info.flow, client_flow(Protocol::TCP), "{words}");
    }
}

#[test]
fn quoted_extension_headers_are_walked() {
    let flow = FiveTuple {
        source: CLIENT6.into(),
        destination: VIP6.into(),
        ..client_flow(Protocol::UDP)
    };
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let through_options = ipv6(VIP6, CLIENT6, 60, &[&options[..], &PORTS].concat());
    let plain = ipv6(VIP6, CLIENT6, 17, &PORTS);
    for kind in 1..=4 {
        for quoted in [&plain, &through_options] {
            let info = parsed(&error6(kind, quoted)).info;
            assert_eq!((info.kind, info.flow), (PacketKind::IcmpError, flow), "{kind}");
        }
        let cut = &through_options[..44];
        assert_eq!(parsed(&error6(kind, cut)).info.kind, PacketKind::TruncatedError);
    }
    let first = [17, 0, 0, 1, 0, 0, 0, 5];
    let fragment = ipv6(VIP6, CLIENT6, 44, &[&first[..], &PORTS].concat());
    let info = parsed(&error6(2, &fragment)).info;
    assert_eq!((info.flow, info.fragment, info.identification), (flow, Fragment::First, 0));
}

#[test]
fn a_quoted_later_fragment_has_no_ports() {
    let mut quoted = ipv4(VIP, CLIENT, 17, &PORTS);
    quoted[7] = 9;
    let info = parsed(&error(11, 1, &quoted)).info;
    let expected = FiveTuple { source_port: 0, destination_port: 0, ..client_flow(Protocol::UDP) };
    assert_eq!((info.kind, info.flow), (PacketKind::IcmpError, expected));
    assert_eq!(info.fragment, Fragment::Later);
}

#[test]
fn a_quoted_echo_reply_belongs_to_the_flow_of_the_ping() {
    let info = parsed(&error(11, 0, &ipv4(VIP, CLIENT, 1, &[0; 8]))).info;
    let expected = FiveTuple { source_port: 0, destination_port: 0, ..client_flow(Protocol::ICMP) };
    assert_eq!((info.kind, info.flow), (PacketKind::IcmpError, expected));
}

#[test]
fn what_the_vip_did_not_send_and_what_is_cut_off_is_told_apart() {
    let own_flow = FiveTuple {
        source: ROUTER.into(),
        destination: VIP.into(),
        source_port: 0,
        destination_port: 0,
        protocol: Protocol::ICMP,
    };
    let stray = ipv4(CLIENT, VIP, 6, &PORTS);
    let quoted = ipv4(VIP, CLIENT, 6, &PORTS);
    for (quotation, kind) in [
        (&stray[..], PacketKind::StrayError),
        (&quoted[..23], PacketKind::TruncatedError),
        (&quoted[..19], PacketKind::TruncatedError),
        (&[], PacketKind::TruncatedError),
        (&ipv6(VIP6, CLIENT6, 6, &PORTS), PacketKind::TruncatedError),
    ] {
        let info = parsed(&error(3, 4, quotation)).info;
        assert_eq!((info.kind, info.flow), (kind, own_flow), "{quotation:x?}");
    }
}

#[test]
fn other_messages_are_ordinary() {
    let quoted = ipv4(VIP, CLIENT, 6, &PORTS);
    for kind in (0..=255).filter(|kind| ![3, 8, 11, 12].contains(kind)) {
        assert_eq!(parsed(&error(kind, 0, &quoted)).info.kind, PacketKind::Ordinary, "{kind}");
    }
    for kind in (0..=255).filter(|kind| !(1..=4).contains(kind) && *kind != 128) {
        assert_eq!(parsed(&error6(kind, &quoted)).info.kind, PacketKind::Ordinary, "{kind}");
    }
    assert_eq!(parsed(&error(8, 1, &[])).info.kind, PacketKind::Ordinary, "a code of its own");
    // What continues a message begins with whatever.
    let mut later = error(3, 4, &quoted);
    later[7] = 5;
    assert_eq!(parsed(&later).info.kind, PacketKind::Ordinary);
    // ICMPv6 over IPv4 is nothing.
    let mut wrong = error(3, 4, &quoted);
    wrong[9] = 58;
    assert_eq!(parsed(&wrong).info.kind, PacketKind::Ordinary);
}

fn request(is_ipv6: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let written = if is_ipv6 {
        let builder = PacketBuilder::ipv6(CLIENT6, VIP6, 9).icmpv6_echo_request(1, 2);
        builder.write(&mut packet, payload)
    } else {
        let builder = PacketBuilder::ipv4(CLIENT, VIP, 9).icmpv4_echo_request(1, 2);
        builder.write(&mut packet, payload)
    };
    written.unwrap();
    packet
}

/// All the sums that the payload can add, so all checksums: no carry may get lost.
#[test]
fn echo_replies_have_right_checksums_for_each_of_their_values() {
    for is_ipv6 in [false, true] {
        let mut seen = vec![false; 1 << 16];
        for filling in 0..=u16::MAX {
            let mut packet = request(is_ipv6, &filling.to_be_bytes());
            let info = parsed(&packet);
            assert_eq!(info.info.kind, PacketKind::EchoRequest);
            let (transport, fragment) = (info.header_length(), info.fragment);
            answer_echo(&mut packet, transport, fragment).unwrap();
            let found = u16::from_be_bytes([packet[transport + 2], packet[transport + 3]]);
            seen[usize::from(found)] = true;
            let (reply, calculated) = if is_ipv6 {
                let reply = Icmpv6Slice::from_slice(&packet[40..]).unwrap();
                (
                    packet[40] == 129,
                    reply.icmp_type().calc_checksum(VIP6, CLIENT6, &packet[48..]).unwrap(),
                )
            } else {
                let reply = Icmpv4Slice::from_slice(&packet[20..]).unwrap();
                (packet[20] == 0, reply.icmp_type().calc_checksum(&packet[28..]))
            };
            assert!(reply);
            // Zero and 0xffff are one number to whoever adds up.
            let same = found == calculated
                || [found, calculated].iter().all(|sum| [0, 0xffff].contains(sum));
            assert!(same, "{is_ipv6} {filling:04x}: {found:04x}, not {calculated:04x}");
        }
        assert!(seen.iter().filter(|seen| !**seen).count() <= 1);
    }
}

#[test]
fn an_echo_reply_is_the_request_turned_around() {
    let mut packet = request(false, b"data");
    packet[1] = 46 << 2 | 3;
    let before = packet.clone();
    answer_echo(&mut packet, 20, Fragment::Whole).unwrap();
    assert_eq!((packet[1], packet[8]), (46 << 2, 64));
    assert_eq!((&packet[12..16], &packet[16..20]), (&VIP[..], &CLIENT[..]));
    assert_eq!(checksum::checksum(&packet[..20]), 0);
    assert_eq!((packet[20], &packet[24..]), (0, &before[24..]));
    assert_eq!(packet[2..8], before[2..8]);

    let mut packet = request(true, b"data");
    (packet[0], packet[1]) = (0x6b, 0xb2);
    let before = packet.clone();
    answer_echo(&mut packet, 40, Fragment::Whole).unwrap();
    assert_eq!((packet[0], packet[1], packet[7]), (0x6b, 0x82, 64));
    assert_eq!((&packet[8..24], &packet[24..40]), (&VIP6[..], &CLIENT6[..]));
    assert_eq!((packet[40], &packet[44..]), (129, &before[44..]));
}

/// The reply put together from fragments answered one by one is the reply to the whole.
#[test]
fn fragments_of_a_request_are_answered_one_by_one() {
    let mut whole = request(false, &[7; 104]);
    let mut first = [&whole[..20], &whole[20..76]].concat();
    let mut later = [&whole[..20], &whole[76..]].concat();
    first[6] = 0x20;
    later[7] = 7;
    answer_echo(&mut whole, 20, Fragment::Whole).unwrap();
    answer_echo(&mut first, 20, Fragment::First).unwrap();
    answer_echo(&mut later, 20, Fragment::Later).unwrap();
    assert_eq!([&first[20..], &later[20..]].concat(), whole[20..]);
    assert_eq!((first[6], later[7]), (0x20, 7));
    for part in [first, later] {
        assert_eq!((checksum::checksum(&part[..20]), &part[12..16]), (0, &VIP[..]));
    }

    let header = [58, 0, 0, 1, 0, 0, 0, 9];
    let mut first = ipv6(CLIENT6, VIP6, 44, &[&header[..], &[128, 0, 1, 2, 3, 4, 5, 6]].concat());
    answer_echo(&mut first, 48, Fragment::First).unwrap();
    assert_eq!((first[40], first[48]), (58, 129));
}

#[test]
fn requests_with_options_are_not_answered() {
    let mut options = request(false, &[1; 8]);
    options[0] = 0x46;
    let before = options.clone();
    assert_eq!(answer_echo(&mut options, 24, Fragment::Whole), Err(DropReason::EchoRefused));
    assert_eq!(options, before);
    let routing = [58, 0, 4, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0];
    let mut routed = ipv6(CLIENT6, VIP6, 43, &routing);
    assert_eq!(answer_echo(&mut routed, 48, Fragment::Whole), Err(DropReason::EchoRefused));
}

fn refusal(offender: &[u8], kind: ErrorKind, source: IpAddr) -> Option<Vec<u8>> {
    let is_ipv6 = source.is_ipv6();
    let quotation = &offender[..offender.len().min(longest_quote(is_ipv6))];
    let mut packet = vec![0xa5; room_for_error(is_ipv6)];
    packet.extend(quotation);
    write_error(&mut packet, kind, source).then_some(packet)
}

#[test]
fn packet_too_big_says_how_much_fits_and_quotes_the_packet_as_it_came() {
    let big = ErrorKind::PacketTooBig { mtu: 1480 };
    let offender = ipv4(CLIENT, VIP, 6, &[&PORTS[..], &[9; 1472]].concat());
    let packet = refusal(&offender, big, VIP.into()).unwrap();
    assert_eq!(packet.len(), 576, "RFC 1812 section 4.3.2.3");
    let ip = etherparse::Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!((ip.source, ip.destination, ip.total_len), (VIP, CLIENT, 576));
    assert!(ip.dont_fragment);
    let icmp = Icmpv4Slice::from_slice(&packet[20..]).unwrap();
    let too_big =
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1480 };
    assert_eq!(icmp.icmp_type(), etherparse::Icmpv4Type::DestinationUnreachable(too_big));
    assert_eq!(checksum::checksum(&packet[20..]), 0);
    assert_eq!(packet[28..], offender[..548]);

    let offender = ipv6(CLIENT6, VIP6, 6, &[&PORTS[..], &[9; 1452]].concat());
    let packet = refusal(&offender, big, VIP6.into()).unwrap();
    assert_eq!(packet.len(), 1280, "RFC 4443 section 2.4 (c)");
    let ip = etherparse::Ipv6HeaderSlice::from_slice(&packet).unwrap().to_header();
    assert_eq!((ip.source, ip.destination), (VIP6, CLIENT6));
    assert_eq!(usize::from(ip.payload_length), packet.len() - 40);
    let icmp = Icmpv6Slice::from_slice(&packet[40..]).unwrap();
    assert_eq!(icmp.icmp_type(), etherparse::Icmpv6Type::PacketTooBig { mtu: 1480 });
    let calculated = icmp.icmp_type().calc_checksum(VIP6, CLIENT6, &packet[48..]).unwrap();
    assert_eq!(icmp.checksum(), calculated);
    assert_eq!(packet[48..], offender[..1232]);
}

#[test]
fn short_packets_are_quoted_whole_and_time_exceeded_has_no_number() {
    let offender = ipv4(CLIENT, VIP, 17, &PORTS);
    let packet = refusal(&offender, ErrorKind::TimeExceeded, VIP.into()).unwrap();
    assert_eq!(packet[20..22], [11, 0]);
    assert_eq!((&packet[24..28], &packet[28..]), (&[0; 4][..], &offender[..]));
    let offender = ipv6(CLIENT6, VIP6, 17, &PORTS);
    let packet = refusal(&offender, ErrorKind::TimeExceeded, VIP6.into()).unwrap();
    assert_eq!((&packet[40..42], &packet[48..]), (&[3, 0][..], &offender[..]));
}

#[test]
fn no_less_is_told_than_every_link_takes() {
    let v4 =
        |mtu| refusal(&ipv4(CLIENT, VIP, 6, &PORTS), ErrorKind::PacketTooBig { mtu }, VIP.into());
    assert!(v4(67).is_none() && v4(68).is_some());
    let offender = ipv6(CLIENT6, VIP6, 6, &PORTS);
    let packet = refusal(&offender, ErrorKind::PacketTooBig { mtu: 1 }, VIP6.into()).unwrap();
    assert_eq!(packet[44..48], 1280_u32.to_be_bytes());
    let other_family = refusal(&offender, ErrorKind::TimeExceeded, VIP.into());
    assert!(other_family.is_none());
}

/// The checksum of the error itself, over every sum that a quoted word can add.
#[test]
fn errors_have_right_checksums_for_each_of_their_values() {
    for filling in 0..=u16::MAX {
        let big = ErrorKind::PacketTooBig { mtu: u32::from(filling).max(68) };
        let data = filling.to_be_bytes();
        let packet = refusal(&ipv4(CLIENT, VIP, 6, &data), big, VIP.into()).unwrap();
        assert_eq!((checksum::checksum(&packet[..20]), checksum::checksum(&packet[20..])), (0, 0));
        let packet = refusal(&ipv6(CLIENT6, VIP6, 6, &data), big, VIP6.into()).unwrap();
        let length = packet.len() as u32 - 40;
        let pseudo = checksum::pseudo_header_v6(VIP6.into(), CLIENT6.into(), 58, length);
        assert_eq!(checksum::finish(pseudo + checksum::sum(&packet[40..])), 0, "{filling:04x}");
    }
}

#[test]
fn some_packets_are_never_answered() {
    let may = |packet: &[u8]| {
        let parsed = parsed(packet);
        may_be_answered(
            &parsed.info,
            &parsed.packet(&[&[0; 14], packet].concat())[parsed.header_length()..],
        )
    };
    assert!(may(&ipv4(CLIENT, VIP, 17, &PORTS)));
    assert!(may(&request(false, b"")) && may(&request(true, b"")));
    // RFC 1122 section 3.2.2: neither known errors nor unknown types.
    for kind in (0..=255).filter(|kind| ![0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(kind)) {
        let quoted = ipv4(VIP, CLIENT, 6, &PORTS);
        for quotation in [&quoted[..], &quoted[..10], &ipv4(CLIENT, VIP, 6, &PORTS)] {
            assert!(!may(&error(kind, 0, quotation)), "{kind}");
        }
    }
    for kind in 0..128 {
        assert!(!may(&error6(kind, &[])), "{kind}");
    }
    let mut later = ipv4(CLIENT, VIP, 17, &PORTS);
    later[7] = 1;
    assert!(!may(&later));
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        assert!(!may(&ipv4(source, VIP, 17, &PORTS)), "{source:?}");
    }
    assert!(!may(&ipv6([0; 16], VIP6, 17, &PORTS)));
}

#[test]
fn feedback_names_the_tunnel_and_what_fits() {
    let outer = ipv4([10, 0, 0, 1], [10, 1, 0, 11], 4, &ipv4(CLIENT, VIP, 6, &PORTS));
    let message = |mtu: u16, quotation: &[u8]| {
        let [m0, m1] = mtu.to_be_bytes();
        [&[3, 4, 0, 0, 0, 0, m0, m1], quotation].concat()
    };
    let feedback = tunnel_feedback(&message(1400, &outer[..28]), false).unwrap();
    assert_eq!(
        (feedback.source, feedback.destination),
        ([10, 0, 0, 1].into(), [10, 1, 0, 11].into())
    );
    assert_eq!((feedback.protocol.0, feedback.udp_ports, feedback.mtu), (4, None, 1400));
    assert_eq!(tunnel_feedback(&message(67, &outer), false), None);
    // Old routers do not say how much: the next plateau below what was sent.
    let mut large = outer.clone();
    large[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    assert_eq!(tunnel_feedback(&message(0, &large), false).unwrap().mtu, 1492);
    large[2..4].copy_from_slice(&1492_u16.to_be_bytes());
    assert_eq!(tunnel_feedback(&message(0, &large), false).unwrap().mtu, 1006);
    assert_eq!(tunnel_feedback(&message(68, &outer), false).unwrap().mtu, 68);
    let mut other = message(1400, &outer);
    other[1] = 3;
    assert_eq!(tunnel_feedback(&other, false), None, "another code");

    let udp = [0x80, 1, 0x17, 0xc0, 0, 9, 0, 0];
    let outer = ipv6(ROUTER6, CLIENT6, 17, &udp);
    let message = |mtu: u32| [&[2, 0, 0, 0][..], &mtu.to_be_bytes(), &outer].concat();
    let feedback = tunnel_feedback(&message(1280), true).unwrap();
    assert_eq!((feedback.udp_ports, feedback.mtu), (Some((0x8001, 6080)), 1280));
    assert_eq!(tunnel_feedback(&message(1279), true), None);
    assert_eq!(tunnel_feedback(&message(1280), false), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..160), is_ipv6: bool) {
        let _ = tunnel_feedback(&bytes, is_ipv6);
        for quoted in [ipv4(ROUTER, VIP, 1, &bytes), ipv6(ROUTER6, VIP6, 58, &bytes)] {
            let _ = parsed(&quoted);
        }
        let source = if is_ipv6 { VIP6.into() } else { VIP.into() };
        let _ = write_error(&mut bytes.clone(), ErrorKind::TimeExceeded, source);
        for transport in [0, 20, 40, 48, 200] {
            let _ = answer_echo(&mut bytes.clone(), transport, Fragment::Whole);
        }
    }
}
