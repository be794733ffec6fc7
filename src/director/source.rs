//! The thread that follows a configuration source.

use super::control::Shared;
use super::status::Event;
use super::updater::Updater;
use crate::config::{ConfigSource, SourceError};
use crate::dataplane::neighbour::join;
use crate::error::panic_message;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the source is asked to wait; also how soon the thread notices that it is to stop.
const WAIT: Duration = Duration::from_millis(200);

/// The least time from one question to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// Puts into force what a source yields, until dropped.
#[derive(Debug)]
pub(super) struct SourceThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SourceThread {
    pub(super) fn start(
        mut source: Box<dyn ConfigSource>,
        updater: &Arc<Updater>,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        let (updater, shared) = (Arc::clone(updater), Arc::clone(shared));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let follow = move || {
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                // It is the embedder's; its bug must not be the end of all configurations.
                let next = catch_unwind(AssertUnwindSafe(|| source.next(WAIT)));
                let next = next.unwrap_or_else(|panic| {
                    let message = panic_message(panic.as_ref());
                    Err(SourceError::Unreadable(format!("the source panicked: {message}")))
                });
                let refused = match next {
                    Ok(Some(config)) => {
                        let applied = updater.update(|all| {
                            *all = config;
                            Ok(())
                        });
                        applied.err().map(|error| error.to_string())
                    }
                    Ok(None) => None,
                    Err(error) => Some(error.to_string()),
                };
                if let Some(why) = refused {
                    shared.emit(Event::ConfigRefused(why));
                }
                // One that does not wait, as nothing will come any more, is not asked all the time.
                std::thread::park_timeout(PAUSE.saturating_sub(asked.elapsed()));
            }
        };
        let thread = std::thread::Builder::new().name("dsrlb-config".to_owned()).spawn(follow)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for SourceThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            join(thread);
        }
    }
}
