//! A function as a monitor.

use super::{Monitor, ProbeFailure, Target};
use std::fmt;
use std::time::Duration;

/// A monitor that calls a function; made by [`monitor_fn`].
#[derive(Clone, Copy)]
pub struct MonitorFn<F>(F);

/// Makes a monitor of a function that probes a target for at most the time it is given.
///
/// ```
/// use dsrlb::health::{Monitor, ProbeFailure, Target, monitor_fn};
/// use std::time::Duration;
///
/// let odd_hosts_only = monitor_fn(|target: &Target<'_>, _: Duration| {
///     let odd = target.id.ends_with(['1', '3', '5', '7', '9']);
///     odd.then_some(()).ok_or_else(|| ProbeFailure::Unexpected(format!("{} is even", target.id)))
/// });
/// let target = Target::new("10.0.0.100:80/tcp", "web-2", "192.0.2.12".parse().unwrap());
/// let failure = odd_hosts_only.probe(&target, Duration::from_secs(1)).unwrap_err();
/// assert_eq!(failure.to_string(), "unexpected answer: web-2 is even");
/// ```
pub fn monitor_fn<F>(probe: F) -> MonitorFn<F>
where
    F: Fn(&Target<'_>, Duration) -> Result<(), ProbeFailure> + Send + Sync,
{
    MonitorFn(probe)
}

impl<F> Monitor for MonitorFn<F>
where
    F: Fn(&Target<'_>, Duration) -> Result<(), ProbeFailure> + Send + Sync,
{
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        (self.0)(target, timeout)
    }
}

impl<F> fmt::Debug for MonitorFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorFn").finish_non_exhaustive()
    }
}
