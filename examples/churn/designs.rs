//! Ways to send a flow where it went before.

use dsrlb::balancer::{
    Assignment, Balancer, FlowBalancer, FlowTable, FlowTimes, Found, HashBalancer, Lifetimes,
    Record, ServiceTable, Signal, Spot,
};
use dsrlb::flow::{HashKey, PacketInfo, Timestamp};
use dsrlb::verdict::BackendIndex;
use std::sync::Arc;

use super::SECOND;
use super::pool::{Pool, SLOTS};

/// For how long what was chosen before a change counts: as long as flows are remembered.
const HISTORY: u64 = 15 * 60 * SECOND;
/// Entries of an ample table: more than twice the flows there are at a time. And of one that is too small.
const AMPLE: usize = 1 << 16;
const SMALL: usize = 1 << 13;
/// What the table of a service takes, and is kept twice where it is known what was chosen before.
const TABLE_BYTES: usize = 2 * 65_537;

enum Way {
    Hashing,
    /// An unrecorded packet goes where it would have gone before the last changes, unless it is a SYN.
    TwoGenerations,
    /// The same, after all flows have been recorded as far as there is room.
    TwoGenerationsAndAll(FlowTable),
    Library(FlowBalancer),
}

/// A way, and what it knows.
pub struct Design {
    pub name: String,
    way: Way,
    record: Record,
    entries: usize,
    services: Arc<ServiceTable>,
    /// What was chosen before the first of the changes that are less than [`HISTORY`] apart; and when the
    /// last of them was.
    elder: Option<(Arc<ServiceTable>, u64)>,
}

/// All that are compared.
pub fn all(pool: &Pool) -> Vec<Design> {
    let design = |name: String, way, record, entries| Design {
        name,
        way,
        record,
        entries,
        services: Arc::clone(pool.services()),
        elder: None,
    };
    let two = "two generations, nothing recorded".to_owned();
    let mut designs = vec![
        design("hashing alone".to_owned(), Way::Hashing, Record::All, 0),
        design(two, Way::TwoGenerations, Record::All, 0),
    ];
    for entries in [AMPLE, SMALL] {
        let name = format!("two generations, all recorded, {entries} entries");
        let way = Way::TwoGenerationsAndAll(table(entries));
        designs.push(design(name, way, Record::All, entries));
        for record in [Record::All, Record::Contested] {
            let name = format!("FlowBalancer, {record} recorded, {entries} entries");
            let way = Way::Library(balancer(entries, record));
            designs.push(design(name, way, record, entries));
        }
    }
    designs
}

fn secret() -> HashKey {
    HashKey::new([3; 16])
}

fn table(entries: usize) -> FlowTable {
    FlowTable::new(entries, SLOTS, secret(), Timestamp(0)).expect("a size that can be")
}

fn balancer(entries: usize, record: Record) -> FlowBalancer {
    FlowBalancer::new(entries, SLOTS, secret()).expect("a size that can be").record(record)
}

impl Design {
    /// The slot of the backend that this packet goes to.
    pub fn packet(&mut self, packet: &PacketInfo, now: Timestamp) -> Option<usize> {
        let Self { way, services, elder, .. } = self;
        let by_hash = || chosen(HashBalancer.assign(services, packet, now));
        let before = || {
            let (elder, _) = elder.as_ref().filter(|(_, last)| now.0 < last + HISTORY)?;
            let is_new = Signal::of(packet) == Signal::Syn;
            let index = chosen(HashBalancer.assign(elder, packet, now))?;
            (!is_new && services.keeps_any(index)).then_some(index)
        };
        let index = match way {
            Way::Hashing => by_hash(),
            Way::TwoGenerations => before().or_else(by_hash),
            Way::TwoGenerationsAndAll(table) => {
                let (key, signal) = (table.key(&packet.flow), Signal::of(packet));
                let lives = Lifetimes::from(&FlowTimes::default());
                let keeps = |index| services.keeps_any(index);
                table.sweep(now, 16, keeps);
                match table.lookup(key, signal, &lives, now, keeps) {
                    Found::Known(index, _) => Some(index),
                    Found::Missing | Found::Reopened(_) => {
                        let index = before().or_else(by_hash)?;
                        let (lease, now) = (lives.first(signal), table.tick(now));
                        table.insert(key, Spot::UNKNOWN, index, lease, now, keeps);
                        Some(index)
                    }
                }
            }
            Way::Library(balancer) => {
                balancer.tend(services, now, false);
                chosen(balancer.assign(services, packet, now))
            }
        };
        index.map(BackendIndex::slot)
    }

    /// The pool has changed.
    pub fn change(&mut self, pool: &Pool, now: Timestamp) {
        let old = self.elder.take().filter(|(_, last)| now.0 < last + HISTORY);
        let elder = old.map_or_else(|| Arc::clone(&self.services), |(elder, _)| elder);
        self.elder = Some((elder, now.0));
        self.services = Arc::clone(pool.services());
    }

    /// Another director takes over: it knows the services and what they chose before, and no flow.
    pub fn restart(&mut self) {
        match &mut self.way {
            Way::Hashing | Way::TwoGenerations => {}
            Way::TwoGenerationsAndAll(old) => *old = table(self.entries),
            Way::Library(old) => *old = balancer(self.entries, self.record),
        }
    }

    /// What is in memory that hashing alone would not need: 16 bytes for each flow that is remembered,
    /// and the table that was chosen by before.
    pub fn bytes(&self) -> usize {
        let (counts, knows_before) = match &self.way {
            Way::Hashing => return 0,
            Way::TwoGenerations => return TABLE_BYTES,
            Way::TwoGenerationsAndAll(table) => (table.counts(), true),
            Way::Library(balancer) => (balancer.counts(), self.record == Record::Contested),
        };
        let flows = (counts.proven + counts.unproven) as usize;
        flows * FlowTable::ENTRY_BYTES + usize::from(knows_before) * TABLE_BYTES
    }
}

fn chosen(assignment: Assignment) -> Option<BackendIndex> {
    match assignment {
        Assignment::Backend(index) => Some(index),
        _ => None,
    }
}
