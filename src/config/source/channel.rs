//! Configurations that the program pushes.

use super::{Config, ConfigSource, SourceError};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Makes the two ends: what is sent into the one is given by the other. If several are sent before
/// they are asked for, the last one counts: each is whole, so those before are of no use.
pub fn channel() -> (ConfigSender, ChannelSource) {
    let slot = Arc::new(Slot::default());
    (ConfigSender(Arc::clone(&slot)), ChannelSource(slot))
}

/// The end that the program keeps. When it is dropped, what was sent last stays in force.
#[derive(Debug)]
pub struct ConfigSender(Arc<Slot>);

/// The end that a director is given.
#[derive(Debug)]
pub struct ChannelSource(Arc<Slot>);

/// Whoever was to ask for configurations is gone, such as a director that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("nobody asks for configurations any more: the director that had the source has ended")]
pub struct SourceGone;

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: Option<Config>,
    sender_gone: bool,
    source_gone: bool,
}

impl Slot {
    /// The state is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl ConfigSender {
    /// Sends a configuration, in place of one that has not been asked for yet. Never waits. It is
    /// checked when it is asked for, and refused there if it is not valid.
    ///
    /// # Errors
    ///
    /// If the other end is gone.
    pub fn send(&self, config: Config) -> Result<(), SourceGone> {
        let mut state = self.0.lock();
        if state.source_gone {
            return Err(SourceGone);
        }
        state.next = Some(config);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl Drop for ConfigSender {
    fn drop(&mut self) {
        self.0.lock().sender_gone = true;
        self.0.changed.notify_one();
    }
}

impl Drop for ChannelSource {
    fn drop(&mut self) {
        self.0.lock().source_gone = true;
    }
}

impl ConfigSource for ChannelSource {
    /// Does not wait when the sender is gone, as nothing will come.
    fn next(&mut self, timeout: Duration) -> Result<Option<Config>, SourceError> {
        let start = Instant::now();
        let mut state = self.0.lock();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            if state.next.is_some() || state.sender_gone || left.is_zero() {
                return Ok(state.next.take());
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::VirtualService;

    fn config(services: usize) -> Config {
        let service = |n| VirtualService::new(format!("10.0.0.{n}").parse().unwrap());
        (1..=services).map(service).collect()
    }

    fn services(source: &mut ChannelSource, timeout: Duration) -> Option<usize> {
        source.next(timeout).unwrap().map(|config| config.services.len())
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn the_last_one_sent_is_given_once() {
        let (sender, mut source) = channel();
        assert_eq!(services(&mut source, NOW), None);
        sender.send(config(1)).unwrap();
        sender.send(config(2)).unwrap();
        assert_eq!(services(&mut source, NOW), Some(2));
        assert_eq!(services(&mut source, Duration::from_millis(10)), None);
    }

    #[test]
    fn who_waits_is_woken() {
        let (sender, mut source) = channel();
        let sending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sender.send(config(3)).unwrap();
            sender
        });
        assert_eq!(services(&mut source, Duration::from_secs(60)), Some(3));
        drop(sending.join().unwrap());
        assert_eq!(services(&mut source, Duration::MAX), None);
    }

    #[test]
    fn what_was_sent_before_the_end_is_given_still_and_nothing_is_lost_unsaid() {
        let (sender, mut source) = channel();
        sender.send(config(1)).unwrap();
        drop(sender);
        assert_eq!(services(&mut source, Duration::MAX), Some(1));
        assert_eq!(services(&mut source, Duration::MAX), None);

        let (sender, source) = channel();
        drop(source);
        assert_eq!(sender.send(config(1)), Err(SourceGone));
    }
}
