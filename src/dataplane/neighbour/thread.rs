//! A resolver on a thread of its own.

use super::resolver::{Resolver, ResolverError};
use super::state::NeighbourEvent;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How soon the thread notices that it is to stop or that another set is wanted.
const TICK: Duration = Duration::from_millis(100);
/// How long it waits after a failure before it reads everything anew.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Orders {
    stop: bool,
    /// Sets not taken in yet, oldest first. Each counts: an address that is missing from one and
    /// back in the next is a new one, whose state whoever ordered it waits for.
    want: Vec<BTreeSet<IpAddr>>,
}

/// Runs a [`Resolver`] and hands on what it finds, until dropped.
#[derive(Debug)]
pub struct ResolverThread {
    orders: Arc<Mutex<Orders>>,
    thread: Option<JoinHandle<()>>,
}

impl ResolverThread {
    /// Starts the thread. `report` is called on it with each change; it should be quick, since no
    /// change is heard of meanwhile. After an error everything is read anew, a second later.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn spawn<F>(resolver: Resolver, report: F) -> io::Result<Self>
    where
        F: FnMut(Result<NeighbourEvent, ResolverError>) + Send + 'static,
    {
        let orders = Arc::new(Mutex::new(Orders::default()));
        let theirs = Arc::clone(&orders);
        let thread = std::thread::Builder::new()
            .name("dsrlb-neighbour".into())
            .spawn(move || run(resolver, &theirs, report))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Replaces the set of addresses to resolve, within a tenth of a second.
    pub fn want(&self, addresses: BTreeSet<IpAddr>) {
        lock(&self.orders).want.push(addresses);
    }
}

impl Drop for ResolverThread {
    /// Stops the thread and waits for it: a tenth of a second, if `report` does not take longer.
    fn drop(&mut self) {
        lock(&self.orders).stop = true;
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}

/// Waits for a thread to end, unless it is the calling one: an embedder's handler may let go of the
/// last handle on the very thread that called it, which then ends by itself.
pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        // What it panicked with has been told on standard error already.
        let _ = thread.join();
    }
}

fn lock(orders: &Mutex<Orders>) -> std::sync::MutexGuard<'_, Orders> {
    // Both fields are always valid, so a panic elsewhere spoils nothing.
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run<F>(mut resolver: Resolver, orders: &Mutex<Orders>, mut report: F)
where
    F: FnMut(Result<NeighbourEvent, ResolverError>),
{
    let mut failed_at: Option<Instant> = None;
    loop {
        let (stop, want) = {
            let mut orders = lock(orders);
            (orders.stop, std::mem::take(&mut orders.want))
        };
        if stop {
            return;
        }
        let mut step = || -> Result<Vec<NeighbourEvent>, ResolverError> {
            // All of them, also after one has failed: that set is in force all the same.
            want.iter().map(|set| resolver.want(set)).fold(Ok(()), Result::and)?;
            match failed_at {
                Some(at) if at.elapsed() < RETRY_PAUSE => {
                    std::thread::sleep(TICK);
                    return Ok(Vec::new());
                }
                Some(_) => resolver.resynchronize()?,
                None => {}
            }
            failed_at = None;
            resolver.next_events(TICK)
        };
        match step() {
            Ok(events) => events.into_iter().for_each(|event| report(Ok(event))),
            Err(error) => {
                failed_at = Some(Instant::now());
                report(Err(error));
            }
        }
    }
}
