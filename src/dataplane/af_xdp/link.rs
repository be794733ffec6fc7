//! An interface as the kernel describes it: index, MAC, MTU, up or down.
//!
//! Asked over netlink, which answers for the network namespace of the calling thread; sysfs answers
//! for that of the mount.

use super::error::XdpError;
use crate::dataplane::netlink::{Answer, NetlinkSocket};
use crate::packet::MacAddress;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use std::io;

/// The longest name of an interface, in bytes (`IFNAMSIZ` less the final zero).
pub(super) const MAX_NAME: usize = 15;

/// What is of use to us of an interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) mac: MacAddress,
    /// In bytes, without the Ethernet header.
    pub(super) mtu: u32,
    /// RX queues allocated, of which fewer may be in use.
    pub(super) rx_queues: u32,
}

/// Looks `name` up; fails if there is no such interface, or it is down or not Ethernet.
pub(super) fn query(name: &str) -> Result<Link, XdpError> {
    let interface = || name.to_owned();
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(XdpError::NoSuchInterface { interface: interface() });
    }
    let failed =
        |source| XdpError::Query { interface: name.to_owned(), what: "properties", source };
    let message = match request(name) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            return Err(XdpError::NoSuchInterface { interface: interface() });
        }
        answer => answer.map_err(failed)?,
    };
    if !message.header.flags.contains(LinkFlags::Up) {
        return Err(XdpError::InterfaceDown { interface: interface() });
    }

    let (mut mac, mut mtu, mut rx_queues) = (None, None, 1);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            LinkAttribute::NumRxQueues(count) => rx_queues = *count,
            _ => {}
        }
    }
    let kind = message.header.link_layer_type;
    let Some(mac) = mac.filter(|_| kind == LinkLayerType::Ether) else {
        return Err(XdpError::NotEthernet { interface: interface(), kind: format!("{kind:?}") });
    };
    Ok(Link {
        index: message.header.index,
        mac: MacAddress(mac),
        mtu: mtu.ok_or_else(|| failed(io::Error::other("the answer has no MTU")))?,
        rx_queues,
    })
}

fn request(name: &str) -> io::Result<LinkMessage> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    let request = RouteNetlinkMessage::GetLink(link);
    match NetlinkSocket::open(&[])?.call(request, 0)? {
        Answer::Message(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        Answer::Refused(error) => Err(error),
        _ => Err(io::Error::other("the answer is about something else")),
    }
}
