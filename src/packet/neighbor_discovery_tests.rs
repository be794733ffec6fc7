//! Tests of neighbour discovery, with `etherparse` building and `pnet_packet` reading.

use super::*;
use etherparse::{Icmpv6Slice, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use pnet_packet::Packet;
use pnet_packet::icmpv6::ndp::{NdpOptionTypes, NeighborAdvertPacket};
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ipv6::Ipv6Packet;
use proptest::prelude::*;

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const ASKER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab12, 0x3456);
const ASKER_IP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
/// Source link-layer address of [`ASKER`].
const SLLA: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 9];
/// A nonce (RFC 3971 section 5.3.2) as Linux puts into its probes for duplicates (RFC 7527).
const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];

/// A solicitation that can be damaged field by field before its checksum is computed.
#[derive(Clone)]
struct Ask {
    tags: usize,
    to_mac: MacAddress,
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    kind: u8,
    code: u8,
    target: Ipv6Addr,
    options: Vec<u8>,
}

impl Ask {
    fn multicast() -> Self {
        Self {
            tags: 0,
            to_mac: MacAddress([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]),
            from: ASKER_IP,
            to: solicited_node(VIP),
            hop_limit: 255,
            kind: 135,
            code: 0,
            target: VIP,
            options: SLLA.to_vec(),
        }
    }

    fn unicast() -> Self {
        Self { to_mac: OWN, to: VIP, ..Self::multicast() }
    }

    fn probe() -> Self {
        Self { from: Ipv6Addr::UNSPECIFIED, options: Vec::new(), ..Self::multicast() }
    }

    /// The frame, its headers and checksum by `etherparse`.
    fn frame(&self) -> Vec<u8> {
        let mut body = self.target.octets().to_vec();
        body.extend(&self.options);
        let kind =
            Icmpv6Type::Unknown { type_u8: self.kind, code_u8: self.code, bytes5to8: [0; 4] };
        let icmp = kind.to_header(self.from.octets(), self.to.octets(), &body).unwrap();
        let ipv6 = etherparse::Ipv6Header {
            payload_length: 8 + body.len() as u16,
            next_header: etherparse::IpNumber::IPV6_ICMP,
            hop_limit: self.hop_limit,
            source: self.from.octets(),
            destination: self.to.octets(),
            ..Default::default()
        };
        let mut frame = [self.to_mac.0, ASKER.0].concat();
        for tag in 0..self.tags {
            frame.extend([0x81, 0x00, 0x20, 10 + tag as u8]);
        }
        frame.extend([0x86, 0xdd]);
        ipv6.write(&mut frame).unwrap();
        icmp.write(&mut frame).unwrap();
        frame.extend(body);
        frame
    }

    fn offset(&self) -> usize {
        14 + 4 * self.tags
    }
}

/// Reads an advertisement with both witnesses and checks all that never differs.
fn check(frame: &[u8], offset: usize, to: Ipv6Addr, flags: u8, option: bool) {
    let ip = Ipv6Packet::new(&frame[offset..]).unwrap();
    assert_eq!((ip.get_source(), ip.get_destination()), (VIP, to));
    assert_eq!(ip.get_hop_limit(), 255);
    let length = usize::from(ip.get_payload_length());
    let message = &frame[offset + 40..offset + 40 + length];
    let icmp = Icmpv6Packet::new(message).unwrap();
    assert_eq!(icmp.get_checksum(), icmpv6::checksum(&icmp, &VIP, &to));
    let advert = NeighborAdvertPacket::new(message).unwrap();
    assert_eq!(advert.get_icmpv6_type().0, 136);
    assert_eq!(advert.get_flags(), flags);
    assert_eq!(advert.get_target_addr(), VIP);
    let options: Vec<_> = advert.get_options_iter().collect();
    if option {
        assert_eq!(options[0].get_option_type(), NdpOptionTypes::TargetLLAddr);
        assert_eq!(options[0].get_length(), 1);
        assert_eq!(options[0].payload()[..6], OWN.0);
    }
    assert_eq!(options.len(), usize::from(option));
    assert!(frame[offset + 40 + length..].iter().all(|&b| b == 0));
    assert_eq!(frame[6..12], OWN.0);

    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv6(_)) = sliced.net else {
        panic!("etherparse sees no IPv6");
    };
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
        panic!("etherparse sees no ICMPv6");
    };
    let slice: Icmpv6Slice<'_> = icmp;
    assert!(slice.is_checksum_valid(VIP.octets(), to.octets()));
}

#[test]
fn a_multicast_solicitation_is_answered_in_place() {
    for tags in 0..=2 {
        let ask = Ask { tags, ..Ask::multicast() };
        let before = ask.frame();
        let mut frame = before.clone();
        assert_eq!(solicited_target(&frame, ask.offset()), Some(VIP));
        assert!(answer_in_place(&mut frame, ask.offset(), OWN));
        assert_eq!(frame.len(), before.len());
        assert_eq!(frame[..6], ASKER.0);
        assert_eq!(frame[12..ask.offset()], before[12..ask.offset()]);
        check(&frame, ask.offset(), ASKER_IP, 0x60, true);
        let built = answer(&before, ask.offset(), OWN).unwrap();
        assert_eq!(&built[..], &frame[..]);
    }
}

#[test]
fn a_probe_for_duplicates_is_answered_to_all_nodes() {
    let with_nonce = Ask { options: NONCE.to_vec(), ..Ask::probe() };
    let mut frame = with_nonce.frame();
    assert!(answer_in_place(&mut frame, 14, OWN));
    assert_eq!(frame[..6], ALL_NODES_MAC.0);
    check(&frame, 14, ALL_NODES, 0x20, true);

    // Without any option there is no room, and the address must not be left out.
    let before = Ask::probe().frame();
    let mut frame = before.clone();
    assert!(!answer_in_place(&mut frame, 14, OWN));
    assert_eq!(frame, before);
    check(&answer(&before, 14, OWN).unwrap(), 14, ALL_NODES, 0x20, true);
}

#[test]
fn a_unicast_solicitation_without_option_is_answered_without() {
    let ask = Ask { options: Vec::new(), ..Ask::unicast() };
    let mut frame = ask.frame();
    assert!(answer_in_place(&mut frame, 14, OWN));
    assert_eq!(frame[..6], ASKER.0);
    check(&frame, 14, ASKER_IP, 0x60, false);
}

#[test]
fn what_is_left_over_becomes_zeroes() {
    let ask = Ask { options: [SLLA, NONCE].concat(), ..Ask::multicast() };
    let mut frame = ask.frame();
    frame.extend([0xee; 20]);
    assert!(answer_in_place(&mut frame, 14, OWN));
    check(&frame, 14, ASKER_IP, 0x60, true);
}

#[test]
fn what_rfc_4861_section_7_1_1_refuses_is_refused() {
    let ask = Ask::multicast;
    let cases = [
        ("hop limit", Ask { hop_limit: 254, ..ask() }),
        ("type", Ask { kind: 136, ..ask() }),
        ("code", Ask { code: 1, ..ask() }),
        ("multicast target", Ask { target: ALL_NODES, ..ask() }),
        ("option of length zero", Ask { options: vec![1, 0, 2, 0, 0, 0, 0, 9], ..ask() }),
        ("option beyond the end", Ask { options: vec![1, 2, 2, 0, 0, 0, 0, 9], ..ask() }),
        ("half an option", Ask { options: vec![1], ..ask() }),
        (
            "zero after a good option",
            Ask { options: [SLLA, [9, 0, 0, 0, 0, 0, 0, 0]].concat(), ..ask() },
        ),
        ("probe with source address", Ask { options: SLLA.to_vec(), ..Ask::probe() }),
        ("probe by unicast", Ask { to: VIP, to_mac: OWN, ..Ask::probe() }),
        ("probe to another group", Ask { to: ALL_NODES, ..Ask::probe() }),
    ];
    for (name, ask) in cases {
        assert_eq!(solicited_target(&ask.frame(), 14), None, "{name}");
    }
    let mut frame = ask().frame();
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(solicited_target(&frame, 14), None, "checksum");
    let frame = ask().frame();
    for length in 0..frame.len() {
        assert_eq!(solicited_target(&frame[..length], 14), None, "cut to {length}");
    }
    // Shorter than 24 bytes, and right in all else.
    let mut frame = ask().frame();
    frame[14 + 5] = 23;
    assert_eq!(solicited_target(&frame, 14), None);
}

#[test]
fn nobody_to_answer_to_gets_no_answer() {
    let ask = Ask::multicast;
    let other = MacAddress([2, 0, 0, 0, 0, 7]);
    let own_option = [1, 1, 2, 0, 0, 0, 0, 1];
    let cases = [
        ("for another station", Ask { to_mac: other, ..ask() }),
        ("from ourselves", Ask { options: own_option.to_vec(), ..ask() }),
        ("from a group", Ask { options: vec![1, 1, 3, 0, 0, 0, 0, 9], ..ask() }),
        ("from no station", Ask { options: vec![1, 1, 0, 0, 0, 0, 0, 0], ..ask() }),
        ("from the target", Ask { from: VIP, ..ask() }),
        ("from a multicast address", Ask { from: ALL_NODES, ..ask() }),
    ];
    for (name, ask) in cases {
        let before = ask.frame();
        let mut frame = before.clone();
        assert!(!answer_in_place(&mut frame, 14, OWN), "{name}");
        assert_eq!(frame, before, "{name}");
        assert!(answer(&frame, 14, OWN).is_none(), "{name}");
    }
}

#[test]
fn an_unsolicited_advertisement_overrides_and_goes_to_all() {
    let frame = unsolicited(OWN, VIP);
    assert_eq!(frame[..6], ALL_NODES_MAC.0);
    check(&frame, 14, ALL_NODES, 0x20, true);
}

#[test]
fn the_solicited_node_group_of_rfc_4291() {
    let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
    let group: Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
    assert_eq!(solicited_node(address), group);
}

proptest! {
    #[test]
    fn any_bytes_at_any_offset_are_survived(mut frame: Vec<u8>, offset in 0usize..120) {
        let before = frame.clone();
        let _ = answer(&frame, offset, OWN);
        if !answer_in_place(&mut frame, offset, OWN) {
            prop_assert_eq!(frame, before);
        }
    }

    /// Any option list, with a right checksum: the walk ends, and what is answered is right.
    #[test]
    fn any_options_are_survived(options in proptest::collection::vec(0u8..4, 0..64), probe: bool) {
        let ask = if probe { Ask::probe() } else { Ask::multicast() };
        let mut frame = Ask { options, ..ask }.frame();
        if answer_in_place(&mut frame, 14, OWN) {
            let to = if probe { ALL_NODES } else { ASKER_IP };
            check(&frame, 14, to, if probe { 0x20 } else { 0x60 }, true);
        }
    }

    #[test]
    fn no_single_flipped_bit_of_the_packet_is_let_through(bit in 0usize..(72 * 8)) {
        let mut frame = Ask::multicast().frame();
        frame[14 + bit / 8] ^= 1 << (bit % 8);
        // Traffic class and flow label are covered by no checksum and may be anything.
        if !(4..32).contains(&bit_in_network_order(bit)) {
            prop_assert_eq!(solicited_target(&frame, 14), None);
        }
    }
}

/// The position of `bit` (byte, then 1 << n) counted from the first bit of the header on the wire.
fn bit_in_network_order(bit: usize) -> usize {
    bit / 8 * 8 + (7 - bit % 8)
}
