//! Clients: so many connections that last, and short ones that come and go, on a few threads.

use crate::clients::Clients;
use crate::history::History;
use crate::lab::Lab;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What there is of everything is a multiple of it.
pub const THREADS: u16 = 2;

/// What a crowd is.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// The services, how many lasting connections to each, and their pools.
    pub services: Vec<(SocketAddr, usize, Arc<History>)>,
    /// How many short connections there are at a time.
    pub short: usize,
    /// How many messages are under way at a time.
    pub window: usize,
    /// What has no answer after this is broken.
    pub timeout: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub opened: u64,
    /// The short ones that have come to their end.
    pub short: u64,
    pub messages: u64,
    /// Those that were broken as their backends were cut.
    pub cut: u64,
    /// Those of the first lasting connections that are still there.
    pub survivors: u64,
    /// Those that must not have been broken or gone where they went, and what happened.
    pub wrong: Vec<String>,
}

/// What the threads are told, and tell.
#[derive(Debug, Default)]
pub struct Shared {
    pub stop: AtomicBool,
    /// The round that every lasting connection is to have a message answered in.
    pub round: AtomicU64,
    pub messages: AtomicU64,
    /// How many more lasting connections there are to each service.
    pub more: AtomicUsize,
    pub wrong: Mutex<Vec<String>>,
}

/// A crowd at work.
pub struct Working {
    shared: Arc<Shared>,
    threads: Vec<(Arc<AtomicU64>, JoinHandle<Tally>)>,
}

impl Crowd {
    pub fn start(self, lab: &Lab) -> Working {
        let shared = Arc::new(Shared::default());
        let start = |number: u16| {
            let mut part = self.clone();
            for (_, count, _) in &mut part.services {
                *count /= usize::from(THREADS);
            }
            part.short /= usize::from(THREADS);
            part.window /= usize::from(THREADS);
            let (shared, done) = (Arc::clone(&shared), Arc::new(AtomicU64::new(0)));
            let reported = Arc::clone(&done);
            let worker = move || Clients::new(part, number, shared, reported).run();
            (done, lab.client.namespace.spawn(worker).unwrap())
        };
        let threads = (0..THREADS).map(start).collect();
        Working { shared, threads }
    }
}

impl Working {
    /// Waits until every lasting connection has sent a message from now on and had its answer; not if something has
    /// gone wrong.
    pub fn round(&self, within: Duration) {
        let round = self.shared.round.fetch_add(1, Ordering::SeqCst) + 1;
        let is_done = |part: &(Arc<AtomicU64>, _)| part.0.load(Ordering::SeqCst) >= round;
        self.wait(within, || self.threads.iter().all(is_done));
    }

    /// Waits until so many messages have been answered; not if something has gone wrong.
    pub fn wait_for(&self, messages: u64, within: Duration) {
        self.wait(within, || self.messages() >= messages);
    }

    fn wait(&self, within: Duration, is_done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_done() && self.wrong().is_empty() {
            assert!(begun.elapsed() < within, "too few answers within {within:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Opens more lasting connections to each service.
    pub fn grow(&self, by: usize) {
        self.shared.more.fetch_add(by, Ordering::SeqCst);
    }

    pub fn messages(&self) -> u64 {
        self.shared.messages.load(Ordering::Relaxed)
    }

    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().unwrap().clone()
    }

    pub fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut all = Tally { wrong: self.wrong(), ..Tally::default() };
        for (_, thread) in self.threads.drain(..) {
            let part = thread.join().unwrap();
            all.opened += part.opened;
            all.short += part.short;
            all.messages += part.messages;
            all.cut += part.cut;
            all.survivors += part.survivors;
        }
        all
    }
}

/// Also when a check fails: the threads end, and with them the namespaces.
impl Drop for Working {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (_, thread) in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
