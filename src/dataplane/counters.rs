//! Counters that one worker writes and anyone may read.

use super::io::IoStats;
use crate::balancer::SyncCounts;
use crate::verdict::{AnswerKind, BackendIndex, DropReason, Verdict};
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

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Traffic {
    packets: Counter,
    bytes: Counter,
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
    /// By slot of the backend's index.
    backends: Box<[Traffic]>,
    /// The driver's own, copied here now and then; never touched for a packet.
    io: Mutex<IoStats>,
    /// The balancer's own, likewise.
    sync: Mutex<SyncCounts>,
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
            backends: (0..backends).map(|_| Traffic::default()).collect(),
            io: Mutex::default(),
            sync: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// Counts one frame of `length` bytes. Only the worker that owns the counters may call this;
    /// counts of two writers would get lost.
    #[inline]
    pub(super) fn record(&self, verdict: Verdict, length: usize) {
        match verdict {
            Verdict::Forward(index) => {
                let length = length as u64;
                self.forwarded.packets.add(1);
                self.forwarded.bytes.add(length);
                if let Some(backend) = self.backends.get(index.slot()) {
                    backend.packets.add(1);
                    backend.bytes.add(length);
                }
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

    pub(super) fn publish_io(&self, stats: IoStats) {
        *lock(&self.io) = stats;
    }

    pub(super) fn publish_sync(&self, counts: SyncCounts) {
        *lock(&self.sync) = counts;
    }

    /// Adds what has been counted so far to `sum`.
    pub fn add_to(&self, sum: &mut Counts) {
        sum.forwarded += self.forwarded.packets.read();
        sum.forwarded_bytes += self.forwarded.bytes.read();
        for (sum, counter) in sum.answered.iter_mut().zip(&self.answered) {
            *sum += counter.read();
        }
        sum.held += self.held.read();
        sum.probes += self.probes.read();
        sum.passed += self.passed.read();
        for (sum, counter) in sum.dropped.iter_mut().zip(&self.dropped) {
            *sum += counter.read();
        }
        sum.doubtful_mtus += self.doubtful_mtus.read();
        sum.io += *lock(&self.io);
        sum.sync += *lock(&self.sync);
    }

    /// Packets and bytes forwarded to the backend in this slot, whoever held it.
    pub fn backend(&self, index: BackendIndex) -> (u64, u64) {
        self.backends
            .get(index.slot())
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
    /// What the drivers counted.
    pub io: IoStats,
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

#[cfg(test)]
mod tests {
    use super::*;

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
