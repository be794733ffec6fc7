//! The I/O loop of one queue. It holds no logic: what becomes of a packet is the pipeline's
//! business and how it travels the driver's, so each can be tested without the other.

use super::io::{PacketIo, Port};
use super::mailbox::{Answer, Mail, Mailbox, Question};
use super::pipeline::Pipeline;
use super::snapshot::Snapshot;
#[cfg(feature = "pcap")]
use super::tap::{TapFeed, process_tapped};
use crate::balancer::Balancer;
use crate::flow::Timestamp;
use crate::verdict::BackendIndex;
use arc_swap::{ArcSwap, Cache};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long an idle worker sleeps before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);
/// How often the driver's counters are copied to where others can read them.
const STATS_EVERY: Duration = Duration::from_millis(100);

/// How many backends have their flows counted each time: few enough that no packet waits for it.
const BACKENDS_AT_ONCE: usize = 1024;

/// How many batches are still moved at the end: more than any receive ring holds.
const LAST_BATCHES: usize = 1 << 16;

/// Who gets the frames that VIPs answer to probes with.
type Prober = Box<dyn FnMut(&[u8]) + Send>;

type Snapshots = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// Joins one queue, one pipeline and the snapshots that are published for them. Aligned so that no other worker's
/// shares a cache line with it, wherever the two are kept.
#[repr(align(128))]
pub struct Worker<I: PacketIo, B> {
    io: I,
    pipeline: Pipeline<B>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    mailbox: Mailbox,
    prober: Prober,
    /// When the time of its packets begins.
    epoch: Instant,
    /// When there has been nothing to do for long enough to put things in order.
    idle_due: Duration,
    /// The slot of the backend whose flows are counted next.
    counted: usize,
    /// Those who see what comes and what becomes of it; none but while something is captured.
    #[cfg(feature = "pcap")]
    taps: Vec<TapFeed>,
}

impl<I: PacketIo, B: Balancer> Worker<I, B> {
    /// A worker for the queue `io`. Frames of our own, such as announcements, and questions come
    /// through `mailbox`.
    pub fn new(
        io: I,
        pipeline: Pipeline<B>,
        snapshots: Arc<ArcSwap<Snapshot>>,
        mailbox: Mailbox,
    ) -> Self {
        let (prober, idle_due): (Prober, _) = (Box::new(|_| ()), Duration::ZERO);
        let epoch = Instant::now();
        Self {
            io,
            pipeline,
            snapshots,
            mailbox,
            prober,
            epoch,
            idle_due,
            counted: 0,
            #[cfg(feature = "pcap")]
            taps: Vec::new(),
        }
    }

    /// Sets when the time begins that its balancer gets to see, which is now unless told: whoever plans
    /// [at](super::Planner::at) a time goes by the same.
    #[must_use]
    pub fn epoch(mut self, epoch: Instant) -> Self {
        self.epoch = epoch;
        self
    }

    /// Sets who gets the frames that VIPs answer to probes with.
    #[must_use]
    pub fn prober(mut self, prober: impl FnMut(&[u8]) + Send + 'static) -> Self {
        self.prober = Box::new(prober);
        self
    }

    /// Moves packets until `stop` is set, and then those that have come by that time: whoever stops
    /// a worker has seen to it that no more do.
    ///
    /// # Errors
    ///
    /// When the queue is no longer of use; see [`PacketIo::poll`].
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut snapshots = Cache::new(Arc::clone(&self.snapshots));
        let started = self.epoch;
        let mut stats_due = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            while let Some(mail) = self.mailbox.next() {
                match mail {
                    Mail::Frame(port, frame) => {
                        self.io.send(port, &frame)?;
                    }
                    Mail::Question(question, answer) => {
                        let now = Timestamp(started.elapsed().as_nanos() as u64);
                        // Who asked may have given up by now.
                        let _ = answer.send(self.explain(snapshots.load(), now, &question));
                    }
                    #[cfg(feature = "pcap")]
                    Mail::Tap(feed) => self.taps.push(*feed),
                }
            }
            self.step(WAIT, &mut snapshots, started)?;
            if started.elapsed() >= stats_due {
                stats_due = started.elapsed() + STATS_EVERY;
                self.publish_stats();
                self.publish_leaving(snapshots.load());
                self.publish_flows(snapshots.load());
                #[cfg(feature = "pcap")]
                self.taps.retain(|tap| !tap.is_over());
            }
        }
        for _ in 0..LAST_BATCHES {
            if self.step(Duration::ZERO, &mut snapshots, started)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn explain(&self, snapshot: &Snapshot, now: Timestamp, question: &Question) -> Answer {
        match question {
            Question::Frame(frame) => Ok(self.pipeline.explain(snapshot, now, frame)),
            Question::Flow(flow) => self.pipeline.explain_flow(snapshot, now, flow),
        }
    }

    fn publish_leaving(&self, snapshot: &Snapshot) {
        let flows = |index: &BackendIndex| (*index, self.pipeline.balancer().flows(*index));
        let leaving = snapshot.leaving.iter().map(flows).collect();
        self.pipeline.counters().publish_leaving(snapshot.generation, leaving);
    }

    fn publish_flows(&mut self, snapshot: &Snapshot) {
        let (balancer, counters) = (self.pipeline.balancer(), self.pipeline.counters());
        counters.publish_balancer(balancer.flow_counts(), balancer.sync_counts());
        let next_hops = snapshot.next_hops.iter().enumerate();
        let mut last = None;
        for (slot, hop) in next_hops.skip(self.counted).take(BACKENDS_AT_ONCE) {
            let of = |index| (balancer.flows(index), balancer.flows_begun(index));
            let (flows, begun) = hop.as_ref().map_or((0, 0), |hop| of(hop.index));
            counters.publish_flows(slot, flows, begun);
            last = Some(slot);
        }
        let next = last.map_or(0, |last| last + 1);
        self.counted = if next < snapshot.next_hops.len() { next } else { 0 };
    }

    /// One batch; returns its size.
    fn step(
        &mut self,
        wait: Duration,
        snapshots: &mut Snapshots,
        started: Instant,
    ) -> io::Result<usize> {
        let pipeline = &mut self.pipeline;
        #[cfg(feature = "pcap")]
        let taps = &mut self.taps;
        // Snapshot and time are taken when frames are there, not before the wait for them.
        let count = self.io.poll(wait, &mut |frames| {
            let now = Timestamp(started.elapsed().as_nanos() as u64);
            let snapshot = snapshots.load();
            #[cfg(feature = "pcap")]
            if !taps.is_empty() {
                return process_tapped(taps, pipeline, snapshot, now, frames);
            }
            pipeline.process(snapshot, now, frames);
        })?;
        // A wait that was ended for a frame of our own is no idleness.
        if count == 0 && started.elapsed() >= self.idle_due {
            self.idle_due = started.elapsed() + WAIT;
            let now = Timestamp(started.elapsed().as_nanos() as u64);
            self.pipeline.idle(snapshots.load(), now);
        }
        let Self { io, prober, pipeline, .. } = self;
        pipeline.drain(|port, frame| match port {
            Port::PROBER => {
                prober(frame);
                Ok(())
            }
            port => io.send(port, frame).map(drop),
        })?;
        Ok(count)
    }
}

impl<I: PacketIo + fmt::Debug, B: fmt::Debug> fmt::Debug for Worker<I, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("io", &self.io)
            .field("pipeline", &self.pipeline)
            .finish_non_exhaustive()
    }
}

impl<I: PacketIo, B> Worker<I, B> {
    fn publish_stats(&self) {
        self.pipeline.counters().publish_io(self.io.stats());
    }
}

impl<I: PacketIo, B> Drop for Worker<I, B> {
    /// The last counters are published whatever the worker ended by, a panic included.
    fn drop(&mut self) {
        self.publish_stats();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::HashBalancer;
    use crate::dataplane::{Counts, MemoryIo, WorkerCounters};

    #[test]
    fn what_has_come_by_the_end_is_still_moved_and_counted() {
        let counters = Arc::new(WorkerCounters::new(1));
        let mut io = MemoryIo::new();
        for _ in 0..200 {
            io.push(vec![0; 60]);
        }
        let pipeline = Pipeline::new(HashBalancer, Arc::clone(&counters));
        let mut worker = Worker::new(io, pipeline, Arc::default(), Mailbox::empty());
        worker.run(&AtomicBool::new(true)).unwrap();
        drop(worker);
        let mut counts = Counts::default();
        counters.add_to(&mut counts);
        assert_eq!((counts.verdicts(), counts.io.received), (200, 200));
    }
}
