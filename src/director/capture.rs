//! A capture of what the workers do: a thread outside of them that writes what they feed it.

use super::control::Shared;
use crate::dataplane::neighbour::join;
use crate::dataplane::{Bounds, Chosen, Tap, TapCounts, TapReader};
use crate::error::panic_message;
use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How soon what the workers captured is written. Their rings have room for 4,096 frames, so those of a
/// million a second.
const TICK: Duration = Duration::from_millis(4);

/// What is known of a capture.
#[derive(Debug, Default)]
struct Known {
    stop: AtomicBool,
    counts: Mutex<TapCounts>,
}

impl Known {
    fn set(&self, counts: TapCounts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// A capture that runs; see [`Director::capture`](super::Director::capture). Dropping it ends it.
pub struct Capture {
    known: Arc<Known>,
    result: Arc<Mutex<Option<io::Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Capture {
    /// Writes the file's headers, and then on a thread of its own what `feeds` gives to read.
    pub(super) fn start<W: Write + Send + 'static>(
        output: W,
        bounds: Bounds,
        shared: &Arc<Shared>,
        feeds: impl FnOnce() -> Vec<TapReader>,
    ) -> io::Result<Self> {
        // They have been chosen when they are read.
        let mut tap = Tap::new(output, Chosen::All, bounds)?;
        let (known, result): (Arc<Known>, Arc<Mutex<_>>) = Default::default();
        known.set(tap.counts());
        let readers = feeds();
        let (tell, say, shared) = (Arc::clone(&known), Arc::clone(&result), Arc::clone(shared));
        let work = move || {
            // The output is the embedder's code.
            let write = || write(&mut tap, readers, &tell, &shared);
            let error = match catch_unwind(AssertUnwindSafe(write)) {
                Ok(result) => result.err(),
                Err(panic) => Some(io::Error::other(panic_message(panic.as_ref()))),
            };
            *say.lock().unwrap_or_else(PoisonError::into_inner) = error;
        };
        let thread = std::thread::Builder::new().name("dsrlb-capture".to_owned()).spawn(work)?;
        Ok(Self { known, result, thread: Some(thread) })
    }

    /// What it has done so far. All but the bytes add up to the frames that the workers received since
    /// they took part in it, but for the latest.
    pub fn counts(&self) -> TapCounts {
        *self.known.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it goes on: its bounds are not reached, its output can be written, and there is a worker.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it, once what has been captured is written and flushed; says what it has done.
    ///
    /// # Errors
    ///
    /// If the output could not be written, now or before.
    pub fn stop(mut self) -> io::Result<TapCounts> {
        self.end();
        let error = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.map_or_else(|| Ok(self.counts()), Err)
    }

    fn end(&mut self) {
        self.known.stop.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(join);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

fn write<W: Write>(
    tap: &mut Tap<W>,
    mut readers: Vec<TapReader>,
    known: &Known,
    shared: &Shared,
) -> io::Result<()> {
    let names = || shared.names().into_iter().collect();
    loop {
        let is_last = known.stop.load(Ordering::Relaxed) || readers.iter().all(TapReader::is_over);
        let mut count = 0;
        for reader in &mut readers {
            count += reader.write_to(tap, names)?;
        }
        known.set(tap.counts());
        if is_last || tap.has_ended() {
            return tap.flush();
        }
        if count == 0 {
            std::thread::sleep(TICK);
        } else {
            tap.flush()?;
        }
    }
}
