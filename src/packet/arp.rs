//! Answering ARP (RFC 826) for a VIP that the host itself does not hold, and asking who else does.
//!
//! Only Ethernet and IPv4 are spoken. The functions take the whole frame and the offset of the ARP
//! payload, so they do not care how many VLAN tags lie before it: tags stay as they are. No bytes
//! make them panic; what is not a request they understand gets no answer.

use super::mac::{MacAddress, rewrite_mac};
use std::net::Ipv4Addr;

/// Bytes of an ARP packet for Ethernet and IPv4.
const LENGTH: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
const OPERATION_REQUEST: [u8; 2] = [0x00, 0x01];
const OPERATION_REPLY: [u8; 2] = [0x00, 0x02];

/// Where the fields are (RFC 826 "Packet format").
mod field {
    use std::ops::Range;

    pub(super) const FORMAT: Range<usize> = 0..6;
    pub(super) const OPERATION: Range<usize> = 6..8;
    pub(super) const SENDER_MAC: Range<usize> = 8..14;
    pub(super) const SENDER_IP: Range<usize> = 14..18;
    pub(super) const TARGET_MAC: Range<usize> = 18..24;
    pub(super) const TARGET_IP: Range<usize> = 24..28;
}

/// A request that may be answered, as far as the packet itself tells.
struct Request {
    sender_mac: MacAddress,
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
}

impl Request {
    /// Reads the ARP packet at `offset`; `None` if it is cut short or nothing to answer.
    fn parse(frame: &[u8], offset: usize) -> Option<Self> {
        let packet = frame.get(offset..)?.first_chunk::<LENGTH>()?;
        if packet[field::FORMAT] != ETHERNET_IPV4 || packet[field::OPERATION] != OPERATION_REQUEST {
            return None;
        }
        let request = Self {
            sender_mac: MacAddress(packet[field::SENDER_MAC].try_into().ok()?),
            sender_ip: Ipv4Addr::from_octets(packet[field::SENDER_IP].try_into().ok()?),
            target_ip: Ipv4Addr::from_octets(packet[field::TARGET_IP].try_into().ok()?),
        };
        request.is_answerable().then_some(request)
    }

    fn is_answerable(&self) -> bool {
        // An announcement (RFC 5227 section 3) names itself as sender and asks nothing. A probe
        // (section 2.1.1) has the sender 0.0.0.0 and must be answered, or the prober takes the
        // address.
        let announcement = self.sender_ip == self.target_ip;
        // Nobody to answer to: a reply would go to a group or to no station.
        let nobody = self.sender_mac.is_multicast() || self.sender_mac.is_zero();
        let sender_is_group = self.sender_ip.is_multicast() || self.sender_ip.is_broadcast();
        !(announcement || nobody || sender_is_group || self.target_ip.is_unspecified())
    }
}

/// The address that the ARP request at `offset` asks for.
///
/// `None` when there is nothing to answer: no request, not Ethernet and IPv4, cut short, an
/// announcement (sender and target are the same), or a sender that cannot be replied to.
#[inline]
pub fn requested_address(frame: &[u8], offset: usize) -> Option<Ipv4Addr> {
    Request::parse(frame, offset).map(|request| request.target_ip)
}

/// Turns the ARP request at `payload_offset` into the reply "the requested address is at `own`",
/// in place, addressed to the requester; VLAN tags and padding stay.
///
/// Whether the address is ours to defend is the caller's question to [`requested_address`].
/// Returns whether the frame is now a reply; otherwise it is untouched. Besides what that function
/// refuses, nothing is done for a frame that a switch flooded although it was for another station,
/// or that came from `own` itself: a reply to ourselves would be a loop.
pub fn answer_in_place(frame: &mut [u8], payload_offset: usize, own: MacAddress) -> bool {
    let Some(request) = Request::parse(frame, payload_offset) else {
        return false;
    };
    if request.sender_mac == own || !super::mac::is_for(frame, own) {
        return false;
    }
    // The payload may not overlap the addresses that are about to be written.
    if payload_offset < 14 {
        return false;
    }
    let Some(packet) =
        frame.get_mut(payload_offset..).and_then(|payload| payload.first_chunk_mut::<LENGTH>())
    else {
        return false;
    };
    write(
        packet,
        OPERATION_REPLY,
        (own, request.target_ip),
        (request.sender_mac, request.sender_ip),
    );
    rewrite_mac(frame, request.sender_mac, own)
}

/// An announcement that `vip` is at `own`: a whole untagged frame for everyone on the link.
///
/// It has the form of a request, which RFC 5944 section 4.6 and RFC 5227 section 3 prefer since
/// all stations update their caches by it, and the target hardware address they leave unused is
/// zero.
pub fn announcement(own: MacAddress, vip: Ipv4Addr) -> [u8; 60] {
    to_everyone(own, (own, vip), (MacAddress::ZERO, vip))
}

/// The question who has `address`: a whole untagged frame for everyone on the link, padded.
///
/// Its sender address is zero, so that nobody's cache is touched (RFC 5227 section 2.1.1).
pub fn probe(own: MacAddress, address: Ipv4Addr) -> [u8; 60] {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    to_everyone(own, (own, unspecified), (MacAddress::ZERO, address))
}

/// The address that the ARP packet at `offset` says its sender has, and the sender's MAC address: that of
/// a reply or an announcement (RFC 5227 section 3).
///
/// `None` for anything else, and if no station can have that MAC address.
pub fn claimed(frame: &[u8], offset: usize) -> Option<(Ipv4Addr, MacAddress)> {
    let packet = frame.get(offset..)?.first_chunk::<LENGTH>()?;
    let sender = Ipv4Addr::from_octets(packet[field::SENDER_IP].try_into().ok()?);
    let announces = match packet[field::OPERATION].try_into().ok()? {
        OPERATION_REPLY => true,
        OPERATION_REQUEST => packet[field::TARGET_IP] == packet[field::SENDER_IP],
        _ => false,
    };
    let mac = MacAddress(packet[field::SENDER_MAC].try_into().ok()?);
    let valid = packet[field::FORMAT] == ETHERNET_IPV4 && !sender.is_unspecified();
    (valid && announces && !mac.is_multicast() && !mac.is_zero()).then_some((sender, mac))
}

/// A request for all stations: an untagged frame, padded to 60 bytes, the least an Ethernet frame has
/// without its check sequence.
fn to_everyone(
    own: MacAddress,
    sender: (MacAddress, Ipv4Addr),
    target: (MacAddress, Ipv4Addr),
) -> [u8; 60] {
    let mut frame = [0; 60];
    rewrite_mac(&mut frame, MacAddress::BROADCAST, own);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    if let Some(packet) = frame[14..].first_chunk_mut() {
        write(packet, OPERATION_REQUEST, sender, target);
    }
    frame
}

fn write(
    packet: &mut [u8; LENGTH],
    operation: [u8; 2],
    sender: (MacAddress, Ipv4Addr),
    target: (MacAddress, Ipv4Addr),
) {
    packet[field::FORMAT].copy_from_slice(&ETHERNET_IPV4);
    packet[field::OPERATION].copy_from_slice(&operation);
    packet[field::SENDER_MAC].copy_from_slice(&sender.0.0);
    packet[field::SENDER_IP].copy_from_slice(&sender.1.octets());
    packet[field::TARGET_MAC].copy_from_slice(&target.0.0);
    packet[field::TARGET_IP].copy_from_slice(&target.1.octets());
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::Packet;
    use pnet_packet::arp::{ArpOperations, ArpPacket, MutableArpPacket};
    use proptest::prelude::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const ASKER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
    const ASKER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    /// A who-has, built by `pnet_packet`, behind `tags` VLAN tags.
    fn request(tags: usize, to: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = [to.0, ASKER.0].concat();
        for tag in 0..tags {
            frame.extend([0x81, 0x00, 0x20, 10 + tag as u8]);
        }
        frame.extend([0x08, 0x06]);
        let mut arp = MutableArpPacket::owned(vec![0; 28]).unwrap();
        arp.set_hardware_type(pnet_packet::arp::ArpHardwareTypes::Ethernet);
        arp.set_protocol_type(pnet_packet::ethernet::EtherTypes::Ipv4);
        arp.set_hw_addr_len(6);
        arp.set_proto_addr_len(4);
        arp.set_operation(ArpOperations::Request);
        arp.set_sender_hw_addr(ASKER.0.into());
        arp.set_sender_proto_addr(sender);
        arp.set_target_proto_addr(target);
        frame.extend(arp.packet());
        frame.resize(frame.len().max(60), 0xee);
        frame
    }

    #[test]
    fn a_request_becomes_the_reply_and_tags_and_padding_stay() {
        for tags in 0..=2 {
            let offset = 14 + 4 * tags;
            let before = request(tags, MacAddress::BROADCAST, ASKER_IP, VIP);
            let mut frame = before.clone();
            assert_eq!(requested_address(&frame, offset), Some(VIP));
            assert!(answer_in_place(&mut frame, offset, OWN));
            assert_eq!(frame[..6], ASKER.0);
            assert_eq!(frame[6..12], OWN.0);
            assert_eq!(frame[12..offset], before[12..offset]);
            assert_eq!(frame[offset + 28..], before[offset + 28..]);

            let arp = ArpPacket::new(&frame[offset..]).unwrap();
            assert_eq!(arp.get_operation(), ArpOperations::Reply);
            assert_eq!(arp.get_sender_hw_addr().octets(), OWN.0);
            assert_eq!(arp.get_sender_proto_addr(), VIP);
            assert_eq!(arp.get_target_hw_addr().octets(), ASKER.0);
            assert_eq!(arp.get_target_proto_addr(), ASKER_IP);
            let witness = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            assert!(matches!(witness.net, Some(etherparse::NetSlice::Arp(_))));
        }
    }

    #[test]
    fn a_probe_is_answered_to_defend_the_address() {
        let mut frame = request(0, MacAddress::BROADCAST, Ipv4Addr::UNSPECIFIED, VIP);
        assert!(answer_in_place(&mut frame, 14, OWN));
        let arp = ArpPacket::new(&frame[14..]).unwrap();
        assert_eq!(arp.get_target_proto_addr(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(arp.get_sender_proto_addr(), VIP);
    }

    #[test]
    fn unicast_to_us_is_answered_and_to_another_station_not() {
        assert!(answer_in_place(&mut request(0, OWN, ASKER_IP, VIP), 14, OWN));
        let other = MacAddress([2, 0, 0, 0, 0, 7]);
        assert!(!answer_in_place(&mut request(0, other, ASKER_IP, VIP), 14, OWN));
    }

    #[test]
    fn what_asks_nothing_is_left_alone() {
        let broadcast = MacAddress::BROADCAST;
        let good = request(0, broadcast, ASKER_IP, VIP);
        let with = |at: usize, bytes: &[u8]| {
            let mut frame = good.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        let cases = [
            ("announcement", request(0, broadcast, VIP, VIP)),
            ("reply", with(14 + 6, &[0, 2])),
            ("hardware type", with(14, &[0, 6])),
            ("protocol type", with(14 + 2, &[0x86, 0xdd])),
            ("hardware length", with(14 + 4, &[8])),
            ("protocol length", with(14 + 5, &[16])),
            ("multicast sender", with(14 + 8, &[3])),
            ("zero sender", with(14 + 8, &[0; 6])),
            ("ourselves", with(14 + 8, &OWN.0)),
            ("multicast sender address", with(14 + 14, &[224])),
            ("cut short", good[..14 + 27].to_vec()),
        ];
        for (name, frame) in cases {
            let mut changed = frame.clone();
            assert!(!answer_in_place(&mut changed, 14, OWN), "{name}");
            assert_eq!(changed, frame, "{name}");
        }
    }

    #[test]
    fn an_announcement_names_the_vip_twice_and_is_never_answered() {
        let frame = announcement(OWN, VIP);
        assert_eq!(frame[..6], [0xff; 6]);
        let arp = ArpPacket::new(&frame[14..]).unwrap();
        assert_eq!(arp.get_operation(), ArpOperations::Request);
        assert_eq!(arp.get_sender_hw_addr().octets(), OWN.0);
        assert_eq!(arp.get_sender_proto_addr(), VIP);
        assert_eq!(arp.get_target_proto_addr(), VIP);
        assert_eq!(frame[42..], [0; 18]);
        assert_eq!(requested_address(&frame, 14), None);
        assert!(etherparse::SlicedPacket::from_ethernet(&frame).is_ok());
    }

    #[test]
    fn a_probe_tells_nothing_of_us_and_its_answer_is_a_claim() {
        let mut frame = probe(ASKER, VIP);
        let arp = ArpPacket::new(&frame[14..]).unwrap();
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(arp.get_operation(), ArpOperations::Request);
        assert_eq!(arp.get_sender_hw_addr().octets(), ASKER.0);
        assert_eq!(arp.get_sender_proto_addr(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(arp.get_target_hw_addr().octets(), [0; 6]);
        assert_eq!(arp.get_target_proto_addr(), VIP);
        assert!(etherparse::SlicedPacket::from_ethernet(&frame).is_ok());

        assert_eq!(claimed(&frame, 14), None);
        assert!(answer_in_place(&mut frame, 14, OWN));
        assert_eq!(claimed(&frame, 14), Some((VIP, OWN)));
        assert_eq!(claimed(&announcement(OWN, VIP), 14), Some((VIP, OWN)));
    }

    #[test]
    fn what_claims_nothing_is_no_claim() {
        let good = announcement(OWN, VIP);
        for (name, at, value) in [
            ("hardware type", 14 + 1, 6),
            ("operation", 14 + 7, 3),
            ("a request of another address", 14 + 27, 1),
            ("multicast sender", 14 + 8, 3),
        ] {
            let mut frame = good;
            frame[at] = value;
            assert_eq!(claimed(&frame, 14), None, "{name}");
        }
        assert_eq!(claimed(&announcement(MacAddress::ZERO, VIP), 14), None);
        assert_eq!(claimed(&announcement(OWN, Ipv4Addr::UNSPECIFIED), 14), None);
        assert_eq!(claimed(&good[..14 + 27], 14), None);
        assert_eq!(claimed(&good, usize::MAX), None);
    }

    proptest! {
        #[test]
        fn any_bytes_at_any_offset_are_survived(mut frame: Vec<u8>, offset in 0usize..80) {
            let before = frame.clone();
            claimed(&frame, offset);
            if !answer_in_place(&mut frame, offset, OWN) {
                prop_assert_eq!(frame, before);
            }
        }

        #[test]
        fn damaged_requests_are_survived_and_answered_only_if_still_requests(
            at in 0usize..60, value: u8, tags in 0usize..3,
        ) {
            let offset = 14 + 4 * tags;
            let mut frame = request(tags, MacAddress::BROADCAST, ASKER_IP, VIP);
            frame[at] = value;
            let asked = requested_address(&frame, offset);
            let answered = answer_in_place(&mut frame, offset, OWN);
            if answered {
                let arp = ArpPacket::new(&frame[offset..]).unwrap();
                prop_assert_eq!(Some(arp.get_sender_proto_addr()), asked);
                prop_assert_eq!(&frame[..6], &arp.get_target_hw_addr().octets());
            }
        }
    }
}
