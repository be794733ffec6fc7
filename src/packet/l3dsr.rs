//! L3DSR: the packet is addressed to the backend, and a DSCP value says which VIP it was for.

use super::checksum;
use crate::flow::{Fragment, Protocol};
use crate::forwarding::Dscp;
use crate::verdict::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 routing header (RFC 8200 section 4.4).
const ROUTING: u8 = 43;
/// RFC 4340 section 9 and RFC 3828 section 3.1: their checksums cover the addresses.
const DCCP: Protocol = Protocol(33);
const UDP_LITE: Protocol = Protocol(136);

/// Rewrites the destination of an IP packet to `backend` and its DSCP to `dscp`; the ECN field stays
/// (RFC 3168 section 5), and the checksums follow by RFC 1624.
///
/// `packet` is the whole IP packet, `transport` the offset of the upper layer in it, `protocol` and
/// `fragment` what the packet says of that. The first fragment has the checksum of the whole
/// datagram, so it is updated there and nowhere else.
///
/// # Errors
///
/// If the families differ, the transport header is cut off, or an IPv6 routing header has segments
/// left, whose last one is what the checksum covers (RFC 8200 section 8.1). Nothing has changed
/// then.
pub fn rewrite_l3dsr(
    packet: &mut [u8],
    transport: usize,
    protocol: Protocol,
    fragment: Fragment,
    backend: IpAddr,
    dscp: Dscp,
) -> Result<(), DropReason> {
    let is_ipv6 = match (packet.first().map(|first| first >> 4), backend) {
        (Some(4), IpAddr::V4(_)) => false,
        (Some(6), IpAddr::V6(_)) => true,
        _ => return Err(DropReason::IpVersionMismatch),
    };
    let field = match fragment {
        Fragment::Later => None,
        _ => checksum_offset(protocol, is_ipv6).map(|offset| transport + offset),
    };
    if field.is_some_and(|field| packet.len() < field + 2) {
        return Err(DropReason::TransportTruncated);
    }
    let change = match backend {
        IpAddr::V4(backend) => rewrite_v4(packet, backend, dscp)?,
        IpAddr::V6(backend) => rewrite_v6(packet, transport, backend, dscp)?,
    };
    let checksum = field.and_then(|field| packet.get_mut(field..)?.first_chunk_mut::<2>());
    if let Some(checksum) = checksum {
        let old = u16::from_be_bytes(*checksum);
        // Zero is "no checksum" of UDP, and has to stay that (RFC 768; over IPv6, RFC 6935). UDP-Lite
        // has one always, but writes it as UDP does (RFC 3828 section 3.1).
        if old != 0 || protocol != Protocol::UDP {
            let new = checksum::update(old, change.old, change.new);
            let is_none = new == 0 && matches!(protocol, Protocol::UDP | UDP_LITE);
            *checksum = if is_none { 0xffff } else { new }.to_be_bytes();
        }
    }
    Ok(())
}

/// Where in the upper-layer header the checksum is, if it covers the destination address. That of
/// SCTP (RFC 9260) and of ICMPv4 do not.
fn checksum_offset(protocol: Protocol, is_ipv6: bool) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP | UDP_LITE | DCCP => Some(6),
        Protocol::ICMPV6 if is_ipv6 => Some(2),
        _ => None,
    }
}

/// The sums of the destination address before and after.
struct Change {
    old: u16,
    new: u16,
}

fn rewrite_v4(packet: &mut [u8], backend: Ipv4Addr, dscp: Dscp) -> Result<Change, DropReason> {
    let header: &mut [u8; 20] = packet.first_chunk_mut().ok_or(DropReason::Ipv4Truncated)?;
    let [version, tos, _, _, _, _, _, _, _, _, c0, c1, _, _, _, _, destination @ ..] = header;
    let new_tos = dscp.value() << 2 | *tos & 0b11;
    let change = Change {
        old: checksum::fold(checksum::sum(destination)),
        new: checksum::fold(checksum::sum(&backend.octets())),
    };
    let (old_word, new_word) =
        (u16::from_be_bytes([*version, *tos]), u16::from_be_bytes([*version, new_tos]));
    let sum = checksum::update(u16::from_be_bytes([*c0, *c1]), old_word, new_word);
    [*c0, *c1] = checksum::update(sum, change.old, change.new).to_be_bytes();
    *tos = new_tos;
    destination.copy_from_slice(&backend.octets());
    Ok(change)
}

fn rewrite_v6(
    packet: &mut [u8],
    transport: usize,
    backend: Ipv6Addr,
    dscp: Dscp,
) -> Result<Change, DropReason> {
    if has_segments_left(packet, transport) {
        return Err(DropReason::SourceRouted);
    }
    let header: &mut [u8; 40] = packet.first_chunk_mut().ok_or(DropReason::Ipv6Truncated)?;
    let (fixed, destination) = header.split_at_mut(24);
    if let [first, second, ..] = fixed {
        // The traffic class is the four bits after the version and the four after those.
        let class = dscp.value() << 2 | *second >> 4 & 0b11;
        *first = *first & 0xf0 | class >> 4;
        *second = class << 4 | *second & 0x0f;
    }
    let change = Change {
        old: checksum::fold(checksum::sum(destination)),
        new: checksum::fold(checksum::sum(&backend.octets())),
    };
    destination.copy_from_slice(&backend.octets());
    Ok(change)
}

/// Whether one of the extension headers before `transport`, which have been parsed before, routes
/// the packet on.
fn has_segments_left(packet: &[u8], transport: usize) -> bool {
    let mut next = packet.get(6).copied().unwrap_or_default();
    let mut at = 40;
    while at < transport {
        let Some(&[following, length, _, segments_left]) =
            packet.get(at..).and_then(|rest| rest.first_chunk())
        else {
            return false;
        };
        if next == ROUTING && segments_left != 0 {
            return true;
        }
        // The fragment header is always eight bytes; its second one is reserved, and zero or not
        // to be looked at (RFC 8200 section 4.5).
        let units = if next == 44 { 0 } else { usize::from(length) };
        at += (units + 1) * 8;
        next = following;
    }
    false
}

#[cfg(test)]
#[path = "l3dsr_tests.rs"]
mod tests;
