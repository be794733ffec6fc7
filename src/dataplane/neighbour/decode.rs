//! From netlink messages to what the table understands, and the requests of the resolver.

use super::state::{Entry, Freshness, Link, LinkState, Observation, Route};
use crate::packet::MacAddress;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::{IpAddr, Ipv6Addr};

/// What a message of the kernel tells; `None` for what changes no way to a neighbour.
pub(super) fn observation(message: &RouteNetlinkMessage) -> Option<Observation> {
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => {
            let (interface, address) = neighbour(message)?;
            let entry = entry(message);
            Some(Observation::Entry { interface, address, entry })
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            let (interface, address) = neighbour(message)?;
            Some(Observation::Entry { interface, address, entry: None })
        }
        RouteNetlinkMessage::NewLink(message) => link(message).map(Observation::Link),
        // A port that leaves a bridge is "deleted" too, in the bridge's address family.
        RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            Some(Observation::LinkGone(message.header.index))
        }
        // A default route has no destination: it covers all addresses, as do the others here.
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            Some(Observation::RoutesChanged(covered(message)))
        }
        RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_) => Some(Observation::RoutesChanged(None)),
        _ => None,
    }
}

/// Interface and address of an entry for IPv4 or IPv6; bridges keep their tables here as well.
fn neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        // An address that this host answers for, not one that it sends to.
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some(IpAddr::V4(*address))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some(IpAddr::V6(*address))
        }
        _ => None,
    })?;
    Some((message.header.ifindex, address))
}

fn entry(message: &NeighbourMessage) -> Option<Entry> {
    let mac = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
            _ => None,
        })
    };
    let usable = |freshness| mac().map(|mac| Entry::Usable(mac, freshness));
    match message.header.state {
        Nud::Incomplete => Some(Entry::Incomplete),
        Nud::Failed => Some(Entry::Failed),
        // While it is asked, the kernel goes on to use what it has.
        Nud::Reachable | Nud::Delay | Nud::Probe => usable(Freshness::Confirmed),
        Nud::Stale => usable(Freshness::Stale),
        Nud::Permanent | Nud::Noarp => usable(Freshness::Fixed),
        _ => None,
    }
}

/// What the kernel has of a neighbour that it was asked for, in its own words.
pub(super) fn kernel_state(message: &RouteNetlinkMessage) -> Option<Nud> {
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => Some(message.header.state),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddress> {
    bytes.try_into().ok().map(MacAddress)
}

fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut hardware = None;
    let mut lower = None;
    let (mut vlan, mut mtu) = (None, 0);
    let mut lower_is_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => hardware = mac(bytes),
            LinkAttribute::Link(index) => lower = Some(*index),
            // The index of `Link` is then one of another namespace, as with a veth's peer.
            LinkAttribute::LinkNetNsId(_) => lower_is_elsewhere = true,
            LinkAttribute::LinkInfo(info) => vlan = vlan_id(info),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let flags = LinkFlags::Up | LinkFlags::LowerUp;
    Some(Link {
        index: message.header.index,
        vlan_of: lower.filter(|_| !lower_is_elsewhere).zip(vlan),
        state: LinkState {
            mac: hardware.filter(|_| is_ethernet),
            up: message.header.flags.contains(flags),
            mtu,
        },
    })
}

fn vlan_id(info: &[LinkInfo]) -> Option<u16> {
    info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(attributes)) => {
            attributes.iter().find_map(|attribute| match attribute {
                InfoVlan::Id(id) => Some(*id),
                _ => None,
            })
        }
        _ => None,
    })
}

/// What a route look-up answered.
pub(super) fn route(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local | RouteType::Anycast => return Route::Local,
        _ => return Route::Unreachable,
    }
    let (mut interface, mut gateway, mut source, mut mtu) = (None, None, None, None);
    let mut expires = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = ip(address),
            // An IPv4 destination by way of an IPv6 router (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu).filter(|mtu| *mtu != 0),
                    _ => None,
                });
            }
            RouteAttribute::CacheInfo(info) => expires = info.expires != 0,
            _ => {}
        }
    }
    // What the kernel has learned for packets of its own it forgets without a word.
    let mtu = mtu.filter(|_| !expires);
    interface.map_or(Route::Unreachable, |interface| Route::Unicast {
        interface,
        gateway,
        source,
        mtu,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The addresses whose routes a change of this route may change.
fn covered(message: &RouteMessage) -> Option<IpNet> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    IpNet::new(destination?, message.header.destination_prefix_length).ok()
}

/// "All interfaces".
pub(super) fn list_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// "All neighbours of this family".
pub(super) fn list_neighbours(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// "What do you have of this neighbour?"
pub(super) fn look_up_neighbour(interface: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// "Where would a packet for this address go?"
pub(super) fn look_up_route(address: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(address.into()));
    RouteNetlinkMessage::GetRoute(message)
}

/// "Do as if a packet were to be sent to this neighbour": the kernel then resolves it, or confirms
/// what it has (`NTF_USE`, with no state of our own).
///
/// Not for permanent entries: the kernel (`__neigh_update`) takes the request for the wish that the
/// entry be no longer permanent, and overwrites what the administrator has set.
pub(super) fn use_neighbour(interface: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message.header.state = Nud::None;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// "Ask this neighbour now whether it is still there": the kernel sends it a request at once, and goes
/// on to use the address that it has (RFC 4861 section 7.3.3: as if the state were PROBE).
///
/// Without `NLM_F_CREATE` and without an address it changes nothing but the state. Not for permanent
/// entries; see [`use_neighbour`].
pub(super) fn probe_neighbour(interface: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message.header.state = Nud::Probe;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    RouteNetlinkMessage::NewNeighbour(message)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Asks for the addresses of this host.
pub(super) fn list_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// An address of this host and the length of its prefix.
pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
    let length = message.header.prefix_len;
    // On a point-to-point link "address" is the peer's and "local" ours; elsewhere both are ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNet::new(local.or(any)?, length).ok()
}

/// An IPv6 address without a subnet that this host may send from, by interface.
pub(super) fn preferred_host_route(message: &AddressMessage) -> Option<(u32, Ipv6Addr)> {
    let deprecated = message.header.flags.contains(AddressHeaderFlags::Deprecated);
    match address(message)? {
        IpNet::V6(network) if network.prefix_len() == 128 && !deprecated => {
            Some((message.header.index, network.addr()))
        }
        _ => None,
    }
}
