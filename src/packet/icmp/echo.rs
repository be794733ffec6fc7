//! Answering echo requests.

use super::{v4, v6};
use crate::flow::Fragment;
use crate::packet::checksum;
use crate::verdict::DropReason;

/// Time to live and hop limit of the reply.
const HOP_LIMIT: u8 = 64;
const ICMPV6: u8 = 58;
const FRAGMENT_HEADER: u8 = 44;

/// Turns an echo request, or a fragment of one, into the reply (RFC 792, RFC 4443 section 4.2), in
/// place: fragment by fragment it is answered without being put together, since the checksum, which
/// is in the first one and covers all, changes only by the type.
///
/// `packet` is the IP packet and nothing else, `transport` the offset of the ICMP message or, in
/// later fragments, of its continuation. The identification and the DSCP stay, for fragments must
/// agree in the one and the sender may count on the other; the ECN field is cleared, since replies
/// do not react to congestion (RFC 3168 section 6.1.5).
///
/// # Errors
///
/// If IPv4 options or IPv6 extension headers ask for more than this, a source route for example;
/// nothing has changed then.
pub fn answer_echo(
    packet: &mut [u8],
    transport: usize,
    fragment: Fragment,
) -> Result<(), DropReason> {
    let (is_ipv6, plain) = match packet {
        [0x45, ..] => (false, transport == 20),
        [first, _, _, _, _, _, next, ..] if *first >> 4 == 6 => {
            let next = *next;
            let inside = packet.get(40).copied();
            let plain = match transport {
                40 => next == ICMPV6,
                48 => next == FRAGMENT_HEADER && inside == Some(ICMPV6),
                _ => false,
            };
            (true, plain)
        }
        _ => (false, false),
    };
    let message = packet.get_mut(transport..).filter(|_| plain).ok_or(DropReason::EchoRefused)?;
    if fragment != Fragment::Later {
        let (old, new) = match is_ipv6 {
            false => (v4::ECHO_REQUEST, v4::ECHO_REPLY),
            true => (v6::ECHO_REQUEST, v6::ECHO_REPLY),
        };
        let [kind, code, c0, c1, ..] = message else {
            return Err(DropReason::EchoRefused);
        };
        // Of ICMPv6 the checksum covers the addresses too, but not which is which.
        let (before, after) = (u16::from_be_bytes([old, *code]), u16::from_be_bytes([new, *code]));
        *kind = new;
        let sum = checksum::update(u16::from_be_bytes([*c0, *c1]), before, after);
        [*c0, *c1] = sum.to_be_bytes();
    }
    if is_ipv6 {
        turn_v6(packet)
    } else {
        turn_v4(packet)
    }
    Ok(())
}

fn turn_v4(packet: &mut [u8]) {
    let Some(header) = packet.first_chunk_mut::<20>() else {
        return;
    };
    header[1] &= !0b11;
    header[8] = HOP_LIMIT;
    let (source, destination) = header[12..].split_at_mut(4);
    source.swap_with_slice(destination);
    header[10..12].fill(0);
    let sum = checksum::checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn turn_v6(packet: &mut [u8]) {
    let Some(header) = packet.first_chunk_mut::<40>() else {
        return;
    };
    header[1] &= !0b0011_0000;
    header[7] = HOP_LIMIT;
    let (source, destination) = header[8..].split_at_mut(16);
    source.swap_with_slice(destination);
}
