//! What is wanted, what is known of it, and when to ask again: no I/O and no clock.

use super::state::{
    Entry, Freshness, Link, LinkState, NeighbourEvent, NeighbourState, Observation, Rejection,
    Route, Unresolved,
};
use crate::packet::MacAddress;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The first pause before an unresolved neighbour is asked again; each further one is twice as
/// long, up to [`LONGEST_PAUSE`]. The kernel itself repeats a question three times, a second apart.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before an unresolved neighbour is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How often a resolved neighbour's route is looked up again, and a stale one asked again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Wanted {
    route: Option<Route>,
    /// By interface: an address may be known on several, but the route says which counts.
    entries: BTreeMap<u32, Entry>,
    reported: Option<NeighbourState>,
    due: Instant,
    last_asked: Option<Instant>,
    pause: Duration,
}

/// The neighbours that are wanted and what is known of them.
///
/// Feed it with [`NeighbourTable::apply`], look at [`NeighbourTable::due`] for what is to be looked
/// up and asked, and take the [`NeighbourEvent`]s that follow.
#[derive(Debug)]
pub struct NeighbourTable {
    interface: u32,
    links: BTreeMap<u32, Link>,
    wanted: BTreeMap<IpAddr, Wanted>,
    reported_link: Option<LinkState>,
    events: Vec<NeighbourEvent>,
}

impl NeighbourTable {
    /// A table for the neighbours on the interface with this index and on VLANs of it.
    pub fn new(interface: u32) -> Self {
        Self {
            interface,
            links: BTreeMap::new(),
            wanted: BTreeMap::new(),
            reported_link: None,
            events: Vec::new(),
        }
    }

    /// Replaces the set of wanted addresses; what is known of those that stay is kept. Returns
    /// whether any is new, so that the kernel's table has to be read for it.
    pub fn want(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) -> bool {
        self.wanted.retain(|address, _| addresses.contains(address));
        let before = self.wanted.len();
        for &address in addresses {
            self.wanted.entry(address).or_insert_with(|| Wanted {
                route: None,
                entries: BTreeMap::new(),
                reported: None,
                due: now,
                last_asked: None,
                pause: FIRST_PAUSE,
            });
        }
        self.wanted.len() > before
    }

    /// The wanted addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.wanted.keys().copied()
    }

    /// What is known of `address`; `None` if it is not wanted.
    pub fn state(&self, address: IpAddr) -> Option<NeighbourState> {
        self.wanted.get(&address).map(|wanted| self.judge(wanted))
    }

    /// The data-plane interface as it is now.
    pub fn link(&self) -> LinkState {
        self.links.get(&self.interface).map_or_else(LinkState::default, |link| link.state)
    }

    /// Takes in what was learned at `now`; returns whether it changed any wanted neighbour's state
    /// or the interface. The changes wait in [`NeighbourTable::take_events`].
    pub fn apply(&mut self, observation: Observation, now: Instant) -> bool {
        let before = self.events.len();
        match observation {
            Observation::Entry { interface, address, entry } => {
                if let Some(wanted) = self.wanted.get_mut(&address) {
                    match entry {
                        Some(entry) => wanted.entries.insert(interface, entry),
                        None => wanted.entries.remove(&interface),
                    };
                    self.report(address, now);
                }
            }
            Observation::Route { address, route } => {
                if let Some(wanted) = self.wanted.get_mut(&address) {
                    wanted.route = Some(route);
                    self.report(address, now);
                }
            }
            Observation::Link(link) => {
                self.links.insert(link.index, link);
                self.report_all(now);
            }
            Observation::LinkGone(index) => {
                self.links.remove(&index);
                for wanted in self.wanted.values_mut() {
                    wanted.entries.remove(&index);
                }
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
        for wanted in self.wanted.values_mut() {
            wanted.entries.clear();
        }
        for (interface, address, entry) in entries {
            if let Some(wanted) = self.wanted.get_mut(&address) {
                wanted.entries.insert(interface, entry);
            }
        }
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

    /// The addresses whose route is to be looked up now, and that are then to be asked for if
    /// [`NeighbourTable::ask_on`] says so.
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

    /// The interface to ask for `address` on; `None` when there is nothing to ask: it is not on
    /// the link, the link is down, or the entry is fresh or fixed.
    pub fn ask_on(&self, address: IpAddr) -> Option<u32> {
        let wanted = self.wanted.get(&address)?;
        let interface = self.on_link(wanted).ok()?;
        match wanted.entries.get(&interface) {
            None | Some(Entry::Incomplete | Entry::Failed | Entry::Usable(_, Freshness::Stale)) => {
                Some(interface)
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

    /// Whether the interface is the data-plane interface or a VLAN of it.
    fn is_ours(&self, mut index: u32) -> bool {
        // Two tags are the most the parser takes, so two steps down are enough.
        for _ in 0..2 {
            if index == self.interface {
                return true;
            }
            match self.links.get(&index).and_then(|link| link.vlan_of) {
                Some(lower) => index = lower,
                None => return false,
            }
        }
        index == self.interface
    }

    /// The interface on which the neighbour is on link, or why there is none.
    fn on_link(&self, wanted: &Wanted) -> Result<u32, Unresolved> {
        let base = self.links.get(&self.interface).ok_or(Unresolved::LinkGone)?;
        // A down link takes its routes along; the link is the reason to give.
        if !base.state.up {
            return Err(Unresolved::LinkDown);
        }
        match wanted.route {
            None => Err(Unresolved::Pending),
            Some(Route::Unreachable) => Err(Unresolved::NoRoute),
            Some(Route::Local) => Err(Unresolved::OwnAddress),
            Some(Route::Via(gateway)) => Err(Unresolved::RoutedVia(gateway)),
            Some(Route::OnLink(interface)) => match self.links.get(&interface) {
                _ if !self.is_ours(interface) => Err(Unresolved::OtherInterface(interface)),
                Some(link) if link.state.up => Ok(interface),
                _ => Err(Unresolved::LinkDown),
            },
        }
    }

    fn judge(&self, wanted: &Wanted) -> NeighbourState {
        let unresolved = |why| NeighbourState::Unresolved { why };
        let interface = match self.on_link(wanted) {
            Ok(interface) => interface,
            Err(why) => return unresolved(why),
        };
        match wanted.entries.get(&interface) {
            None | Some(Entry::Incomplete) => unresolved(Unresolved::Pending),
            Some(Entry::Failed) => unresolved(Unresolved::NoAnswer),
            Some(&Entry::Usable(mac, _)) => match self.rejection(mac) {
                Some(why) => NeighbourState::Rejected { mac, why },
                None => NeighbourState::Resolved(mac),
            },
        }
    }

    fn rejection(&self, mac: MacAddress) -> Option<Rejection> {
        let ours = self.links.values().filter(|link| self.is_ours(link.index));
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
        let link = self.link();
        if self.reported_link != Some(link) {
            // A link that comes back brings its routes and neighbours back soon.
            if link.up && !self.reported_link.is_some_and(|before| before.up) {
                for wanted in self.wanted.values_mut() {
                    wanted.due = now;
                    wanted.pause = FIRST_PAUSE;
                }
            }
            self.reported_link = Some(link);
            self.events.push(NeighbourEvent::LinkChanged(link));
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
