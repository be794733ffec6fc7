//! Ways to send a flow where it went before.

use dsrlb::balancer::{
    Assignment, Balancer, FlowBalancer, FlowKey, FlowTable, FlowTimes, Found, HashBalancer,
    Lifetimes, ServiceTable, Signal,
};
use dsrlb::flow::{HashKey, PacketInfo, Timestamp};
use std::sync::Arc;

use super::SECOND;
use super::pool::{Pool, SLOTS};

/// For how long what was chosen before a change counts: as long as flows are remembered.
const HISTORY: u64 = 15 * 60 * SECOND;
/// Entries of an ample table: more than twice the flows there are at a time. And of one that is too small.
const AMPLE: usize = 1 << 16;
const SMALL: usize = 1 << 13;

/// What is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    Nothing,
    /// Flows whose slot has another owner than before the last changes.
    Contested,
    Everything,
}

/// A way, and what it has in memory.
pub struct Design {
    pub name: String,
    record: Record,
    entries: usize,
    table: FlowTable,
    /// What was chosen before the first of the changes that are less than [`HISTORY`] apart; and when the
    /// last of them was.
    elder: Option<(Arc<ServiceTable>, u64)>,
    has_history: bool,
    services: Arc<ServiceTable>,
    /// The library's own, instead of all that.
    library: Option<FlowBalancer>,
}

/// All that are compared.
pub fn all(pool: &Pool) -> Vec<Design> {
    let design = |name: &str, record, entries, has_history| Design {
        name: name.to_owned(),
        record,
        entries,
        table: table(entries),
        elder: None,
        has_history,
        services: Arc::clone(pool.services()),
        library: None,
    };
    let sized = |name: &str, entries: usize| format!("{name}, {entries} entries");
    let mut designs = vec![
        design("hashing alone", Record::Nothing, 1, false),
        design("tables of two generations, nothing recorded", Record::Nothing, 1, true),
    ];
    for entries in [AMPLE, SMALL] {
        for (name, record, has_history) in [
            ("contested flows recorded", Record::Contested, true),
            ("all flows recorded", Record::Everything, false),
            ("all flows recorded, and two generations", Record::Everything, true),
        ] {
            designs.push(design(&sized(name, entries), record, entries, has_history));
        }
        let mut library =
            design(&sized("FlowBalancer", entries), Record::Everything, entries, false);
        library.library = Some(balancer(entries));
        designs.push(library);
    }
    designs
}

fn secret() -> HashKey {
    HashKey::new([3; 16])
}

fn table(entries: usize) -> FlowTable {
    FlowTable::new(entries, SLOTS, secret(), Timestamp(0)).expect("a size that can be")
}

fn balancer(entries: usize) -> FlowBalancer {
    FlowBalancer::new(entries, SLOTS, secret()).expect("a size that can be")
}

impl Design {
    /// The slot of the backend that this packet goes to.
    pub fn packet(&mut self, packet: &PacketInfo, now: Timestamp) -> Option<usize> {
        if let Some(library) = &mut self.library {
            let assignment = library.assign(&self.services, packet, now);
            library.tend(&self.services, now, false);
            return slot(assignment);
        }
        let lives = Lifetimes::from(&FlowTimes::default());
        let (services, signal) = (&self.services, Signal::of(packet));
        let keeps = |index| services.keeps_any(index);
        let key: FlowKey = self.table.key(&packet.flow);
        self.table.sweep(now, 16, keeps);
        if self.record != Record::Nothing
            && let Found::Known(index, _) = self.table.lookup(key, signal, &lives, now, keeps)
        {
            return Some(index.slot());
        }
        let Assignment::Backend(owner) = HashBalancer.assign(services, packet, now) else {
            return None;
        };
        let elder = self.elder.as_ref().filter(|(_, last)| now.0 < last + HISTORY);
        let elder = elder.and_then(|(elder, _)| match HashBalancer.assign(elder, packet, now) {
            Assignment::Backend(index) if index != owner && keeps(index) => Some(index),
            _ => None,
        });
        let chosen = elder.filter(|_| signal != Signal::Syn).unwrap_or(owner);
        if self.record == Record::Everything || self.record == Record::Contested && elder.is_some()
        {
            self.table.insert(key, chosen, signal, &lives, now, keeps);
        }
        Some(chosen.slot())
    }

    /// The pool has changed.
    pub fn change(&mut self, pool: &Pool, now: Timestamp) {
        if self.has_history {
            let old = self.elder.take().filter(|(_, last)| now.0 < last + HISTORY);
            let elder = old.map_or_else(|| Arc::clone(&self.services), |(elder, _)| elder);
            self.elder = Some((elder, now.0));
        }
        self.services = Arc::clone(pool.services());
    }

    /// Another director takes over: it knows the services, and no flow.
    pub fn restart(&mut self) {
        self.table = table(self.entries);
        self.elder = None;
        self.library = self.library.take().map(|_| balancer(self.entries));
    }

    /// What is in memory that hashing alone would not need: 16 bytes for each flow there is, and
    /// the slots of the older table.
    pub fn bytes(&self) -> usize {
        let counts = match &self.library {
            Some(library) => library.counts(),
            None => self.table.counts(),
        };
        let flows = (counts.proven + counts.unproven) as usize;
        let elder = if self.elder.is_some() { 2 * 65_537 } else { 0 };
        flows * FlowTable::ENTRY_BYTES + elder
    }
}

fn slot(assignment: Assignment) -> Option<usize> {
    match assignment {
        Assignment::Backend(index) => Some(index.slot()),
        _ => None,
    }
}
