//! What a change of the configuration would do to new flows, before it is applied. Pure.

use super::{Changes, Config};
use crate::balancer::{Backend, Service, ServiceTable, VipKey};
use crate::dataplane::neighbour::Path;
use crate::dataplane::{Member, Observed, Planner, Site};
use crate::flow::FlowHash;
use crate::forwarding::TunnelSources;
use crate::packet::MacAddress;
use crate::verdict::BackendIndex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How many flows are looked at, evenly spread, where a selector does not tell its slots.
const SAMPLES: u64 = 1 << 16;

/// What another configuration would do.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Preview {
    /// What would come, go and change.
    pub changes: Changes,
    /// The services in both configurations of which any new flow would go elsewhere, in the order of
    /// the new one.
    pub moves: Vec<Moves>,
}

/// Where the new flows of one service go before and after a change.
///
/// Shares are of all new flows, from 0 to 1, and exact for selectors that tell their slots
/// ([`Selector::slots`](crate::balancer::Selector::slots)); of others, 65,536 flows are looked at. If
/// the hash key or what is hashed changes, a flow's two hashes have nothing to do with each other,
/// and shares are those of as many different flows as can be.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Moves {
    /// The service.
    pub service: VipKey,
    /// The share of new flows that go elsewhere.
    pub share: f64,
    /// How many slots change their owner, and of how many; none if there are no slots, or not as
    /// many after as before.
    pub slots: Option<(usize, usize)>,
    /// Those that take new flows before or after, in the order of their ids.
    pub backends: Vec<BackendMoves>,
}

/// What one backend has of its service's new flows, before and after a change. All are shares of all
/// the new flows of the service, from 0 to 1.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct BackendMoves {
    /// The backend's name.
    pub id: String,
    /// Its share before.
    pub before: f64,
    /// Its share after.
    pub after: f64,
    /// What comes from other backends.
    pub gained: f64,
    /// What goes to other backends.
    pub lost: f64,
}

impl Preview {
    /// Compares two configurations, which have been [checked](super::check). `takes` says who takes
    /// new flows if its weight and the operator let it.
    pub fn between(
        old: &Config,
        new: &Config,
        takes: impl Fn(VipKey, &dyn Backend) -> bool,
    ) -> Self {
        let backends = |config: &Config| -> usize {
            config.services.iter().map(|bound| bound.service.all_backends().count()).sum()
        };
        let mut planner = Planner::new(backends(old) + backends(new));
        let [station, hop] = [1, 2].map(|last| MacAddress([2, 0, 0, 0, 0, last]));
        // Any address will do, for nothing is sent.
        let (ipv4, ipv6) = ([192, 0, 2, 1].into(), 0x2001_0db8_u128 << 96 | 1);
        let sources = TunnelSources::default()
            .with(std::net::IpAddr::V4(ipv4).into())
            .with(std::net::IpAddr::V6(ipv6.into()).into());
        let site = Site { tunnel_sources: sources, ..Site::new(station) };
        let mut plan = |config: &Config| {
            let services = config.services.iter().map(|bound| &bound.service);
            planner.plan(services, &site, |service, backend| Observed {
                health: takes(service, backend).then_some(()).ok_or_else(String::new),
                ..Observed::well(Path::on_link(hop))
            })
        };
        let (before, after) = (plan(old), plan(new));
        let before = (&*before.snapshot.services, &before.members[..]);
        let after = (&*after.snapshot.services, &after.members[..]);
        Self { changes: Changes::between(old, new), moves: moves(before, after) }
    }
}

/// By service in both of two plans of one planner, where new flows go, if any goes elsewhere.
pub(crate) fn moves(
    (before, old_members): (&ServiceTable, &[Member]),
    (after, new_members): (&ServiceTable, &[Member]),
) -> Vec<Moves> {
    let was: HashMap<VipKey, &Arc<Service>> =
        before.services().iter().map(|service| (service.key(), service)).collect();
    let members = old_members.iter().chain(new_members);
    let names: HashMap<BackendIndex, &str> =
        members.map(|member| (member.index, member.backend.id())).collect();
    let pairs = after.services().iter().filter_map(|is| Some((*was.get(&is.key())?, is)));
    let rebuilt = pairs.filter(|(was, is)| !Arc::ptr_eq(was, is));
    rebuilt.map(|(was, is)| moves_of(was, is, &names)).filter(|moves| moves.share > 0.0).collect()
}

/// Shares in units of `1 / total`.
#[derive(Clone, Copy, Default)]
struct Tally {
    before: u64,
    after: u64,
    lost: u64,
    gained: u64,
}

fn moves_of(was: &Service, is: &Service, names: &HashMap<BackendIndex, &str>) -> Moves {
    let name = |index: &BackendIndex| names.get(index).copied().unwrap_or_default();
    let mut backends: Vec<BackendIndex> = [was.members(), is.members()].concat();
    backends.sort_by_key(|index| (name(index), *index));
    backends.dedup();
    // The place behind the last is nobody's.
    let place: HashMap<BackendIndex, usize> = backends.iter().copied().zip(0..).collect();
    let (old, new) = (owners(was, &place), owners(is, &place));
    let (old_size, new_size) = (old.len() as u64, new.len() as u64);
    let total = old_size * new_size;
    let mut tallies = vec![Tally::default(); backends.len() + 1];
    let (mut begin, mut changed) = (0, 0);
    let (mut old_end, mut new_end) = (new_size, old_size);
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    while let (Some(&from), Some(&to)) = (old.peek(), new.peek()) {
        let end = old_end.min(new_end);
        let share = end - begin;
        let moved = if from == to { 0 } else { share };
        changed += usize::from(from != to);
        if let Some(tally) = tallies.get_mut(from) {
            tally.before += share;
            tally.lost += moved;
        }
        if let Some(tally) = tallies.get_mut(to) {
            tally.after += share;
            tally.gained += moved;
        }
        begin = end;
        if end == old_end {
            old_end += new_size;
            old.next();
        }
        if end == new_end {
            new_end += old_size;
            new.next();
        }
    }
    let have_slots = was.slots().zip(is.slots()).filter(|(was, is)| was.len() == is.len());
    let part = |share: u64| share as f64 / total as f64;
    let shares = |tally: &Tally| {
        let (before, after) = (part(tally.before), part(tally.after));
        let (gained, lost) = match was.hashes_alike(is) {
            true => (part(tally.gained), part(tally.lost)),
            false => (after * (1.0 - before), before * (1.0 - after)),
        };
        BackendMoves { id: String::new(), before, after, gained, lost }
    };
    let all: Vec<BackendMoves> = tallies.iter().map(shares).collect();
    let named = all.iter().zip(&backends);
    let named =
        named.map(|(one, index)| BackendMoves { id: name(index).to_owned(), ..one.clone() });
    Moves {
        service: is.key(),
        share: all.iter().map(|one| one.lost).sum(),
        slots: have_slots.map(|(slots, _)| (changed, slots.len())),
        backends: named.collect(),
    }
}

/// The place of who has each slot, or each of many flows where there are no slots; at least one.
fn owners(service: &Service, place: &HashMap<BackendIndex, usize>) -> Vec<usize> {
    let nobody = place.len();
    let of = |index: Option<BackendIndex>| {
        index.and_then(|index| place.get(&index)).copied().unwrap_or(nobody)
    };
    let of_members: Vec<usize> = service.members().iter().map(|index| of(Some(*index))).collect();
    match service.slots() {
        Some([]) => vec![nobody],
        Some(slots) => {
            let owner = |slot: &u16| of_members.get(usize::from(*slot)).copied().unwrap_or(nobody);
            slots.iter().map(owner).collect()
        }
        None => {
            let step = u64::MAX / SAMPLES;
            let hashes = (0..SAMPLES).map(|number| FlowHash(number * step + step / 2));
            hashes.map(|hash| of(service.select(hash))).collect()
        }
    }
}

impl fmt::Display for Preview {
    /// A line on what comes and goes, and a table for each service of which flows move.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.changes)?;
        self.moves.iter().try_for_each(|moves| write!(f, "\n{moves}"))
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} % of new flows move", self.service, 100.0 * self.share)?;
        if let Some((changed, of)) = self.slots {
            write!(f, ", {changed} of {of} slots")?;
        }
        let ids = self.backends.iter().map(|backend| backend.id.chars().count());
        let width = ids.max().unwrap_or_default().max("backend".len());
        write!(f, "\n  {:width$}  before   after  gained    lost", "backend")?;
        for backend in &self.backends {
            write!(f, "\n  {:width$}", backend.id)?;
            for share in [backend.before, backend.after, backend.gained, backend.lost] {
                write!(f, " {:6.2}%", 100.0 * share)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "preview_tests.rs"]
mod tests;
