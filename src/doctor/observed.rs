//! What has been seen, as plain values: all that judging takes beside the configuration.

use crate::balancer::VipKey;
use crate::dataplane::af_xdp::ethtool::Queues;
use crate::dataplane::af_xdp::{DeviceStats, Granted, XdpError};
use crate::dataplane::neighbour::NeighbourState;
use crate::forwarding::ProbeSources;
use crate::health::ProbeFailure;
use crate::packet::{Claim, MacAddress};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) host: Host,
    /// In the order of [`Checkup::interfaces`](super::Checkup::interfaces).
    pub(super) links: Vec<Link>,
    pub(super) trial: Trial,
    pub(super) vips: Vips,
    pub(super) backends: BTreeMap<IpAddr, NeighbourState>,
    pub(super) services: Vec<Served>,
    pub(super) unseen: Vec<Unseen>,
}

/// What could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unseen {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) remedy: String,
}

/// Of each, none if it cannot be read.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// As in `6.12.0-1-amd64`.
    pub(super) kernel: Option<String>,
    pub(super) sockets: Option<Sockets>,
    /// Effective ones, as bits by their numbers in linux/capability.h.
    pub(super) capabilities: Option<u64>,
    /// Whether it is in a user namespace other than the first one, so that most of them count for nothing.
    pub(super) is_contained: Option<bool>,
    /// Bytes that may be locked; `u64::MAX` is "unlimited".
    pub(super) memlock: Option<u64>,
    /// `net.core.bpf_jit_enable`.
    pub(super) jit: Option<u32>,
    /// Bytes of a huge page, and how many can be had.
    pub(super) huge_pages: Option<(u64, u64)>,
}

/// Whether there are AF_XDP sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sockets {
    There,
    NotBuilt,
    NotPermitted,
}

/// An interface, or that there is none.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) name: String,
    /// None if there is no such interface.
    pub(super) there: Option<Properties>,
}

/// An option is none where the driver or the kernel has no such thing, or could not be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties {
    pub(super) index: u32,
    /// What it is instead, if it is not Ethernet.
    pub(super) not_ethernet: Option<String>,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mac: Option<MacAddress>,
    pub(super) mtu: u32,
    pub(super) program: Option<Program>,
    pub(super) driver: Option<String>,
    pub(super) queues: Option<Queues>,
    /// By entry, the queue that it names.
    pub(super) indirection: Option<Vec<u32>>,
    pub(super) lro: Option<bool>,
    /// GRO in the NIC (`rx-gro-hw`).
    pub(super) gro_hw: Option<bool>,
    pub(super) gro: Option<bool>,
    pub(super) strips_tags: Option<bool>,
    /// VLAN interfaces on it.
    pub(super) vlans: Vec<Vlan>,
    /// Entries of an RX ring, and how many it could have.
    pub(super) ring: Option<(u32, u32)>,
    pub(super) counted: Option<Counted>,
    /// The larger of that of all interfaces and of this one.
    pub(super) rp_filter: Option<u32>,
    /// Whether it has an IPv4 address of its own.
    pub(super) has_ipv4: Option<bool>,
    /// Whether what comes in by it is routed, by family.
    pub(super) forwards: [Option<bool>; 2],
    /// Of one end of a veth pair, the other.
    pub(super) peer: Option<Peer>,
}

/// A VLAN interface on another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Vlan {
    pub(super) id: u16,
    pub(super) index: u32,
    pub(super) mac: Option<MacAddress>,
}

/// An XDP program that is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Program {
    pub(super) id: u32,
    /// As `ip link set dev IF MODE off` takes it.
    pub(super) mode: &'static str,
    pub(super) name: Option<String>,
    pub(super) held: Held,
}

/// What keeps an XDP program attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// The BPF link of this number.
    ByLink(u32),
    /// The interface alone.
    ByItself,
    /// This process may not ask.
    Unknown,
}

/// The counters at the beginning and at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    pub(super) before: DeviceStats,
    pub(super) after: DeviceStats,
}

/// The other end of a veth pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    /// What to put before a command to run it there; empty for this namespace.
    pub(super) enter: String,
    pub(super) leaves_checksums: bool,
}

/// What came of an attempt to do as a director does.
#[derive(Debug, Default)]
pub(super) enum Trial {
    #[default]
    NotMade,
    Granted(Granted),
    Failed(XdpError),
}

/// What was learnt about the VIPs, and about the host's own addresses.
#[derive(Debug, Default)]
pub(super) struct Vips {
    /// Every address of the host.
    pub(super) held: Vec<IpNet>,
    /// IPv6 addresses without a subnet that the kernel may send from.
    pub(super) preferred: Vec<Ipv6Addr>,
    /// What is probed from.
    pub(super) sources: ProbeSources,
    /// Those addresses of each that the link was asked about; of none if that is not known.
    pub(super) asked: BTreeMap<IpNet, BTreeSet<IpAddr>>,
    /// By whom they, and the backends' addresses, were claimed; never by this host.
    pub(super) claims: BTreeSet<Claim>,
}

/// What came of packets that went to a VIP the way of a client's.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Served {
    pub(super) service: VipKey,
    pub(super) vip: IpAddr,
    pub(super) id: String,
    pub(super) result: Result<(), ProbeFailure>,
    /// What its SYN-ACK asks for; none if it had no such option, or there was none.
    pub(super) mss: Option<u16>,
}
