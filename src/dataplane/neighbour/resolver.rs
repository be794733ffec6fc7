//! The neighbour table kept true to the kernel's, and the kernel kept asking.

use super::decode;
use super::state::{Entry, LinkState, NeighbourEvent, NeighbourState, Observation, Route};
use super::table::NeighbourTable;
use crate::dataplane::netlink::{Answer, NetlinkSocket, Received};
use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Multicast groups of `linux/rtnetlink.h`.
const GROUPS: [u32; 8] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    19, // RTNLGRP_IPV6_RULE
];

/// How many datagrams are read before the events so far are handed on.
const MAX_DATAGRAMS: usize = 256;
/// How many datagrams are thrown away at most before a new reading: more than the queue holds.
const MAX_DISCARDED: usize = 100_000;

/// What keeps neighbours from being resolved at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolverError {
    /// There is no interface with this index in the namespace of the thread that opened.
    #[error(
        "there is no interface with index {0} in this network namespace: the resolver has to be \
         opened on a thread that is in the namespace of the interface"
    )]
    NoInterface(u32),
    /// The interface has no Ethernet address, so its neighbours have none either.
    #[error("interface {0} is not an Ethernet interface: L2 DSR rewrites Ethernet addresses")]
    NotEthernet(u32),
    /// The kernel let us read its neighbours but not ask for them.
    #[error("the kernel refuses to resolve neighbours for us: CAP_NET_ADMIN is needed")]
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

fn while_doing(doing: &'static str) -> impl Fn(io::Error) -> ResolverError {
    move |source| ResolverError::Netlink { doing, source }
}

/// Finds the ways to addresses by the interfaces of the data plane, and follows their changes: of
/// routes, of the addresses of this host, and of neighbours.
///
/// Routes are those of the kernel, looked up once and again when the kernel tells of a change.
///
/// Sends no packets itself: it makes the kernel resolve (`NTF_USE`), so the kernel's timers and
/// settings (`net.ipv4.neigh`) hold and its table agrees with ours. A neighbour that goes silent
/// while the link stays up is noticed by the kernel's own unreachability detection: after at most
/// 45 s (1.5 times `base_reachable_time`) its entry is stale, and about 8 s after we ask
/// (`delay_first_probe_time` and three probes) it has failed. Monitors are faster.
pub struct Resolver {
    table: NeighbourTable,
    /// The interface that packets come in by.
    ingress: u32,
    /// Subscribed; never asked anything, so that answers and events do not mix.
    events: NetlinkSocket,
    requests: NetlinkSocket,
}

impl Resolver {
    /// Opens sockets in the network namespace of the calling thread and reads the interfaces with
    /// these indices: the one that packets come in by, then those that they can leave by as well.
    ///
    /// They keep to that namespace whatever thread the resolver moves to.
    ///
    /// # Errors
    ///
    /// When netlink is refused, or an interface is not there or not Ethernet.
    pub fn open(ports: &[u32]) -> Result<Self, ResolverError> {
        let opening = while_doing("opening a socket");
        let mut resolver = Self {
            table: NeighbourTable::new(ports),
            ingress: ports.first().copied().unwrap_or_default(),
            // Subscribed before the first dump: whatever changes after it is heard of.
            events: NetlinkSocket::open(&GROUPS).map_err(&opening)?,
            requests: NetlinkSocket::open(&[]).map_err(&opening)?,
        };
        let links = resolver.read_links()?;
        for &interface in ports {
            let link = links.iter().find(|link| link.index == interface);
            let link = link.ok_or(ResolverError::NoInterface(interface))?;
            if link.state.mac.is_none() {
                return Err(ResolverError::NotEthernet(interface));
            }
        }
        resolver.table.replace_links(links, Instant::now());
        Ok(resolver)
    }

    /// An interface of the data plane as it is now.
    pub fn link(&self, port: u8) -> LinkState {
        self.table.link(port)
    }

    /// What is known of `address`; `None` if it is not wanted.
    pub fn state(&self, address: IpAddr) -> Option<NeighbourState> {
        self.table.state(address)
    }

    /// Replaces the set of addresses to resolve; what is known of those that stay is kept. Their
    /// states come with the next [`Resolver::next_events`].
    ///
    /// # Errors
    ///
    /// When the kernel's table cannot be read; the set is replaced all the same.
    pub fn want(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), ResolverError> {
        if self.table.want(addresses, Instant::now()) {
            self.read_neighbours()?;
        }
        Ok(())
    }

    /// Waits for at most `timeout` until something changed, and returns what; empty if nothing did.
    /// Neighbours are asked for, and events heard, only while this runs: call it again and again.
    ///
    /// # Errors
    ///
    /// When netlink fails or asking is not permitted. What is known stays; call
    /// [`Resolver::resynchronize`] before going on.
    pub fn next_events(&mut self, timeout: Duration) -> Result<Vec<NeighbourEvent>, ResolverError> {
        let deadline = Instant::now() + timeout;
        loop {
            // What the kernel has told already comes before what it is asked.
            self.listen(Duration::ZERO)?;
            self.attend()?;
            let events = self.table.take_events();
            let now = Instant::now();
            let wake = self.table.next_due().map_or(deadline, |due| due.min(deadline));
            if !events.is_empty() {
                return Ok(events);
            }
            self.listen(wake.saturating_duration_since(now))?;
            if Instant::now() >= deadline {
                return Ok(self.table.take_events());
            }
        }
    }

    /// Reads interfaces and neighbours anew, for when events may have been lost.
    ///
    /// # Errors
    ///
    /// When netlink fails.
    pub fn resynchronize(&mut self) -> Result<(), ResolverError> {
        // First throw away what waits: it is older than what is about to be read, and would be
        // taken for newer. Also, once the kernel has reported an overrun it drops further messages
        // without a word until the queue has been emptied.
        for _ in 0..MAX_DISCARDED {
            let received = self.events.receive(Duration::ZERO, |_| {});
            if received.map_err(while_doing("hearing of changes"))? == Received::Nothing {
                break;
            }
        }
        let links = self.read_links()?;
        self.table.replace_links(links, Instant::now());
        self.table.apply(Observation::RoutesChanged(None), Instant::now());
        self.read_neighbours()
    }

    /// Every address of this host, with its prefix length, as of now.
    ///
    /// # Errors
    ///
    /// When netlink fails.
    pub fn host_addresses(&mut self) -> Result<Vec<IpNet>, ResolverError> {
        let address = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(address) => decode::address(address),
            _ => None,
        };
        self.requests
            .dump(decode::list_addresses(), address)
            .map_err(while_doing("reading the addresses"))
    }

    /// The addresses of the interface that packets come in by that have a subnet and are no
    /// link-local ones: what others reach it by.
    ///
    /// # Errors
    ///
    /// When netlink fails.
    pub fn own_addresses(&mut self) -> Result<Vec<IpNet>, ResolverError> {
        let ours = self.ingress;
        let address = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == ours => {
                decode::address(message).filter(|own| {
                    let is_link_local = match own.addr() {
                        IpAddr::V4(address) => address.is_link_local(),
                        IpAddr::V6(address) => address.is_unicast_link_local(),
                    };
                    own.prefix_len() < own.max_prefix_len() && !is_link_local
                })
            }
            _ => None,
        };
        self.requests
            .dump(decode::list_addresses(), address)
            .map_err(while_doing("reading the addresses"))
    }

    /// The IPv6 addresses of the interface that have no subnet and that the kernel may nevertheless
    /// send from (RFC 6724 section 5: they are the longest match).
    ///
    /// # Errors
    ///
    /// When netlink fails.
    pub fn preferred_host_routes(&mut self) -> Result<Vec<Ipv6Addr>, ResolverError> {
        let ours = self.ingress;
        let address = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(address) => decode::preferred_host_route(address)
                .filter(|(interface, _)| *interface == ours)
                .map(|(_, address)| address),
            _ => None,
        };
        self.requests
            .dump(decode::list_addresses(), address)
            .map_err(while_doing("reading the addresses"))
    }

    fn read_links(&mut self) -> Result<Vec<super::state::Link>, ResolverError> {
        let link = |message: &RouteNetlinkMessage| match decode::observation(message) {
            Some(Observation::Link(link)) => Some(link),
            _ => None,
        };
        self.requests
            .dump(decode::list_links(), link)
            .map_err(while_doing("reading the interfaces"))
    }

    fn read_neighbours(&mut self) -> Result<(), ResolverError> {
        let entry = |message: &RouteNetlinkMessage| match decode::observation(message) {
            Some(Observation::Entry { interface, address, entry: Some(entry) }) => {
                Some((interface, address, entry))
            }
            _ => None,
        };
        let mut entries: Vec<(u32, IpAddr, Entry)> = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = decode::list_neighbours(family);
            let read = self.requests.dump(request, entry);
            entries.extend(read.map_err(while_doing("reading the neighbours"))?);
        }
        self.table.replace_entries(entries, Instant::now());
        Ok(())
    }

    /// Does what is due: looks up routes, and has the kernel ask, once for all behind one gateway.
    fn attend(&mut self) -> Result<(), ResolverError> {
        let mut asked = BTreeSet::new();
        for address in self.table.due(Instant::now()) {
            if self.table.needs_route(address) {
                let route = self.look_up(address)?;
                self.table.apply(Observation::Route { address, route }, Instant::now());
            }
            let now = Instant::now();
            if let Some((interface, neighbour)) = self.table.ask_on(address)
                && asked.insert((interface, neighbour))
            {
                // Asking spoils a permanent entry, and one may have been set a moment ago.
                self.look_at(interface, neighbour)?;
                if self.table.ask_on(address) == Some((interface, neighbour)) {
                    self.ask(interface, neighbour)?;
                }
            }
            self.table.attended(address, now);
        }
        Ok(())
    }

    /// Reads one entry of the kernel's table.
    fn look_at(&mut self, interface: u32, address: IpAddr) -> Result<(), ResolverError> {
        let request = decode::look_up_neighbour(interface, address);
        let answer = self.requests.call(request, 0);
        let observation = match answer.map_err(while_doing("reading a neighbour"))? {
            Answer::Message(message) => decode::observation(&message),
            Answer::Done => None,
            // No such entry.
            Answer::Refused(_) => Some(Observation::Entry { interface, address, entry: None }),
        };
        if let Some(observation) = observation {
            self.table.apply(observation, Instant::now());
        }
        Ok(())
    }

    fn look_up(&mut self, address: IpAddr) -> Result<Route, ResolverError> {
        if let IpAddr::V6(v6) = address
            && v6.is_unicast_link_local()
        {
            // Such an address means nothing without an interface, and ours is the one meant.
            return Ok(Route::on_link(self.ingress));
        }
        let answer = self
            .requests
            .call(decode::look_up_route(address), 0)
            .map_err(while_doing("looking up a route"))?;
        Ok(match answer {
            Answer::Message(RouteNetlinkMessage::NewRoute(route)) => decode::route(&route),
            _ => Route::Unreachable,
        })
    }

    fn ask(&mut self, interface: u32, address: IpAddr) -> Result<(), ResolverError> {
        let request = decode::use_neighbour(interface, address);
        let answer = self
            .requests
            .execute(request, NLM_F_CREATE)
            .map_err(while_doing("asking for a neighbour"))?;
        match answer {
            Answer::Refused(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Err(ResolverError::NotPermitted)
            }
            // The interface may have gone a moment ago, or the kernel's table be full: the events
            // tell the one, and asking again after the pause may mend the other.
            _ => Ok(()),
        }
    }

    /// Hears what the kernel tells until nothing more waits.
    fn listen(&mut self, wait: Duration) -> Result<(), ResolverError> {
        let hearing = while_doing("hearing of changes");
        let mut wait = wait;
        for _ in 0..MAX_DATAGRAMS {
            let table = &mut self.table;
            let received = self.events.receive(wait, |message| {
                if let Some(observation) = decode::observation(&message) {
                    table.apply(observation, Instant::now());
                }
            });
            match received.map_err(&hearing)? {
                Received::Messages => wait = Duration::ZERO,
                Received::Nothing => break,
                Received::Overrun => {
                    self.resynchronize()?;
                    wait = Duration::ZERO;
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("table", &self.table).finish_non_exhaustive()
    }
}
