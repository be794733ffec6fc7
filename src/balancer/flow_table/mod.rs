//! Which backend a flow was given: a table of fixed size for one worker.
//!
//! # Layout
//!
//! An entry has 16 bytes: the whole 64-bit hash of the flow, the backend's index with its generation,
//! and a word with the time it ends and its state. Four of them are a *set*, which is one cache line
//! and has them field by field, so that a question is put to all four by one vector instruction.
//! A flow may be in either of two sets: number `hash * n >> 64` of `n`, and, with `low` the hash
//! turned by 32 bits, `1 + (low * (n - 1) >> 64)` further on, round about. A new one goes where fewer
//! proven flows are. That is what makes full sets rare while there is room elsewhere: of random flows
//! as many as three quarters of the entries, one in 180 finds no place, and of half as many as there
//! are entries one in 100,000 or fewer; with one choice it would be one in ten, and one in 25 (`cargo test --test
//! flow_table full -- --nocapture`). So ask for twice the flows that must not be forgotten: 32 bytes a
//! flow. A look-up reads one line, or two if the flow is not in the first set; both are known from the
//! hash, so that [`FlowTable::locate`] can fetch those of a whole batch at a time.
//!
//! # Who may stay
//!
//! A flow is *proven* by its second packet, if that is one a client sends only after it has heard from
//! the backend: TCP with ACK, or a second packet of another protocol. Who forges the source of single
//! packets proves nothing. (Forged pairs cannot be told apart: the backend's sequence number never
//! comes by here. They cost twice, and still take no place that a proven flow has.)
//!
//! 1. What is over is free, and so is what has lost its backend, once it is swept or in the way.
//! 2. Unproven flows have at most one entry of a set, a quarter of the table, and only while no proven
//!    one needs it. To be proven changes an entry where it is, so that always succeeds.
//! 3. A newcomer takes a free entry; else that of the unproven flow of the lowest rank not above its
//!    own (a SYN ranks below a packet that is none), of those the one that would end first.
//! 4. Else it is refused and counted. It is served like a flow without a table: by the selector.
//!
//! So a table that is too small forgets new flows and never proven ones, and a flood of SYNs takes
//! nothing but what other SYNs have: a client whose SYN was washed out is known by its next packet,
//! which no SYN can displace, and proven by the one after it.
//!
//! # Two flows with one hash
//!
//! are one flow to the table. With `m` flows in it, a new one meets such another with a
//! probability of `m / 2^64`: for a million, one in 2^44 new flows, which at 100,000 new flows a
//! second happens once in five years. It then goes to the other's backend. The hash is keyed with a
//! secret, so nobody can look for pairs, nor aim at a set.
//!
//! # Contract
//!
//! No I/O, no clock, no panic, and no allocation after [`FlowTable::new`].

mod entry;
mod import;
mod keying;
mod location;
mod place;
mod set;
mod state;
mod tally;
mod times;
mod upkeep;

pub use import::Imported;
pub use location::{Located, Spot};
pub use state::{Signal, State};
pub use tally::FlowCounts;
pub use times::{FlowTimes, Lease, Lifetimes, Steady};
pub(super) use times::{TICK, Tick};
pub use upkeep::FlowRecord;

use crate::flow::{Brief, FiveTuple, HashKey, Timestamp};
use crate::verdict::BackendIndex;
use aligned_vec::{ABox, AVec, RuntimeAlign};
use entry::{Entry, Life};
use keying::Keying;
use place::{Cost, Offer};
use set::{Set, WAYS};
use state::Step;
use std::hint::select_unpredictable;
use std::ops::Range;
use tally::Tally;
use times::Clock;

/// The hash of a flow under the table's key. The VIP and its port are part of it, so it tells
/// services apart, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FlowKey(pub u64);

/// What the table says about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Its flow goes to this backend. The state is that after the packet.
    Known(BackendIndex, State),
    /// It begins a flow anew, with addresses and ports that were used before: choose again. The old
    /// flow went to this backend and is forgotten.
    Reopened(BackendIndex),
    /// Its flow is not known.
    Missing,
}

/// What became of a flow that was to be remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It is remembered in this state.
    New(State),
    /// It was known before and is left as it was.
    Known(BackendIndex),
    /// There is no place for it.
    Refused,
    /// It is not worth a place: the end of a flow, a packet that says nothing, or a backend that is
    /// gone or has a slot beyond those of the table.
    NotKept,
}

/// A number of entries that no table can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a flow table of {entries} entries cannot be made: {problem}")]
pub struct CapacityError {
    entries: usize,
    problem: &'static str,
}

/// Begins where a huge page does, if it is as large: else what lies before the first one and behind the last one, up to
/// half of a table, would be in small pages, each of which costs a look at the page table.
type Sets = ABox<[Set], RuntimeAlign>;

/// What huge pages are where others have 4 KiB, on x86-64 and AArch64.
const HUGE_PAGE: usize = 2 << 20;

/// Of the memory of so many sets.
const fn alignment(count: usize) -> usize {
    if count >= HUGE_PAGE / size_of::<Set>() { HUGE_PAGE } else { align_of::<Set>() }
}

/// The flows of one worker and where they go, by the rules at the head of this module.
#[derive(Debug)]
pub struct FlowTable {
    keying: Keying,
    /// Whether newcomers may take the places of unproven flows.
    displaces: bool,
    sets: Sets,
    /// The set that is swept next.
    swept: usize,
    clock: Clock,
    tally: Tally,
}

impl FlowTable {
    /// No table has more entries: 4 GiB of them.
    pub const MAX_ENTRIES: usize = 1 << 28;
    /// What an entry takes.
    pub const ENTRY_BYTES: usize = size_of::<Entry>();

    /// A table of at least `entries` entries for backends with slots below `slots`, with all the memory
    /// it will ever use. `hash_key` is to be a secret of the process, or of directors that share flows.
    ///
    /// # Errors
    ///
    /// No entries, more than [`FlowTable::MAX_ENTRIES`], or more than there is memory for.
    pub fn new(
        entries: usize,
        slots: usize,
        hash_key: HashKey,
        now: Timestamp,
    ) -> Result<Self, CapacityError> {
        Self::new_in(entries, slots, hash_key, now, |_| ())
    }

    /// The same; `prepare` is told the addresses of the memory before anything is written there.
    ///
    /// # Errors
    ///
    /// As [`FlowTable::new`].
    pub fn new_in(
        entries: usize,
        slots: usize,
        hash_key: HashKey,
        now: Timestamp,
        prepare: impl FnOnce(Range<usize>),
    ) -> Result<Self, CapacityError> {
        let refuse = |problem| CapacityError { entries, problem };
        if entries == 0 {
            return Err(refuse("it needs at least 1"));
        }
        if entries > Self::MAX_ENTRIES {
            return Err(refuse("it can have at most 268435456"));
        }
        let count = entries.div_ceil(WAYS);
        let mut sets: AVec<Set, _> = AVec::new(alignment(count));
        sets.try_reserve_exact(count).map_err(|_| refuse("there is not enough memory"))?;
        let start = sets.as_ptr().addr();
        prepare(start..start + count * size_of::<Set>());
        sets.resize(count, Set::FREE);
        Ok(Self {
            keying: Keying::new(&hash_key),
            displaces: true,
            sets: sets.into_boxed_slice(),
            swept: 0,
            clock: Clock::new(now),
            tally: Tally::new(slots.min(BackendIndex::MAX_SLOTS)),
        })
    }

    /// Has newcomers refused where they would take the place of an unproven flow: for whoever knows what to do
    /// with a flow that is refused, and not with one that is forgotten.
    #[must_use]
    pub(super) fn without_displacing(mut self) -> Self {
        self.displaces = false;
        self
    }

    /// How many entries there are.
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// How many sets of four entries there are.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The memory of the table, beside the value itself.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + self.tally.bytes()
    }

    /// How many flows there are and were not. Flows that are over count until their set is swept or
    /// needed.
    pub fn counts(&self) -> FlowCounts {
        self.tally.counts
    }

    /// How many flows the backend in this slot has, with the same reservation.
    pub fn live(&self, slot: usize) -> u32 {
        self.tally.live(slot)
    }

    /// How many flows of this backend began to be remembered, by a packet of their own.
    pub fn begun(&self, backend: BackendIndex) -> u64 {
        self.tally.begun(backend)
    }

    /// The key of a flow.
    #[inline]
    pub fn key(&self, flow: &FiveTuple) -> FlowKey {
        self.keying.key(flow)
    }

    /// The same of a packet's.
    #[inline(always)]
    pub fn key_of(&self, packet: &Brief) -> FlowKey {
        self.keying.key_of(packet)
    }

    /// The tick it is, for [`FlowTable::renew`]. The table is gone over as a whole once in 104 days, when its small
    /// clock must be set anew.
    #[inline]
    pub fn tick(&mut self, now: Timestamp) -> Tick {
        self.rebase(now);
        Tick { time: now, ticks: self.clock.ticks(now) }
    }

    /// What [`FlowTable::lookup`] does and returns for a packet that says nothing new of a proven flow, which is most
    /// packets by far; none says nothing. `spot` is where [`FlowTable::locate`] found it; anything may have happened to
    /// the table since then. `renewal` says what the packet does to the flow if it has this backend.
    #[inline(always)]
    pub fn renew(
        &mut self,
        key: FlowKey,
        spot: Spot,
        now: Tick,
        renewal: impl FnOnce(BackendIndex) -> Lease,
    ) -> Option<BackendIndex> {
        let set = self.sets.get(spot.set as usize)?;
        if set.key(spot.way as usize) != key.0 {
            return None;
        }
        self.renew_there(spot, now, renewal)
    }

    /// The same where nothing has been put into the table since the flow was located, nor anything taken out of it.
    #[inline(always)]
    pub(super) fn renew_there(
        &mut self,
        spot: Spot,
        now: Tick,
        renewal: impl FnOnce(BackendIndex) -> Lease,
    ) -> Option<BackendIndex> {
        let set = self.sets.get_mut(spot.set as usize).filter(|_| spot.is_found())?;
        let (backend, life) = (set.backend(spot.way as usize), set.life(spot.way as usize));
        let renewal = renewal(backend);
        // What there is none of has ended, too.
        if !renewal.suits(life) || life.has_ended(now.ticks) {
            return None;
        }
        set.set_life(spot.way as usize, renewal.from(now));
        Some(backend)
    }

    /// Finds the backend of a packet's flow, and notes the packet. `usable` says whether an index may be
    /// returned: its generation is that of its slot, and the policy lets it keep flows. An entry whose
    /// backend is not usable is forgotten.
    #[inline]
    pub fn lookup(
        &mut self,
        key: FlowKey,
        signal: Signal,
        lives: &Lifetimes,
        now: Timestamp,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Found {
        let now = self.clock.ticks(now);
        let Some((number, way)) = self.find(key) else {
            return Found::Missing;
        };
        let Some(set) = self.sets.get_mut(number) else {
            return Found::Missing;
        };
        let (backend, life) = (set.backend(way), set.life(way));
        let (Some(state), end) = (life.state(), life.end()) else {
            return Found::Missing;
        };
        let alive = end > now && usable(backend);
        // Heard of so lately that more is left than its whole life without that time.
        let recent = end.saturating_add(lives.copy) > now.saturating_add(lives.of(state, signal));
        let (next, end) = match state::step(state, signal, recent) {
            // What is left as it is may be what another director told of.
            Step::Keep if alive => return Found::Known(backend, state),
            Step::Renew(next) if alive => (next, now.saturating_add(lives.of(next, signal))),
            Step::Shorten(next) if alive => (next, end.min(now.saturating_add(lives.closing))),
            step => {
                set.put(way, Entry::FREE);
                self.tally.remove(backend, state.is_proven());
                let reopened = alive && step == Step::Reselect;
                return if reopened { Found::Reopened(backend) } else { Found::Missing };
            }
        };
        set.set_life(way, Life::new(next, end));
        self.tally.change(state, next);
        Found::Known(backend, next)
    }

    /// Remembers that a flow which was not found goes to this backend, and begins or goes on with this lease. One that is
    /// known is left as it is.
    ///
    /// `spot` is what [`FlowTable::locate`] has said of it, if none that may be the same was inserted since then: it is
    /// not looked for again if it was not found, and would be in the table twice. Else [`Spot::UNKNOWN`].
    #[inline(always)]
    pub fn insert(
        &mut self,
        key: FlowKey,
        spot: Spot,
        backend: BackendIndex,
        lease: Lease,
        now: Tick,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        self.put(Entry { key: key.0, backend, life: lease.from(now) }, spot, now.ticks, usable)
    }

    /// Forgets a flow; says where it went, if it was there.
    pub fn remove(&mut self, key: FlowKey) -> Option<BackendIndex> {
        let (number, way) = self.find(key)?;
        let set = self.sets.get_mut(number)?;
        let (backend, state) = (set.backend(way), set.life(way).state()?);
        set.put(way, Entry::FREE);
        self.tally.remove(backend, state.is_proven());
        Some(backend)
    }

    /// By the rules [above](self).
    #[inline(always)]
    fn put(
        &mut self,
        new: Entry,
        spot: Spot,
        now: u32,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        let Some(state) = new.life.state() else {
            return Inserted::NotKept;
        };
        if spot.is_missing() && self.settle(new.key, spot.set, new.backend, new.life, now) {
            return Inserted::New(state);
        }
        self.contend(new, spot, state, now, usable)
    }

    /// Gives a flow that is not in the table the best place that its sets have, of which the `second` is known; false
    /// if there is none, if something there is over, or if its backend cannot be counted. Nothing has changed then.
    ///
    /// Each argument is a word and most are in registers: nearly all flows get their place here.
    #[inline(never)]
    fn settle(
        &mut self,
        key: u64,
        second: u32,
        backend: BackendIndex,
        life: Life,
        now: u32,
    ) -> bool {
        let [first, second] = [self.first_set(FlowKey(key)), second as usize];
        let (Some(one), Some(other)) = (self.sets.get(first), self.sets.get(second)) else {
            return false;
        };
        if !self.tally.knows(backend) || one.over(now).or_any(other.over(now)) {
            return false;
        }
        let (ours, others) = (Offer::of(one, life), Offer::of(other, life));
        let (mut number, mut offer) =
            select_unpredictable(others.is_better(ours), (second, others), (first, ours));
        if !offer.is_free() {
            let limit = if self.displaces { Cost::limit(life) } else { Cost::NONE };
            let cost = |set: &Set, offer: Offer| Cost::displacing(set.life(offer.way()));
            let (our_cost, other_cost) = (cost(one, ours), cost(other, others));
            let is_better = other_cost < our_cost;
            number = select_unpredictable(is_better, second, first);
            offer = select_unpredictable(is_better, others, ours);
            let cost = select_unpredictable(is_better, other_cost, our_cost);
            if cost >= limit {
                return false;
            }
            let displaced = select_unpredictable(is_better, other, one).backend(offer.way());
            self.tally.displace(displaced);
        }
        let Some(set) = self.sets.get_mut(number) else {
            return false;
        };
        set.put(offer.way(), Entry { key, backend, life });
        self.tally.enter(backend, life);
        true
    }

    /// What is left to do for a flow that was not looked for, or has found no place at once.
    #[inline(never)]
    fn contend(
        &mut self,
        new: Entry,
        spot: Spot,
        state: State,
        now: u32,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        if !self.tally.knows(new.backend) {
            return Inserted::NotKept;
        }
        let key = FlowKey(new.key);
        let sets = self.sets_of(key);
        let [_, second] = sets;
        let settle =
            |table: &mut Self| table.settle(new.key, second as u32, new.backend, new.life, now);
        let was_over = self.is_any_over(sets, now);
        if was_over {
            self.purge(sets, |entry| entry.life.has_ended(now));
        }
        let known = self.find(key).and_then(|(set, way)| Some(self.sets.get(set)?.backend(way)));
        let is_untried = was_over || !spot.is_missing();
        if known.is_none() && is_untried && settle(self) {
            return Inserted::New(state);
        }
        if let Some(backend) = known.filter(|backend| usable(*backend)) {
            return Inserted::Known(backend);
        }
        // What has lost its backend is in nobody's way, and to ask it of eight entries is dear, so it is left to when
        // it matters.
        self.purge(sets, |entry| !usable(entry.backend));
        if settle(self) {
            return Inserted::New(state);
        }
        self.tally.counts.refused += 1;
        Inserted::Refused
    }

    #[inline]
    fn is_any_over(&self, [one, other]: [usize; 2], now: u32) -> bool {
        match (self.sets.get(one), self.sets.get(other)) {
            (Some(one), Some(other)) => one.over(now).or_any(other.over(now)),
            _ => false,
        }
    }

    /// Frees the entries of these sets of which this is true.
    #[cold]
    fn purge(&mut self, sets: [usize; 2], is_over: impl Fn(&Entry) -> bool) {
        for number in sets {
            if let Some(set) = self.sets.get_mut(number) {
                set.purge(&mut self.tally, &is_over);
            }
        }
    }
}

#[cfg(test)]
mod tests;
