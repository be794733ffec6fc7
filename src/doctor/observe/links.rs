//! The interfaces: what the kernel and their drivers say of them.

use super::questions::Questions;
use super::{RIGHTS, peer, refused};
use crate::dataplane::af_xdp::{DeviceStats, ethtool, holder, program_name};
use crate::dataplane::netlink::NetlinkSocket;
use crate::doctor::Checkup;
use crate::doctor::observed::{Counted, Held, Link, Program, Properties, Unseen, Vlan};
use crate::packet::MacAddress;
use netlink_packet_route::address::{AddressHeader, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    LinkXdp, XdpAttached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::path::Path;
use std::{fs, io};

/// What the kernel says of the whole namespace.
struct Told {
    links: Vec<LinkMessage>,
    /// None if it could not be asked.
    addresses: Option<Vec<AddressHeader>>,
}

/// Looks at all of them.
pub(super) fn look(checkup: &Checkup, unseen: &mut Vec<Unseen>) -> Vec<Link> {
    let links = match list() {
        Ok(links) => links,
        Err(error) => {
            unseen.push(refused("the interfaces", &error));
            return Vec::new();
        }
    };
    let addresses = addresses();
    if let Err(error) = &addresses {
        unseen.push(refused("whether the interfaces have IPv4 addresses", error));
    }
    let told = Told { links, addresses: addresses.ok() };
    let link = |name: &str| {
        let message = told.links.iter().find(|message| name_of(message) == Some(name));
        let there = message.map(|message| properties(name, message, &told, unseen));
        Link { name: name.to_owned(), there }
    };
    checkup.interfaces().map(link).collect()
}

/// Reads the counters once more.
pub(super) fn look_again(links: &mut [Link], unseen: &mut Vec<Unseen>) {
    let all = match list() {
        Ok(all) => all,
        Err(error) => {
            return unseen.push(refused("what the interfaces have lost just now", &error));
        }
    };
    for link in links {
        let message = all.iter().find(|message| name_of(message) == Some(&link.name));
        let counted = link.there.as_mut().and_then(|there| there.counted.as_mut());
        match (counted, message.and_then(DeviceStats::of)) {
            (Some(counted), Some(after)) => counted.after = after,
            (Some(_), None) => {
                let what = format!("what {} has lost just now", link.name);
                let why = if message.is_some() { "it is not told" } else { "it is gone" };
                unseen.push(super::unseen(what, why, ""));
            }
            (None, _) => {}
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
    told: &Told,
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
    if program.as_ref().is_some_and(|program| program.held == Held::Unknown) {
        let what = format!("what holds the XDP program of {name}");
        unseen.push(super::unseen(what, "not permitted to list BPF links", RIGHTS));
    }
    let is_ethernet = header.link_layer_type == LinkLayerType::Ether;
    let mut peer = None;
    if kind == Some(InfoKind::Veth) {
        match peer::look(message, &told.links) {
            Ok(found) => peer = Some(found),
            Err(why) => unseen.push(super::unseen(
                format!("the other end of the veth pair {name}"),
                why,
                "run where it is: ethtool -K PEER tx off",
            )),
        }
    }
    let mut asked = Questions::about(name);
    let before = DeviceStats::of(message).map(Some);
    let before = before.ok_or_else(|| io::Error::other("the answer has none"));
    let before = asked.kernel("counters", format!("ip -s link show dev {name}"), before);
    let mut setting = |of: &'static str, key: String, answer| {
        asked.kernel(of, format!("sysctl net/{key}"), answer)
    };
    let key = format!("ipv4/conf/{name}/rp_filter");
    let rp_filter = setting("rp_filter", key, rp_filter(name));
    let forwards = [
        ("IPv4 forwarding", format!("ipv4/conf/{name}/forwarding")),
        ("IPv6 forwarding", "ipv6/conf/all/forwarding".to_owned()),
    ];
    let forwards = forwards.map(|(of, key)| {
        let answer = self::setting(&key);
        setting(of, key, answer).map(|value| value != 0)
    });
    let is_its = |of: &AddressHeader| of.index == header.index && of.family == AddressFamily::Inet;
    let there = Properties {
        index: header.index,
        not_ethernet: (!is_ethernet).then(|| format!("{:?}", header.link_layer_type)),
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mac: mac.map(MacAddress),
        mtu,
        program,
        driver: asked.driver("the name of the driver", "-i", ethtool::driver(name)),
        queues: asked.driver("queues", "-l", ethtool::queues(name)),
        indirection: asked.driver("the table of queues", "-x", ethtool::indirection(name)),
        ring: asked.driver("RX rings", "-g", ethtool::receive_ring(name)),
        lro: asked.driver("LRO", "-k", ethtool::merges_in_hardware(name)),
        gro_hw: asked.driver("GRO in hardware", "-k", ethtool::merges_by_gro_in_hardware(name)),
        gro: asked.driver("GRO", "-k", ethtool::merges_in_kernel(name)),
        strips_tags: asked.driver("VLAN stripping", "-k", ethtool::strips_vlan_tags(name)),
        vlans: told.links.iter().filter_map(|other| vlan_on(other, header.index)).collect(),
        counted: before.map(|before| Counted { before, after: before }),
        rp_filter,
        has_ipv4: told.addresses.as_ref().map(|all| all.iter().any(is_its)),
        forwards,
        peer,
    };
    unseen.extend(asked.unanswered());
    there
}

fn addresses() -> io::Result<Vec<AddressHeader>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    NetlinkSocket::open(&[])?.dump(request, |message| match message {
        RouteNetlinkMessage::NewAddress(address) => Some(address.header.clone()),
        _ => None,
    })
}

/// The larger of the two counts.
fn rp_filter(interface: &str) -> io::Result<Option<u32>> {
    let all = setting("ipv4/conf/all/rp_filter")?;
    Ok(all.max(setting(&format!("ipv4/conf/{interface}/rp_filter"))?))
}

/// `/proc/sys/net` is that of the thread's own namespace. None if the kernel does not know the protocol.
fn setting(key: &str) -> io::Result<Option<u32>> {
    let net = Path::new("/proc/sys/net");
    match fs::read_to_string(net.join(key)) {
        Ok(text) => {
            let value = text.trim().parse();
            value.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        Err(error) => {
            let is_without =
                key.starts_with("ipv6/") && net.join("ipv4").exists() && !net.join("ipv6").exists();
            if is_without { Ok(None) } else { Err(error) }
        }
    }
}

fn kind_of(infos: &[LinkInfo]) -> Option<InfoKind> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}

/// What this is on the interface with this index, if it is a VLAN interface on that.
fn vlan_on(message: &LinkMessage, lower: u32) -> Option<Vlan> {
    let (mut id, mut mac, mut is_on) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => id = vlan_id(infos),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Link(link) => is_on = *link == lower,
            // The index is then one of another namespace.
            LinkAttribute::LinkNetNsId(_) => return None,
            _ => {}
        }
    }
    let id = id.filter(|_| is_on)?;
    Some(Vlan { id, index: message.header.index, mac: mac.map(MacAddress) })
}

fn vlan_id(infos: &[LinkInfo]) -> Option<u16> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => data.iter().find_map(|data| match data {
            InfoVlan::Id(id) => Some(*id),
            _ => None,
        }),
        _ => None,
    })
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
    let held = match holder(id, interface) {
        Ok(Some(link)) => Held::ByLink(link),
        Ok(None) => Held::ByItself,
        Err(_) => Held::Unknown,
    };
    Some(Program { id, mode, name: program_name(id), held })
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
            assert_eq!((seen.mode, seen.id), (expected, u32::MAX));
            assert!(!matches!(seen.held, Held::ByLink(_)), "{seen:?}");
        }
    }

    #[test]
    fn vlans_are_those_on_the_interface_in_this_namespace() {
        let mut vlan = LinkMessage::default();
        vlan.header.index = 9;
        vlan.attributes = vec![
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
            LinkAttribute::Link(2),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(7)])),
            ]),
        ];
        let mac = Some(MacAddress([2, 0, 0, 0, 0, 9]));
        assert_eq!(vlan_on(&vlan, 2), Some(Vlan { id: 7, index: 9, mac }));
        assert_eq!(vlan_on(&vlan, 3), None);
        vlan.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(vlan_on(&vlan, 2), None);
    }

    #[test]
    fn settings_are_read_and_what_is_not_there_is_no_value() {
        assert!(rp_filter("lo").unwrap().is_some());
        for key in ["ipv4/conf/no-such-link/forwarding", "ipv6/conf/no-such-link/forwarding"] {
            let without_ipv6 = key.starts_with("ipv6") && !Path::new("/proc/sys/net/ipv6").exists();
            assert_eq!(setting(key).ok(), without_ipv6.then_some(None));
        }
    }
}
