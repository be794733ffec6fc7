//! Clients: so many connections that last, and short ones that come and go, on a few threads.

use crate::connection::{Connection, Origin};
use crate::history::History;
use crate::lab::Lab;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const THREADS: u16 = 2;
const FIRST_PORT: u16 = 2048;
/// How many messages a short connection exchanges.
const SHORT_LIFE: u32 = 3;
const TICK: u8 = 20;
const LOOK_AROUND: Duration = Duration::from_millis(500);

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
    pub messages: u64,
    /// Those that were broken as their backends were cut.
    pub cut: u64,
    /// Those of the first lasting connections that are still there.
    pub survivors: u64,
    /// Those that must not have been broken or gone where they went, and what happened.
    pub wrong: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    round: AtomicU64,
    messages: AtomicU64,
    /// How many more lasting connections there are to each service.
    more: AtomicUsize,
    wrong: Mutex<Vec<String>>,
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
            let worker = move || Part::new(part, number, shared, reported).run();
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
        let begun = Instant::now();
        let is_done = |part: &(Arc<AtomicU64>, _)| part.0.load(Ordering::SeqCst) >= round;
        while !self.threads.iter().all(is_done) && self.wrong().is_empty() {
            assert!(begun.elapsed() < within, "no answer to some connections within {within:?}");
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

/// What one thread does.
struct Part {
    crowd: Crowd,
    shared: Arc<Shared>,
    done: Arc<AtomicU64>,
    epoll: Epoll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    idle: VecDeque<usize>,
    /// By service, the lasting and the short ones that are open.
    open: Vec<[usize; 2]>,
    under_way: usize,
    next_port: u16,
    next_id: u64,
    round: u64,
    tally: Tally,
}

impl Part {
    fn new(crowd: Crowd, number: u16, shared: Arc<Shared>, done: Arc<AtomicU64>) -> Self {
        Self {
            open: vec![[0; 2]; crowd.services.len()],
            crowd,
            shared,
            done,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
            connections: Vec::new(),
            free: Vec::new(),
            idle: VecDeque::new(),
            under_way: 0,
            next_port: FIRST_PORT + number,
            next_id: u64::from(number),
            round: 0,
            tally: Tally::default(),
        }
    }

    fn run(mut self) -> Tally {
        let mut events = [EpollEvent::empty(); 256];
        let mut looked = Instant::now();
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.top_up();
            self.speak();
            let count = match self.epoll.wait(&mut events, TICK) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => panic!("epoll_wait: {error}"),
            };
            let mut answered = 0;
            for event in &events[..count] {
                answered += u64::from(self.look(event.data() as usize));
            }
            self.shared.messages.fetch_add(answered, Ordering::Relaxed);
            self.tally.messages += answered;
            if looked.elapsed() > LOOK_AROUND {
                looked = Instant::now();
                self.end_overdue();
            }
            self.report_round();
        }
        let survived = |one: &&Connection| one.origin.first && one.origin.lasting;
        self.tally.survivors = self.connections.iter().flatten().filter(survived).count() as u64;
        self.tally
    }

    /// Opens what is missing, as far as the window allows.
    fn top_up(&mut self) {
        for service in 0..self.crowd.services.len() {
            let wanted = [self.lasting(service), self.crowd.short];
            for (kind, wanted) in wanted.into_iter().enumerate() {
                while self.open[service][kind] < wanted && self.under_way < self.crowd.window {
                    self.open_one(service, kind == 0);
                }
            }
        }
    }

    /// How many lasting connections are wanted.
    fn lasting(&self, service: usize) -> usize {
        let more = self.shared.more.load(Ordering::SeqCst) / usize::from(THREADS);
        self.crowd.services[service].1 + more
    }

    fn open_one(&mut self, service: usize, lasting: bool) {
        let (vip, _, history) = &self.crowd.services[service];
        let first = self.done.load(Ordering::SeqCst) == 0;
        let origin = Origin { service, phase: history.now(), lasting, first };
        let opened = Connection::open(*vip, self.next_port, self.next_id, origin);
        let connection = opened.unwrap_or_else(|error| panic!("cannot open: {error}"));
        self.next_port = self.next_port.checked_add(THREADS).expect("ports are used once");
        self.next_id += u64::from(THREADS);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        // Edges: an event for each time that something comes, or the end.
        let what = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(connection.socket(), EpollEvent::new(what, slot as u64)).unwrap();
        self.connections[slot] = Some(connection);
        self.open[service][usize::from(!lasting)] += 1;
        self.under_way += 1;
        self.tally.opened += 1;
    }

    /// Has those say something that wait the longest.
    fn speak(&mut self) {
        while self.under_way < self.crowd.window
            && let Some(slot) = self.idle.pop_front()
        {
            let Some(connection) = &mut self.connections[slot] else { continue };
            self.under_way += 1;
            if let Err(error) = connection.say(self.round) {
                self.end(slot, Some(&error.to_string()));
            }
        }
    }

    /// Whether it is a message that has been answered.
    fn look(&mut self, slot: usize) -> bool {
        let Some(connection) = &mut self.connections[slot] else { return false };
        let (backend, is_new) = match connection.look(self.round) {
            Ok(None) => return false,
            Ok(Some(backend)) => (backend, connection.backend.is_none()),
            Err(error) => {
                self.end(slot, Some(&error.to_string()));
                return false;
            }
        };
        connection.backend = Some(backend);
        let Origin { service, phase, lasting, .. } = connection.origin;
        let is_over = !lasting && connection.answered == SHORT_LIFE;
        if is_new && !self.crowd.services[service].2.took(backend, phase) {
            self.end(slot, Some("its backend takes no new flows"));
        } else if is_over {
            self.end(slot, None);
        } else {
            self.under_way -= 1;
            self.idle.push_back(slot);
        }
        true
    }

    /// A connection is over: as it should be, or for this reason.
    fn end(&mut self, slot: usize, why: Option<&str>) {
        let Some(connection) = self.connections[slot].take() else { return };
        let Origin { service, phase, lasting, .. } = connection.origin;
        // Those that wait for nothing are in the queue.
        let before = self.idle.len();
        self.idle.retain(|idle| *idle != slot);
        self.under_way -= usize::from(self.idle.len() == before);
        self.free.push(slot);
        self.open[service][usize::from(!lasting)] -= 1;
        let Some(why) = why else { return };
        if self.crowd.services[service].2.cut(connection.backend, phase) {
            self.tally.cut += 1;
        } else {
            self.shared.wrong.lock().unwrap().push(format!("{why}: {connection:?}"));
        }
    }

    fn end_overdue(&mut self) {
        for slot in 0..self.connections.len() {
            let timeout = self.crowd.timeout;
            if self.connections[slot].as_ref().is_some_and(|one| one.is_overdue(timeout)) {
                self.end(slot, Some("no answer"));
            }
        }
    }

    fn report_round(&mut self) {
        let round = self.shared.round.load(Ordering::SeqCst);
        if self.done.load(Ordering::SeqCst) < round && self.round == round {
            let mut lasting = self.connections.iter().flatten().filter(|one| one.origin.lasting);
            let mut open = self.open.iter().enumerate();
            let all_open = open.all(|(service, open)| open[0] == self.lasting(service));
            if all_open && lasting.all(|one| one.done == round) {
                self.done.store(round, Ordering::SeqCst);
            }
        }
        self.round = round;
    }
}
