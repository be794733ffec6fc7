//! What identifies a flow, and how it is hashed.
//!
//! Everything above this module speaks of packets in these terms: the packet parser produces a
//! [`PacketInfo`] or a [`Brief`] of one, the balancer consumes them. Neither knows the other.

mod brief;
mod connection;
mod hash;

pub use brief::{Brief, Segment};
pub use connection::{ConnectionId, QuicHeader};
pub use hash::{FlowHash, HashInput, HashKey};

use crate::error::ParseError;
use crate::verdict::BackendIndex;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An IP protocol number, as assigned by IANA.
///
/// A newtype over the wire byte and not an enum: every one of the 256 values can arrive, and a
/// service for any protocol must carry them all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// Generic Routing Encapsulation (RFC 2784).
    pub const GRE: Self = Self(47);
    /// IPsec Encapsulating Security Payload (RFC 4303).
    pub const ESP: Self = Self(50);
    /// IPsec Authentication Header (RFC 4302).
    pub const AH: Self = Self(51);
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self(132);

    /// Whether the first four bytes of the payload are a source and a destination port.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// Whether it is an IPv6 extension header that more headers follow (RFC 8200 section 4): what
    /// a later fragment is said to carry when the headers behind it are in the first one.
    pub const fn is_extension_header(self) -> bool {
        matches!(self, Self(0 | 43 | 44 | 60))
    }

    /// The protocol's usual lower-case name, for those that have a constant here.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ICMP => "icmp",
            Self::TCP => "tcp",
            Self::UDP => "udp",
            Self::GRE => "gre",
            Self::ESP => "esp",
            Self::AH => "ah",
            Self::ICMPV6 => "icmpv6",
            Self::SCTP => "sctp",
            _ => return None,
        })
    }

    /// The inverse of [`Protocol::name`]; a decimal number is accepted too.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = [
            Self::ICMP,
            Self::TCP,
            Self::UDP,
            Self::GRE,
            Self::ESP,
            Self::AH,
            Self::ICMPV6,
            Self::SCTP,
        ];
        named.into_iter().find(|protocol| protocol.name() == Some(name)).or_else(|| {
            let number = name.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)?;
            number.parse().ok().map(Self)
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One direction of a conversation: who sends to whom, over what.
///
/// The ports are zero for protocols without ports and for fragments after the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The client's address.
    pub source: IpAddr,
    /// The virtual IP.
    pub destination: IpAddr,
    /// The client's port, in host order.
    pub source_port: u16,
    /// The service's port, in host order.
    pub destination_port: u16,
    /// The IP protocol; for IPv6, that of the upper layer after all extension headers.
    pub protocol: Protocol,
}

impl FiveTuple {
    /// Whether the source is an address that no packet from a client can have: unspecified,
    /// loopback, multicast, broadcast (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7), or an
    /// IPv4-mapped address on the wire of IPv6.
    #[inline]
    pub fn has_martian_source(&self) -> bool {
        match self.source {
            IpAddr::V4(ip) => {
                ip.octets()[0] == 0 || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast()
            }
            IpAddr::V6(ip) => {
                ip.is_unspecified()
                    || ip.is_loopback()
                    || ip.is_multicast()
                    || ip.to_ipv4_mapped().is_some()
            }
        }
    }
}

impl FiveTuple {
    /// A hash of the flow for whoever spreads packets by their outer headers. It is neither keyed
    /// nor specified: nothing is decided by it here, and it may change from one version to the next.
    ///
    /// `whole` says whether ports count; without them all fragments of a datagram have the same.
    #[inline]
    pub fn entropy(&self, whole: bool) -> u32 {
        // Two odd numbers without a pattern: the fractions of the square roots of 2 and 3.
        const A: u64 = 0x6a09_e667_f3bc_c909;
        const B: u64 = 0xbb67_ae85_84ca_a73b;
        let mix = |a: u64, b: u64| {
            let product = u128::from(a ^ A) * u128::from(b ^ B);
            product as u64 ^ (product >> 64) as u64
        };
        let ports = match whole {
            true => u64::from(self.source_port) << 16 | u64::from(self.destination_port),
            false => 0,
        };
        let rest = ports << 8 | u64::from(self.protocol.0);
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => mix((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
        };
        let addresses = mix(address(self.source), address(self.destination).rotate_left(32));
        let mixed = mix(addresses, rest);
        (mixed >> 32) as u32 ^ mixed as u32
    }
}

impl fmt::Debug for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |ip: IpAddr, port: u16| match (self.protocol.has_ports(), ip) {
            (false, _) => ip.to_string(),
            (true, IpAddr::V4(ip)) => format!("{ip}:{port}"),
            (true, IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        };
        write!(
            f,
            "{} > {} {}",
            end(self.source, self.source_port),
            end(self.destination, self.destination_port),
            self.protocol
        )
    }
}

impl FromStr for FiveTuple {
    type Err = ParseError;

    /// Reads what `Display` writes: `192.0.2.1:40000 > 10.0.0.100:80 tcp`, `[2001:db8::1]:40000 >
    /// [fd00::100]:443 udp`, and without ports where the protocol has none: `192.0.2.1 > 10.0.0.100
    /// esp`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |expected| ParseError::new("flow", text, expected);
        let words: Vec<&str> = text.split_whitespace().collect();
        let [source, ">", destination, protocol] = words.as_slice() else {
            return Err(refuse(
                "CLIENT > VIP PROTOCOL, such as 192.0.2.1:40000 > 10.0.0.100:80 tcp",
            ));
        };
        let protocol = Protocol::from_name(protocol).ok_or_else(|| {
            refuse("a protocol such as tcp, udp, sctp, icmp, esp, or a number to 255")
        })?;
        let end = |end: &str| -> Option<(IpAddr, u16)> {
            if !protocol.has_ports() {
                return Some((end.parse().ok()?, 0));
            }
            // Zones are of no use here, and would be lost.
            let end: SocketAddr = Some(end).filter(|end| !end.contains('%'))?.parse().ok()?;
            Some((end.ip(), end.port()))
        };
        let expected = match protocol.has_ports() {
            true => "ADDRESS:PORT on both sides, an IPv6 address in brackets",
            false => "addresses without ports, which this protocol has none of",
        };
        let (source, source_port) = end(source).ok_or_else(|| refuse(expected))?;
        let (destination, destination_port) = end(destination).ok_or_else(|| refuse(expected))?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(refuse("two addresses of one family"));
        }
        Ok(Self { source, destination, source_port, destination_port, protocol })
    }
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fragment {
    /// The whole datagram. IPv6 atomic fragments (RFC 6946) count as whole.
    Whole,
    /// The first of several fragments: it carries the ports.
    First,
    /// A later fragment: its ports are not in the packet.
    Later,
}

/// The TCP flags byte (RFC 9293 section 3.1), zero for other protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers: a connection begins.
    pub const SYN: u8 = 0x02;
    /// The connection is reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

/// What a packet is to its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
pub enum PacketKind {
    /// A packet of it.
    #[default]
    Ordinary,
    /// An ICMP or ICMPv6 echo request (RFC 792, RFC 4443 section 4.1).
    EchoRequest,
    /// An ICMP or ICMPv6 error about a packet of the other direction, which it quotes. The flow is
    /// that of the quoted packet turned around, so that the error goes where the flow goes: to the
    /// backend that sent the packet. It tells nothing of whether the client is alive.
    IcmpError,
    /// An ICMP error whose quotation is too short to tell the flow; the flow is the message's own.
    TruncatedError,
    /// An ICMP error that quotes a packet which its receiver did not send; the flow is the
    /// message's own.
    StrayError,
}

/// A backend, or none, in four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Routed(BackendIndex);

impl Routed {
    /// The last slot in its last generation stands for none; nothing is routed to it.
    const NOWHERE: BackendIndex = BackendIndex::new(BackendIndex::MAX_SLOTS - 1, u32::MAX);
    /// No backend.
    pub const NONE: Self = Self(Self::NOWHERE);

    /// The backend.
    #[inline]
    pub fn backend(self) -> Option<BackendIndex> {
        (self.0 != Self::NOWHERE).then_some(self.0)
    }
}

impl From<Option<BackendIndex>> for Routed {
    #[inline]
    fn from(backend: Option<BackendIndex>) -> Self {
        Self(backend.unwrap_or(Self::NOWHERE))
    }
}

impl Default for Routed {
    /// None.
    #[inline]
    fn default() -> Self {
        Self::NONE
    }
}

/// What the balancer needs to know of a packet, and all that it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PacketInfo {
    /// The flow the packet belongs to.
    pub flow: FiveTuple,
    /// Whether this is a whole datagram or a fragment of one; of an ICMP error, what the quoted
    /// packet was.
    pub fragment: Fragment,
    /// TCP flags; zero for anything that is not the start of a TCP segment.
    pub tcp_flags: TcpFlags,
    /// What it is to the flow.
    pub kind: PacketKind,
    /// The identification that a datagram's fragments share: 16 bits in IPv4 (RFC 791 section 3.2),
    /// 32 in IPv6 (RFC 8200 section 4.5). Zero of what is no fragment.
    pub identification: u32,
    /// The backend that gave out its connection ID, if its service routes by that and the backend keeps
    /// its flows. A balancer is to send the packet there.
    pub routed: Routed,
}

impl PacketInfo {
    /// Whether it tells its flow. A later fragment does not where there are ports, which it has none of, nor where an
    /// extension header hides what is behind it (RFC 8200 section 4.5); and of ICMP it may be anything.
    #[inline]
    pub const fn tells_flow(&self) -> bool {
        let protocol = self.flow.protocol;
        !matches!(self.fragment, Fragment::Later)
            || !(protocol.has_ports()
                || protocol.is_extension_header()
                || matches!(protocol, Protocol::ICMP | Protocol::ICMPV6))
    }

    /// An ordinary packet. For tests of a balancer of one's own; otherwise the parser makes them.
    pub fn new(flow: FiveTuple, fragment: Fragment, tcp_flags: TcpFlags) -> Self {
        let kind = PacketKind::Ordinary;
        Self { flow, fragment, tcp_flags, kind, identification: 0, routed: Routed::default() }
    }

    /// Whether the balancer has ports to go by, as far as the protocol has any.
    #[inline]
    pub const fn has_ports(&self) -> bool {
        !matches!(self.fragment, Fragment::Later)
    }
}

/// A point in time: nanoseconds since an epoch of the caller's choice.
///
/// The packet path never reads a clock; whoever drives it passes the time in, so tests run in
/// virtual time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Timestamp(pub u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn flows_are_read_as_they_are_written(
            (source, destination) in prop_oneof![
                any::<[u32; 2]>().prop_map(|ends| ends.map(|ip| IpAddr::V4(ip.into()))),
                any::<[u128; 2]>().prop_map(|ends| ends.map(|ip| IpAddr::V6(ip.into()))),
            ].prop_map(|[a, b]| (a, b)),
            ports in any::<[u16; 2]>(), protocol in any::<u8>(),
        ) {
            let protocol = Protocol(protocol);
            let [source_port, destination_port] =
                if protocol.has_ports() { ports } else { [0, 0] };
            let flow =
                FiveTuple { source, destination, source_port, destination_port, protocol };
            prop_assert_eq!(flow.to_string().parse(), Ok(flow));
        }
    }

    #[test]
    fn what_is_no_flow_is_refused_with_what_is_expected() {
        for (text, expected) in [
            ("", "CLIENT > VIP PROTOCOL"),
            ("192.0.2.1:4 10.0.0.1:80 tcp", "CLIENT > VIP PROTOCOL"),
            ("192.0.2.1:4 > 10.0.0.1:80", "CLIENT > VIP PROTOCOL"),
            ("192.0.2.1:4 > 10.0.0.1:80 tcp tcp", "CLIENT > VIP PROTOCOL"),
            ("192.0.2.1:4 > 10.0.0.1:80 http", "a protocol such as"),
            ("192.0.2.1:4 > 10.0.0.1:80 256", "a protocol such as"),
            ("192.0.2.1 > 10.0.0.1:80 tcp", "ADDRESS:PORT on both sides"),
            ("192.0.2.1:4 > 10.0.0.1:65536 udp", "ADDRESS:PORT on both sides"),
            ("2001:db8::1:4 > [fd00::1]:80 tcp", "ADDRESS:PORT on both sides"),
            ("[fe80::1%1]:4 > [fd00::1]:80 tcp", "ADDRESS:PORT on both sides"),
            ("192.0.2.1:4 > 10.0.0.1:80 esp", "addresses without ports"),
            ("192.0.2.1:4 > [fd00::1]:80 tcp", "one family"),
        ] {
            let error = text.parse::<FiveTuple>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn protocols_with_ports_and_headers_with_more_behind_them() {
        let all = || (0..=255).map(Protocol);
        let ports: Vec<_> = all().filter(|protocol| protocol.has_ports()).collect();
        assert_eq!(ports, [Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
        let more: Vec<_> = all().filter(|protocol| protocol.is_extension_header()).collect();
        assert_eq!(more, [0, 43, 44, 60].map(Protocol));
    }

    #[test]
    fn a_packet_is_routed_to_any_backend_but_the_one_that_stands_for_none() {
        assert_eq!(Routed::default().backend(), None);
        assert_eq!(Routed::from(None).backend(), None);
        let last = BackendIndex::MAX_SLOTS - 1;
        for index in [(0, 0), (0, 2047), (last, 0), (last, 2046)] {
            let index = BackendIndex::new(index.0, index.1);
            assert_eq!(Routed::from(Some(index)).backend(), Some(index));
        }
        assert_eq!(Routed::from(Some(BackendIndex::new(last, 2047))).backend(), None);
    }

    #[test]
    fn sources_that_no_client_has() {
        for (source, martian) in [
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("1.0.0.0", false),
            ("127.255.0.1", true),
            ("128.0.0.1", false),
            ("223.255.255.255", false),
            ("224.0.0.1", true),
            ("239.255.255.255", true),
            ("255.255.255.255", true),
            ("::", true),
            ("::1", true),
            ("::2", false),
            ("::ffff:192.0.2.1", true),
            ("ff02::1", true),
            ("fe80::1", false),
            ("2001:db8::1", false),
        ] {
            let source: IpAddr = source.parse().unwrap();
            let flow = FiveTuple {
                source,
                destination: source,
                source_port: 0,
                destination_port: 0,
                protocol: Protocol::TCP,
            };
            assert_eq!(flow.has_martian_source(), martian, "{source}");
        }
    }
}
