//! The ICMP errors that the director sends itself.

use super::{HEADER, v4, v6};
use crate::flow::{Fragment, PacketInfo, PacketKind, Protocol};
use crate::packet::checksum;
use std::net::IpAddr;

const HOP_LIMIT: u8 = 64;
/// Precedence 6, "internetwork control" (RFC 1812 section 4.3.2.5).
const TOS: u8 = 0xc0;
const DONT_FRAGMENT: u8 = 0x40;
/// What every IPv4 link takes (RFC 791 section 3.2), and every IPv6 link (RFC 8200 section 5).
const MINIMUM_MTU_IPV4: u32 = 68;
const MINIMUM_MTU_IPV6: u32 = 1280;

/// What an error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// "Fragmentation needed and DF set" (RFC 1191 section 4), or "packet too big" (RFC 4443
    /// section 3.2).
    PacketTooBig {
        /// The largest packet that would have passed, in bytes.
        mtu: u32,
    },
    /// "Time to live exceeded in transit", or "hop limit exceeded in transit".
    TimeExceeded,
}

/// Bytes in front of the quotation: an IP header and the ICMP header.
pub const fn room_for_error(is_ipv6: bool) -> usize {
    HEADER + if is_ipv6 { 40 } else { 20 }
}

/// The most that is quoted, in bytes: as much as fits into 576 bytes (RFC 1812 section 4.3.2.3), or
/// into the 1,280 that every IPv6 link takes (RFC 4443 section 2.4 (c)).
pub const fn longest_quote(is_ipv6: bool) -> usize {
    let longest = if is_ipv6 { 1280 } else { 576 };
    longest - room_for_error(is_ipv6)
}

/// Whether an error may be sent about a packet (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4
/// (e)): not about ICMP errors, later fragments, or what comes from no single host. That the packet
/// is for a VIP, and came in a frame for this station, is known before.
///
/// `message` is what is behind the IP header.
pub fn may_be_answered(info: &PacketInfo, message: &[u8]) -> bool {
    let is_error = match (info.kind, info.flow.protocol, message.first()) {
        (PacketKind::IcmpError | PacketKind::TruncatedError | PacketKind::StrayError, ..) => true,
        // Whatever is no query is an error, also of kinds to come (RFC 1122 section 3.2.2).
        (_, Protocol::ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        (_, Protocol::ICMPV6, Some(kind)) => *kind < v6::FIRST_INFORMATIONAL,
        (_, Protocol::ICMP | Protocol::ICMPV6, None) => true,
        _ => false,
    };
    // "Reserved for future use" (RFC 1112 section 4).
    let reserved = matches!(info.flow.source, IpAddr::V4(ip) if ip.octets()[0] >= 240);
    !is_error && !reserved && info.fragment != Fragment::Later && !info.flow.has_martian_source()
}

/// Writes an error into the first [`room_for_error`] bytes of `packet`, about the packet behind
/// them, which is quoted as it is and has been cut to [`longest_quote`]. It goes from `source` to
/// the quoted packet's source.
///
/// Returns whether it could be: not if `source` is of the other family, or the MTU is below what
/// every IPv4 link takes. IPv6 is never told less than 1,280 bytes.
pub fn write_error(packet: &mut [u8], kind: ErrorKind, source: IpAddr) -> bool {
    let written = match source {
        IpAddr::V4(source) => write_v4(packet, kind, source.octets()),
        IpAddr::V6(source) => write_v6(packet, kind, source.octets()),
    };
    written.is_some()
}

fn write_v4(packet: &mut [u8], kind: ErrorKind, source: [u8; 4]) -> Option<()> {
    let length = u16::try_from(packet.len()).ok()?;
    let (ip, message) = packet.split_first_chunk_mut::<20>()?;
    let quoted: &[u8; 20] = message.get(HEADER..)?.first_chunk()?;
    if quoted[0] >> 4 != 4 {
        return None;
    }
    let [.., d0, d1, d2, d3, _, _, _, _] = *quoted;
    let (kind, code, value) = match kind {
        ErrorKind::PacketTooBig { mtu } if mtu < MINIMUM_MTU_IPV4 => return None,
        ErrorKind::PacketTooBig { mtu } => {
            (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, u16::try_from(mtu).unwrap_or(u16::MAX))
        }
        ErrorKind::TimeExceeded => (v4::TIME_EXCEEDED, 0, 0),
    };
    // The MTU is in the lower half of what was unused (RFC 1191 section 4).
    let [m0, m1] = value.to_be_bytes();
    message.get_mut(..HEADER)?.copy_from_slice(&[kind, code, 0, 0, 0, 0, m0, m1]);
    let sum = checksum::checksum(message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());

    let ([l0, l1], [s0, s1, s2, s3]) = (length.to_be_bytes(), source);
    // It cannot be fragmented, so it needs no identification (RFC 6864 section 4.1).
    *ip = [
        0x45,
        TOS,
        l0,
        l1,
        0,
        0,
        DONT_FRAGMENT,
        0,
        HOP_LIMIT,
        1,
        0,
        0,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ];
    let [c0, c1] = checksum::checksum(ip).to_be_bytes();
    (ip[10], ip[11]) = (c0, c1);
    Some(())
}

fn write_v6(packet: &mut [u8], kind: ErrorKind, source: [u8; 16]) -> Option<()> {
    let (ip, message) = packet.split_first_chunk_mut::<40>()?;
    let quoted: &[u8; 40] = message.get(HEADER..)?.first_chunk()?;
    if quoted[0] >> 4 != 6 {
        return None;
    }
    let destination: [u8; 16] = *quoted.get(8..)?.first_chunk()?;
    let (kind, value) = match kind {
        ErrorKind::PacketTooBig { mtu } => (v6::PACKET_TOO_BIG, mtu.max(MINIMUM_MTU_IPV6)),
        ErrorKind::TimeExceeded => (v6::TIME_EXCEEDED, 0),
    };
    let [m0, m1, m2, m3] = value.to_be_bytes();
    message.get_mut(..HEADER)?.copy_from_slice(&[kind, 0, 0, 0, m0, m1, m2, m3]);
    let length = u16::try_from(message.len()).ok()?;
    let pseudo_header = checksum::pseudo_header_v6(
        source.into(),
        destination.into(),
        Protocol::ICMPV6.0,
        length.into(),
    );
    let sum = checksum::finish(pseudo_header + checksum::sum(message));
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());

    let [l0, l1] = length.to_be_bytes();
    let (fixed, addresses) = ip.split_at_mut(8);
    fixed.copy_from_slice(&[0x60, 0, 0, 0, l0, l1, Protocol::ICMPV6.0, HOP_LIMIT]);
    let (from, to) = addresses.split_at_mut(16);
    from.copy_from_slice(&source);
    to.copy_from_slice(&destination);
    Some(())
}
