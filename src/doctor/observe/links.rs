//! The interfaces: what the kernel and their drivers say of them.

use super::host::read;
use super::{peer, refused};
use crate::dataplane::af_xdp::{DeviceStats, ethtool, holder, program_name};
use crate::dataplane::netlink::NetlinkSocket;
use crate::doctor::Checkup;
use crate::doctor::observed::{Counted, Link, Program, Properties, Unseen};
use crate::packet::MacAddress;
use netlink_packet_route::address::{AddressHeader, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;

/// Looks at all of them.
pub(super) fn look(checkup: &Checkup, unseen: &mut Vec<Unseen>) -> Vec<Link> {
    let all = match list() {
        Ok(all) => all,
        Err(error) => {
            unseen.push(refused("the interfaces", &error));
            return Vec::new();
        }
    };
    let link = |name: &str| {
        let message = all.iter().find(|message| name_of(message) == Some(name));
        let there = message.map(|message| properties(name, message, &all, unseen));
        Link { name: name.to_owned(), there }
    };
    checkup.interfaces().map(link).collect()
}

/// Reads the counters once more.
pub(super) fn look_again(links: &mut [Link]) {
    let all = list().unwrap_or_default();
    for link in links {
        let message = all.iter().find(|message| name_of(message) == Some(&link.name));
        if let (Some(there), Some(message)) = (&mut link.there, message) {
            there.counted.after = counters(message);
        }
    }
}

fn list() -> io::Result<Vec<LinkMessage>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    NetlinkSocket::open(&[])?.dump(request, |message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(link.clone()),
        _ => None,
    })
}

fn name_of(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn properties(
    name: &str,
    message: &LinkMessage,
    all: &[LinkMessage],
    unseen: &mut Vec<Unseen>,
) -> Properties {
    let header = &message.header;
    let (mut mac, mut mtu, mut program, mut kind) = (None, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Xdp(xdp) => program = attached(xdp, header.index),
            LinkAttribute::LinkInfo(infos) => kind = kind_of(infos),
            _ => {}
        }
    }
    let is_ethernet = header.link_layer_type == LinkLayerType::Ether;
    let before = counters(message);
    let mut peer = None;
    if kind == Some(InfoKind::Veth) {
        match peer::look(message, all) {
            Ok(found) => peer = Some(found),
            Err(why) => unseen.push(super::unseen(
                format!("the other end of the veth pair {name}"),
                why,
                "run where it is: ethtool -K PEER tx off",
            )),
        }
    }
    Properties {
        index: header.index,
        not_ethernet: (!is_ethernet).then(|| format!("{:?}", header.link_layer_type)),
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mac: mac.map(MacAddress),
        mtu,
        program,
        driver: ethtool::driver(name),
        queues: ethtool::queues(name).ok().flatten(),
        indirection: ethtool::indirection(name),
        lro: ethtool::merges_in_hardware(name),
        gro_hw: ethtool::merges_by_gro_in_hardware(name),
        gro: ethtool::merges_in_kernel(name),
        strips_tags: ethtool::strips_vlan_tags(name),
        vlans: all.iter().filter(|other| is_vlan_on(other, header.index)).count(),
        ring: ethtool::receive_ring(name),
        counted: Counted { before, after: before },
        rp_filter: setting("ipv4", "all", "rp_filter").max(setting("ipv4", name, "rp_filter")),
        has_ipv4: has_ipv4(header.index),
        forwards: [setting("ipv4", name, "forwarding"), setting("ipv6", "all", "forwarding")]
            .map(|value| value.map(|value| value != 0)),
        peer,
    }
}

fn has_ipv4(index: u32) -> Option<bool> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let all = NetlinkSocket::open(&[]).and_then(|mut socket| {
        socket.dump(request, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address.header.clone()),
            _ => None,
        })
    });
    let is_its = |of: AddressHeader| of.index == index && of.family == AddressFamily::Inet;
    Some(all.ok()?.into_iter().any(is_its))
}

/// `/proc/sys/net` is that of the thread's own namespace.
fn setting(family: &str, interface: &str, name: &str) -> Option<u32> {
    read(&format!("/proc/sys/net/{family}/conf/{interface}/{name}"))?.trim().parse().ok()
}

fn kind_of(infos: &[LinkInfo]) -> Option<InfoKind> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}

fn is_vlan_on(message: &LinkMessage, index: u32) -> bool {
    let mut is_vlan = false;
    let mut is_on = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => is_vlan = kind_of(infos) == Some(InfoKind::Vlan),
            LinkAttribute::Link(lower) => is_on = *lower == index,
            // The index is then one of another namespace.
            LinkAttribute::LinkNetNsId(_) => return false,
            _ => {}
        }
    }
    is_vlan && is_on
}

fn attached(xdp: &[LinkXdp], interface: u32) -> Option<Program> {
    let (mut mode, mut id) = (None, None);
    for attribute in xdp {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => return None,
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some("xdpdrv"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some("xdpgeneric"),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some("xdpoffload"),
            LinkXdp::Attached(_) => mode = Some("xdp"),
            // That in force, or of several each by its own.
            LinkXdp::ProgId(program)
            | LinkXdp::DrvProgId(program)
            | LinkXdp::SkbProgId(program)
            | LinkXdp::HwProgId(program) => id = Some(*program),
            _ => {}
        }
    }
    let (id, mode) = id.zip(mode)?;
    Some(Program { id, mode, name: program_name(id), link: holder(id, interface) })
}

fn counters(message: &LinkMessage) -> DeviceStats {
    DeviceStats::of(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attached_is_read_in_each_mode() {
        assert_eq!(attached(&[LinkXdp::Attached(XdpAttached::None)], 1), None);
        for (mode, expected) in
            [(XdpAttached::Driver, "xdpdrv"), (XdpAttached::SocketBuffer, "xdpgeneric")]
        {
            // No program has this number, so no link has it either.
            let seen = attached(&[LinkXdp::Attached(mode), LinkXdp::ProgId(u32::MAX)], 1).unwrap();
            assert_eq!((seen.mode, seen.id, seen.link), (expected, u32::MAX, None));
        }
    }
}
