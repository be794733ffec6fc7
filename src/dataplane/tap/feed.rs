//! From a worker to whoever writes: rings that a worker never waits for, and that never grow.

use super::choice::{Choice, Chosen};
use super::{Sample, Tap};
use crate::balancer::Balancer;
use crate::dataplane::io::{Frame, MAX_BATCH};
use crate::dataplane::pipeline::Pipeline;
use crate::dataplane::snapshot::Snapshot;
use crate::flow::Timestamp;
use crate::verdict::{BackendIndex, Verdict};
use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Frames on their way.
const FRAMES: usize = 1 << 12;
/// Bytes on their way: that many frames of a quarter of a KiB.
const BYTES: usize = 1 << 20;

/// What goes ahead of a frame's bytes.
#[derive(Debug)]
struct Head {
    time: Duration,
    verdict: Verdict,
    copied: usize,
    length: usize,
}

/// What did not get onto its way.
#[derive(Debug, Default)]
struct Tally {
    not_chosen: AtomicU64,
    missed: AtomicU64,
}

/// A worker's end of a capture, given to it by [`MailSender::tap`](crate::dataplane::MailSender::tap).
///
/// While a worker has one, each frame is copied before it is processed, as processing rewrites it; if it is
/// chosen by its verdict, the copy goes into a ring of 1 MiB and 4,096 frames. For one that finds no room
/// nothing is waited for; it is counted. Of a frame [`MOST`](Self::MOST) bytes are copied. All memory, 1.4 MiB, is
/// allocated beforehand. Without one, a worker looks once for each batch whether it has one.
pub struct TapFeed {
    choice: Choice,
    /// The frames of the batch, one behind the other.
    copies: Vec<u8>,
    /// How much of each was copied, and how long it is.
    lengths: ArrayVec<(usize, usize), MAX_BATCH>,
    time: Duration,
    heads: Producer<Head>,
    bytes: Producer<u8>,
    tally: Arc<Tally>,
}

/// The other end, for one [`Tap`] or several.
pub struct TapReader {
    heads: Consumer<Head>,
    bytes: Consumer<u8>,
    tally: Arc<Tally>,
    frame: Vec<u8>,
}

impl TapFeed {
    /// The most bytes that are copied of a frame: more than AF_XDP takes in one.
    pub const MOST: usize = 4096;

    /// Both ends, for frames that are chosen in this way.
    pub fn new(chosen: Chosen) -> (Self, TapReader) {
        let (heads, read_heads) = RingBuffer::new(FRAMES);
        let (bytes, read_bytes) = RingBuffer::new(BYTES);
        let tally = Arc::new(Tally::default());
        let feed = Self {
            choice: Choice::new(chosen),
            copies: Vec::with_capacity(MAX_BATCH * Self::MOST),
            lengths: ArrayVec::new(),
            time: Duration::ZERO,
            heads,
            bytes,
            tally: Arc::clone(&tally),
        };
        let frame = Vec::with_capacity(Self::MOST);
        (feed, TapReader { heads: read_heads, bytes: read_bytes, tally, frame })
    }

    /// Whether nobody reads any more.
    pub(in crate::dataplane) fn is_over(&self) -> bool {
        self.heads.is_abandoned()
    }

    fn copy(&mut self, time: Duration, frames: &[Frame<'_>]) {
        self.time = time;
        self.copies.clear();
        self.lengths.clear();
        for frame in frames.iter().take(MAX_BATCH) {
            let bytes = frame.bytes();
            let copied = bytes.len().min(Self::MOST);
            self.copies.extend_from_slice(bytes.get(..copied).unwrap_or_default());
            self.lengths.push((copied, bytes.len()));
        }
    }

    fn offer(&mut self, verdicts: &[Verdict]) {
        let (mut rest, mut not_chosen, mut missed) = (&self.copies[..], 0, 0);
        for ((copied, length), verdict) in self.lengths.iter().zip(verdicts) {
            let (frame, after) = rest.split_at_checked(*copied).unwrap_or_default();
            rest = after;
            let sample = Sample::new(self.time, frame, *verdict).cut_from(*length);
            if !self.choice.takes(&sample) {
                not_chosen += 1;
            // The head comes second: who sees it finds the bytes.
            } else if self.heads.is_full() || self.bytes.push_entire_slice(frame).is_err() {
                missed += 1;
            } else {
                let (time, verdict, copied, length) = (self.time, *verdict, *copied, *length);
                let head = Head { time, verdict, copied, length };
                let pushed = self.heads.push(head);
                debug_assert!(pushed.is_ok(), "nobody else fills it");
            }
        }
        self.tally.not_chosen.fetch_add(not_chosen, Ordering::Relaxed);
        self.tally.missed.fetch_add(missed, Ordering::Relaxed);
    }
}

/// [`Pipeline::process`] where there is somebody to see what came and what became of it.
pub(in crate::dataplane) fn process_tapped<B: Balancer>(
    feeds: &mut [TapFeed],
    pipeline: &mut Pipeline<B>,
    snapshot: &Snapshot,
    now: Timestamp,
    frames: &mut [Frame<'_>],
) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    feeds.iter_mut().for_each(|feed| feed.copy(time, frames));
    let verdicts = pipeline.process(snapshot, now, frames);
    feeds.iter_mut().for_each(|feed| feed.offer(verdicts));
}

impl TapReader {
    /// Writes what has come, if it fits the tap's bounds; at most a ring full of it. Returns how many frames
    /// were looked at. When one comes for a backend whose name the tap does not know, `names` is asked
    /// for all of them, once.
    ///
    /// The tap is to take [all](Chosen::All) frames: they have been chosen. What was not, or found no room, is
    /// added to its counts.
    ///
    /// # Errors
    ///
    /// If the tap's output cannot be written.
    pub fn write_to<W: Write>(
        &mut self,
        tap: &mut Tap<W>,
        names: impl FnOnce() -> BTreeMap<BackendIndex, String>,
    ) -> io::Result<usize> {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        tap.gate.add(take(&self.tally.not_chosen), take(&self.tally.missed));
        let mut names = Some(names);
        for count in 0..FRAMES {
            let Ok(head) = self.heads.pop() else {
                return Ok(count);
            };
            self.frame.resize(head.copied, 0);
            let read = self.bytes.pop_entire_slice(&mut self.frame);
            debug_assert!(read.is_ok(), "the bytes come before their head");
            if let Verdict::Forward(index) = head.verdict
                && !tap.names.contains_key(&index)
                && let Some(names) = names.take()
            {
                tap.name_backends(names());
            }
            let sample = Sample::new(head.time, &self.frame, head.verdict);
            tap.offer(&sample.cut_from(head.length))?;
        }
        Ok(FRAMES)
    }

    /// Whether no more frames will come than have come: the worker has ended.
    pub fn is_over(&self) -> bool {
        let is_over = self.heads.is_abandoned();
        // Whoever has seen the end is to see what was there before it.
        fence(Ordering::Acquire);
        is_over
    }
}

impl fmt::Debug for TapFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapFeed").field("choice", &self.choice).finish_non_exhaustive()
    }
}

impl fmt::Debug for TapReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapReader").field("tally", &self.tally).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
