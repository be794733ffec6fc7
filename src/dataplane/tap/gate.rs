//! How many frames a tap takes, and which. Pure.

use super::Sample;
use super::choice::{Choice, Chosen};
use crate::flow::Timestamp;
use crate::packet::icmp::TokenBucket;

/// How much a [`Tap`](super::Tap) writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes in all, the headers of the file included. The first frame that does not fit ends the
    /// capture.
    pub bytes: u64,
    /// Frames a second in the long run, by the time they are offered with.
    pub frames_per_second: u32,
    /// Frames at once after a quiet time.
    pub frames_at_once: u32,
}

impl Bounds {
    /// No bounds, for replays of files.
    pub const NONE: Self =
        Self { bytes: u64::MAX, frames_per_second: u32::MAX, frames_at_once: u32::MAX };
}

impl Default for Bounds {
    /// 64 MiB, a thousand frames a second, a hundred at once.
    fn default() -> Self {
        Self { bytes: 64 << 20, frames_per_second: 1000, frames_at_once: 100 }
    }
}

/// What became of a frame that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Taken {
    /// It is written.
    Written,
    /// It is not one of those chosen.
    NotChosen,
    /// It is, and there were too many of them lately.
    TooMany,
    /// It is, and does not fit any more; or the capture had ended before it came.
    Ended,
}

/// What a [`Tap`](super::Tap) has done. All but the bytes add up to the frames that were offered, less those
/// whose writing failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TapCounts {
    /// Frames written.
    pub written: u64,
    /// Frames that were not chosen.
    pub not_chosen: u64,
    /// Frames that came too fast.
    pub too_many: u64,
    /// Frames that came after the end.
    pub ended: u64,
    /// Frames that were chosen by a [`TapFeed`](super::TapFeed), and found no room on their way to the tap.
    pub missed: u64,
    /// Bytes written, the headers of the file included.
    pub bytes: u64,
}

/// By as many nanoseconds no two queues are apart: ten seconds.
const APART: u64 = 10_000_000_000;

/// Decides about one frame after the other.
#[derive(Debug)]
pub(super) struct Gate {
    choice: Choice,
    bounds: Bounds,
    bucket: TokenBucket,
    /// The latest time seen: several queues in one file are not quite in order, and a bucket whose clock
    /// goes back lets nothing through.
    latest: Timestamp,
    /// By how many nanoseconds the clock has been set back in all.
    set_back: u64,
    has_ended: bool,
    counts: TapCounts,
}

impl Gate {
    pub(super) fn new(chosen: Chosen, bounds: Bounds) -> Self {
        let bucket = TokenBucket::new(bounds.frames_per_second, bounds.frames_at_once);
        Self {
            choice: Choice::new(chosen),
            bounds,
            bucket,
            latest: Timestamp(0),
            set_back: 0,
            has_ended: false,
            counts: TapCounts::default(),
        }
    }

    /// Whether a frame is to be written if it [fits](Gate::fits); if not, why.
    pub(super) fn choose(&mut self, sample: &Sample<'_>) -> Result<(), Taken> {
        let counts = &mut self.counts;
        if self.has_ended {
            counts.ended += 1;
            return Err(Taken::Ended);
        }
        if !self.choice.takes(sample) {
            counts.not_chosen += 1;
            return Err(Taken::NotChosen);
        }
        let nanoseconds = u64::try_from(sample.time.as_nanos()).unwrap_or(u64::MAX);
        let behind = self.latest.0.saturating_sub(nanoseconds.saturating_add(self.set_back));
        if behind > APART {
            self.set_back = self.set_back.saturating_add(behind);
        }
        let time = Timestamp(nanoseconds.saturating_add(self.set_back));
        self.latest = self.latest.max(time);
        if !self.bucket.take(self.latest) {
            counts.too_many += 1;
            return Err(Taken::TooMany);
        }
        Ok(())
    }

    /// Whether so many bytes more may be written; if not, the capture has ended.
    pub(super) fn fits(&mut self, bytes: u64) -> Result<(), Taken> {
        if self.counts.bytes.saturating_add(bytes) > self.bounds.bytes {
            self.end();
            self.counts.ended += 1;
            return Err(Taken::Ended);
        }
        Ok(())
    }

    /// Counts what was written: a header, or a frame.
    pub(super) fn wrote(&mut self, bytes: u64, frames: u64) {
        self.counts.bytes += bytes;
        self.counts.written += frames;
    }

    /// Counts frames that were dealt with before they could be offered.
    pub(super) fn add(&mut self, not_chosen: u64, missed: u64) {
        self.counts.not_chosen += not_chosen;
        self.counts.missed += missed;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    pub(super) fn counts(&self) -> TapCounts {
        self.counts
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
