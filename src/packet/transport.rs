//! Ports and TCP flags: all that a director needs of the transport layer.

use crate::flow::{Protocol, TcpFlags};
use crate::verdict::DropReason;

/// Source port, destination port and TCP flags, zero where the protocol has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Transport {
    /// Source port, in host order.
    pub source_port: u16,
    /// Destination port, in host order.
    pub destination_port: u16,
    /// TCP flags.
    pub tcp_flags: TcpFlags,
}

impl Transport {
    /// Bytes of the fixed header of a protocol with ports; zero for others.
    #[inline]
    pub const fn header_length(protocol: Protocol) -> usize {
        match protocol {
            Protocol::TCP => 20,  // RFC 9293 section 3.1
            Protocol::UDP => 8,   // RFC 768
            Protocol::SCTP => 12, // RFC 9260 section 3.1
            _ => 0,
        }
    }

    /// Reads the transport header at the start of `payload`, the payload of an IP packet that is
    /// whole or a first fragment.
    ///
    /// The whole fixed header must be there. A first fragment without it is the tiny-fragment
    /// trick of RFC 1858 section 3, meant to slip past whoever decides by ports and flags.
    ///
    /// # Errors
    ///
    /// Why it is malformed.
    #[inline]
    pub fn read(protocol: Protocol, payload: &[u8]) -> Result<Self, DropReason> {
        let ports = |header: &[u8]| match *header {
            [a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => (0, 0),
        };
        if !protocol.has_ports() {
            return Ok(Self::default());
        }
        let header = payload.get(..Self::header_length(protocol));
        let header = header.ok_or(DropReason::TransportTruncated)?;
        let flags = match protocol {
            Protocol::TCP => header.get(13).copied().unwrap_or_default(),
            _ => 0,
        };
        let (source_port, destination_port) = ports(header);
        Ok(Self { source_port, destination_port, tcp_flags: TcpFlags(flags) })
    }
}
