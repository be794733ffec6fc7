//! The IPv4 header (RFC 791 section 3.1).

use crate::flow::{Fragment, Protocol};
use crate::verdict::DropReason;
use std::net::Ipv4Addr;

/// What the director reads of an IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Header {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: Protocol,
    /// Whole datagram, first fragment or later one.
    pub fragment: Fragment,
    /// Where in the datagram's payload this fragment begins, in bytes.
    pub fragment_offset: usize,
    /// What the datagram's fragments have in common; zero of a whole one.
    pub identification: u32,
    /// Bytes of header, options included: 20 to 60.
    pub header_length: usize,
    /// Bytes of header and payload; at most what the frame holds. Ethernet padding is not in it.
    pub total_length: usize,
}

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

impl Ipv4Header {
    /// Reads the header at the start of `bytes`, the payload of a frame.
    ///
    /// The header checksum is not verified: Direct Server Return leaves the header as it is, and
    /// the backend that will act on it verifies it (RFC 1122 section 3.2.1.2).
    ///
    /// # Errors
    ///
    /// Why it is malformed.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = Self::read_quoted(bytes)?;
        match header.total_length <= bytes.len() {
            true => Ok(header),
            false => Err(DropReason::Ipv4TotalLength),
        }
    }

    /// Reads the header of a packet of which only the beginning may be there, as in the quotation
    /// of an ICMP error.
    #[inline]
    pub(super) fn read_quoted(bytes: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; 20] = bytes.first_chunk().ok_or(DropReason::Ipv4Truncated)?;
        let &[
            version_ihl,
            _tos,
            length_high,
            length_low,
            id_high,
            id_low,
            fragment_high,
            fragment_low,
            _ttl,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = fixed;
        if version_ihl >> 4 != 4 {
            return Err(DropReason::IpVersionMismatch);
        }
        let header_length = usize::from(version_ihl & 0x0f) * 4;
        if header_length < fixed.len() || header_length > bytes.len() {
            return Err(DropReason::Ipv4HeaderLength);
        }
        let total_length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if total_length < header_length {
            return Err(DropReason::Ipv4TotalLength);
        }
        let flags = u16::from_be_bytes([fragment_high, fragment_low]);
        let fragment = match (flags & FRAGMENT_OFFSET, flags & MORE_FRAGMENTS) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        };
        let identification = match fragment {
            Fragment::Whole => 0,
            _ => u16::from_be_bytes([id_high, id_low]).into(),
        };
        Ok(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            protocol: Protocol(protocol),
            fragment,
            fragment_offset: usize::from(flags & FRAGMENT_OFFSET) * 8,
            identification,
            header_length,
            total_length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All fields there are: reserved bit, "don't fragment", "more fragments", 13 bits of offset.
    #[test]
    fn offset_and_more_fragments_alone_make_a_fragment() {
        let mut bytes = [0; 20];
        (bytes[0], bytes[3]) = (0x45, 20);
        for field in 0..=u16::MAX {
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            let expected = match (field % 8192, field / 8192 % 2) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            assert_eq!(Ipv4Header::read(&bytes).unwrap().fragment, expected, "{field:04x}");
        }
    }
}
