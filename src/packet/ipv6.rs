//! The IPv6 header and its extension headers (RFC 8200 sections 3 and 4).

use crate::flow::{Fragment, Protocol};
use crate::verdict::DropReason;
use std::net::Ipv6Addr;

/// The most extension headers that are walked. RFC 8200 section 4.1 names five kinds, one of
/// which may occur twice; RFC 8504 section 5.3 lets a node limit the chain.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// What the director reads of an IPv6 header and the extension headers behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Header {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// The upper-layer protocol. In a later fragment it is what the fragment header names, which
    /// can be an extension header of the unfragmented packet.
    pub protocol: Protocol,
    /// Whole packet, first fragment or later one; an atomic fragment is whole (RFC 6946).
    pub fragment: Fragment,
    /// Where in the packet's fragmentable part this fragment begins, in bytes.
    pub fragment_offset: usize,
    /// What the packet's fragments have in common; zero of a whole one.
    pub identification: u32,
    /// Bytes of fixed and extension headers.
    pub header_length: usize,
    /// Bytes of headers and payload; at most what the frame holds. Ethernet padding is not in it.
    pub total_length: usize,
}

const FIXED: usize = 40;

mod next_header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

impl Ipv6Header {
    /// Reads the headers at the start of `bytes`, the payload of a frame.
    ///
    /// The Authentication Header is an upper-layer protocol here, as it is for IPv4: a service for
    /// any protocol carries it, and all packets of one security association stay together.
    ///
    /// # Errors
    ///
    /// Why they are malformed.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Self, DropReason> {
        let length = bytes.get(4..).and_then(|rest| rest.first_chunk::<2>());
        let payload_length = length.map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        match bytes.get(..FIXED + payload_length) {
            Some(packet) => Self::read_quoted(packet),
            None if bytes.len() < FIXED => Err(DropReason::Ipv6Truncated),
            None if bytes.first().is_some_and(|first| first >> 4 != 6) => {
                Err(DropReason::IpVersionMismatch)
            }
            None => Err(DropReason::Ipv6PayloadLength),
        }
    }

    /// Reads the headers of a packet of which only the beginning may be there, as in the quotation
    /// of an ICMP error. The headers themselves have to be.
    #[inline]
    pub(super) fn read_quoted(packet: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; FIXED] = packet.first_chunk().ok_or(DropReason::Ipv6Truncated)?;
        let (first, addresses) = fixed.split_at(8);
        let &[version, _, _, _, length_high, length_low, next_header, _] = first else {
            return Err(DropReason::Ipv6Truncated);
        };
        if version >> 4 != 6 {
            return Err(DropReason::IpVersionMismatch);
        }
        let payload_length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let total_length = FIXED + payload_length;
        let (Some(source), Some(destination)) =
            (addresses.first_chunk::<16>(), addresses.last_chunk::<16>())
        else {
            return Err(DropReason::Ipv6Truncated);
        };
        let chain = Chain::walk(packet, next_header)?;
        Ok(Self {
            source: Ipv6Addr::from(*source),
            destination: Ipv6Addr::from(*destination),
            protocol: Protocol(chain.protocol),
            fragment: chain.fragment,
            fragment_offset: chain.fragment_offset,
            identification: chain.identification,
            header_length: chain.end,
            total_length,
        })
    }
}

/// The extension headers, walked to their end.
struct Chain {
    protocol: u8,
    fragment: Fragment,
    fragment_offset: usize,
    identification: u32,
    end: usize,
}

impl Chain {
    #[inline]
    fn walk(packet: &[u8], next_header: u8) -> Result<Self, DropReason> {
        let mut chain = Self {
            protocol: next_header,
            fragment: Fragment::Whole,
            fragment_offset: 0,
            identification: 0,
            end: FIXED,
        };
        for _ in 0..=MAX_EXTENSION_HEADERS {
            let is_fragment = match chain.protocol {
                next_header::FRAGMENT => true,
                next_header::HOP_BY_HOP
                | next_header::ROUTING
                | next_header::DESTINATION_OPTIONS => false,
                _ => return Ok(chain),
            };
            // Every extension header is at least eight bytes long (RFC 8200 section 4.2).
            let &[next, length, offset_high, offset_low, i0, i1, i2, i3] = packet
                .get(chain.end..)
                .and_then(|rest| rest.first_chunk::<8>())
                .ok_or(DropReason::Ipv6ExtensionTruncated)?;
            chain.protocol = next;
            if is_fragment {
                chain.end += 8;
                // 13 bits of offset, two reserved, one "more fragments" (RFC 8200 section 4.5).
                let field = u16::from_be_bytes([offset_high, offset_low]);
                if (field >> 3, field & 1) == (0, 0) {
                    continue;
                }
                chain.identification = u32::from_be_bytes([i0, i1, i2, i3]);
                chain.fragment = Fragment::First;
                if field >> 3 != 0 {
                    chain.fragment_offset = usize::from(field & !7);
                    chain.fragment = Fragment::Later;
                    return Ok(chain);
                }
            } else {
                chain.end += (usize::from(length) + 1) * 8;
                if chain.end > packet.len() {
                    return Err(DropReason::Ipv6ExtensionTruncated);
                }
            }
        }
        Err(DropReason::Ipv6ExtensionsTooMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet whose headers behind the fixed one are `rest`, the first of them a `next`.
    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        (bytes[0], bytes[5], bytes[6]) = (0x60, rest.len() as u8, next);
        bytes.extend(rest);
        bytes
    }

    /// All fields there are: 13 bits of offset, two reserved, "more fragments".
    #[test]
    fn offset_and_more_fragments_alone_make_a_fragment() {
        for field in 0..=u16::MAX {
            let [high, low] = field.to_be_bytes();
            let bytes = packet(next_header::FRAGMENT, &[59, 0, high, low, 0, 0, 0, 1]);
            let expected = match (field / 8, field % 2) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            let header = Ipv6Header::read(&bytes).unwrap();
            assert_eq!((header.fragment, header.header_length), (expected, 48), "{field:04x}");
        }
    }

    #[test]
    fn extension_headers_may_end_with_the_packet_but_not_behind_it() {
        let options = next_header::DESTINATION_OPTIONS;
        let mut bytes = packet(options, &[59, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Ipv6Header::read(&bytes).unwrap().header_length, 56);
        // Eight bytes of payload, and behind them padding that looks like the rest.
        bytes[5] = 8;
        assert_eq!(Ipv6Header::read(&bytes), Err(DropReason::Ipv6ExtensionTruncated));
    }

    #[test]
    fn as_many_extension_headers_as_allowed() {
        let options = next_header::DESTINATION_OPTIONS;
        let chain = |count: usize| {
            let mut rest = [options, 0, 0, 0, 0, 0, 0, 0].repeat(count);
            rest[(count - 1) * 8] = 59;
            Ipv6Header::read(&packet(options, &rest)).map(|header| header.header_length)
        };
        assert_eq!(chain(MAX_EXTENSION_HEADERS), Ok(FIXED + 8 * MAX_EXTENSION_HEADERS));
        assert_eq!(chain(MAX_EXTENSION_HEADERS + 1), Err(DropReason::Ipv6ExtensionsTooMany));
    }

    #[test]
    fn the_authentication_header_is_an_upper_layer() {
        let header = Ipv6Header::read(&packet(51, &[6, 4, 0, 0, 0, 0, 0, 1])).unwrap();
        assert_eq!((header.protocol, header.header_length), (Protocol::AH, FIXED));
    }
}
