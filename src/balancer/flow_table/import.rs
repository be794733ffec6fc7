//! What other directors tell of flows: the one place where it is decided what that changes.

use super::entry::{Entry, Life};
use super::times::Clock;
use super::{FlowRecord, FlowTable, Inserted, Spot, State};
use crate::flow::Timestamp;
use crate::verdict::BackendIndex;

/// What came of a flow that another director told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imported {
    /// It was not known, and is remembered now.
    New,
    /// It was known, and is remembered as it was told.
    Updated,
    /// What is known here is as good, or better.
    Known,
    /// There is no place for it.
    Refused,
    /// It is over, it is not proven, or its backend does not keep it.
    NotKept,
}

impl FlowTable {
    /// Takes in a flow from another table with the same hash key.
    ///
    /// What came of packets here goes before what is told:
    ///
    /// * A proven flow keeps its backend and its state; it may only live longer, and that only if it was
    ///   told with the same of both.
    /// * A flow of which a SYN came here keeps its backend: the SYN may open another connection with the
    ///   addresses and ports of the one that was told of. With the same backend it is proven now.
    /// * A flow of which one packet in the midst of it came here was placed by guess, and becomes what is
    ///   told.
    ///
    /// Of what is only told, the last word counts if it names another state, as that a connection is
    /// closing, or was opened anew; within one state the one that ends last. A told flow is as safe
    /// from others as any that is proven.
    ///
    /// A told flow is told to nobody else ([`FlowTable::own_records`]) until a packet of it comes here.
    /// So the end of a flow is everywhere that of a packet somewhere, later by at most one journey of
    /// its record: however records travel, they keep no flow alive.
    pub fn import(
        &mut self,
        record: FlowRecord,
        now: Timestamp,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Imported {
        let FlowRecord { key, backend, state, remaining } = record;
        let (ticks, life) = (self.clock.ticks(now), Clock::life(remaining));
        let is_kept = self.tally.knows(backend) && usable(backend);
        if life == 0 || !state.is_proven() || !is_kept {
            return Imported::NotKept;
        }
        let end = ticks.saturating_add(life);
        let told = Entry { key: key.0, backend, life: Life::told(state, end) };
        if let Some((number, way)) = self.find(key)
            && let Some(set) = self.sets.get_mut(number)
            && let (life, known) = (set.life(way), set.backend(way))
            && let Some(before) = life.state()
            && life.end() > ticks
            && usable(known)
        {
            let same = (before, known) == (state, backend);
            let takes = match before {
                _ if life.is_told() => before != state || end > life.end(),
                State::Opening => known == backend,
                State::Single => true,
                State::Established | State::Active | State::Closing => same && end > life.end(),
            };
            if !takes {
                return Imported::Known;
            }
            set.put(way, told);
            self.tally.remove(known, before.is_proven());
            self.tally.add(backend, state);
            return Imported::Updated;
        }
        match self.put(told, Spot::UNKNOWN, ticks, usable) {
            Inserted::New(_) => Imported::New,
            Inserted::Known(_) => Imported::Known,
            Inserted::Refused => Imported::Refused,
            Inserted::NotKept => Imported::NotKept,
        }
    }
}
