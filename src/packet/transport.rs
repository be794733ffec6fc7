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
    /// Reads the transport header at the start of `payload`, the payload of an IP packet that is
    /// whole or a first fragment.
    ///
    /// The whole fixed header must be there. A first fragment without it is the tiny-fragment
    /// trick of RFC 1858 section 3, meant to slip past whoever decides by ports and flags.
    #[inline]
    pub fn read(protocol: Protocol, payload: &[u8]) -> Result<Self, DropReason> {
        let ports = |header: &[u8]| match *header {
            [a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => (0, 0),
        };
        let (header, flags): (&[u8], u8) = match protocol {
            // RFC 9293 section 3.1
            Protocol::TCP => match payload.first_chunk::<20>() {
                Some(header) => (header, header[13]),
                None => return Err(DropReason::TransportTruncated),
            },
            // RFC 768
            Protocol::UDP => match payload.first_chunk::<8>() {
                Some(header) => (header, 0),
                None => return Err(DropReason::TransportTruncated),
            },
            // RFC 9260 section 3.1
            Protocol::SCTP => match payload.first_chunk::<12>() {
                Some(header) => (header, 0),
                None => return Err(DropReason::TransportTruncated),
            },
            _ => return Ok(Self::default()),
        };
        let (source_port, destination_port) = ports(header);
        Ok(Self { source_port, destination_port, tcp_flags: TcpFlags(flags) })
    }
}
