//! How packets are delivered to a backend: the words for it.
//!
//! | here | NetScaler | LVS | others | backend on |
//! |---|---|---|---|---|
//! | [`Forwarding::L2`] | MAC mode | DR | F5 nPath, KEMP direct return | the director's link |
//! | [`Forwarding::Tunnel`] with [`Encapsulation::IpIp`] | IP over IP | TUN | Katran | any network |
//! | [`Forwarding::Tunnel`] with [`Encapsulation::Gue`] | | TUN, `--tun-type gue` | GLB | any network |
//! | [`Forwarding::L3Dsr`] | TOS | | Yahoo L3DSR | any network of the VIP's family |

use crate::error::ParseError;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How packets are delivered to a backend. In every mode the client's address and, at the backend
/// in the end, the VIP are what they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Forwarding {
    /// By rewriting the destination MAC address: the backend is on the director's own link.
    #[default]
    L2,
    /// Inside another IP packet, which the backend takes off.
    Tunnel(Tunnel),
    /// By rewriting the destination IP address; this DSCP value tells the backend which VIP it was,
    /// and is not zero. The backend needs a map from values to VIPs.
    #[cfg_attr(feature = "serde", serde(rename = "l3dsr"))]
    L3Dsr(Dscp),
}

impl Forwarding {
    /// IP-in-IP (RFC 2003, RFC 2473, RFC 4213) with the usual settings.
    pub const IPIP: Self = Self::Tunnel(Tunnel::new(Encapsulation::IpIp));

    /// Generic UDP encapsulation to this port, with the usual settings.
    pub const fn gue(port: u16, variant: GueVariant) -> Self {
        Self::Tunnel(Tunnel::new(Encapsulation::Gue { port, variant, checksum: false }))
    }

    /// Whether the backend must be on the director's own link.
    pub const fn needs_link(self) -> bool {
        matches!(self, Self::L2)
    }
}

/// The settings of a tunnel to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Tunnel {
    /// What is put in front of the packet.
    pub encapsulation: Encapsulation,
    /// What the outer header has as its DSCP.
    pub dscp: TunnelDscp,
    /// Time to live, or hop limit, of the outer header.
    pub hop_limit: u8,
    /// The largest outer packet the way to the backend takes, in bytes, if that is known to be less
    /// than what the interface takes.
    pub path_mtu: Option<u16>,
}

impl Tunnel {
    /// Copies the DSCP, with a hop limit of 64 and the MTU of the interface.
    pub const fn new(encapsulation: Encapsulation) -> Self {
        Self { encapsulation, dscp: TunnelDscp::Uniform, hop_limit: 64, path_mtu: None }
    }

    /// Bytes in front of the packet, by the family of the outer header.
    pub const fn overhead(&self, outer_is_ipv6: bool) -> usize {
        let ip = if outer_is_ipv6 { 40 } else { 20 };
        ip + match self.encapsulation {
            Encapsulation::IpIp => 0,
            Encapsulation::Gue { variant: GueVariant::One, .. } => 8,
            Encapsulation::Gue { variant: GueVariant::Zero, .. } => 8 + 4,
        }
    }
}

/// What is put in front of a packet besides an IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Encapsulation {
    /// Nothing: protocol 4 or 41 follows.
    #[cfg_attr(feature = "serde", serde(rename = "ipip"))]
    IpIp,
    /// UDP and perhaps a GUE header (draft-ietf-intarea-gue-09); the UDP source port is from a hash
    /// of the flow, so that routers and NICs spread flows.
    Gue {
        /// The UDP port the backend listens on.
        port: u16,
        /// Which header.
        variant: GueVariant,
        /// Whether the UDP checksum is computed, which reads the whole packet. Otherwise it is zero:
        /// always allowed over IPv4 (RFC 768); over IPv6 the backend has to accept it (RFC 6935; on
        /// Linux `udp6zerocsumrx`).
        checksum: bool,
    },
}

/// The variants of GUE, told apart by their first two bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum GueVariant {
    /// Four bytes of GUE header.
    Zero,
    /// None: the IP packet follows the UDP header.
    One,
}

/// What the outer header of a tunnel has as its DSCP (RFC 2983).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum TunnelDscp {
    /// What the packet has.
    Uniform,
    /// Always this.
    Pipe(Dscp),
}

/// A differentiated services code point (RFC 2474 section 3): 0 to 63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u8", into = "u8")
)]
pub struct Dscp(u8);

impl Dscp {
    /// The default: best effort.
    pub const ZERO: Self = Self(0);

    /// `value`, if it is at most 63.
    pub const fn new(value: u8) -> Option<Self> {
        if value < 64 { Some(Self(value)) } else { None }
    }

    /// 0 to 63.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// What tunnels send from: for each family of the outer header an address, or a prefix whose host
/// bits are filled from a hash of the flow, so that the NIC of a backend spreads flows over its
/// queues although it sees no further than the outer addresses.
///
/// What routers have to say about the tunnel ("packet too big") is sent to these addresses, so the
/// host has to hold them. Of a prefix: `ip route add local 192.0.2.0/24 dev lo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", default, deny_unknown_fields)
)]
pub struct TunnelSources {
    /// For backends with an IPv4 address.
    pub ipv4: Option<Ipv4Net>,
    /// For backends with an IPv6 address.
    pub ipv6: Option<Ipv6Net>,
}

impl TunnelSources {
    /// Sets the source of one family.
    #[must_use]
    pub fn with(mut self, source: IpNet) -> Self {
        match source {
            IpNet::V4(source) => self.ipv4 = Some(source),
            IpNet::V6(source) => self.ipv6 = Some(source),
        }
        self
    }

    /// What a tunnel to `backend` has as its source.
    pub fn towards(&self, backend: IpAddr) -> Option<IpNet> {
        match backend {
            IpAddr::V4(_) => self.ipv4.map(IpNet::V4),
            IpAddr::V6(_) => self.ipv6.map(IpNet::V6),
        }
    }

    /// Those that are set.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.ipv4.map(IpNet::V4).into_iter().chain(self.ipv6.map(IpNet::V6))
    }
}

/// What probes through the VIP are sent from, and so where their answers come to: addresses of this
/// host, one for each family that is probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", default, deny_unknown_fields)
)]
pub struct ProbeSources {
    /// For VIPs of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// For VIPs of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl ProbeSources {
    /// The one of an address's family.
    pub fn towards(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }

    /// Whether this address is one of them.
    pub fn includes(&self, address: IpAddr) -> bool {
        self.towards(address) == Some(address)
    }
}

impl TryFrom<u8> for Dscp {
    type Error = ParseError;

    fn try_from(value: u8) -> Result<Self, Self::Error> {
        Self::new(value).ok_or_else(|| ParseError::new("DSCP", &value.to_string(), "0 to 63"))
    }
}

impl From<Dscp> for u8 {
    fn from(dscp: Dscp) -> Self {
        dscp.0
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Forwarding {
    /// As [`Forwarding::from_str`] reads it; of a tunnel, the encapsulation alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L2 => f.write_str("l2"),
            Self::L3Dsr(dscp) => write!(f, "l3dsr:{dscp}"),
            Self::Tunnel(tunnel) => match tunnel.encapsulation {
                Encapsulation::IpIp => f.write_str("ipip"),
                Encapsulation::Gue { port, variant: GueVariant::Zero, .. } => {
                    write!(f, "gue:{port}")
                }
                Encapsulation::Gue { port, variant: GueVariant::One, .. } => {
                    write!(f, "gue1:{port}")
                }
            },
        }
    }
}

impl FromStr for Forwarding {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            ParseError::new(
                "forwarding mode",
                text,
                "l2, ipip, gue:PORT, gue1:PORT (variant 1) or l3dsr:DSCP with a DSCP of 1 to 63",
            )
        };
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        // `parse` takes a plus sign too.
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|number| digits && *number != 0)
        };
        let gue = |variant, port: &str| number(port).map(|port| Self::gue(port, variant));
        match (name, argument) {
            ("l2", None) => Some(Self::L2),
            ("ipip", None) => Some(Self::IPIP),
            ("gue", Some(port)) => gue(GueVariant::Zero, port),
            ("gue1", Some(port)) => gue(GueVariant::One, port),
            ("l3dsr", Some(dscp)) => number(dscp)
                .and_then(|dscp| u8::try_from(dscp).ok())
                .and_then(Dscp::new)
                .map(Self::L3Dsr),
            _ => None,
        }
        .ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written_and_others_refused() {
        for text in ["l2", "ipip", "gue:6080", "gue1:1", "l3dsr:1", "l3dsr:63"] {
            assert_eq!(text.parse::<Forwarding>().unwrap().to_string(), text);
        }
        for text in ["", "L2", "ipip:4", "gue", "gue:0", "gue:+1", "gue:65536", "l3dsr:64", "l2:"] {
            let error = text.parse::<Forwarding>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("l3dsr:DSCP"), "{error}");
        }
        assert!("l3dsr:0".parse::<Forwarding>().is_err());
    }

    /// The table in section 2 of the rules, less the modes that are not here.
    #[test]
    fn overheads_are_those_of_the_headers() {
        let of = |mode: &str| match mode.parse().unwrap() {
            Forwarding::Tunnel(tunnel) => (tunnel.overhead(false), tunnel.overhead(true)),
            _ => panic!("{mode}"),
        };
        assert_eq!([of("ipip"), of("gue1:1"), of("gue:1")], [(20, 40), (28, 48), (32, 52)]);
    }
}
