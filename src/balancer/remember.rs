//! Deciding a flow once.

use super::assign::{Assignment, Balancer, find};
use super::built::Service;
use super::flow_table::{
    CapacityError, FlowCounts, FlowKey, FlowTable, Found, Inserted, Lifetimes, Signal, Spot, Tick,
};
use super::placement::{Decider, FlowMemory, Placement, Recall};
use super::sync::{Exchange, FlowSync, SyncCounts};
use super::table::ServiceTable;
use crate::flow::{Brief, HashKey, PacketInfo, Routed, Timestamp};
use crate::verdict::{BackendIndex, DropReason};
use std::ops::Range;

/// How many packets of a batch are looked at ahead; a driver lends no more at once.
const BATCH: usize = 64;
/// A round through the flow table is to take so many nanoseconds while there is traffic, as a power of two: flows count that
/// much longer than they last.
const ROUND_BITS: u32 = 30;
/// The most sets that are looked after with a batch, where batches come too seldom for that or the table is too large, and
/// how many while there is nothing else to do. A table of a million entries is gone through in a second of idleness.
const SETS_A_BATCH: u64 = 8;
const SETS_WHEN_IDLE: usize = 16_384;

/// Which flows are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Record {
    /// All: how many flows a backend has is known, and a drain tells when it has none.
    #[default]
    All,
    /// Those that another backend would get, or would have got, than before the last changes. As long as
    /// nothing changes, nothing is recorded and nothing looked up, whatever anybody sends.
    ///
    /// The price: a drain that is told to be over may have flows left which have not spoken since it began;
    /// protocols without a SYN cannot tell what is new, so their new flows go where they went before
    /// the change, for as long as a silent one is remembered; one packet other than a SYN takes a contested
    /// flow's place in the table for the whole life of a connection, where [`Record::All`] asks for two; and where
    /// more is contested than the table has room for, as in a flood, new connections go where they went before, too.
    Contested,
}

named!(
    Record,
    "rule for which flows are recorded",
    "all or contested",
    ["all" => All, "contested" => Contested]
);

/// Remembers which backend each flow was given: it keeps it through every change of the pool that
/// leaves that backend able to serve.
///
/// New flows are decided by the service's selector. A backend that takes no new flows (draining, or
/// with a weight of zero) keeps the ones it has; one that is unreachable or disabled does not, and one
/// that is ill as the service's [`Persistence`](super::Persistence) says.
/// Flows that find no place in the table are served by hashing alone.
#[derive(Debug)]
pub struct FlowBalancer {
    table: FlowTable,
    record: Record,
    exchange: Option<Box<Exchange>>,
    pace: Pace,
}

impl FlowBalancer {
    /// Room for `entries` flows, of 16 bytes each; twice the number of flows at a time is a good
    /// choice. `slots` is the most backends there can be, as in
    /// [`Limits::backends`](crate::config::Limits), and `secret` is not to be known to clients.
    ///
    /// # Errors
    ///
    /// A number of entries that no table can have.
    pub fn new(entries: usize, slots: usize, secret: HashKey) -> Result<Self, CapacityError> {
        Self::new_in(entries, slots, secret, |_| ())
    }

    /// The same; `prepare` is told the addresses of the table's memory before anything is written there, so that it can
    /// ask the kernel for huge pages (`dataplane::af_xdp::prefer_huge_pages`).
    ///
    /// # Errors
    ///
    /// As [`FlowBalancer::new`].
    pub fn new_in(
        entries: usize,
        slots: usize,
        secret: HashKey,
        prepare: impl FnOnce(Range<usize>),
    ) -> Result<Self, CapacityError> {
        let table = FlowTable::new_in(entries, slots, secret, Timestamp::default(), prepare)?;
        Ok(Self { table, record: Record::default(), exchange: None, pace: Pace::default() })
    }

    /// Sets which flows are recorded. Contested ones are known only where services know what they
    /// [chose before](Service::after).
    #[must_use]
    pub fn record(mut self, record: Record) -> Self {
        if record == Record::Contested {
            self.table = self.table.without_displacing();
        }
        self.record = record;
        self
    }

    /// Shares its flows with the balancers that this leads to, which have the same secret and room for
    /// each other's flows: those of a connection that comes to another director go where they went. The
    /// backends are told by service and id, so the configurations need not be the same.
    ///
    /// Each proven flow is told of once a second, unless the transport says otherwise, in 24 bytes.
    #[must_use]
    pub fn sync(mut self, transport: impl FlowSync + 'static) -> Self {
        self.exchange = Some(Box::new(Exchange::new(Box::new(transport))));
        self
    }

    /// How many flows there are and were not.
    pub fn counts(&self) -> FlowCounts {
        self.table.counts()
    }

    /// Where a flow is recorded, if it need not be asked first whether it is contested still.
    fn locate_one(&self, key: FlowKey) -> Spot {
        match self.record {
            Record::All => self.table.locate_one(key),
            Record::Contested => Spot::UNKNOWN,
        }
    }

    /// The backend of a flow that goes on as it was: nearly every packet's, so it is asked first, and of the flow
    /// alone. Nothing else has to be looked at. A packet that may not be forwarded begins no flow; the backend
    /// says itself whether its service is there, and remembers flows. `changed` is whether anything may have happened to
    /// the table since the flow was located.
    #[inline(always)]
    fn known(
        &mut self,
        services: &ServiceTable,
        signal: Signal,
        (key, spot): (FlowKey, Spot),
        changed: bool,
        now: Tick,
    ) -> Option<BackendIndex> {
        let renewal = |index| services.renewal(index, signal);
        match changed {
            true => self.table.renew(key, spot, now, renewal),
            false => self.table.renew_there(spot, now, renewal),
        }
    }

    /// A batch of a balancer that records contested flows: none is looked for as long as there are none.
    #[inline(never)]
    fn decide_contested(
        &mut self,
        services: &ServiceTable,
        packets: &[Brief],
        now: Tick,
        assigned: &mut [Assignment],
    ) {
        if self.has_flows() {
            // So that the look-ups need not wait for one line after the other.
            std::hint::black_box(
                self.table.locate(packets.iter().map(|packet| self.table.key_of(packet))),
            );
        }
        for (packet, assigned) in packets.iter().zip(assigned) {
            let key = self.table.key_of(packet);
            *assigned = self.decide(services, packet, key, Spot::UNKNOWN, now);
        }
    }

    /// What becomes of a packet whose flow is not [known](Self::known) to go on as it was.
    #[inline(never)]
    fn decide(
        &mut self,
        services: &ServiceTable,
        packet: &Brief,
        key: FlowKey,
        spot: Spot,
        now: Tick,
    ) -> Assignment {
        // Each kind by itself, so that what is always so of a segment is not asked of it.
        match packet {
            Brief::Ipv4(_) => self.decide_one(services, &packet.info(), key, spot, now),
            Brief::Ipv6(_) => self.decide_one(services, &packet.info(), key, spot, now),
            Brief::Other(info) => self.decide_one(services, info, key, spot, now),
        }
    }

    /// The same of a packet of one kind: finds its service, and has it placed.
    #[inline(always)]
    fn decide_one(
        &mut self,
        services: &ServiceTable,
        packet: &PacketInfo,
        key: FlowKey,
        spot: Spot,
        now: Tick,
    ) -> Assignment {
        match find(services, packet) {
            Ok(service) => self.place(services, service, packet, key, spot, now).0,
            Err(assignment) => assignment,
        }
    }

    /// The one place where the order of the other questions stands. Always inline: what it returns is of two parts,
    /// and to pass those through memory costs a fifth of what it does. What is called rarely gets a copy of the packet, so that
    /// this one need not be in memory.
    #[inline(always)]
    fn place(
        &mut self,
        services: &ServiceTable,
        service: &Service,
        packet: &PacketInfo,
        key: FlowKey,
        spot: Spot,
        now: Tick,
    ) -> (Assignment, Decider) {
        let protocol = packet.flow.protocol;
        let keeps = |index| services.keeps(index, protocol);
        let signal = Signal::of(packet);
        // What does not tell its flow is followed, or hashed by its addresses.
        let lives = service.lives().filter(|_| packet.tells_flow());
        if let Some(index) = packet.routed.backend() {
            if let Some(lives) = lives {
                self.note(services, lives, *packet, key, index, now);
            }
            return (Assignment::Backend(index), Decider::ConnectionId);
        }
        if self.record == Record::Contested {
            return self.place_contested(services, service, *packet, key, lives, now);
        }
        if let Some(lives) = lives
            && !spot.is_missing()
            && let Found::Known(index, _) = self.table.lookup(key, signal, lives, now.time, keeps)
        {
            return (Assignment::Backend(index), Decider::FlowTable);
        }
        let Some(owner) = service.select(service.hash(packet)) else {
            return (Assignment::Drop(DropReason::NoBackend), Decider::Selector);
        };
        if let Some(lives) = lives {
            // Others in its way may be of another protocol.
            let usable = |index| services.keeps_any(index);
            self.table.insert(key, spot, owner, lives.first(signal), now, usable);
        }
        // Remembered or not, it is served.
        (Assignment::Backend(owner), Decider::Selector)
    }

    /// The same where only contested flows are recorded, and a service knows what it chose before the last changes.
    #[inline(never)]
    fn place_contested(
        &mut self,
        services: &ServiceTable,
        service: &Service,
        packet: PacketInfo,
        key: FlowKey,
        lives: Option<&Lifetimes>,
        now: Tick,
    ) -> (Assignment, Decider) {
        let keeps = |index| services.keeps(index, packet.flow.protocol);
        let signal = Signal::of(&packet);
        if let Some(lives) = lives
            && self.has_flows()
            && let Found::Known(index, _) = self.table.lookup(key, signal, lives, now.time, keeps)
        {
            self.reconsider(service, packet, key, index);
            return (Assignment::Backend(index), Decider::FlowTable);
        }
        let hash = service.hash(&packet);
        let owner = service.select(hash);
        let before = service.elder(packet, hash, now.time);
        let is_contested = before.is_some_and(|before| before.chosen != owner);
        let older = before.filter(|before| before.may_be_older);
        let elder = older.and_then(|older| older.chosen).filter(|index| keeps(*index));
        let first = if signal == Signal::Syn { owner } else { elder.or(owner) };
        let decided = |chosen| {
            let decider = if owner == Some(chosen) { Decider::Selector } else { Decider::Elder };
            (Assignment::Backend(chosen), decider)
        };
        let Some(chosen) = first else {
            return (Assignment::Drop(DropReason::NoBackend), Decider::Selector);
        };
        let Some(lives) = lives.filter(|_| is_contested) else {
            return decided(chosen);
        };
        // Others in its way may be of another protocol.
        let usable = |index| services.keeps_any(index);
        // What goes on may speak once before what was chosen before is over, and then be silent for as long as any.
        let goes_on = signal != Signal::Syn && elder == Some(chosen);
        let lease = if goes_on { lives.resumed(signal) } else { lives.first(signal) };
        let inserted = self.table.insert(key, Spot::UNKNOWN, chosen, lease, now, usable);
        // Refused or not, it is served: by whom the next packet will be taken to, if that is not recorded.
        let last = elder.filter(|_| inserted == Inserted::Refused).unwrap_or(chosen);
        decided(last)
    }

    /// Whether there is anything to look up.
    #[inline]
    fn has_flows(&self) -> bool {
        let counts = self.table.counts();
        counts.proven + counts.unproven != 0
    }

    /// Of a balancer that records contested flows: forgets one that is contested no more and goes where it would go
    /// anyway.
    #[inline(never)]
    fn reconsider(
        &mut self,
        service: &Service,
        packet: PacketInfo,
        key: FlowKey,
        index: BackendIndex,
    ) {
        if !service.has_elder() && service.select(service.hash(&packet)) == Some(index) {
            self.table.remove(key);
        }
    }

    /// Remembers where connection IDs lead a flow, for the packets of it that have none: ICMP errors, and
    /// those with IDs of the client. A flow that is elsewhere by its own packets stays there until they
    /// end: anybody can forge its addresses, with an ID of a connection of his own behind them.
    #[inline(never)]
    fn note(
        &mut self,
        services: &ServiceTable,
        lives: &Lifetimes,
        packet: PacketInfo,
        key: FlowKey,
        index: BackendIndex,
        now: Tick,
    ) {
        let keeps = |index| services.keeps(index, packet.flow.protocol);
        let signal = Signal::of(&packet);
        match self.table.lookup(key, Signal::Stray, lives, now.time, keeps) {
            Found::Known(known, _) if known != index => {}
            Found::Known(..) => {
                self.table.lookup(key, signal, lives, now.time, keeps);
            }
            Found::Missing | Found::Reopened(_) => {
                let usable = |index| services.keeps_any(index);
                let lease = lives.first(signal);
                self.table.insert(key, Spot::UNKNOWN, index, lease, now, usable);
            }
        }
    }
}

/// How much of the flow table is looked after with a batch: by the time since the last one, so the more packets come, the
/// less that costs each.
#[derive(Clone, Copy, Default, Debug)]
struct Pace {
    last: Timestamp,
    /// Less than what makes a set due.
    credit: u64,
}

impl Pace {
    /// How many sets of so many are due.
    #[inline]
    fn due(&mut self, now: Timestamp, sets: usize) -> usize {
        const ROUND: u64 = 1 << ROUND_BITS;
        let passed = now.0.saturating_sub(self.last.0).min(ROUND);
        // A table has less than 2^27 sets.
        let credit = self.credit + passed * sets as u64;
        *self = Self { last: now, credit: credit % ROUND };
        // What is beyond that is not made up for.
        (credit / ROUND).min(SETS_A_BATCH) as usize
    }
}

/// What a packet says, if that may be nothing new: only then can its flow be [known](FlowBalancer::known) to go on. Else
/// [`Signal::Stray`], by which none is.
#[inline(always)]
fn steady(packet: &Brief) -> Signal {
    match packet {
        Brief::Ipv4(segment) => Signal::steady_of(segment),
        Brief::Ipv6(segment) => Signal::steady_of(segment),
        Brief::Other(info) if info.tells_flow() && info.routed == Routed::NONE => Signal::of(info),
        Brief::Other(_) => Signal::Stray,
    }
}

/// The flows of a batch that may have been recorded since it was located: those whose keys agree in some bits.
#[derive(Default)]
struct Asked([u64; 8]);

impl Asked {
    /// Notes one; says whether it may have been noted before.
    #[inline]
    fn note(&mut self, FlowKey(key): FlowKey) -> bool {
        let bit = 1 << (key % 64);
        self.0.get_mut(key as usize / 64 % 8).is_none_or(|word| {
            let before = *word;
            *word |= bit;
            before & bit != 0
        })
    }
}

impl Balancer for FlowBalancer {
    fn assign(
        &mut self,
        services: &ServiceTable,
        packet: &PacketInfo,
        now: Timestamp,
    ) -> Assignment {
        let packet = &Brief::Other(*packet);
        let key = self.table.key_of(packet);
        let (spot, tick) = (self.locate_one(key), self.table.tick(now));
        match self.known(services, steady(packet), (key, spot), false, tick) {
            Some(index) => Assignment::Backend(index),
            None => self.decide(services, packet, key, spot, tick),
        }
    }

    /// Reads the table for all packets first, so that their cache misses overlap.
    fn assign_batch(
        &mut self,
        services: &ServiceTable,
        packets: &[Brief],
        now: Timestamp,
        assigned: &mut [Assignment],
    ) {
        let tick = self.table.tick(now);
        for (packets, assigned) in packets.chunks(BATCH).zip(assigned.chunks_mut(BATCH)) {
            if self.record == Record::Contested {
                self.decide_contested(services, packets, tick, assigned);
                continue;
            }
            let mut signals = [Signal::Stray; BATCH];
            let keys = packets.iter().zip(&mut signals).map(|(packet, signal)| {
                *signal = steady(packet);
                self.table.key_of(packet)
            });
            let located = self.table.locate(keys);
            services.fetch(self.table.backends(&located));
            let flows = located.flows().iter().zip(&signals);
            let (mut asked, mut changed) = (Asked::default(), false);
            for ((packet, (&(key, spot), &signal)), assigned) in
                packets.iter().zip(flows).zip(assigned)
            {
                *assigned = match self.known(services, signal, (key, spot), changed, tick) {
                    Some(index) => Assignment::Backend(index),
                    None => {
                        changed = true;
                        let recorded = spot.is_missing() && asked.note(key);
                        let spot = if recorded { Spot::UNKNOWN } else { spot };
                        self.decide(services, packet, key, spot, tick)
                    }
                };
            }
        }
    }

    /// Decides it by a copy of what can matter for it.
    fn explain(
        &self,
        services: &ServiceTable,
        packet: &PacketInfo,
        now: Timestamp,
    ) -> Option<Placement> {
        let key = self.table.key(&packet.flow);
        let (table, record, pace) = (self.table.excerpt(key), self.record, self.pace);
        let mut trial = Self { table, record, exchange: None, pace };
        let before = trial.table.record(key, now);
        let (spot, tick) = (trial.locate_one(key), trial.table.tick(now));
        let (assignment, decider, is_asked) = match (
            trial.known(services, steady(&(*packet).into()), (key, spot), false, tick),
            find(services, packet),
        ) {
            (Some(index), _) => (Assignment::Backend(index), Decider::FlowTable, true),
            (None, Ok(service)) => {
                let (assignment, decider) = trial.place(services, service, packet, key, spot, tick);
                let remembers = service.lives().is_some();
                (assignment, decider, remembers && packet.tells_flow())
            }
            (None, Err(assignment)) => {
                return Some(Placement::new(assignment, Decider::Lookup));
            }
        };
        let after = trial.table.record(key, now);
        let recall = is_asked.then(|| Recall {
            before: before.map(FlowMemory::from),
            after: after.map(FlowMemory::from),
        });
        Some(Placement { recall, ..Placement::new(assignment, decider) })
    }

    fn remembers_flows(&self) -> bool {
        true
    }

    fn tend(&mut self, services: &ServiceTable, now: Timestamp, is_idle: bool) {
        // Also while there is nothing to look after: what comes next has to begin within the table's small clock.
        self.table.tick(now);
        if let Some(exchange) = &mut self.exchange {
            exchange.step(&mut self.table, services, now, is_idle);
        }
        // Nothing to look after, as on a director that stands by.
        if !self.has_flows() {
            return;
        }
        let sets = if is_idle { SETS_WHEN_IDLE } else { self.pace.due(now, self.table.sets()) };
        self.table.sweep(now, sets, |index| services.keeps_any(index));
    }

    fn flows(&self, backend: BackendIndex) -> u64 {
        self.table.live(backend.slot()).into()
    }

    fn flows_begun(&self, backend: BackendIndex) -> u64 {
        self.table.begun(backend)
    }

    fn flow_counts(&self) -> FlowCounts {
        self.counts()
    }

    fn sync_counts(&self) -> SyncCounts {
        self.exchange.as_ref().map(|exchange| exchange.counts()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "remember_tests.rs"]
mod tests;
