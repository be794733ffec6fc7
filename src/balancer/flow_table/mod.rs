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
mod place;
mod set;
mod state;
mod tally;
mod times;
mod upkeep;

pub use import::Imported;
pub use state::{Signal, State};
pub use tally::FlowCounts;
pub(super) use times::TICK;
pub use times::{FlowTimes, Lifetimes, Steady};
pub use upkeep::FlowRecord;

use crate::flow::{Brief, FiveTuple, FlowHash, HashKey, Timestamp};
use crate::verdict::BackendIndex;
use entry::{Entry, Life};
use keying::Keying;
use place::{Place, Survey};
use set::{Mask, Set, WAYS};
use state::Step;
use std::ops::Range;
use tally::Tally;
use times::Clock;

/// How many flows are located at a time; a driver lends no more packets at once.
const LOCATED: usize = 64;

/// Where a flow is in the table, or that it was not found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    set: u32,
    /// [`WAYS`] if it was not found.
    way: u32,
}

impl Spot {
    /// Of what was not looked for.
    pub const NONE: Self = Self { set: 0, way: WAYS as u32 };

    /// Whether it is that of nothing.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.way == WAYS as u32
    }
}

/// A time as the table counts it.
#[derive(Clone, Copy, Debug)]
pub struct Tick(u32);

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

/// The flows of one worker and where they go, by the rules at the head of this module.
#[derive(Debug)]
pub struct FlowTable {
    keying: Keying,
    /// Whether newcomers may take the places of unproven flows.
    displaces: bool,
    sets: Box<[Set]>,
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
        let mut sets: Vec<Set> = Vec::new();
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

    /// The two sets that a flow may be in; the same twice if there is only one.
    #[inline]
    fn sets_of(&self, key: FlowKey) -> [usize; 2] {
        let first = self.first_set(key);
        [first, self.second_set(first as u32, key)]
    }

    /// The other one than the first.
    #[inline]
    fn second_set(&self, first: u32, key: FlowKey) -> usize {
        let count = self.sets.len();
        let others = count.saturating_sub(1);
        let further =
            first as usize + usize::from(others > 0) + FlowHash(key.0.rotate_left(32)).slot(others);
        if further < count { further } else { further - count }
    }

    /// The set that a flow is looked for first.
    #[inline]
    fn first_set(&self, key: FlowKey) -> usize {
        FlowHash(key.0).slot(self.sets.len())
    }

    /// Where each of at most 64 flows is, if it is anywhere.
    ///
    /// A word of the first set that each may be in is read before any is looked at, and then of the second one of
    /// those that are not in the first, where three of four are: so the cache misses of a batch overlap, where
    /// [`FlowTable::lookup`] would wait for one after the other.
    #[inline]
    pub fn locate(&self, keys: &[FlowKey]) -> [Spot; LOCATED] {
        let mut spots = [Spot::NONE; LOCATED];
        let mut read = 0;
        let mut ask = |number: usize| {
            read |= self.sets.get(number).map_or(0, Set::word);
            number as u32
        };
        for (spot, key) in spots.iter_mut().zip(keys) {
            spot.set = ask(self.first_set(*key));
        }
        // Noted and not branched to: whether it is in the first cannot be predicted. And not read at
        // once: the fewer instructions lie between two reads, the more of them overlap.
        let (mut elsewhere, mut missing) = ([0u8; LOCATED], 0);
        for (position, (spot, key)) in (0u8..).zip(spots.iter_mut().zip(keys)) {
            if let Some(place) = elsewhere.get_mut(missing) {
                *place = position;
            }
            *spot = self.look(spot.set, *key);
            missing += usize::from(spot.is_none());
        }
        for position in elsewhere.iter().take(missing) {
            let position = usize::from(*position) % LOCATED;
            if let (Some(spot), Some(key)) = (spots.get_mut(position), keys.get(position)) {
                spot.set = ask(self.second_set(spot.set, *key));
            }
        }
        for position in elsewhere.iter().take(missing) {
            let position = usize::from(*position) % LOCATED;
            if let (Some(spot), Some(key)) = (spots.get_mut(position), keys.get(position)) {
                *spot = self.look(spot.set, *key);
            }
        }
        std::hint::black_box(read);
        spots
    }

    /// The same for a single flow; the second set is only looked at if it is not in the first.
    #[inline]
    pub fn locate_one(&self, key: FlowKey) -> Spot {
        let spot = self.look(self.first_set(key) as u32, key);
        if spot.is_none() { self.look(self.second_set(spot.set, key) as u32, key) } else { spot }
    }

    /// Where a flow is in a set.
    #[inline]
    fn look(&self, set: u32, key: FlowKey) -> Spot {
        let held = self.sets.get(set as usize).map_or(Mask::NONE, |set| set.holding(key.0));
        Spot { set, way: held.first_or_none() }
    }

    /// The tick it is, for [`FlowTable::renew`].
    #[inline]
    pub fn tick(&self, now: Timestamp) -> Tick {
        Tick(self.clock.ticks(now))
    }

    /// What [`FlowTable::lookup`] does and returns for a packet that says nothing new of a proven flow, which is most
    /// packets by far; none says nothing. `spot` is where [`FlowTable::locate`] found it; anything may have happened to
    /// the table since then. `steady` says for how long the flow lives on if it has this backend.
    #[inline(always)]
    pub fn renew(
        &mut self,
        key: FlowKey,
        spot: Spot,
        signal: Signal,
        now: Tick,
        steady: impl FnOnce(BackendIndex) -> u32,
    ) -> Option<BackendIndex> {
        let set = self.sets.get_mut(spot.set as usize).filter(|_| !spot.is_none())?;
        let Entry { key: there, backend, life } = set.entry(spot.way as usize);
        // What has ended is also what there is none of, whose rank is that of no signal.
        if there != key.0 || life.rank() != signal.steady_rank() || life.end() <= now.0 {
            return None;
        }
        let ticks = steady(backend);
        if ticks == 0 {
            return None;
        }
        set.set_life(spot.way as usize, life.renewed(now.0, ticks));
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
                self.tally.remove(backend, state);
                let reopened = alive && step == Step::Reselect;
                return if reopened { Found::Reopened(backend) } else { Found::Missing };
            }
        };
        set.set_life(way, Life::new(next, end));
        self.tally.change(state, next);
        Found::Known(backend, next)
    }

    /// Remembers that a flow which was not found, and of which this packet came, goes to this backend.
    /// One that is known is left as it is: no flow is in the table twice.
    #[inline]
    pub fn insert(
        &mut self,
        key: FlowKey,
        backend: BackendIndex,
        signal: Signal,
        lives: &Lifetimes,
        now: Timestamp,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        let Some(state) = state::first(signal) else {
            return Inserted::NotKept;
        };
        self.begin(key, backend, self.life(state, signal, lives, now), now, usable)
    }

    /// The same for a flow that is known from elsewhere to have gone there before: it is proven by this packet.
    #[inline]
    pub(super) fn resume(
        &mut self,
        key: FlowKey,
        backend: BackendIndex,
        signal: Signal,
        lives: &Lifetimes,
        now: Timestamp,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        let Some(state) = state::resumed(signal) else {
            return Inserted::NotKept;
        };
        self.begin(key, backend, self.life(state, signal, lives, now), now, usable)
    }

    /// That of a flow in this state after this packet.
    #[inline]
    fn life(&self, state: State, signal: Signal, lives: &Lifetimes, now: Timestamp) -> Life {
        Life::new(state, self.clock.ticks(now).saturating_add(lives.of(state, signal)))
    }

    #[inline]
    fn begin(
        &mut self,
        key: FlowKey,
        backend: BackendIndex,
        life: Life,
        now: Timestamp,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        let inserted = self.put(Entry { key: key.0, backend, life }, now, usable);
        self.tally.counts.begun += u64::from(matches!(inserted, Inserted::New(_)));
        inserted
    }

    /// Forgets a flow; says where it went, if it was there.
    pub fn remove(&mut self, key: FlowKey) -> Option<BackendIndex> {
        let (number, way) = self.find(key)?;
        let set = self.sets.get_mut(number)?;
        let (backend, state) = (set.backend(way), set.life(way).state()?);
        set.put(way, Entry::FREE);
        self.tally.remove(backend, state);
        Some(backend)
    }

    /// In which set a flow is, alive or not, and where in it.
    #[inline]
    fn find(&self, key: FlowKey) -> Option<(usize, usize)> {
        let spot = self.locate_one(key);
        (!spot.is_none()).then_some((spot.set as usize, spot.way as usize))
    }

    /// The best place that these sets have for a flow, once what is over there is free; none if it is there
    /// already, or there is no place.
    #[inline]
    fn offer(&mut self, sets: [usize; 2], key: FlowKey, state: State, now: u32) -> Option<Place> {
        let [first, second] = sets;
        let survey = |number| Survey::of(self.sets.get(number).unwrap_or(&Set::FREE), key.0, now);
        let (one, other) = (survey(first), survey(second));
        let place = |survey: Survey, set| survey.place(set, state, self.displaces);
        let place = place(one, first).better(place(other, second));
        if one.over.or(other.over).any() {
            self.purge(sets, |entry| entry.life.end() <= now);
        }
        place.filter(|_| !one.same.or(other.same).any())
    }

    /// The same once what has lost its backend is free, too: that is in nobody's way, and to ask it of eight
    /// entries is dear, so it is left to when it matters.
    #[cold]
    fn offer_again(
        &mut self,
        sets: [usize; 2],
        key: FlowKey,
        state: State,
        now: u32,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Result<Place, Inserted> {
        let known = |table: &Self| {
            let (number, way) = table.find(key)?;
            Some(table.sets.get(number)?.backend(way))
        };
        if let Some(backend) = known(self).filter(|backend| usable(*backend)) {
            return Err(Inserted::Known(backend));
        }
        self.purge(sets, |entry| !usable(entry.backend));
        self.offer(sets, key, state, now).ok_or_else(|| {
            self.tally.counts.refused += 1;
            Inserted::Refused
        })
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

    /// By the rules [above](self).
    #[inline]
    fn put(
        &mut self,
        new: Entry,
        now: Timestamp,
        usable: impl Fn(BackendIndex) -> bool,
    ) -> Inserted {
        let Some(state) = new.life.state().filter(|_| self.tally.knows(new.backend)) else {
            return Inserted::NotKept;
        };
        let now = self.clock.ticks(now);
        let key = FlowKey(new.key);
        let sets = self.sets_of(key);
        let place = match self.offer(sets, key, state, now) {
            Some(place) => place,
            None => match self.offer_again(sets, key, state, now, usable) {
                Ok(place) => place,
                Err(inserted) => return inserted,
            },
        };
        let Some(set) = self.sets.get_mut(place.set) else {
            return Inserted::Refused;
        };
        let (old, life) = (set.backend(place.way), set.life(place.way));
        set.put(place.way, new);
        if let Some(displaced) = life.state() {
            self.tally.remove(old, displaced);
            self.tally.counts.displaced += 1;
        }
        self.tally.add(new.backend, state);
        Inserted::New(state)
    }
}

#[cfg(test)]
mod tests;
