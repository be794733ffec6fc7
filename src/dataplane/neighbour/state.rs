//! What can be said of a neighbour, a link and a route: plain values.

use crate::packet::MacAddress;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// What is known of a wanted neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum NeighbourState {
    /// It can be sent nothing yet, or no longer.
    Unresolved {
        /// What is missing.
        why: Unresolved,
    },
    /// This is the way to it.
    Resolved(Path),
    /// It has an address that nothing may be sent to.
    Rejected {
        /// The address.
        mac: MacAddress,
        /// What is wrong with it.
        why: Rejection,
    },
}

/// The way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Path {
    /// The MAC address of the next hop.
    pub mac: MacAddress,
    /// The position of the interface among the ports of the data plane; zero is the one that
    /// packets come in by.
    pub port: u8,
    /// The 802.1Q id, if the route leaves by a VLAN interface on the port.
    pub vlan: Option<u16>,
    /// The router, or none if the address is on link.
    pub gateway: Option<IpAddr>,
    /// What the kernel would send from.
    pub source: Option<IpAddr>,
    /// The largest packet of the outgoing interface or the route, in bytes, IP header included.
    pub mtu: u32,
}

impl Path {
    /// On link at the port that packets come in by, with no known limit to their size.
    pub const fn on_link(mac: MacAddress) -> Self {
        Self { mac, port: 0, vlan: None, gateway: None, source: None, mtu: u32::MAX }
    }
}

/// What is missing for a neighbour to be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Unresolved {
    /// It has not answered yet.
    Pending,
    /// It was asked several times and did not answer.
    NoAnswer,
    /// The interface is down or has no carrier.
    LinkDown,
    /// The interface is gone.
    LinkGone,
    /// The routing table has no way to it.
    NoRoute,
    /// Its route leaves by another interface, with this index, than those of the data plane.
    OtherInterface(u32),
    /// Its route leaves by a VLAN within a VLAN, with this index; frames get one tag at most.
    StackedVlan(u32),
    /// The address belongs to this host.
    OwnAddress,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("no answer yet"),
            Self::NoAnswer => f.write_str("does not answer ARP or neighbour discovery"),
            Self::LinkDown => f.write_str("the interface is down or has no carrier"),
            Self::LinkGone => f.write_str("the interface is gone"),
            Self::NoRoute => f.write_str("no route to it"),
            Self::OtherInterface(index) => write!(
                f,
                "routed to interface {index}, which is neither the one packets come in by nor an \
                 egress interface; it can be added as one"
            ),
            Self::StackedVlan(index) => {
                write!(f, "routed to interface {index}, a VLAN within a VLAN")
            }
            Self::OwnAddress => f.write_str("the address belongs to this host"),
        }
    }
}

/// What is wrong with a neighbour's MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Rejection {
    /// It is the director's own: packets would come straight back. The usual cause is a backend
    /// address that something on this host answers for.
    Own,
    /// It is zero, which no station has.
    Zero,
    /// It is a group's: packets would reach many stations, or all.
    Multicast,
}

impl Rejection {
    /// What is wrong with `mac` as that of another station, for a host whose own are `own`.
    pub fn of(mac: MacAddress, own: impl IntoIterator<Item = MacAddress>) -> Option<Self> {
        if mac.is_zero() {
            Some(Self::Zero)
        } else if mac.is_multicast() {
            Some(Self::Multicast)
        } else {
            own.into_iter().any(|own| own == mac).then_some(Self::Own)
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "it is the director's own",
            Self::Zero => "it is zero",
            Self::Multicast => "it is a multicast address",
        })
    }
}

impl fmt::Display for NeighbourState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved { why } => write!(f, "unresolved: {why}"),
            Self::Resolved(path) => match path.gateway {
                Some(gateway) => write!(f, "behind {gateway} at {}", path.mac),
                None => write!(f, "at {}", path.mac),
            },
            Self::Rejected { mac, why } => write!(f, "MAC {mac} refused: {why}"),
        }
    }
}

/// Something that changed, for the control loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NeighbourEvent {
    /// A wanted neighbour is in a new state; the first state of a new one is reported too.
    Neighbour {
        /// The address that is wanted.
        address: IpAddr,
        /// Its state from now on.
        state: NeighbourState,
    },
    /// An interface of the data plane changed.
    LinkChanged {
        /// Its position among them.
        port: u8,
        /// What it is now.
        link: LinkState,
    },
}

/// An interface as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkState {
    /// Its Ethernet address; `None` when it is gone or is no Ethernet interface.
    pub mac: Option<MacAddress>,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// The largest packet it takes, in bytes, IP header included.
    pub mtu: u32,
}

/// An interface of this host, as the kernel describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// The index of the interface that this one is a VLAN of, and the VLAN's 802.1Q id.
    pub vlan_of: Option<(u32, u16)>,
    /// Address, MTU and whether it is up.
    pub state: LinkState,
}

/// What the kernel's neighbour table holds for an address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The kernel is asking.
    Incomplete,
    /// The kernel has given up asking.
    Failed,
    /// The kernel would send to this address.
    Usable(MacAddress, Freshness),
}

/// How sure the kernel is of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Confirmed lately, or being confirmed.
    Confirmed,
    /// Learned or confirmed some time ago; still used.
    Stale,
    /// Set by an administrator or needing no resolution: taken as it is and never asked for.
    Fixed,
}

/// Where the routing table sends packets for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Out of an interface.
    Unicast {
        /// The interface's index.
        interface: u32,
        /// The router to send to; none if the address is on link.
        gateway: Option<IpAddr>,
        /// What the kernel would send from.
        source: Option<IpAddr>,
        /// The route's own MTU, if it has one.
        mtu: Option<u32>,
    },
    /// To this host.
    Local,
    /// Nowhere.
    Unreachable,
}

impl Route {
    /// Directly, out of the interface with this index.
    pub const fn on_link(interface: u32) -> Self {
        Self::Unicast { interface, gateway: None, source: None, mtu: None }
    }
}

/// Something learned from the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    /// A neighbour entry is new or changed; `None`: it was deleted.
    Entry {
        /// The index of the interface it is on.
        interface: u32,
        /// The neighbour.
        address: IpAddr,
        /// What the entry holds now.
        entry: Option<Entry>,
    },
    /// A route was looked up.
    Route {
        /// For this address.
        address: IpAddr,
        /// With this result.
        route: Route,
    },
    /// Routes, rules or addresses of this host changed, for addresses of this prefix, or for any.
    RoutesChanged(Option<IpNet>),
    /// An interface is new or changed.
    Link(Link),
    /// The interface with this index was deleted.
    LinkGone(u32),
}
