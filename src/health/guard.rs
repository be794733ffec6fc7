//! Calls into an embedder's monitor that survive whatever it does, except to hang.

use super::{Monitor, News, ProbeFailure, Target};
use crate::error::panic_message;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Probes; a panic comes back as a failure with its message.
pub(super) fn probe_caught(
    monitor: &dyn Monitor,
    target: &Target<'_>,
    timeout: Duration,
) -> Result<(), ProbeFailure> {
    // The monitor is not looked at again except through its own next call, and what it left in
    // disorder is its own.
    catch_unwind(AssertUnwindSafe(|| monitor.probe(target, timeout)))
        .unwrap_or_else(|panic| Err(ProbeFailure::Panicked(panic_message(panic.as_ref()))))
}

/// Subscribes; a monitor that panics here is still probed in its turn.
pub(super) fn subscribe_caught(monitor: &dyn Monitor, news: News) {
    // What it panicked with has been told on standard error already.
    let _ = catch_unwind(AssertUnwindSafe(|| monitor.subscribe(news)));
}
