//! Counters that one worker writes and anyone may read.

use super::io::IoStats;
use crate::addresses::addresses;
use crate::balancer::{FlowCounts, SyncCounts};
use crate::verdict::{AnswerKind, BackendIndex, DropReason, Verdict};
use prefetch_index::prefetch_index;
use std::ops::{AddAssign, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with a single writer, which therefore needs no locked instruction: it loads, adds and
/// stores. Readers on other cores see some recent value.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, amount: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(amount);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
#[repr(align(16))]
struct Traffic {
    packets: Counter,
    bytes: Counter,
}

impl Traffic {
    #[inline]
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }
}

/// What processors hand to each other at once: a line, and with most its neighbour.
const LINE: usize = 128;
/// Before the counters of the first backend and behind those of the last one, so that what the allocator puts beside them,
/// another worker's for one, is on other lines.
const MARGIN: usize = LINE / size_of::<Traffic>();

const _: () = assert!(align_of::<WorkerCounters>() == LINE);

/// What was sent to each backend, by its slot.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a>(&'a [Traffic]);

impl<'a> Sent<'a> {
    #[inline(always)]
    fn to(self, index: BackendIndex) -> Option<&'a Traffic> {
        self.0.get(index.slot())
    }

    /// Has the counters of a backend fetched.
    #[inline(always)]
    pub(super) fn fetch(self, index: BackendIndex) {
        prefetch_index(self.0, index.slot());
    }

    /// Counts a frame of `length` bytes to this backend, but for the sum of all: that is for
    /// [`WorkerCounters::record_forwarded`] to say, once for a batch.
    #[inline(always)]
    pub(super) fn record(self, index: BackendIndex, length: u64) {
        if let Some(backend) = self.to(index) {
            backend.add(1, length);
        }
    }
}

/// One worker's counters. Aligned so that no other worker's share a cache line with them.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    forwarded: Traffic,
    answered: [Counter; AnswerKind::ALL.len()],
    held: Counter,
    probes: Counter,
    passed: Counter,
    dropped: [Counter; DropReason::COUNT],
    doubtful_mtus: Counter,
    /// By slot of the backend's index, between two margins.
    backends: Box<[Traffic]>,
    /// How many flows there are and have begun, by slot of the backend's index.
    flows: Box<[[Counter; 2]]>,
    /// The driver's own, copied here now and then, with the verdicts by then; never touched for a packet.
    io: Mutex<(IoStats, u64)>,
    /// The balancer's own, likewise.
    balancer: Mutex<(FlowCounts, SyncCounts)>,
    /// Of backends that are being emptied, how many flows they have, and the snapshot that said which.
    leaving: Mutex<(u64, Vec<(BackendIndex, u64)>)>,
}

impl WorkerCounters {
    /// All zero, with room for this many backends.
    pub fn new(backends: usize) -> Self {
        Self {
            forwarded: Traffic::default(),
            answered: std::array::from_fn(|_| Counter::default()),
            held: Counter::default(),
            probes: Counter::default(),
            passed: Counter::default(),
            dropped: std::array::from_fn(|_| Counter::default()),
            doubtful_mtus: Counter::default(),
            backends: (0..backends + 2 * MARGIN).map(|_| Traffic::default()).collect(),
            flows: (0..backends).map(|_| Default::default()).collect(),
            io: Mutex::default(),
            balancer: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// Where those of each backend lie in memory, by its addresses; as [`Snapshot::memory`](super::Snapshot::memory).
    pub fn memory(&self) -> Range<usize> {
        addresses(self.sent().0)
    }

    /// What was sent to each backend.
    #[inline(always)]
    pub(super) fn sent(&self) -> Sent<'_> {
        let end = self.backends.len().saturating_sub(MARGIN);
        Sent(self.backends.get(MARGIN..end).unwrap_or_default())
    }

    #[inline]
    pub(super) fn record_forwarded(&self, packets: u64, bytes: u64) {
        self.forwarded.add(packets, bytes);
    }

    /// Counts one frame of `length` bytes. Only the worker that owns the counters may call this;
    /// counts of two writers would get lost.
    #[inline]
    pub(super) fn record(&self, verdict: Verdict, length: usize) {
        match verdict {
            Verdict::Forward(index) => {
                self.record_forwarded(1, length as u64);
                self.sent().record(index, length as u64);
            }
            Verdict::Answer(kind) => {
                if let Some(counter) = self.answered.get(kind as usize) {
                    counter.add(1);
                }
            }
            Verdict::Hold => self.held.add(1),
            Verdict::Probe => self.probes.add(1),
            Verdict::Pass => self.passed.add(1),
            Verdict::Drop(reason) => {
                if let Some(counter) = self.dropped.get(reason.index()) {
                    counter.add(1);
                }
            }
        }
    }

    /// Counts a frame that was held and is now to be counted under its last verdict.
    #[inline]
    pub(super) fn release(&self) {
        self.held.add(u64::MAX); // wraps around to one less
    }

    /// Counts an ICMP error that says less than any link takes, besides its verdict.
    pub(super) fn record_doubtful_mtu(&self) {
        self.doubtful_mtus.add(1);
    }

    pub(super) fn publish_leaving(&self, generation: u64, flows: Vec<(BackendIndex, u64)>) {
        *lock(&self.leaving) = (generation, flows);
    }

    /// How many flows a backend that takes no new ones still has; none if that has not been counted
    /// since this snapshot.
    pub fn leaving(&self, backend: BackendIndex, generation: u64) -> Option<u64> {
        let (counted, flows) = &*lock(&self.leaving);
        let is_it = |(index, _): &&(BackendIndex, u64)| *index == backend;
        let known = flows.iter().find(is_it).map(|(_, count)| *count);
        (*counted >= generation).then_some(known.unwrap_or_default())
    }

    /// Copies what the driver counted. Only the worker may call this, between two batches: then every
    /// frame that was received has its verdict.
    pub(super) fn publish_io(&self, stats: IoStats) {
        let verdicts = self.frames().verdicts();
        *lock(&self.io) = (stats, verdicts);
    }

    pub(super) fn publish_balancer(&self, flows: FlowCounts, sync: SyncCounts) {
        *lock(&self.balancer) = (flows, sync);
    }

    /// Notes how many flows the backend in a slot has, and how many of its have begun.
    pub(super) fn publish_flows(&self, slot: usize, flows: u64, begun: u64) {
        if let Some(counters) = self.flows.get(slot) {
            counters.iter().zip([flows, begun]).for_each(|(counter, value)| counter.set(value));
        }
    }

    /// Adds what has been counted so far to `sum`.
    pub fn add_to(&self, sum: &mut Counts) {
        let (io, judged) = *lock(&self.io);
        let (flows, sync) = *lock(&self.balancer);
        *sum += Counts { io, judged, flows, sync, ..self.frames() };
    }

    /// What is counted for each frame.
    fn frames(&self) -> Counts {
        let read = |counters: &[Counter], index| counters.get(index).map_or(0, Counter::read);
        Counts {
            forwarded: self.forwarded.packets.read(),
            forwarded_bytes: self.forwarded.bytes.read(),
            answered: std::array::from_fn(|kind| read(&self.answered, kind)),
            held: self.held.read(),
            probes: self.probes.read(),
            passed: self.passed.read(),
            dropped: std::array::from_fn(|reason| read(&self.dropped, reason)),
            doubtful_mtus: self.doubtful_mtus.read(),
            ..Counts::default()
        }
    }

    /// How many flows the backend in this slot had when they were counted last, whoever held it.
    pub fn flows(&self, index: BackendIndex) -> u64 {
        self.flows.get(index.slot()).map_or(0, |[flows, _]| flows.read())
    }

    /// How many flows of the backend in this slot had begun by then.
    pub fn flows_begun(&self, index: BackendIndex) -> u64 {
        self.flows.get(index.slot()).map_or(0, |[_, begun]| begun.read())
    }

    /// Packets and bytes forwarded to the backend in this slot, whoever held it.
    pub fn backend(&self, index: BackendIndex) -> (u64, u64) {
        self.sent()
            .to(index)
            .map_or((0, 0), |backend| (backend.packets.read(), backend.bytes.read()))
    }
}

/// A poisoned lock is no reason to lose counters: they are plain numbers.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Frames by verdict, summed over workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Forwarded to a backend.
    pub forwarded: u64,
    /// Bytes of the forwarded frames, Ethernet header included.
    pub forwarded_bytes: u64,
    /// Answered, by kind.
    answered: [u64; AnswerKind::ALL.len()],
    /// Fragments waiting for the first of their datagram now.
    pub held: u64,
    /// Not for a VIP.
    pub passed: u64,
    /// What VIPs answered to probes of ours.
    pub probes: u64,
    /// Dropped, by [`DropReason::index`].
    dropped: [u64; DropReason::COUNT],
    /// ICMP errors about a VIP's flows that name an MTU below what every link takes. They are no
    /// verdict: such an error goes to its backend, which ignores it, like any other.
    pub doubtful_mtus: u64,
    /// What the drivers counted, up to a tenth of a second ago.
    pub io: IoStats,
    /// The [sum over all verdicts](Self::verdicts) when that was read. It is what they received, or a frame
    /// was lost.
    pub judged: u64,
    /// How many flows are remembered, up to a tenth of a second ago.
    pub flows: FlowCounts,
    /// What balancers that share flows have told and heard, up to a tenth of a second ago.
    pub sync: SyncCounts,
}

impl Counts {
    /// Frames answered in this way.
    pub fn answered(&self, kind: AnswerKind) -> u64 {
        self.answered.get(kind as usize).copied().unwrap_or(0)
    }

    /// Every kind of answer that was given, with its number.
    pub fn answers(&self) -> impl Iterator<Item = (AnswerKind, u64)> + '_ {
        AnswerKind::ALL.into_iter().zip(self.answered).filter(|(_, count)| *count > 0)
    }

    /// Frames dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason.index()).copied().unwrap_or(0)
    }

    /// Every reason for which frames were dropped, with their number.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let all = DropReason::ALL.iter().copied().zip(self.dropped);
        all.filter(|(_, count)| *count > 0)
    }

    /// The sum over all verdicts: every frame received ended in exactly one.
    pub fn verdicts(&self) -> u64 {
        let (answered, dropped) =
            (self.answered.iter().sum::<u64>(), self.dropped.iter().sum::<u64>());
        self.forwarded + answered + self.held + self.probes + self.passed + dropped
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut [u64], more: &[u64]| {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        self.forwarded += other.forwarded;
        self.forwarded_bytes += other.forwarded_bytes;
        add(&mut self.answered, &other.answered);
        self.held += other.held;
        self.passed += other.passed;
        self.probes += other.probes;
        add(&mut self.dropped, &other.dropped);
        self.doubtful_mtus += other.doubtful_mtus;
        self.io += other.io;
        self.judged += other.judged;
        self.flows += other.flows;
        self.sync += other.sync;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_what_had_a_verdict_when_the_driver_was_asked() {
        let worker = WorkerCounters::new(2);
        let index = BackendIndex::new(1, 0);
        for verdict in [
            Verdict::Forward(index),
            Verdict::Answer(AnswerKind::Echo),
            Verdict::Probe,
            Verdict::Pass,
            Verdict::Drop(DropReason::NoService),
        ] {
            worker.record(verdict, 60);
        }
        worker.publish_io(IoStats { received: 5, ..IoStats::default() });
        worker.record(Verdict::Hold, 60);
        worker.publish_flows(1, 7, 9);
        worker.publish_flows(2, 8, 10);
        let mut sum = Counts::default();
        worker.add_to(&mut sum);
        assert_eq!((sum.judged, sum.verdicts()), (5, 6));
        let same = sum;
        sum += same;
        assert_eq!((sum.judged, sum.verdicts(), sum.io.received), (10, 12, 10));
        assert_eq!((sum.dropped(DropReason::NoService), sum.answered(AnswerKind::Echo)), (2, 2));
        assert_eq!((worker.flows(index), worker.flows(BackendIndex::new(2, 0))), (7, 0));
        assert_eq!(worker.flows_begun(index), 9);
    }

    #[test]
    fn the_drivers_counts_are_summed_over_workers() {
        let stats = IoStats { received: 3, ..IoStats::default() };
        let mut sum = Counts::default();
        for _ in 0..2 {
            let worker = WorkerCounters::new(0);
            // The driver counts from its own start: what it says last is all there is.
            worker.publish_io(stats);
            worker.publish_io(stats);
            worker.add_to(&mut sum);
        }
        assert_eq!(sum.io.received, 6);
    }
}
