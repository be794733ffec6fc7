//! What is wanted, what is known of it, and when to ask again: no I/O and no clock.

use super::state::{
    Entry, Freshness, Link, LinkState, NeighbourEvent, NeighbourState, Observation, Path,
    Rejection, Route, Unresolved,
};
use crate::packet::MacAddress;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The first pause before an unresolved neighbour is asked again; each further one is twice as
/// long, up to [`LONGEST_PAUSE`]. The kernel itself repeats a question three times, a second apart.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before an unresolved neighbour is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How often a resolved neighbour is asked again if it is stale.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The least time between two look-ups of one route, however many routes change meanwhile.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Wanted {
    route: Option<Route>,
    /// Whether the route is to be looked up: it never was, or may have changed.
    route_due: bool,
    looked_up: Option<Instant>,
    reported: Option<NeighbourState>,
    due: Instant,
    last_asked: Option<Instant>,
    pause: Duration,
}

impl Wanted {
    fn new(now: Instant) -> Self {
        Self {
            route: None,
            route_due: true,
            looked_up: None,
            reported: None,
            due: now,
            last_asked: None,
            pause: FIRST_PAUSE,
        }
    }

    fn gateway(&self) -> Option<IpAddr> {
        match self.route {
            Some(Route::Unicast { gateway, .. }) => gateway,
            _ => None,
        }
    }

    /// Has the route looked up soon.
    fn routes_changed(&mut self, now: Instant) {
        self.route_due = true;
        let soonest = self.looked_up.map_or(now, |last| last + LOOK_UP_PAUSE);
        self.due = self.due.min(soonest.max(now));
    }
}

/// The neighbours that are wanted and what is known of them and of the routers before them.
///
/// Feed it with [`NeighbourTable::apply`], look at [`NeighbourTable::due`] for what is to be looked
/// up and asked, and take the [`NeighbourEvent`]s that follow.
#[derive(Debug)]
pub struct NeighbourTable {
    ports: Vec<u32>,
    links: BTreeMap<u32, Link>,
    wanted: BTreeMap<IpAddr, Wanted>,
    /// By interface and address, of wanted addresses and their gateways: an address may be known
    /// on several interfaces, but the route says which counts.
    entries: BTreeMap<(u32, IpAddr), Entry>,
    reported_links: Vec<Option<LinkState>>,
    events: Vec<NeighbourEvent>,
}

/// A wanted address's next hop, as far as the route tells it.
struct Way {
    interface: u32,
    /// The gateway, or the wanted address itself.
    neighbour: IpAddr,
    port: u8,
    vlan: Option<u16>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    mtu: u32,
}

impl NeighbourTable {
    /// A table for what is reached by the interfaces with these indices, the ports of the data
    /// plane, and by VLANs of them.
    pub fn new(ports: &[u32]) -> Self {
        Self {
            ports: ports.to_vec(),
            links: BTreeMap::new(),
            wanted: BTreeMap::new(),
            entries: BTreeMap::new(),
            reported_links: vec![None; ports.len()],
            events: Vec::new(),
        }
    }

    /// Replaces the set of wanted addresses; what is known of those that stay is kept. Returns
    /// whether any is new, so that the kernel's table has to be read for it.
    pub fn want(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) -> bool {
        self.wanted.retain(|address, _| addresses.contains(address));
        let before = self.wanted.len();
        for &address in addresses {
            self.wanted.entry(address).or_insert_with(|| Wanted::new(now));
        }
        self.forget_entries();
        self.wanted.len() > before
    }

    /// The wanted addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.wanted.keys().copied()
    }

    /// What is known of `address`; `None` if it is not wanted.
    pub fn state(&self, address: IpAddr) -> Option<NeighbourState> {
        self.wanted.get(&address).map(|wanted| self.judge(address, wanted))
    }

    /// An interface of the data plane as it is now.
    pub fn link(&self, port: u8) -> LinkState {
        let index = self.ports.get(usize::from(port));
        let link = index.and_then(|index| self.links.get(index));
        link.map_or_else(LinkState::default, |link| link.state)
    }

    /// Takes in what was learned at `now`; returns whether it changed any wanted neighbour's state
    /// or an interface. The changes wait in [`NeighbourTable::take_events`].
    pub fn apply(&mut self, observation: Observation, now: Instant) -> bool {
        let before = self.events.len();
        match observation {
            Observation::Entry { interface, address, entry } => {
                let concerned = self.concerned(|to| to == address);
                if concerned.is_empty() {
                    return false;
                }
                match entry {
                    Some(entry) => self.entries.insert((interface, address), entry),
                    None => self.entries.remove(&(interface, address)),
                };
                concerned.into_iter().for_each(|address| self.report(address, now));
            }
            Observation::Route { address, route } => self.set_route(address, route, now),
            Observation::RoutesChanged(prefix) => self.routes_changed(prefix, now),
            Observation::Link(link) => {
                let known = self.links.insert(link.index, link);
                if known != Some(link) {
                    self.routes_changed(None, now);
                }
                self.report_all(now);
            }
            Observation::LinkGone(index) => {
                self.links.remove(&index);
                self.entries.retain(|(interface, _), _| *interface != index);
                self.routes_changed(None, now);
                self.report_all(now);
            }
        }
        self.events.len() > before
    }

    /// Replaces all entries by those the kernel's whole table was just read to hold.
    ///
    /// Needed after an overrun, when deletions may have been missed.
    pub fn replace_entries(
        &mut self,
        entries: impl IntoIterator<Item = (u32, IpAddr, Entry)>,
        now: Instant,
    ) {
        let gateways: BTreeSet<_> = self.wanted.values().filter_map(Wanted::gateway).collect();
        let counts = |to: &IpAddr| self.wanted.contains_key(to) || gateways.contains(to);
        let entries = entries.into_iter().filter(|(_, address, _)| counts(address));
        self.entries =
            entries.map(|(interface, address, entry)| ((interface, address), entry)).collect();
        self.report_all(now);
    }

    /// Replaces all interfaces, as [`NeighbourTable::replace_entries`] does the entries.
    pub fn replace_links(&mut self, links: impl IntoIterator<Item = Link>, now: Instant) {
        self.links = links.into_iter().map(|link| (link.index, link)).collect();
        self.report_all(now);
    }

    /// What changed since this was last called, in the order in which it did.
    pub fn take_events(&mut self) -> Vec<NeighbourEvent> {
        std::mem::take(&mut self.events)
    }

    /// The addresses to attend to now: to look up the route of if [`NeighbourTable::needs_route`]
    /// says so, and then to ask for if [`NeighbourTable::ask_on`] does.
    pub fn due(&self, now: Instant) -> Vec<IpAddr> {
        self.wanted
            .iter()
            .filter(|(_, wanted)| wanted.due <= now)
            .map(|(&address, _)| address)
            .collect()
    }

    /// When the next address is due; `None` when nothing is wanted.
    pub fn next_due(&self) -> Option<Instant> {
        self.wanted.values().map(|wanted| wanted.due).min()
    }

    /// Whether the route to `address` has not been looked up since it may have changed.
    pub fn needs_route(&self, address: IpAddr) -> bool {
        self.wanted.get(&address).is_some_and(|wanted| wanted.route_due)
    }

    /// The interface to ask on, and the neighbour to ask for: the gateway to `address` or that
    /// itself; `None` when there is nothing to ask: there is no route by one of our interfaces, a
    /// link is down, or the entry is fresh or fixed.
    pub fn ask_on(&self, address: IpAddr) -> Option<(u32, IpAddr)> {
        let wanted = self.wanted.get(&address)?;
        let way = self.way(address, wanted).ok()?;
        let at = (way.interface, way.neighbour);
        match self.entries.get(&at) {
            None | Some(Entry::Incomplete | Entry::Failed | Entry::Usable(_, Freshness::Stale)) => {
                Some(at)
            }
            Some(Entry::Usable(_, Freshness::Confirmed | Freshness::Fixed)) => None,
        }
    }

    /// Notes that what is due for `address` was done at `now`, and decides when it is due again.
    pub fn attended(&mut self, address: IpAddr, now: Instant) {
        let resolved = matches!(self.state(address), Some(NeighbourState::Resolved(_)));
        if let Some(wanted) = self.wanted.get_mut(&address) {
            wanted.last_asked = Some(now);
            if resolved {
                wanted.pause = FIRST_PAUSE;
                wanted.due = now + CHECK_INTERVAL;
            } else {
                wanted.due = now + wanted.pause;
                wanted.pause = (wanted.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn set_route(&mut self, address: IpAddr, route: Route, now: Instant) {
        let Some(wanted) = self.wanted.get_mut(&address) else {
            return;
        };
        let before = wanted.route.replace(route);
        wanted.route_due = false;
        wanted.looked_up = Some(now);
        if before != Some(route) {
            // Of a gateway that nobody was behind changes were not noted: what is left of one from
            // an earlier time goes before the first that is behind it comes.
            wanted.route = None;
            self.forget_entries();
            if let Some(wanted) = self.wanted.get_mut(&address) {
                wanted.route = Some(route);
            }
        }
        self.report(address, now);
    }

    /// Drops the entries of what is neither wanted nor a gateway to it.
    fn forget_entries(&mut self) {
        let gateways: BTreeSet<_> = self.wanted.values().filter_map(Wanted::gateway).collect();
        let wanted = &self.wanted;
        self.entries.retain(|(_, to), _| wanted.contains_key(to) || gateways.contains(to));
    }

    /// The wanted addresses that are, or are behind, an address of which `matches` holds.
    fn concerned(&self, matches: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let concerned = self.wanted.iter().filter(|(address, wanted)| {
            matches(**address) || wanted.gateway().is_some_and(&matches)
        });
        concerned.map(|(&address, _)| address).collect()
    }

    fn routes_changed(&mut self, prefix: Option<IpNet>, now: Instant) {
        let covered = |address| prefix.is_none_or(|prefix| prefix.contains(&address));
        for address in self.concerned(covered) {
            if let Some(wanted) = self.wanted.get_mut(&address) {
                wanted.routes_changed(now);
            }
        }
    }

    /// Which port the interface is, or a VLAN on.
    fn port(&self, index: u32) -> Result<(u8, Option<u16>), Unresolved> {
        let port = |index| self.ports.iter().position(|port| *port == index);
        if let Some(port) = port(index) {
            return Ok((port as u8, None));
        }
        let lower = self.links.get(&index).and_then(|link| link.vlan_of);
        let (lower, id) = lower.ok_or(Unresolved::OtherInterface(index))?;
        if let Some(port) = port(lower) {
            return Ok((port as u8, Some(id)));
        }
        let lowest = self.links.get(&lower).and_then(|link| link.vlan_of);
        Err(match lowest.is_some_and(|(lowest, _)| port(lowest).is_some()) {
            true => Unresolved::StackedVlan(index),
            false => Unresolved::OtherInterface(index),
        })
    }

    /// The way to a wanted address, or why there is none.
    fn way(&self, address: IpAddr, wanted: &Wanted) -> Result<Way, Unresolved> {
        // Without its links the data plane sends nothing, whatever else is missing.
        let ingress = self.ports.first().and_then(|index| self.links.get(index));
        let ingress = ingress.ok_or(Unresolved::LinkGone)?;
        if !ingress.state.up {
            return Err(Unresolved::LinkDown);
        }
        let (interface, gateway, source, route_mtu) = match wanted.route {
            None => return Err(Unresolved::Pending),
            Some(Route::Unreachable) => return Err(Unresolved::NoRoute),
            Some(Route::Local) => return Err(Unresolved::OwnAddress),
            Some(Route::Unicast { interface, gateway, source, mtu }) => {
                (interface, gateway, source, mtu)
            }
        };
        let (port, vlan) = self.port(interface)?;
        let up = |index: &u32| self.links.get(index).filter(|link| link.state.up);
        let base = self.ports.get(usize::from(port)).and_then(up);
        let link = base.and_then(|_| up(&interface)).ok_or(Unresolved::LinkDown)?;
        Ok(Way {
            interface,
            neighbour: gateway.unwrap_or(address),
            port,
            vlan,
            gateway,
            source,
            mtu: route_mtu.map_or(link.state.mtu, |mtu| mtu.min(link.state.mtu)),
        })
    }

    fn judge(&self, address: IpAddr, wanted: &Wanted) -> NeighbourState {
        let unresolved = |why| NeighbourState::Unresolved { why };
        let way = match self.way(address, wanted) {
            Ok(way) => way,
            Err(why) => return unresolved(why),
        };
        match self.entries.get(&(way.interface, way.neighbour)) {
            None | Some(Entry::Incomplete) => unresolved(Unresolved::Pending),
            Some(Entry::Failed) => unresolved(Unresolved::NoAnswer),
            Some(&Entry::Usable(mac, _)) => match self.rejection(mac) {
                Some(why) => NeighbourState::Rejected { mac, why },
                None => {
                    let Way { port, vlan, gateway, source, mtu, .. } = way;
                    NeighbourState::Resolved(Path { mac, port, vlan, gateway, source, mtu })
                }
            },
        }
    }

    fn rejection(&self, mac: MacAddress) -> Option<Rejection> {
        let ours = self
            .links
            .values()
            .filter(|link| !matches!(self.port(link.index), Err(Unresolved::OtherInterface(_))));
        Rejection::of(mac, ours.filter_map(|link| link.state.mac))
    }

    fn report(&mut self, address: IpAddr, now: Instant) {
        let Some(state) = self.state(address) else {
            return;
        };
        let worth_asking = self.ask_on(address).is_some();
        let Some(wanted) = self.wanted.get_mut(&address) else {
            return;
        };
        let was_resolved = matches!(wanted.reported, Some(NeighbourState::Resolved(_)));
        let is_resolved = matches!(state, NeighbourState::Resolved(_));
        // What was lost, and what is good but old, is asked for at once, but not more than once
        // per pause: a neighbour that announces itself all the time must not make us ask as often.
        if worth_asking && (was_resolved || is_resolved) {
            if was_resolved {
                wanted.pause = FIRST_PAUSE;
            }
            let soonest = wanted.last_asked.map_or(now, |last| last + FIRST_PAUSE);
            wanted.due = wanted.due.min(soonest.max(now));
        }
        if wanted.reported != Some(state) {
            wanted.reported = Some(state);
            self.events.push(NeighbourEvent::Neighbour { address, state });
        }
    }

    fn report_all(&mut self, now: Instant) {
        for port in (0..=u8::MAX).take(self.ports.len()) {
            let link = self.link(port);
            let Some(reported) = self.reported_links.get_mut(usize::from(port)) else {
                continue;
            };
            if *reported != Some(link) {
                // A link that comes back brings its routes and neighbours back soon.
                if link.up && !reported.is_some_and(|before| before.up) {
                    for wanted in self.wanted.values_mut() {
                        wanted.due = now;
                        wanted.pause = FIRST_PAUSE;
                    }
                }
                *reported = Some(link);
                self.events.push(NeighbourEvent::LinkChanged { port, link });
            }
        }
        let addresses: Vec<_> = self.addresses().collect();
        for address in addresses {
            self.report(address, now);
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
