//! When flows are told of and heard of, and how many at a time.

use super::{FlowSync, SharedFlow, SyncCounts};
use crate::balancer::flow_table::{FlowKey, FlowTable, Imported};
use crate::balancer::table::ServiceTable;
use crate::flow::Timestamp;
use arrayvec::ArrayVec;
use std::fmt;
use std::time::Duration;

/// What is handed to the transport at once: as many records as a datagram of 1,400 bytes holds.
const MOST_AT_ONCE: usize = 56;
/// Records wait this long for others to be handed on with them, in ns.
const WAIT: u64 = 10_000_000;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);
/// The most sets that are gone through, and records that are taken in, with a batch and when idle.
const SETS_A_BATCH: usize = 64;
const SETS_WHEN_IDLE: usize = 16_384;
const TAKEN_A_BATCH: u64 = 256;
const TAKEN_WHEN_IDLE: u64 = 8192;
/// One record is taken in for so many nanoseconds that pass: half a million a second at most.
const NS_A_RECORD: u64 = 2000;
/// How many records are looked at ahead.
const AHEAD: usize = 32;

/// A balancer's dealings with others.
pub(in crate::balancer) struct Exchange {
    transport: Box<dyn FlowSync>,
    /// In ns.
    interval: u64,
    /// When the present round through the table began, and how many sets it has been through.
    round: Timestamp,
    done: usize,
    /// What is to be handed on, the first of it since this time.
    ready: ArrayVec<SharedFlow, MOST_AT_ONCE>,
    since: Timestamp,
    /// Until when records have been taken in.
    taken: Timestamp,
    counts: SyncCounts,
}

impl Exchange {
    pub(in crate::balancer) fn new(transport: Box<dyn FlowSync>) -> Self {
        let interval = transport.interval().clamp(SHORTEST, LONGEST).as_nanos() as u64;
        let (round, since, taken) = Default::default();
        let (ready, counts) = (ArrayVec::new(), SyncCounts::default());
        Self { transport, interval, round, done: 0, ready, since, taken, counts }
    }

    pub(in crate::balancer) fn counts(&self) -> SyncCounts {
        self.counts
    }

    /// What is due by now.
    pub(in crate::balancer) fn step(
        &mut self,
        table: &mut FlowTable,
        services: &ServiceTable,
        now: Timestamp,
        is_idle: bool,
    ) {
        self.take_in(table, services, now, is_idle);
        self.tell(table, services, now, is_idle);
        if is_idle || now.0.saturating_sub(self.since.0) >= WAIT {
            self.hand_on();
        }
    }

    fn take_in(
        &mut self,
        table: &mut FlowTable,
        services: &ServiceTable,
        now: Timestamp,
        is_idle: bool,
    ) {
        let most = if is_idle { TAKEN_WHEN_IDLE } else { TAKEN_A_BATCH };
        let allowed = now.0.saturating_sub(self.taken.0) / NS_A_RECORD;
        if allowed == 0 {
            return;
        }
        self.taken = now;
        let mut left = allowed.min(most) as usize;
        while left > 0 {
            let next = std::iter::from_fn(|| self.transport.receive());
            let flows: ArrayVec<SharedFlow, AHEAD> = next.take(left.min(AHEAD)).collect();
            // So that their cache misses overlap.
            std::hint::black_box(table.locate(flows.iter().map(|flow| FlowKey(flow.key()))));
            for flow in &flows {
                self.take(table, services, now, flow);
            }
            left -= flows.len();
            if !flows.is_full() {
                return;
            }
        }
    }

    #[inline]
    fn take(
        &mut self,
        table: &mut FlowTable,
        services: &ServiceTable,
        now: Timestamp,
        flow: &SharedFlow,
    ) {
        self.counts.received += 1;
        let usable = |index| services.keeps_any(index);
        let count = match services.names().backend(flow.backend()) {
            None => &mut self.counts.unknown,
            Some(index) => match table.import(flow.record(index), now, usable) {
                Imported::New => &mut self.counts.new,
                Imported::Updated => &mut self.counts.updated,
                Imported::Known => &mut self.counts.known,
                Imported::Refused => &mut self.counts.refused,
                Imported::NotKept => &mut self.counts.unknown,
            },
        };
        *count += 1;
    }

    /// Goes through the table so that one round takes one interval, or longer if time is short: with the
    /// time, so that what is sent is spread over it.
    fn tell(&mut self, table: &FlowTable, services: &ServiceTable, now: Timestamp, is_idle: bool) {
        let mut passed = now.0.saturating_sub(self.round.0);
        let sets = table.sets();
        if self.done >= sets {
            if passed < self.interval {
                return;
            }
            // What is a whole round late is not made up for.
            let late = Some(passed - self.interval).filter(|late| *late < self.interval);
            passed = late.unwrap_or_default();
            (self.round, self.done) = (Timestamp(now.0 - passed), 0);
        }
        let due = u128::from(passed) * sets as u128 / u128::from(self.interval);
        let most = if is_idle { SETS_WHEN_IDLE } else { SETS_A_BATCH };
        let end = usize::try_from(due).unwrap_or(sets).min(sets).min(self.done + most);
        if end <= self.done {
            return;
        }
        for record in table.own_records(self.done..end, now) {
            let name = services.names().name(record.backend);
            let Some(flow) = name.and_then(|name| SharedFlow::new(&record, name)) else {
                continue;
            };
            if self.ready.is_empty() {
                self.since = now;
            }
            self.ready.push(flow);
            if self.ready.is_full() {
                self.hand_on();
            }
        }
        self.done = end;
    }

    fn hand_on(&mut self) {
        if !self.ready.is_empty() {
            self.counts.sent += self.ready.len() as u64;
            self.counts.lost += self.transport.send(&self.ready) as u64;
            self.ready.clear();
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("counts", &self.counts).finish_non_exhaustive()
    }
}
