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

/// Reads an ICMP or ICMPv6 message, from its type on, that says that a packet was too large; none
/// if it says something else, or an MTU below what every link takes (RFC 791: 68 bytes; RFC 8200:
/// 1,280).
pub fn tunnel_feedback(message: &[u8], is_ipv6: bool) -> Option<TunnelFeedback> {
    let &[kind, code, _, _, m0, m1, m2, m3] = message.first_chunk::<HEADER>()?;
    let quoted = Quoted::read(message.get(HEADER..)?, is_ipv6)?;
    let mtu = match (is_ipv6, kind, code) {
        (true, v6::PACKET_TOO_BIG, _) => {
            Some(u32::from_be_bytes([m0, m1, m2, m3])).filter(|mtu| *mtu >= 1280)
        }
        (false, v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) => {
            match u16::from_be_bytes([m2, m3]) {
                // A router from before RFC 1191 (section 5).
                0 => PLATEAUS.into_iter().find(|mtu| (*mtu as usize) < quoted.total_length),
                mtu => Some(u32::from(mtu)).filter(|mtu| *mtu >= 68),
            }
        }
        _ => None,
    }?;
    Some(TunnelFeedback {
        source: quoted.source,
        destination: quoted.destination,
        protocol: quoted.protocol,
        udp_ports: quoted.ports(),
        mtu,
    })
}
