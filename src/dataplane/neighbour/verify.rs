//! Whether a neighbour answers now, as opposed to some time ago.

use super::decode;
use super::state::Route;
use crate::dataplane::netlink::{Answer, NetlinkSocket};
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourState as Nud;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long to wait before the kernel's table is looked at again: from the first, a round trip within
/// a rack, doubling up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// Why a neighbour is not known to be there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unverified {
    /// It has not answered in time.
    #[error("does not answer ARP or neighbour discovery within {0:?}")]
    NoAnswer(Duration),
    /// The kernel cannot ask: it has given up, or the interface takes nothing.
    #[error("the kernel has asked for it in vain")]
    Failed,
    /// It is not on a link of this host: what answers there is the router.
    #[error("it is behind the router {0}: only what is on the same link answers ARP or ND")]
    BehindRouter(IpAddr),
    /// The address belongs to this host.
    #[error("the address belongs to this host")]
    OwnAddress,
    /// The routing table has no way to it.
    #[error("no route to it")]
    NoRoute,
    /// A link-local address does not name the link.
    #[error("a link-local address does not say by which interface to ask")]
    LinkLocal,
    /// The kernel has been told never to ask.
    #[error(
        "the kernel never asks for it: its entry is permanent, or its interface needs none; delete \
         the entry (`ip neigh del`), or use another monitor"
    )]
    Fixed,
    /// The kernel refuses to ask.
    #[error("the kernel refuses to ask for neighbours: CAP_NET_ADMIN is needed")]
    NotPermitted,
    /// Netlink itself failed.
    #[error("{doing} over netlink failed: {source}")]
    Netlink {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn while_doing(doing: &'static str) -> impl Fn(io::Error) -> Unverified {
    move |source| Unverified::Netlink { doing, source }
}

/// Makes the kernel ask for `address` by ARP or neighbour discovery (RFC 826, RFC 4861 section 7.3)
/// now, in the network namespace of the calling thread, and waits for at most `timeout` until it has
/// been answered.
///
/// What the kernel knows, it goes on to use meanwhile. If there is no answer, it asks again each second
/// (`retrans_time_ms`), three times in all, and then forgets the address, as it would some time after
/// the neighbour had gone silent; so a [`Resolver`](super::Resolver) hears of it sooner.
///
/// # Errors
///
/// Why it is not known to be there.
pub fn verify(address: IpAddr, timeout: Duration) -> Result<(), Unverified> {
    let start = Instant::now();
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return Err(Unverified::LinkLocal);
    }
    let mut socket = NetlinkSocket::open(&[]).map_err(while_doing("opening a socket"))?;
    let interface = interface_of(&mut socket, address)?;
    let request = match state(&mut socket, interface, address)? {
        Some(Nud::Permanent | Nud::Noarp) => return Err(Unverified::Fixed),
        // As good as asked.
        Some(Nud::Probe | Nud::Incomplete) => None,
        Some(Nud::Reachable | Nud::Stale | Nud::Delay) => {
            Some((decode::probe_neighbour(interface, address), 0))
        }
        _ => Some((decode::use_neighbour(interface, address), NLM_F_CREATE)),
    };
    if let Some((request, flags)) = request {
        let answer = socket.execute(request, flags).map_err(while_doing("asking for it"))?;
        // Other refusals: it has changed a moment ago, and the looks that follow tell how.
        if matches!(&answer, Answer::Refused(error) if error.raw_os_error() == Some(libc::EPERM)) {
            return Err(Unverified::NotPermitted);
        }
    }
    let (mut pause, longest) = PAUSES;
    loop {
        match state(&mut socket, interface, address)? {
            // Asked for and answered: only an answer leads from PROBE or INCOMPLETE to here.
            Some(Nud::Reachable) => return Ok(()),
            Some(Nud::Permanent | Nud::Noarp) => return Err(Unverified::Fixed),
            Some(Nud::Failed) => return Err(Unverified::Failed),
            _ => {}
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Unverified::NoAnswer(timeout));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(longest);
    }
}

/// By which interface the kernel would send to it directly.
fn interface_of(socket: &mut NetlinkSocket, address: IpAddr) -> Result<u32, Unverified> {
    let request = decode::look_up_route(address);
    let answer = socket.call(request, 0).map_err(while_doing("looking up a route"))?;
    let Answer::Message(RouteNetlinkMessage::NewRoute(route)) = answer else {
        return Err(Unverified::NoRoute);
    };
    match decode::route(&route) {
        Route::Unicast { interface, gateway: None, .. } => Ok(interface),
        Route::Unicast { gateway: Some(gateway), .. } => Err(Unverified::BehindRouter(gateway)),
        Route::Local => Err(Unverified::OwnAddress),
        Route::Unreachable => Err(Unverified::NoRoute),
    }
}

/// What the kernel has of it; none if nothing.
fn state(
    socket: &mut NetlinkSocket,
    interface: u32,
    address: IpAddr,
) -> Result<Option<Nud>, Unverified> {
    let request = decode::look_up_neighbour(interface, address);
    match socket.call(request, 0).map_err(while_doing("reading a neighbour"))? {
        Answer::Message(message) => Ok(decode::kernel_state(&message)),
        Answer::Done | Answer::Refused(_) => Ok(None),
    }
}
