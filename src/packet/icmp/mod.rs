//! ICMP (RFC 792) and ICMPv6 (RFC 4443): telling errors and echo requests, answering, and saying
//! that a packet was too large.
//!
//! Checksums of what is received are not verified: errors are forwarded as they are, and the backend
//! that acts on one verifies it; an echo reply repeats the request\'s error for its sender to find.

mod echo;
mod error;
mod feedback;
mod quote;
mod token_bucket;

pub use echo::answer_echo;
pub use error::{ErrorKind, longest_quote, may_be_answered, room_for_error, write_error};
pub use feedback::{TunnelFeedback, claims_too_little, tunnel_feedback};
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub(crate) use quote::{Quotation, quotation};
pub use token_bucket::TokenBucket;

use crate::flow::{Fragment, PacketInfo, PacketKind, Protocol};
use quote::Quote;

/// Type, code, checksum and four bytes that depend on the type; the quotation follows.
const HEADER: usize = 8;

/// Message types of ICMP (RFC 792, RFC 1191).
mod v4 {
    pub(super) const ECHO_REPLY: u8 = 0;
    pub(super) const UNREACHABLE: u8 = 3;
    pub(super) const FRAGMENTATION_NEEDED: u8 = 4;
    pub(super) const ECHO_REQUEST: u8 = 8;
    pub(super) const TIME_EXCEEDED: u8 = 11;
    pub(super) const PARAMETER_PROBLEM: u8 = 12;
}

/// Message types of ICMPv6 (RFC 4443).
mod v6 {
    pub(super) const PACKET_TOO_BIG: u8 = 2;
    pub(super) const TIME_EXCEEDED: u8 = 3;
    pub(super) const PARAMETER_PROBLEM: u8 = 4;
    pub(super) const FIRST_INFORMATIONAL: u8 = 128;
    pub(super) const ECHO_REQUEST: u8 = 128;
    pub(super) const ECHO_REPLY: u8 = 129;
}

/// Tells an echo request or an error from other messages, and gives an error the flow that it is
/// about. `message` is the payload of the packet that `info` tells of, and may be cut off.
pub(super) fn tell(info: &mut PacketInfo, message: &[u8]) {
    if info.fragment == Fragment::Later {
        return;
    }
    let &[kind, code, ..] = message else {
        return;
    };
    let is_ipv6 = info.flow.protocol == Protocol::ICMPV6;
    // ICMP over IPv6, or the other way round, is no protocol.
    if is_ipv6 != info.flow.destination.is_ipv6() {
        return;
    }
    let (echo, is_error) = match is_ipv6 {
        false => (
            v4::ECHO_REQUEST,
            matches!(kind, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM),
        ),
        true => (v6::ECHO_REQUEST, (1..=v6::PARAMETER_PROBLEM).contains(&kind)),
    };
    if kind == echo && code == 0 && message.len() >= HEADER {
        info.kind = PacketKind::EchoRequest;
    } else if is_error {
        tell_error(info, message.get(HEADER..).unwrap_or_default(), is_ipv6);
    }
}

fn tell_error(info: &mut PacketInfo, quotation: &[u8], is_ipv6: bool) {
    info.kind = match Quote::read(quotation, is_ipv6) {
        None => PacketKind::TruncatedError,
        // Whoever the error is for has sent what it quotes.
        Some(quote) if quote.flow.destination != info.flow.destination => PacketKind::StrayError,
        Some(quote) => {
            info.flow = quote.flow;
            info.fragment = quote.fragment;
            info.identification = 0;
            PacketKind::IcmpError
        }
    };
}

#[cfg(test)]
mod tests;
