//! Who says to have an address: the question for the link, and what is an answer to it.

use super::ethernet::{EtherType, payload};
use super::mac::MacAddress;
use super::{arp, neighbor_discovery};
use arrayvec::ArrayVec;
use std::net::IpAddr;

/// The longest question, one by neighbour discovery: headers and solicitation.
pub const MAX_QUESTION: usize = neighbor_discovery::PROBE_LENGTH;

/// A station that says to have an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The MAC address that it says to be at.
    pub mac: MacAddress,
}

/// The question to the whole link who has `address`, which is unicast: an untagged frame that touches
/// nobody's cache (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
pub fn question(own: MacAddress, address: IpAddr) -> ArrayVec<u8, MAX_QUESTION> {
    match address {
        IpAddr::V4(address) => arp::probe(own, address).into_iter().collect(),
        IpAddr::V6(address) => neighbor_discovery::probe(own, address).into_iter().collect(),
    }
}

/// What a frame claims: an ARP reply or announcement, or an advertisement of neighbour discovery, behind at
/// most two VLAN tags. `None` for any other.
pub fn claim(frame: &[u8]) -> Option<Claim> {
    let (address, mac) = match payload(frame).ok()? {
        (EtherType::ARP, at) => arp::claimed(frame, at).map(|(ip, mac)| (ip.into(), mac))?,
        (EtherType::IPV6, at) => {
            neighbor_discovery::advertised(frame, at).map(|(ip, mac)| (ip.into(), mac))?
        }
        _ => return None,
    };
    Some(Claim { address, mac })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_question_is_no_claim_and_what_we_announce_is() {
        for address in ["10.0.0.100", "fd00::100"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(claim(&question(OWN, address)), None);
            let announced = match address {
                IpAddr::V4(address) => arp::announcement(OTHER, address).to_vec(),
                IpAddr::V6(address) => neighbor_discovery::unsolicited(OTHER, address).to_vec(),
            };
            let expected = Some(Claim { address, mac: OTHER });
            assert_eq!(claim(&announced), expected);
            let tagged = [&announced[..12], &[0x81, 0, 0, 10], &announced[12..]].concat();
            assert_eq!(claim(&tagged), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut frame: Vec<u8>, is_arp: bool) {
            claim(&frame);
            if let Some(ether_type) = frame.get_mut(12..14) {
                ether_type.copy_from_slice(if is_arp { &[8, 6] } else { &[0x86, 0xdd] });
            }
            claim(&frame);
        }
    }
}
