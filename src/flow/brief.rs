//! A packet in few words.

use super::{FiveTuple, Fragment, PacketInfo, PacketKind, Protocol, Routed, TcpFlags};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet of a batch: what a [`PacketInfo`] says of it, in as few words as its kind takes. Nearly every packet is one
/// of the first two, and nearly every one of those goes where its flow goes, so that nothing else is ever made of it.
///
/// Which variant it is says nothing more than what is in it. The layout is fixed so that this stands in a word of its own.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Brief {
    /// A whole segment or datagram of a client by IPv4.
    Ipv4(Segment<4>),
    /// The same by IPv6.
    Ipv6(Segment<16>),
    /// Any packet, also such a one.
    Other(PacketInfo),
}

/// A whole TCP segment or UDP datagram, not routed by what is in it, between addresses of `N` bytes. All numbers are
/// as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<const N: usize> {
    /// Those of the client and the VIP.
    pub addresses: [[u8; N]; 2],
    /// Those of the client and the service.
    pub ports: [[u8; 2]; 2],
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Of TCP; zero for UDP.
    pub tcp_flags: TcpFlags,
}

impl<const N: usize> Segment<N> {
    #[inline(always)]
    fn info(&self, ip: impl Fn([u8; N]) -> IpAddr) -> PacketInfo {
        let Self { addresses: [source, destination], ports: [from, to], .. } = *self;
        PacketInfo {
            flow: FiveTuple {
                source: ip(source),
                destination: ip(destination),
                source_port: u16::from_be_bytes(from),
                destination_port: u16::from_be_bytes(to),
                protocol: self.protocol,
            },
            fragment: Fragment::Whole,
            tcp_flags: self.tcp_flags,
            kind: PacketKind::Ordinary,
            identification: 0,
            routed: Routed::NONE,
        }
    }
}

impl Brief {
    /// The same in full.
    #[inline(always)]
    pub fn info(&self) -> PacketInfo {
        match self {
            Self::Ipv4(segment) => segment.info(|ip| IpAddr::V4(Ipv4Addr::from_octets(ip))),
            Self::Ipv6(segment) => segment.info(|ip| IpAddr::V6(Ipv6Addr::from_octets(ip))),
            Self::Other(info) => *info,
        }
    }
}

impl From<PacketInfo> for Brief {
    fn from(info: PacketInfo) -> Self {
        Self::Other(info)
    }
}
