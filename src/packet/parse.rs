//! From a frame to what the balancer needs to know of it.

use super::common::parse_common;
use super::ethernet::{self, EtherType};
use super::icmp;
use super::ipv4::Ipv4Header;
use super::ipv6::Ipv6Header;
use super::quic::connection_id;
use super::transport::Transport;
use crate::flow::{
    ConnectionId, FiveTuple, Fragment, PacketInfo, PacketKind, Protocol, Routed, TcpFlags,
};
use crate::verdict::DropReason;
use std::net::{IpAddr, Ipv4Addr};

/// An IP packet in a frame: what it is, and where its parts begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Parsed {
    /// What the balancer decides by.
    pub info: PacketInfo,
    /// The upper-layer protocol of this packet; that of an ICMP error's flow may be another.
    pub protocol: Protocol,
    /// Whether this packet is a fragment; `info` has that of the packet an ICMP error quotes.
    pub fragment: Fragment,
    /// Offset of the IP header in the frame, in bytes.
    pub network: u16,
    /// Offset of what follows the IP header and its options or extension headers.
    pub transport: u16,
    /// Offset of the end of the IP packet; Ethernet padding may follow.
    pub end: u32,
}

impl Parsed {
    /// A place to [read into](parse_into).
    pub(crate) const EMPTY: Self = Self {
        info: PacketInfo {
            flow: FiveTuple {
                source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                source_port: 0,
                destination_port: 0,
                protocol: Protocol(0),
            },
            fragment: Fragment::Whole,
            tcp_flags: TcpFlags(0),
            kind: PacketKind::Ordinary,
            identification: 0,
            routed: Routed::NONE,
        },
        protocol: Protocol(0),
        fragment: Fragment::Whole,
        network: 0,
        transport: 0,
        end: 0,
    };

    /// The IP packet, without what is before and behind it in `frame`, which was parsed to this.
    #[inline]
    pub fn packet<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(usize::from(self.network)..self.end as usize).unwrap_or_default()
    }

    /// The IP packet, to be rewritten.
    #[inline]
    pub fn packet_mut<'a>(&self, frame: &'a mut [u8]) -> &'a mut [u8] {
        frame.get_mut(usize::from(self.network)..self.end as usize).unwrap_or_default()
    }

    /// The connection ID of a UDP datagram in `frame`, which was parsed to this, if that is QUIC.
    #[inline]
    pub fn connection_id(&self, frame: &[u8]) -> Option<ConnectionId> {
        if self.protocol != Protocol::UDP || self.fragment == Fragment::Later {
            return None;
        }
        let payload = usize::from(self.transport) + Transport::header_length(Protocol::UDP);
        connection_id(frame.get(payload..self.end as usize)?)
    }

    /// Whether it is IPv6.
    #[inline]
    pub const fn is_ipv6(&self) -> bool {
        self.info.flow.destination.is_ipv6()
    }

    /// What the frame says it carries, behind all VLAN tags.
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        if self.is_ipv6() { EtherType::IPV6 } else { EtherType::IPV4 }
    }

    /// Bytes of the IP packet.
    #[inline]
    pub const fn length(&self) -> usize {
        (self.end as usize).saturating_sub(self.network as usize)
    }

    /// Bytes of the IP header with its options or extension headers.
    #[inline]
    pub const fn header_length(&self) -> usize {
        self.transport.saturating_sub(self.network) as usize
    }
}

/// What a frame turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parse {
    /// An IP packet.
    Ip(Parsed),
    /// Something else, whose payload begins at this offset; its type may be a length (802.3).
    NotIp {
        /// What the frame says it carries.
        ether_type: EtherType,
        /// Offset of the payload in the frame, in bytes.
        payload: usize,
    },
    /// Bytes that contradict the protocol they claim to be.
    Malformed(DropReason),
}

/// Parses an Ethernet frame.
///
/// Never panics and never reads past the frame or past the length that the IP header gives,
/// whatever the bytes. Headers are read once, outside in; nothing is allocated.
///
/// ```
/// use dsrlb::packet::{parse, Parse};
/// let mut frame = vec![0u8; 60];
/// frame[12..14].copy_from_slice(&[0x08, 0x06]);
/// assert!(matches!(parse(&frame), Parse::NotIp { payload: 14, .. }));
/// ```
#[inline]
pub fn parse(frame: &[u8]) -> Parse {
    let mut parsed = Parsed::EMPTY;
    match parse_into(frame, &mut parsed) {
        Content::Ip => Parse::Ip(parsed),
        Content::NotIp { ether_type, payload } => Parse::NotIp { ether_type, payload },
        Content::Malformed(reason) => Parse::Malformed(reason),
    }
}

/// The same as [`Parse`], without what an IP packet is.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    Ip,
    NotIp { ether_type: EtherType, payload: usize },
    Malformed(DropReason),
}

/// Parses a frame into `parsed`, which says something only if the frame is IP.
///
/// It is written where it stays. Addresses are of one of two lengths, so to move one means to read
/// sixteen bytes of which a few have just been written: the processor has to wait for those.
#[inline]
pub(crate) fn parse_into(frame: &[u8], parsed: &mut Parsed) -> Content {
    match parse_common(frame, parsed) {
        true => Content::Ip,
        false => parse_any(frame, parsed),
    }
}

/// The same, header by header, of any frame.
#[inline(never)]
pub(super) fn parse_any(frame: &[u8], parsed: &mut Parsed) -> Content {
    let (ether_type, network) = match ethernet::payload(frame) {
        Ok(found) => found,
        Err(reason) => return Content::Malformed(reason),
    };
    let bytes = frame.get(network..).unwrap_or_default();
    let read = match ether_type {
        EtherType::IPV4 => read_ipv4(bytes, network, parsed),
        EtherType::IPV6 => read_ipv6(bytes, network, parsed),
        _ => {
            return Content::NotIp { ether_type, payload: network };
        }
    };
    match read {
        Ok(()) => Content::Ip,
        Err(reason) => Content::Malformed(reason),
    }
}

#[inline]
fn read_ipv4(bytes: &[u8], network: usize, parsed: &mut Parsed) -> Result<(), DropReason> {
    let ip = Ipv4Header::read(bytes)?;
    parsed.info.flow.source = IpAddr::V4(ip.source);
    parsed.info.flow.destination = IpAddr::V4(ip.destination);
    let rest = Rest {
        protocol: ip.protocol,
        fragment: ip.fragment,
        fragment_offset: ip.fragment_offset,
        identification: ip.identification,
        payload: bytes.get(ip.header_length..ip.total_length).unwrap_or_default(),
    };
    rest.read(parsed, network, ip.header_length, ip.total_length)
}

#[inline]
fn read_ipv6(bytes: &[u8], network: usize, parsed: &mut Parsed) -> Result<(), DropReason> {
    let ip = Ipv6Header::read(bytes)?;
    parsed.info.flow.source = IpAddr::V6(ip.source);
    parsed.info.flow.destination = IpAddr::V6(ip.destination);
    let rest = Rest {
        protocol: ip.protocol,
        fragment: ip.fragment,
        fragment_offset: ip.fragment_offset,
        identification: ip.identification,
        payload: bytes.get(ip.header_length..ip.total_length).unwrap_or_default(),
    };
    rest.read(parsed, network, ip.header_length, ip.total_length)
}

/// What the two versions of IP have in common, besides addresses.
struct Rest<'a> {
    protocol: Protocol,
    fragment: Fragment,
    fragment_offset: usize,
    identification: u32,
    payload: &'a [u8],
}

impl Rest<'_> {
    #[inline]
    fn read(
        &self,
        parsed: &mut Parsed,
        network: usize,
        header_length: usize,
        total_length: usize,
    ) -> Result<(), DropReason> {
        let transport = match self.fragment {
            Fragment::Whole | Fragment::First => Transport::read(self.protocol, self.payload)?,
            // RFC 3128: it would overwrite the ports and flags that decided about the first one.
            Fragment::Later if self.fragment_offset < Transport::header_length(self.protocol) => {
                return Err(DropReason::FragmentOverlapsHeader);
            }
            Fragment::Later => Transport::default(),
        };
        parsed.protocol = self.protocol;
        parsed.fragment = self.fragment;
        // At most 22 bytes of Ethernet, 40 of IPv6 and eight extension headers of 2 KiB.
        parsed.network = network as u16;
        parsed.transport = (network + header_length) as u16;
        parsed.end = (network + total_length) as u32;
        let info = &mut parsed.info;
        info.flow.source_port = transport.source_port;
        info.flow.destination_port = transport.destination_port;
        info.flow.protocol = self.protocol;
        info.fragment = self.fragment;
        info.tcp_flags = transport.tcp_flags;
        info.kind = PacketKind::Ordinary;
        info.identification = self.identification;
        info.routed = Routed::NONE;
        if matches!(self.protocol, Protocol::ICMP | Protocol::ICMPV6) {
            icmp::tell(info, self.payload);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `payload` is all the packet has by its own account; the frame goes on with ones.
    fn frame(ipv6: bool, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        let length = payload.len() as u8;
        if ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, protocol.0, 64]);
            frame.resize(54, 1);
        } else {
            frame.extend([8, 0, 0x45, 0, 0, 20 + length, 0, 0, 0, 0, 64, protocol.0]);
            frame.resize(34, 1);
        }
        frame.extend(payload);
        frame.extend([1; 40]);
        frame
    }

    #[test]
    fn a_transport_header_is_whole_or_refused_and_never_read_from_the_padding() {
        for (protocol, header) in [(Protocol::TCP, 20), (Protocol::UDP, 8), (Protocol::SCTP, 12)] {
            for ipv6 in [false, true] {
                let cut = frame(ipv6, protocol, &vec![1; header - 1]);
                assert_eq!(parse(&cut), Parse::Malformed(DropReason::TransportTruncated));
                let Parse::Ip(parsed) = parse(&frame(ipv6, protocol, &vec![1; header])) else {
                    panic!("{protocol}")
                };
                assert_eq!(parsed.info.flow.source_port, 0x0101);
            }
        }
    }

    #[test]
    fn a_later_fragment_that_begins_in_the_transport_header_is_refused() {
        let overlapping = DropReason::FragmentOverlapsHeader;
        for (protocol, first_legal) in [
            (Protocol::TCP, 3),
            (Protocol::UDP, 1),
            (Protocol::SCTP, 2),
            (Protocol::ESP, 1),
            (Protocol::ICMP, 1),
        ] {
            for units in 1..5 {
                let mut v4 = frame(false, protocol, &[1; 20]);
                v4[21] = units;
                let header = [protocol.0, 0, 0, units * 8, 0, 0, 0, 1];
                let v6 = frame(true, Protocol(44), &[&header[..], &[1; 20]].concat());
                for bytes in [v4, v6] {
                    let refused = parse(&bytes) == Parse::Malformed(overlapping);
                    assert_eq!(refused, units < first_legal, "{protocol} {units}");
                }
            }
        }
    }

    /// What is larger than a cache line is copied by more than a few instructions, for every packet.
    #[test]
    fn what_is_told_of_a_packet_is_small() {
        assert!(size_of::<Parse>() <= 64, "{}", size_of::<Parse>());
    }

    #[test]
    fn a_later_fragment_has_neither_ports_nor_flags_whatever_its_bytes() {
        let mut later = frame(false, Protocol::TCP, &[1; 20]);
        later[21] = 3;
        let Parse::Ip(Parsed { info, .. }) = parse(&later) else { panic!() };
        assert_eq!(info.fragment, Fragment::Later);
        assert_eq!((info.flow.source_port, info.flow.destination_port), (0, 0));
        assert_eq!(info.tcp_flags, TcpFlags(0));
    }
}
