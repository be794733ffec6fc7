use super::*;
use crate::forwarding::Dscp;
use crate::forwarding::GueVariant;
use etherparse::{IpHeaders, Ipv4Header, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};
use proptest::prelude::*;

const V4: (&str, &str) = ("192.0.2.1/32", "198.51.100.11");
const V6: (&str, &str) = ("2001:db8::1/128", "2001:db8:1::11");

fn path(ends: (&str, &str), encapsulation: Encapsulation, dscp: TunnelDscp) -> TunnelPath {
    let tunnel = Tunnel { dscp, hop_limit: 61, ..Tunnel::new(encapsulation) };
    TunnelPath::new(ends.0.parse().unwrap(), ends.1.parse().unwrap(), tunnel).unwrap()
}

/// A valid header made by another library, and payload.
fn inner(is_ipv6: bool, traffic_class: u8, dont_fragment: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if is_ipv6 {
        let header = etherparse::Ipv6Header {
            traffic_class,
            flow_label: 0x12345.try_into().unwrap(),
            payload_length: payload.len() as u16,
            next_header: etherparse::ip_number::TCP,
            hop_limit: 63,
            source: [1; 16],
            destination: [2; 16],
        };
        header.write(&mut bytes).unwrap();
    } else {
        let length = payload.len() as u16;
        let number = etherparse::ip_number::TCP;
        let mut header =
            Ipv4Header::new(length, 63, number, [192, 0, 2, 7], [10, 0, 0, 1]).unwrap();
        (header.dscp, header.ecn) =
            ((traffic_class >> 2).try_into().unwrap(), (traffic_class & 3).try_into().unwrap());
        header.dont_fragment = dont_fragment;
        header.header_checksum = header.calc_header_checksum();
        header.write(&mut bytes).unwrap();
    }
    bytes.extend(payload);
    bytes
}

fn wrap(path: &TunnelPath, inner: &[u8], entropy: u32, identification: u16) -> Vec<u8> {
    // What was there before must not show.
    let mut packet = vec![0xa5; path.overhead()];
    packet.extend(inner);
    let made = encapsulate(&mut packet, path, OuterFragmentation::Inherit, entropy, identification);
    assert_eq!(made, Ok(()));
    packet
}

fn gue(variant: GueVariant, checksum: bool) -> Encapsulation {
    Encapsulation::Gue { port: 6080, variant, checksum }
}

const ENCAPSULATIONS: [Encapsulation; 5] = [
    Encapsulation::IpIp,
    Encapsulation::Gue { port: 6080, variant: GueVariant::Zero, checksum: false },
    Encapsulation::Gue { port: 6080, variant: GueVariant::One, checksum: false },
    Encapsulation::Gue { port: 6080, variant: GueVariant::Zero, checksum: true },
    Encapsulation::Gue { port: 6080, variant: GueVariant::One, checksum: true },
];

/// What another library finds in the outer headers: protocol, traffic class, and the rest.
fn check(packet: &[u8], path: &TunnelPath, inner: &[u8], traffic_class: u8) {
    let (outer, _) = IpHeaders::from_slice(packet).unwrap();
    let (protocol, rest) = match outer {
        IpHeaders::Ipv4(header, _) => {
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), packet.len());
            assert_eq!(header.time_to_live, 61);
            assert_eq!(header.dscp.value() << 2 | header.ecn.value(), traffic_class);
            (header.protocol.0, &packet[20..])
        }
        IpHeaders::Ipv6(header, _) => {
            assert_eq!(usize::from(header.payload_length), packet.len() - 40);
            assert_eq!(header.hop_limit, 61);
            assert_eq!(header.traffic_class, traffic_class);
            assert_ne!(header.flow_label.value(), 0);
            (header.next_header.0, &packet[40..])
        }
    };
    let inside = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let carried = match path.tunnel.encapsulation {
        Encapsulation::IpIp => {
            assert_eq!(protocol, inside);
            rest
        }
        Encapsulation::Gue { port, variant, checksum } => {
            assert_eq!(protocol, 17);
            let udp = UdpHeaderSlice::from_slice(rest).unwrap();
            assert_eq!((udp.destination_port(), usize::from(udp.length())), (port, rest.len()));
            assert!(udp.source_port() >= 0x8000);
            let expected = match packet[0] >> 4 {
                4 => {
                    let ip = Ipv4HeaderSlice::from_slice(packet).unwrap().to_header();
                    udp.to_header().calc_checksum_ipv4(&ip, &rest[8..]).unwrap()
                }
                _ => {
                    let ip = Ipv6HeaderSlice::from_slice(packet).unwrap().to_header();
                    udp.to_header().calc_checksum_ipv6(&ip, &rest[8..]).unwrap()
                }
            };
            assert_eq!(udp.checksum(), if checksum { expected } else { 0 });
            match variant {
                GueVariant::One => &rest[8..],
                GueVariant::Zero => {
                    assert_eq!(rest[8..12], [0, inside, 0, 0]);
                    &rest[12..]
                }
            }
        }
    };
    assert_eq!(carried, inner, "what is inside has changed");
}

#[test]
fn every_family_mix_encapsulation_and_traffic_class() {
    let pipe = TunnelDscp::Pipe(Dscp::new(46).unwrap());
    for ends in [V4, V6] {
        for encapsulation in ENCAPSULATIONS {
            for traffic_class in 0..=255 {
                for is_ipv6 in [false, true] {
                    let inner = inner(is_ipv6, traffic_class, true, b"payload");
                    let uniform = path(ends, encapsulation, TunnelDscp::Uniform);
                    check(&wrap(&uniform, &inner, 7, 9), &uniform, &inner, traffic_class);
                    let piped = path(ends, encapsulation, pipe);
                    let expected = 46 << 2 | traffic_class & 3;
                    check(&wrap(&piped, &inner, 7, 9), &piped, &inner, expected);
                }
            }
        }
    }
}

#[test]
fn dont_fragment_is_inherited_and_only_without_it_there_is_an_identification() {
    let path = path(V4, Encapsulation::IpIp, TunnelDscp::Uniform);
    let field = |inner: &[u8], fragmentation| {
        let mut packet = [&[0; 20], inner].concat();
        encapsulate(&mut packet, &path, fragmentation, 0, 0x1234).unwrap();
        (u16::from_be_bytes([packet[4], packet[5]]), packet[6], packet[7])
    };
    let of = |is_ipv6, dont_fragment| inner(is_ipv6, 0, dont_fragment, &[]);
    assert_eq!(field(&of(false, true), OuterFragmentation::Inherit), (0, 0x40, 0));
    assert_eq!(field(&of(false, false), OuterFragmentation::Inherit), (0x1234, 0, 0));
    assert_eq!(field(&of(true, true), OuterFragmentation::Inherit), (0, 0x40, 0));
    assert_eq!(field(&of(true, true), OuterFragmentation::Allow), (0x1234, 0, 0));
}

#[test]
fn a_source_prefix_is_filled_with_the_flow_and_never_with_what_is_no_host() {
    let inner = inner(false, 0, true, &[]);
    for (prefix, destination) in
        [("192.0.2.0/24", V4.1), ("192.0.2.0/30", V4.1), ("10.0.0.0/8", V4.1), ("0.0.0.0/0", V4.1)]
    {
        let path = path((prefix, destination), Encapsulation::IpIp, TunnelDscp::Uniform);
        let prefix: ipnet::Ipv4Net = prefix.parse().unwrap();
        let mut seen = std::collections::HashSet::new();
        for entropy in (0..=u32::MAX).step_by(1 << 20).chain([u32::MAX]) {
            let packet = wrap(&path, &inner, entropy, 0);
            let source = Ipv4Addr::from(*packet[12..].first_chunk::<4>().unwrap());
            assert!(prefix.contains(&source), "{source}");
            assert!(source != prefix.network() && source != prefix.broadcast(), "{source}");
            seen.insert(source);
        }
        let hosts =
            (u64::from(prefix.broadcast().to_bits()) - u64::from(prefix.network().to_bits()) - 1)
                .min(4000);
        assert!(seen.len() as u64 >= hosts, "{} of {hosts}", seen.len());
    }
    let both = path(("192.0.2.2/31", V4.1), Encapsulation::IpIp, TunnelDscp::Uniform);
    let last = |entropy| wrap(&both, &inner, entropy, 0)[15];
    assert_eq!([last(0), last(1)], [2, 3]);

    for prefix in ["2001:db8::/64", "2001:db8::/120", "::/0"] {
        let path = path((prefix, V6.1), Encapsulation::IpIp, TunnelDscp::Uniform);
        let prefix: ipnet::Ipv6Net = prefix.parse().unwrap();
        for entropy in [0, 1, 0xff, 0x100, u32::MAX] {
            let packet = wrap(&path, &inner, entropy, 0);
            let source = Ipv6Addr::from(*packet[8..].first_chunk::<16>().unwrap());
            assert!(prefix.contains(&source) && source != prefix.network(), "{source}");
        }
    }
}

#[test]
fn flows_differ_in_what_is_hashed_on_the_way() {
    let inner = inner(false, 0, true, &[]);
    let over_v6 = path(V6, gue(GueVariant::One, false), TunnelDscp::Uniform);
    let (a, b) = (wrap(&over_v6, &inner, 0x1111_2222, 0), wrap(&over_v6, &inner, 0x3333_4444, 0));
    assert_ne!(a[..4], b[..4], "flow label");
    // A label of zero would be none (RFC 6437 section 2).
    assert_eq!(wrap(&over_v6, &inner, 0x0010_0000, 0)[..4], [0x60, 0, 0, 1]);
    assert_ne!(a[40..42], b[40..42], "source port");
    assert!(over_v6.uses_entropy());
    assert!(path(V6, Encapsulation::IpIp, TunnelDscp::Uniform).uses_entropy());
    assert!(path(("10.0.0.0/24", V4.1), Encapsulation::IpIp, TunnelDscp::Uniform).uses_entropy());
    let fixed = path(V4, Encapsulation::IpIp, TunnelDscp::Uniform);
    assert!(!fixed.uses_entropy());
    assert_eq!(wrap(&fixed, &inner, 1, 0), wrap(&fixed, &inner, 2, 0));
}

#[test]
fn what_cannot_be_wrapped_is_refused() {
    let tunnel = Tunnel::new(Encapsulation::IpIp);
    let ends = ("10.0.0.1/32".parse().unwrap(), "fd00::1".parse().unwrap());
    assert_eq!(TunnelPath::new(ends.0, ends.1, tunnel), None);
    let path = path(V4, Encapsulation::IpIp, TunnelDscp::Uniform);
    let wrap = |packet: &mut [u8]| encapsulate(packet, &path, OuterFragmentation::Inherit, 0, 0);
    assert_eq!(wrap(&mut [0x45; 19]), Err(DropReason::NoRoom));
    assert_eq!(wrap(&mut [0x45; 27]), Err(DropReason::IpVersionMismatch));
    assert_eq!(wrap(&mut [0x75; 60]), Err(DropReason::IpVersionMismatch));
    assert_eq!(wrap(&mut vec![0x45; 65_536]), Err(DropReason::PacketTooBig));
    assert_eq!(wrap(&mut vec![0x45; 65_535]), Ok(()));
}

/// A sum of zero is sent as 0xffff: found by trying, one of the values must give it.
#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let path = path(V6, gue(GueVariant::One, true), TunnelDscp::Uniform);
    let found = (0..=u16::MAX).any(|filling| {
        let packet = wrap(&path, &inner(false, 0, true, &filling.to_be_bytes()), 1, 0);
        assert_ne!(packet[46..48], [0, 0]);
        packet[46..48] == [0xff, 0xff]
    });
    assert!(found);
}

proptest! {
    #[test]
    fn any_packet_comes_out_as_it_went_in(
        is_ipv6: bool, over_ipv6: bool, traffic_class: u8, dont_fragment: bool,
        encapsulation in prop::sample::select(ENCAPSULATIONS.to_vec()),
        payload in prop::collection::vec(any::<u8>(), 0..2000), entropy: u32, identification: u16,
    ) {
        let ends = if over_ipv6 { V6 } else { V4 };
        let inner = inner(is_ipv6, traffic_class, dont_fragment, &payload);
        let path = path(ends, encapsulation, TunnelDscp::Uniform);
        let packet = wrap(&path, &inner, entropy, identification);
        check(&packet, &path, &inner, traffic_class);
    }

    #[test]
    fn any_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), over_ipv6: bool,
        encapsulation in prop::sample::select(ENCAPSULATIONS.to_vec()),
    ) {
        let path = path(if over_ipv6 { V6 } else { V4 }, encapsulation, TunnelDscp::Uniform);
        let _ = encapsulate(&mut bytes, &path, OuterFragmentation::Inherit, 0, 0);
    }
}
