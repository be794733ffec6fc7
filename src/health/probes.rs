//! How probes go, beside what they amount to.

use std::time::Duration;

/// How the probes of one backend went, since it came or its address changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ProbeCounts {
    /// Those that found it well.
    pub succeeded: u64,
    /// Those that did not. One that hangs counts once when it is overdue and again at each interval, as
    /// it does for the backend's state.
    pub failed: u64,
    /// How long the last one took of those that came to an end in time; none if none did.
    pub last: Option<Duration>,
}

impl ProbeCounts {
    pub(super) fn note(&mut self, success: bool) {
        *(if success { &mut self.succeeded } else { &mut self.failed }) += 1;
    }
}
