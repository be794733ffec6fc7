//! Putting other headers before a packet: IP-in-IP (RFC 2003, RFC 2473, RFC 4213) and GUE
//! (draft-ietf-intarea-gue-09).

use super::checksum;
use super::ethernet::EtherType;
use crate::forwarding::{Encapsulation, Forwarding, Tunnel, TunnelDscp};
use crate::verdict::DropReason;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol numbers of what is inside (RFC 2003 section 3.1, RFC 4213 section 3.5) and of UDP.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const UDP: u8 = 17;
/// The two low bits of the TOS byte and of the traffic class (RFC 3168 section 5).
const ECN: u8 = 0b11;
const DONT_FRAGMENT: u16 = 0x4000;

/// A tunnel with its ends: what a packet's outer headers are made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelPath {
    ends: Ends,
    tunnel: Tunnel,
}

/// Both ends are of one family. Where the mask has ones, the source is filled from the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    V4 { source: Ipv4Addr, host_bits: u32, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, host_bits: u8, destination: Ipv6Addr },
}

impl TunnelPath {
    /// A tunnel from an address, or from any address of a prefix; none if the families differ.
    pub fn new(source: IpNet, destination: IpAddr, tunnel: Tunnel) -> Option<Self> {
        let length = source.max_prefix_len() - source.prefix_len();
        let ends = match (source.addr(), destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let host_bits = u32::MAX.checked_shr(u32::from(32 - length)).unwrap_or(0);
                Ends::V4 { source, host_bits, destination }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Ends::V6 { source, host_bits: length, destination }
            }
            _ => return None,
        };
        Some(Self { ends, tunnel })
    }

    /// Bytes in front of the packet.
    #[inline]
    pub fn overhead(&self) -> usize {
        self.tunnel.overhead(matches!(self.ends, Ends::V6 { .. }))
    }

    /// What the frame says it carries.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        match self.ends {
            Ends::V4 { .. } => EtherType::IPV4,
            Ends::V6 { .. } => EtherType::IPV6,
        }
    }

    /// The outer header of IPv4 packets in it, if that is all there is before them and it does not depend on the flow: so
    /// it is for most tunnels.
    #[inline]
    pub(crate) fn plain(&self) -> Option<OuterIpv4> {
        match (self.ends, self.tunnel.encapsulation) {
            (Ends::V4 { source, host_bits: 0, destination }, Encapsulation::IpIp) => {
                Some(OuterIpv4::new(&self.tunnel, IPV4_INSIDE, source, destination))
            }
            _ => None,
        }
    }

    /// Whether the outer headers depend on the flow.
    #[inline]
    pub fn uses_entropy(&self) -> bool {
        self.plain().is_none()
    }
}

impl fmt::Display for TunnelPath {
    /// `ipip from 10.0.0.1 to 10.1.0.11`; of a prefix that it sends from, the first address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination): (IpAddr, IpAddr) = match self.ends {
            Ends::V4 { source, destination, .. } => (source.into(), destination.into()),
            Ends::V6 { source, destination, .. } => (source.into(), destination.into()),
        };
        write!(f, "{} from {source} to {destination}", Forwarding::Tunnel(self.tunnel))
    }
}

/// Whether routers may fragment the outer packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OuterFragmentation {
    /// As the packet inside says: IPv4 without "don't fragment" may be, all else must not (RFC 2003
    /// section 3.1, RFC 4213 section 3.2.2).
    Inherit,
    /// It is going to be: an IPv6 packet of at most 1,280 bytes for which the path is still too
    /// small (RFC 2473 section 7.1). Nothing but the "don't fragment" bit of IPv4 depends on it.
    Allow,
}

/// What of the inner header the outer one is made from.
struct Inner {
    traffic_class: u8,
    dont_fragment: bool,
    protocol: u8,
}

impl Inner {
    #[inline(always)]
    fn read(packet: &[u8]) -> Option<Self> {
        let &[first, second, _, _, _, _, flags, _] = packet.first_chunk()?;
        Some(match first >> 4 {
            4 => Self {
                traffic_class: second,
                dont_fragment: flags & 0x40 != 0,
                protocol: IPV4_INSIDE,
            },
            6 => Self {
                traffic_class: first << 4 | second >> 4,
                dont_fragment: true,
                protocol: IPV6_INSIDE,
            },
            _ => return None,
        })
    }
}

/// Writes the outer headers into the first [`TunnelPath::overhead`] bytes of `packet`, behind which
/// is an IPv4 or IPv6 packet and nothing else.
///
/// `entropy` is a hash of the flow; `identification` is for outer IPv4 headers that may be
/// fragmented, and differs from that of others like it (RFC 6864 section 4.3).
///
/// # Errors
///
/// If the result is longer than an IP packet can be, or what is inside is no IP packet.
#[inline]
pub fn encapsulate(
    packet: &mut [u8],
    path: &TunnelPath,
    fragmentation: OuterFragmentation,
    entropy: u32,
    identification: u16,
) -> Result<(), DropReason> {
    let length = packet.len();
    let (outer, inner) = packet.split_at_mut_checked(path.overhead()).ok_or(DropReason::NoRoom)?;
    let of_inner = Inner::read(inner).ok_or(DropReason::IpVersionMismatch)?;
    let length = u16::try_from(length).map_err(|_| DropReason::PacketTooBig)?;
    let tunnel = &path.tunnel;
    let pseudo_header = match path.ends {
        Ends::V4 { source, host_bits, destination } => {
            let source = fill_v4(source, host_bits, entropy);
            let (ip, rest) = outer.split_first_chunk_mut().ok_or(DropReason::NoRoom)?;
            let header = OuterIpv4::new(tunnel, of_inner.protocol, source, destination);
            let dont_fragment =
                of_inner.dont_fragment && fragmentation == OuterFragmentation::Inherit;
            header.write(of_inner.traffic_class, dont_fragment, length, identification, ip);
            (rest, PseudoHeader::V4(source, destination))
        }
        Ends::V6 { source, host_bits, destination } => {
            let source = fill_v6(source, host_bits, entropy);
            let (ip, rest) = outer.split_first_chunk_mut().ok_or(DropReason::NoRoom)?;
            write_v6(tunnel, &of_inner, [source, destination], length, entropy, ip);
            (rest, PseudoHeader::V6(source, destination))
        }
    };
    if let Encapsulation::Gue { port, checksum, .. } = tunnel.encapsulation {
        let (udp, pseudo_header) = pseudo_header;
        write_gue(udp, inner.len(), of_inner.protocol, port, entropy);
        if checksum {
            let sum = pseudo_header.sum(udp.len() + inner.len());
            write_udp_checksum(udp, sum + checksum::sum(udp) + checksum::sum(inner));
        }
    }
    Ok(())
}

/// An outer IPv4 header, as far as it is the same for each packet of a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OuterIpv4 {
    /// From the time to live on, with a checksum of zero.
    last: [[u8; 2]; 6],
    /// The sum of those, in the order in which this machine reads them (RFC 1071 section 2 (B)).
    sum: u16,
    /// The bits of the traffic class that the packet inside has no say in.
    class: u8,
    /// Those that are as in the packet inside.
    inherited: u8,
}

impl OuterIpv4 {
    #[inline]
    fn new(tunnel: &Tunnel, inside: u8, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
        let (ttl, protocol) = (tunnel.hop_limit, outer_protocol(tunnel, inside));
        let last = [[ttl, protocol], [0, 0], [a, b], [c, d], [e, f], [g, h]];
        let sum = checksum::fold(checksum::sum(last.as_flattened())).to_be();
        let (class, inherited) = outer_class(tunnel);
        Self { last, sum, class, inherited }
    }

    /// Before an IPv4 packet whose header is `inner`, and which with this one has `length` bytes.
    #[inline(always)]
    pub(crate) fn put_before(
        &self,
        inner: &[u8; 20],
        length: u16,
        identification: u16,
        out: &mut [u8; 20],
    ) {
        let &[_, class, _, _, _, _, flags, ..] = inner;
        self.write(class, flags & 0x40 != 0, length, identification, out);
    }

    #[inline(always)]
    fn write(
        &self,
        class_inside: u8,
        dont_fragment: bool,
        length: u16,
        identification: u16,
        out: &mut [u8; 20],
    ) {
        let class = self.class | class_inside & self.inherited;
        // Of what cannot be fragmented the identification means nothing (RFC 6864 section 4.1).
        let (identification, flags) =
            if dont_fragment { (0, DONT_FRAGMENT) } else { (identification, 0) };
        let first = [
            u16::from_ne_bytes([0x45, class]),
            length.to_be(),
            identification.to_be(),
            flags.to_be(),
        ];
        // Five numbers of 16 bits.
        let sum = first.iter().fold(u32::from(self.sum), |sum, half| sum + u32::from(*half));
        let [a, b, c, d] = first.map(u16::to_ne_bytes);
        let [e, _, f, g, h, i] = self.last;
        let sum = (!checksum::fold(sum)).to_ne_bytes();
        let halves = [a, b, c, d, e, sum, f, g, h, i];
        out.as_chunks_mut().0.iter_mut().zip(halves).for_each(|(place, half)| *place = half);
    }
}

/// The bits of the outer traffic class that the packet inside has no say in, and those that are as in it.
#[inline]
fn outer_class(tunnel: &Tunnel) -> (u8, u8) {
    // RFC 6040 section 4.1, normal mode: the ECN field goes outside as it is, "not ECT" above all.
    match tunnel.dscp {
        TunnelDscp::Uniform => (0, 0xff),
        TunnelDscp::Pipe(dscp) => (dscp.value() << 2, ECN),
    }
}

#[inline]
fn outer_protocol(tunnel: &Tunnel, inside: u8) -> u8 {
    match tunnel.encapsulation {
        Encapsulation::IpIp => inside,
        Encapsulation::Gue { .. } => UDP,
    }
}

/// An outer IPv6 header.
#[inline]
fn write_v6(
    tunnel: &Tunnel,
    inner: &Inner,
    ends: [Ipv6Addr; 2],
    length: u16,
    entropy: u32,
    out: &mut [u8; 40],
) {
    let (class, inherited) = outer_class(tunnel);
    let class = class | inner.traffic_class & inherited;
    // A label of zero would mean that there is none (RFC 6437 section 2), and equal-cost routes
    // would see all tunnelled flows as one (RFC 6438 section 3).
    let label = (entropy & 0x000f_ffff).max(1);
    let first = 0x6000_0000 | u32::from(class) << 20 | label;
    let (fixed, addresses) = out.split_at_mut(8);
    let [f0, f1, f2, f3] = first.to_be_bytes();
    let [l0, l1] = length.saturating_sub(40).to_be_bytes();
    let protocol = outer_protocol(tunnel, inner.protocol);
    fixed.copy_from_slice(&[f0, f1, f2, f3, l0, l1, protocol, tunnel.hop_limit]);
    let (from, to) = addresses.split_at_mut(16);
    let [source, destination] = ends;
    from.copy_from_slice(&source.octets());
    to.copy_from_slice(&destination.octets());
}

/// The addresses that the UDP checksum covers.
enum PseudoHeader {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl PseudoHeader {
    fn sum(&self, length: usize) -> u32 {
        match *self {
            // The whole packet's length fits 16 bits, so this does.
            Self::V4(from, to) => checksum::pseudo_header_v4(from, to, UDP, length as u16),
            Self::V6(from, to) => checksum::pseudo_header_v6(from, to, UDP, length as u32),
        }
    }
}

/// UDP and, in version 0, the GUE header; `out` is just as long as they are. The source port is one
/// of the upper half: some routers treat low ports as services.
#[inline]
fn write_gue(out: &mut [u8], inner: usize, protocol: u8, port: u16, entropy: u32) {
    let length = (out.len() + inner) as u16;
    // The upper bits, as the flow label has the lower ones.
    let source = 0x8000 | (entropy >> 16) as u16;
    let [s0, s1] = source.to_be_bytes();
    let [p0, p1] = port.to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    // Version 0, no control message, no options: only the protocol is not zero.
    let header = [s0, s1, p0, p1, l0, l1, 0, 0, 0, protocol, 0, 0];
    if let Some(header) = header.get(..out.len()) {
        out.copy_from_slice(header);
    }
}

fn write_udp_checksum(udp: &mut [u8], sum: u32) {
    // Zero would mean that there is none (RFC 768).
    let checksum = match checksum::finish(sum) {
        0 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = udp.get_mut(6..8) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Neither all zeros nor all ones, which some networks take for the subnet itself and for all of
/// its hosts; a prefix of two addresses has no such (RFC 3021).
#[inline]
fn fill_v4(source: Ipv4Addr, host_bits: u32, entropy: u32) -> Ipv4Addr {
    let host = match host_bits {
        0 => return source,
        1 => entropy & 1,
        // Multiplied instead of divided: 1 to `host_bits` - 1.
        _ => ((u64::from(entropy) * u64::from(host_bits - 1)) >> 32) as u32 + 1,
    };
    Ipv4Addr::from_bits(source.to_bits() & !host_bits | host)
}

/// Not all zeros, which is the subnet's routers (RFC 4291 section 2.6.1). 32 bits are filled at
/// most.
#[inline]
fn fill_v6(source: Ipv6Addr, host_bits: u8, entropy: u32) -> Ipv6Addr {
    if host_bits == 0 {
        return source;
    }
    let network = u128::MAX.checked_shl(u32::from(host_bits)).unwrap_or(0);
    let filled = u128::from(entropy) & !network;
    Ipv6Addr::from_bits(source.to_bits() & network | filled.max(1))
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
