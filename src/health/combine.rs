//! Monitors made of monitors.

use super::guard::{probe_caught, subscribe_caught};
use super::{Monitor, News, ProbeFailure, Target};
use crate::error::ParseError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Well is who is well by all of several monitors, asked one after the other until one fails.
///
/// Each has what the others before it have left of the timeout.
///
/// ```
/// use dsrlb::health::{All, IcmpEcho, Monitor, TcpConnect};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ping: Arc<dyn Monitor> = Arc::new(IcmpEcho::new());
/// let both_ports = All::new(vec![
///     ping,
///     Arc::new(TcpConnect::new(80_u16.try_into()?)),
///     Arc::new(TcpConnect::new(443_u16.try_into()?)),
/// ])?;
/// # let _ = both_ports;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct All(Vec<Arc<dyn Monitor>>);

/// Well is who is well by one of several monitors, asked one after the other until one succeeds.
///
/// The timeout is shared out: each has an equal part of what is left, so that one that waits for the
/// whole of its time leaves the others theirs. If all fail, [`ProbeFailure::NoneOf`] says why.
#[derive(Clone)]
pub struct Any(Vec<Arc<dyn Monitor>>);

/// Well is who is unwell by another monitor, such as one that finds out whether a file is there that
/// announces maintenance.
///
/// A probe that could not be made, since it is not permitted, or panicked, says nothing of the backend
/// and remains a failure.
#[derive(Clone)]
pub struct Not(Arc<dyn Monitor>);

impl All {
    /// Combines monitors, in this order.
    ///
    /// # Errors
    ///
    /// When there are none: everybody would be well by that.
    pub fn new(monitors: Vec<Arc<dyn Monitor>>) -> Result<Self, ParseError> {
        not_empty(monitors).map(Self)
    }
}

impl Any {
    /// Combines monitors, in this order.
    ///
    /// # Errors
    ///
    /// When there are none: nobody could be well by that.
    pub fn new(monitors: Vec<Arc<dyn Monitor>>) -> Result<Self, ParseError> {
        not_empty(monitors).map(Self)
    }
}

impl Not {
    /// Reverses a monitor.
    pub fn new(monitor: Arc<dyn Monitor>) -> Self {
        Self(monitor)
    }
}

fn not_empty(monitors: Vec<Arc<dyn Monitor>>) -> Result<Vec<Arc<dyn Monitor>>, ParseError> {
    if monitors.is_empty() {
        return Err(ParseError::new("list of monitors", "[]", "at least one monitor"));
    }
    Ok(monitors)
}

impl Monitor for All {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let start = Instant::now();
        for monitor in &self.0 {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(ProbeFailure::Timeout(timeout));
            }
            monitor.probe(target, left)?;
        }
        Ok(())
    }

    fn subscribe(&self, news: News) {
        self.0.iter().for_each(|monitor| subscribe_caught(monitor.as_ref(), news.clone()));
    }

    fn sends_packets(&self) -> bool {
        self.0.iter().any(|monitor| monitor.sends_packets())
    }
}

impl Monitor for Any {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let start = Instant::now();
        let mut failures = Vec::new();
        for (monitor, to_come) in self.0.iter().zip((1..=self.0.len()).rev()) {
            let left = timeout.saturating_sub(start.elapsed());
            let share = left / u32::try_from(to_come).unwrap_or(u32::MAX);
            let result = if share.is_zero() {
                Err(ProbeFailure::Timeout(share))
            } else {
                // One that panics is one that fails: the others may know better.
                probe_caught(monitor.as_ref(), target, share)
            };
            match result {
                Ok(()) => return Ok(()),
                Err(failure) => failures.push(failure),
            }
        }
        Err(ProbeFailure::NoneOf(failures))
    }

    fn subscribe(&self, news: News) {
        self.0.iter().for_each(|monitor| subscribe_caught(monitor.as_ref(), news.clone()));
    }

    fn sends_packets(&self) -> bool {
        self.0.iter().any(|monitor| monitor.sends_packets())
    }
}

impl Monitor for Not {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        match self.0.probe(target, timeout) {
            Ok(()) => Err(ProbeFailure::Succeeded),
            Err(failure) if failure.says_nothing() => Err(failure),
            Err(_) => Ok(()),
        }
    }

    fn subscribe(&self, news: News) {
        self.0.subscribe(news);
    }

    fn sends_packets(&self) -> bool {
        self.0.sends_packets()
    }
}

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "All({} monitors)", self.0.len())
    }
}

impl fmt::Debug for Any {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Any({} monitors)", self.0.len())
    }
}

impl fmt::Debug for Not {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Not").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "combine_tests.rs"]
mod tests;
