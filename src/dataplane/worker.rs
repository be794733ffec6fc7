//! The I/O loop of one queue. It holds no logic: what becomes of a packet is the pipeline's
//! business and how it travels the driver's, so each can be tested without the other.

use super::io::PacketIo;
use super::pipeline::Pipeline;
use super::snapshot::Snapshot;
use crate::balancer::Balancer;
use crate::flow::Timestamp;
use arc_swap::{ArcSwap, Cache};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long an idle worker sleeps before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);
/// How often the driver's counters are copied to where others can read them.
const STATS_EVERY: Duration = Duration::from_millis(100);

/// Joins one queue, one pipeline and the snapshots that are published for them.
#[derive(Debug)]
pub struct Worker<I, B> {
    io: I,
    pipeline: Pipeline<B>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    outbox: Receiver<Vec<u8>>,
}

impl<I: PacketIo, B: Balancer> Worker<I, B> {
    /// A worker for the queue `io`. Frames of our own, such as announcements, come through
    /// `outbox`.
    pub fn new(
        io: I,
        pipeline: Pipeline<B>,
        snapshots: Arc<ArcSwap<Snapshot>>,
        outbox: Receiver<Vec<u8>>,
    ) -> Self {
        Self { io, pipeline, snapshots, outbox }
    }

    /// Moves packets until `stop` is set.
    ///
    /// # Errors
    ///
    /// When the queue is no longer of use; see [`PacketIo::poll`].
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut snapshots = Cache::new(Arc::clone(&self.snapshots));
        let started = Instant::now();
        let mut stats_due = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            while let Ok(frame) = self.outbox.try_recv() {
                self.io.send(&frame)?;
            }
            let pipeline = &mut self.pipeline;
            // Snapshot and time are taken when frames are there, not before the wait for them.
            self.io.poll(WAIT, &mut |frames| {
                let now = Timestamp(started.elapsed().as_nanos() as u64);
                pipeline.process(snapshots.load(), now, frames);
            })?;
            for reply in self.pipeline.take_replies() {
                self.io.send(&reply)?;
            }
            if started.elapsed() >= stats_due {
                stats_due = started.elapsed() + STATS_EVERY;
                self.publish_stats();
            }
        }
        self.publish_stats();
        Ok(())
    }

    fn publish_stats(&self) {
        self.pipeline.counters().publish_io(self.io.stats());
    }
}
