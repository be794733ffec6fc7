//! What routers say about the director's own tunnels.

use super::quote::Quoted;
use super::{HEADER, v4, v6};
use crate::flow::Protocol;
use std::net::IpAddr;

/// MTUs of links there have been, largest first (RFC 1191 section 7.1).
const PLATEAUS: [u32; 11] =
    [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

/// That a packet was too large for a link on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelFeedback {
    /// Where the packet came from.
    pub source: IpAddr,
    /// Where it was going.
    pub destination: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Source and destination port, if it has some and they are quoted.
    pub udp_ports: Option<(u16, u16)>,
    /// What would have passed, in bytes.
    pub mtu: u32,
}

/// What a message says would have passed, in bytes, if it says that a packet was too large; zero is
/// what routers from before RFC 1191 say.
fn claimed_mtu(message: &[u8], is_ipv6: bool) -> Option<u32> {
    let &[kind, code, _, _, m0, m1, m2, m3] = message.first_chunk::<HEADER>()?;
    match (is_ipv6, kind, code) {
        (true, v6::PACKET_TOO_BIG, _) => Some(u32::from_be_bytes([m0, m1, m2, m3])),
        (false, v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) => {
            Some(u16::from_be_bytes([m2, m3]).into())
        }
        _ => None,
    }
}

/// What every link takes (RFC 791 section 3.2, RFC 8200 section 5).
const fn least_mtu(is_ipv6: bool) -> u32 {
    if is_ipv6 { 1280 } else { 68 }
}

/// Whether an ICMP or ICMPv6 message, from its type on, says that less would have passed than every
/// link takes: a mistake or an attack, which hosts ignore (RFC 8201 section 4).
pub fn claims_too_little(message: &[u8], is_ipv6: bool) -> bool {
    claimed_mtu(message, is_ipv6)
        .is_some_and(|mtu| mtu < least_mtu(is_ipv6) && (is_ipv6 || mtu != 0))
}

/// Reads an ICMP or ICMPv6 message, from its type on, that says that a packet was too large; none
/// if it says something else, or an MTU below what every link takes.
pub fn tunnel_feedback(message: &[u8], is_ipv6: bool) -> Option<TunnelFeedback> {
    let claimed = claimed_mtu(message, is_ipv6)?;
    let quoted = Quoted::read(message.get(HEADER..)?, is_ipv6)?;
    let mtu = match claimed {
        // A router from before RFC 1191 (section 5).
        0 if !is_ipv6 => PLATEAUS.into_iter().find(|mtu| (*mtu as usize) < quoted.total_length),
        mtu => Some(mtu).filter(|mtu| *mtu >= least_mtu(is_ipv6)),
    }?;
    Some(TunnelFeedback {
        source: quoted.source,
        destination: quoted.destination,
        protocol: quoted.protocol,
        udp_ports: quoted.ports(),
        mtu,
    })
}
