//! What one thread of a crowd does.

use crate::connection::{Connection, Origin};
use crate::crowd::{Crowd, Shared, THREADS, Tally};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Ports are used once: a port that is used again may belong to a flow that is remembered.
const FIRST_PORT: u16 = 2048;
/// How many messages a short connection exchanges.
const SHORT_LIFE: u32 = 3;
const TICK: u8 = 20;
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// The connections of a thread, which never waits for one of them.
pub struct Clients {
    crowd: Crowd,
    shared: Arc<Shared>,
    /// The last round that is complete here.
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

impl Clients {
    pub fn new(crowd: Crowd, number: u16, shared: Arc<Shared>, done: Arc<AtomicU64>) -> Self {
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

    pub fn run(mut self) -> Tally {
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
        let Some(why) = why else {
            self.tally.short += 1;
            return;
        };
        if self.crowd.services[service].2.cut(connection.backend, phase) {
            self.tally.cut += 1;
        } else {
            self.shared.wrong.lock().unwrap().push(format!("{why}: {connection}"));
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
