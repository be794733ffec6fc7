//! A network namespace for one probe at a time.

use crate::dataplane::netlink::{Answer, NetlinkSocket};
use crate::forwarding::ProbeSources;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use tun_rs::{DeviceBuilder, SyncDevice};

/// What every IPv6 path takes (RFC 8200 section 5): a probe fits into any tunnel.
const MTU: u16 = 1280;
/// The first port that probes are sent from, and how many each lane has.
const FIRST_PORT: u16 = 32768;
const PORTS: u16 = 256;
/// More would have no ports.
pub(super) const MOST_LANES: usize = 128;

/// A namespace with nothing in it but a tunnel device, whose other end we hold: whatever a monitor
/// sends in there comes to us, whether or not this host holds the VIP too.
///
/// It has no name and goes with the process, however that ends.
pub(super) struct Lane {
    pub(super) number: usize,
    namespace: File,
    pub(super) tunnel: SyncDevice,
}

impl Lane {
    /// Makes a lane, on a thread of its own, since a thread that has left its namespace may not be
    /// let back.
    pub(super) fn make(number: usize, sources: ProbeSources) -> io::Result<Self> {
        let make = move || make_inside(number, sources);
        let thread = std::thread::Builder::new().name("dsrlb-lane".to_owned()).spawn(make)?;
        let made = thread.join().map_err(|_| io::Error::other("the thread panicked"))?;
        let (namespace, tunnel) = made?;
        Ok(Self { number, namespace, tunnel })
    }

    /// Runs `work` with the calling thread inside the lane: sockets that it opens are there. Then the
    /// thread goes to `home`, wherever it was before.
    pub(super) fn inside<T>(&self, home: &File, work: impl FnOnce() -> T) -> io::Result<T> {
        // Also when `work` panics, or the lane cannot be entered: the thread goes on to probe others.
        let _back = Back(home);
        setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    }
}

struct Back<'a>(&'a File);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        // Who may leave may come back; should that fail all the same, the next probe tries again.
        let _ = setns(self.0, CloneFlags::CLONE_NEWNET);
    }
}

/// The network namespace of the calling thread.
pub(super) fn namespace_of_thread() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

fn make_inside(number: usize, sources: ProbeSources) -> io::Result<(File, SyncDevice)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let tunnel = DeviceBuilder::new().name("probe").build_sync()?;
    tunnel.set_mtu(MTU)?;
    let first = FIRST_PORT + number as u16 * PORTS;
    let mut settings = vec![
        ("ipv4/ip_local_port_range", format!("{first} {}", first + (PORTS - 1))),
        // None of the few ports waits a minute to be used again: a late segment of an earlier probe
        // finds no connection, and is refused.
        ("ipv4/tcp_max_tw_buckets", "0".to_owned()),
    ];
    if sources.ipv6.is_some() {
        // The address is the host's, so it is there twice, and rightly so.
        settings.push(("ipv6/conf/probe/accept_dad", "0".to_owned()));
        settings.push(("ipv6/conf/probe/disable_ipv6", "0".to_owned()));
    }
    for (name, value) in settings {
        fs::write(format!("/proc/sys/net/{name}"), value)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    }
    tunnel.enabled(true)?;
    let index = tunnel.if_index()?;
    let mut netlink = NetlinkSocket::open(&[])?;
    let addresses = [sources.ipv4.map(IpAddr::V4), sources.ipv6.map(IpAddr::V6)];
    for source in addresses.into_iter().flatten() {
        for request in [address(index, source), default_route(index, source)] {
            if let Answer::Refused(error) = netlink.execute(request, NLM_F_CREATE | NLM_F_EXCL)? {
                return Err(error);
            }
        }
    }
    tunnel.set_nonblocking(true)?;
    Ok((namespace_of_thread()?, tunnel))
}

/// The host's own address, without a subnet.
fn address(interface: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.index = interface;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    RouteNetlinkMessage::NewAddress(message)
}

/// Everything goes to the tunnel device.
fn default_route(interface: u32, source: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(source);
    message.header.table = libc::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if source.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(interface));
    RouteNetlinkMessage::NewRoute(message)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("number", &self.number).finish_non_exhaustive()
    }
}
