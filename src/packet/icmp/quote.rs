//! The packet that an ICMP error quotes.

use crate::flow::{FiveTuple, Fragment, Protocol};
use crate::packet::{Ipv4Header, Ipv6Header};
use std::net::IpAddr;

/// A quoted packet, turned around: as whoever it was for would answer it.
pub(super) struct Quote {
    pub(super) flow: FiveTuple,
    /// Of a later fragment the ports are not known; nor are they zero.
    pub(super) fragment: Fragment,
}

/// The headers of a quoted packet, as far as either version has them.
pub(super) struct Quoted<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) fragment: Fragment,
    pub(super) total_length: usize,
    /// What is quoted of the transport header: perhaps only eight bytes (RFC 792).
    pub(super) transport: &'a [u8],
}

impl<'a> Quoted<'a> {
    /// None if the quotation ends before its IP headers do. Its options and extension headers are
    /// walked; what is behind the quotation (RFC 4884) is not looked at.
    pub(super) fn read(quotation: &'a [u8], is_ipv6: bool) -> Option<Self> {
        Some(if is_ipv6 {
            let ip = Ipv6Header::read_quoted(quotation).ok()?;
            Self {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: ip.protocol,
                fragment: ip.fragment,
                total_length: ip.total_length,
                transport: quotation.get(ip.header_length..)?,
            }
        } else {
            let ip = Ipv4Header::read_quoted(quotation).ok()?;
            Self {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: ip.protocol,
                fragment: ip.fragment,
                total_length: ip.total_length,
                transport: quotation.get(ip.header_length..)?,
            }
        })
    }

    /// Source and destination port; none if the protocol or the quotation has none.
    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        if !self.protocol.has_ports() || self.fragment == Fragment::Later {
            return None;
        }
        let &[s0, s1, d0, d1] = self.transport.first_chunk()?;
        Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }
}

/// What an ICMP error says of the packet that it is about.
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quotation {
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) destination_port: Option<u16>,
}

/// Reads the packet that an ICMP or ICMPv6 error is about, given from its type on.
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub(crate) fn quotation(message: &[u8], is_ipv6: bool) -> Option<Quotation> {
    let quoted = Quoted::read(message.get(super::HEADER..)?, is_ipv6)?;
    Some(Quotation {
        destination: quoted.destination,
        protocol: quoted.protocol,
        destination_port: quoted.ports().map(|(_, to)| to),
    })
}

impl Quote {
    /// None if the quotation is too short to tell the flow.
    pub(super) fn read(quotation: &[u8], is_ipv6: bool) -> Option<Self> {
        let quoted = Quoted::read(quotation, is_ipv6)?;
        let lacks_ports = !quoted.protocol.has_ports() || quoted.fragment == Fragment::Later;
        let (source_port, destination_port) = match quoted.ports() {
            Some((from, to)) => (to, from),
            None if lacks_ports => (0, 0),
            None => return None,
        };
        Some(Self {
            flow: FiveTuple {
                source: quoted.destination,
                destination: quoted.source,
                source_port,
                destination_port,
                protocol: quoted.protocol,
            },
            fragment: quoted.fragment,
        })
    }
}
