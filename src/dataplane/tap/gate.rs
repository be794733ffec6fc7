//! Which frames a tap takes, and how many. Pure.

use super::Sample;
use crate::flow::{FiveTuple, Timestamp};
use crate::packet::icmp::TokenBucket;
use crate::verdict::{BackendIndex, DropReason, Verdict};
use std::num::NonZeroU32;

/// Which of the frames offered to a [`Tap`](super::Tap) are written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Chosen {
    /// Every one.
    #[default]
    All,
    /// Those that are dropped for this reason.
    Drops(DropReason),
    /// Those of this flow, ICMP errors about it included. Later fragments carry no ports, and so are of no
    /// flow that has some.
    Flow(FiveTuple),
    /// Those that are forwarded to a backend, which has an [index](crate::dataplane::Member::index) for each
    /// service that it is in.
    Backend(Vec<BackendIndex>),
    /// The first of those offered, and every so many of them from there on.
    OneIn(NonZeroU32),
}

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

/// What a [`Tap`](super::Tap) has done. The first four add up to the frames that were offered, less those
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
    /// Bytes written, the headers of the file included.
    pub bytes: u64,
}

/// Decides about one frame after the other.
#[derive(Debug)]
pub(super) struct Gate {
    chosen: Chosen,
    bounds: Bounds,
    bucket: TokenBucket,
    /// The latest time seen: several queues in one file are not quite in order, and a bucket whose clock
    /// goes back lets nothing through.
    latest: Timestamp,
    /// How many are still to be passed over, where one in so many is chosen.
    pass_over: u32,
    has_ended: bool,
    counts: TapCounts,
}

impl Gate {
    pub(super) fn new(chosen: Chosen, bounds: Bounds) -> Self {
        let bucket = TokenBucket::new(bounds.frames_per_second, bounds.frames_at_once);
        Self {
            chosen,
            bounds,
            bucket,
            latest: Timestamp(0),
            pass_over: 0,
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
        let is_chosen = match &self.chosen {
            Chosen::All => true,
            Chosen::Drops(reason) => sample.verdict == Verdict::Drop(*reason),
            Chosen::Flow(flow) => sample.find_flow() == Some(*flow),
            Chosen::Backend(indices) => {
                matches!(sample.verdict, Verdict::Forward(index) if indices.contains(&index))
            }
            Chosen::OneIn(count) => {
                let is_due = self.pass_over == 0;
                self.pass_over = if is_due { count.get() - 1 } else { self.pass_over - 1 };
                is_due
            }
        };
        if !is_chosen {
            counts.not_chosen += 1;
            return Err(Taken::NotChosen);
        }
        let nanoseconds = u64::try_from(sample.time.as_nanos()).unwrap_or(u64::MAX);
        self.latest = self.latest.max(Timestamp(nanoseconds));
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
