//! Watches whether anybody else tells the link to have a VIP. Clients that believe it bypass the director,
//! and no probe notices: the backend serves them well.

mod board;
mod ears;

pub(super) use board::ClaimBoard;

use super::control::Shared;
use crate::dataplane::Waker;
use crate::dataplane::neighbour::join;
pub(crate) use ears::Ears;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The thread that asks and listens; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ClaimWatch {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl ClaimWatch {
    /// Asks `every` so often on the interface with this index, in the network namespace of the calling
    /// thread.
    pub(super) fn start(shared: &Arc<Shared>, interface: u32, every: Duration) -> io::Result<Self> {
        let ears = Ears::open(interface)?;
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new()?);
        let (stopped, woken, shared) = (Arc::clone(&stop), waker.clone(), Arc::clone(shared));
        let watch = move || {
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if Instant::now() >= due {
                    due = Instant::now() + every;
                    shared.ask_for_claims();
                }
                if ears.wait(woken.descriptor(), due).is_err() {
                    return; // nothing can be heard any more
                }
                let heard = ears.hear();
                if !heard.is_empty() {
                    shared.claimed(&heard);
                }
            }
        };
        let thread = std::thread::Builder::new().name("dsrlb-claims".to_owned()).spawn(watch)?;
        Ok(Self { stop, waker, thread: Some(thread) })
    }
}

impl Drop for ClaimWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}
