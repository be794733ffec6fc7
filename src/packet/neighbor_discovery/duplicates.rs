//! Asking who has an address, as duplicate address detection does (RFC 4862 section 5.4), and reading
//! who says so.

use super::{
    FLAG_SOLICITED, HOP_LIMIT, IPV6_LENGTH, MESSAGE_LENGTH, NEXT_HEADER_ICMPV6,
    OPTION_TARGET_ADDRESS, TYPE_ADVERTISEMENT, TYPE_SOLICITATION, address, address_option,
    solicited_node,
};
use crate::packet::checksum;
use crate::packet::mac::{MacAddress, rewrite_mac};
use std::net::Ipv6Addr;

const ETHERNET_LENGTH: usize = 14;
/// Of [`probe`].
pub(in crate::packet) const PROBE_LENGTH: usize = ETHERNET_LENGTH + IPV6_LENGTH + MESSAGE_LENGTH;

/// The question who has `target`, a unicast address: a whole untagged frame.
///
/// It is sent from the unspecified address and has no option, so that nobody's cache is touched; who has
/// the address tells all nodes (RFC 4862 section 5.4.2, RFC 4861 section 7.2.4).
pub fn probe(own: MacAddress, target: Ipv6Addr) -> [u8; PROBE_LENGTH] {
    let group = solicited_node(target);
    let [.., a, b, c] = group.octets();
    let mut frame = [0; PROBE_LENGTH];
    // RFC 2464 section 7: the last four bytes of the group.
    rewrite_mac(&mut frame, MacAddress([0x33, 0x33, 0xff, a, b, c]), own);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);

    let header = &mut frame[ETHERNET_LENGTH..];
    header[0] = 6 << 4;
    header[5] = MESSAGE_LENGTH as u8;
    header[6] = NEXT_HEADER_ICMPV6;
    header[7] = HOP_LIMIT;
    header[24..40].copy_from_slice(&group.octets());

    let message = &mut frame[ETHERNET_LENGTH + IPV6_LENGTH..];
    message[0] = TYPE_SOLICITATION;
    message[8..24].copy_from_slice(&target.octets());
    let length = MESSAGE_LENGTH as u32;
    let (from, next) = (Ipv6Addr::UNSPECIFIED, NEXT_HEADER_ICMPV6);
    let pseudo = checksum::pseudo_header_v6(from, group, next, length);
    let sum = checksum::finish(pseudo + checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The address that the advertisement behind the IPv6 header at `ipv6_offset` is about, and the MAC
/// address it has.
///
/// `None` for anything that RFC 4861 section 7.1.2 does not let through, and if no station can have that
/// MAC address.
pub fn advertised(frame: &[u8], ipv6_offset: usize) -> Option<(Ipv6Addr, MacAddress)> {
    let (header, rest) = frame.get(ipv6_offset..)?.split_first_chunk::<IPV6_LENGTH>()?;
    if header[0] >> 4 != 6 || header[6] != NEXT_HEADER_ICMPV6 || header[7] != HOP_LIMIT {
        return None;
    }
    let length = u16::from_be_bytes([header[4], header[5]]);
    let message = rest.get(..usize::from(length))?;
    let (source, destination) = (address(header, 8)?, address(header, 24)?);
    let pseudo = checksum::pseudo_header_v6(source, destination, NEXT_HEADER_ICMPV6, length.into());
    if checksum::finish(pseudo + checksum::sum(message)) != 0 {
        return None;
    }
    let (fixed, options) = message.split_first_chunk::<MESSAGE_LENGTH>()?;
    let target = address(fixed, 8)?;
    let is_advertisement = fixed[..2] == [TYPE_ADVERTISEMENT, 0];
    let bad_flags = destination.is_multicast() && fixed[4] & FLAG_SOLICITED != 0;
    if !is_advertisement || bad_flags || target.is_multicast() || target.is_unspecified() {
        return None;
    }
    let sender = || Some(MacAddress(*frame.get(6..)?.first_chunk()?));
    let mac = address_option(options, OPTION_TARGET_ADDRESS).ok()?.or_else(sender)?;
    (!mac.is_multicast() && !mac.is_zero()).then_some((target, mac))
}

#[cfg(test)]
mod tests {
    use super::super::{answer, answer_in_place, unsolicited};
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use pnet_packet::Packet;
    use pnet_packet::icmpv6::ndp::NeighborSolicitPacket;
    use pnet_packet::icmpv6::{self, Icmpv6Packet};
    use proptest::prelude::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab12, 0x3456);

    #[test]
    fn a_probe_is_what_duplicate_address_detection_asks() {
        let frame = probe(OWN, VIP);
        assert_eq!(frame[..12], [[0x33, 0x33, 0xff, 0x12, 0x34, 0x56], OWN.0].concat());
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!() };
        assert!(ip.header().source_addr().is_unspecified());
        assert_eq!(ip.header().destination_addr(), solicited_node(VIP));
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else { panic!() };
        assert!(icmp.is_checksum_valid(
            ip.header().source_addr().octets(),
            ip.header().destination_addr().octets()
        ));
        let solicitation = NeighborSolicitPacket::new(&frame[54..]).unwrap();
        assert_eq!(solicitation.get_target_addr(), VIP);
        assert!(solicitation.get_options().is_empty());
        let message = Icmpv6Packet::new(&frame[54..]).unwrap();
        let (from, to) = (Ipv6Addr::UNSPECIFIED, solicited_node(VIP));
        assert_eq!(icmpv6::checksum(&message, &from, &to), message.get_checksum());
        assert_eq!(message.packet().len(), 24);
        assert_eq!(advertised(&frame, 14), None);
    }

    #[test]
    fn its_answer_is_a_claim() {
        let frame = probe(OTHER, VIP);
        let answered = answer(&frame, 14, OWN).unwrap();
        assert_eq!(advertised(&answered, 14), Some((VIP, OWN)));
        assert_eq!(advertised(&unsolicited(OWN, VIP), 14), Some((VIP, OWN)));
        // Without the option it is the frame's sender.
        let mut short = probe(OTHER, VIP);
        assert!(!answer_in_place(&mut short, 14, OWN));
        let mut bare = unsolicited(OWN, VIP)[..78].to_vec();
        bare[19] = 24;
        assert_eq!(advertised(&with_checksum(bare), 14), Some((VIP, OWN)));
    }

    #[test]
    fn what_a_host_would_not_believe_is_no_claim() {
        let good = unsolicited(OWN, VIP);
        for (name, at, value) in [
            ("hop limit", 14 + 7, 254),
            ("next header", 14 + 6, 17),
            ("type", 54, 135),
            ("code", 55, 1),
            ("solicited by a multicast", 58, 0x60),
            ("multicast target", 62, 0xff),
            ("option of no length", 79, 0),
            ("option that does not fit", 79, 2),
            ("multicast address", 80, 3),
        ] {
            let mut frame = good.to_vec();
            frame[at] = value;
            assert_eq!(advertised(&with_checksum(frame), 14), None, "{name}");
        }
        let mut damaged = good;
        damaged[80] ^= 4;
        assert_eq!(advertised(&damaged, 14), None, "checksum");
        assert_eq!(advertised(&good[..85], 14), None, "cut short");
    }

    fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
        let message = Icmpv6Packet::new(&frame[54..]).unwrap();
        let [from, to] = [22, 38].map(|at| address(&frame, at).unwrap());
        let sum = icmpv6::checksum(&message, &from, &to);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(frame: Vec<u8>, offset in 0usize..80) {
            advertised(&frame, offset);
        }

        #[test]
        fn damage_is_noticed_or_harmless(at in 14usize..86, value: u8, length in 0usize..=86) {
            let mut frame = unsolicited(OWN, VIP);
            frame[at] = value;
            advertised(&frame[..length], 14);
        }
    }
}
