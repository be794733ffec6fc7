//! The lanes, who uses them, and which packet belongs to which.

use super::evidence::Evidence;
use super::exchange::Exchange;
use super::lane::{Lane, MOST_LANES, namespace_of_thread};
use super::pings::Ping;
use super::pump::Pump;
use crate::dataplane::MailSender;
use crate::director::control::Shared;
use crate::forwarding::{Encapsulation, ProbeSources};
use crate::health::ProbeFailure;
use crate::packet::{self, Parse};
use crate::verdict::BackendIndex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many exchanges are remembered: twice as many as all lanes have ports.
const MOST_EXCHANGES: usize = 1 << 16;
/// How long: the end of a connection may come late.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A probe's way to its backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) index: BackendIndex,
    /// The backend's own address.
    pub(crate) address: IpAddr,
    /// The headers of its tunnel, if it is behind one.
    pub(crate) tunnel: Option<Encapsulation>,
}

/// A probe that is running.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) vip: IpAddr,
    pub(super) way: Way,
    /// When to begin to look for reasons; none if that has been done.
    pub(super) ask_at: Option<Instant>,
    pub(super) evidence: Evidence,
    /// How many packets have been carried for it.
    pub(super) carried: u64,
    /// What its pings are remembered by.
    pub(super) pings: Vec<Exchange>,
}

impl Session {
    /// A probe of `vip` by this way, which looks for reasons from `ask_at` on.
    pub(super) fn new(vip: IpAddr, way: Way, ask_at: Instant) -> Self {
        let evidence = Evidence::default();
        Self { vip, way, ask_at: Some(ask_at), evidence, carried: 0, pings: Vec::new() }
    }
}

/// What an exchange is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The monitor's own, during the session with this number.
    Probe(u64),
    /// A ping of ours, during the session with this number.
    Ping(Ping, u64),
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) lane: usize,
    pub(super) index: BackendIndex,
    pub(super) purpose: Purpose,
    seen: Instant,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// By number; none of one that is being made.
    lanes: Vec<Option<Arc<Lane>>>,
    idle: Vec<usize>,
    /// By lane.
    pub(super) sessions: HashMap<usize, (u64, Session)>,
    exchanges: HashMap<Exchange, Remembered>,
    count: u64,
}

impl State {
    /// All lanes that there are.
    pub(super) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.iter().flatten().map(Arc::clone).collect()
    }

    /// When to begin to look for reasons, of the session that waits longest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.sessions.values().filter_map(|(_, session)| session.ask_at).min()
    }

    pub(super) fn remember(
        &mut self,
        exchange: Exchange,
        lane: usize,
        index: BackendIndex,
        purpose: Purpose,
    ) {
        let now = Instant::now();
        if self.exchanges.len() >= MOST_EXCHANGES {
            self.exchanges.retain(|_, known| now.duration_since(known.seen) < REMEMBERED);
        }
        if self.exchanges.len() >= MOST_EXCHANGES {
            // No more than the ports of all lanes can be in use at a time: what is left is old.
            self.exchanges.clear();
        }
        self.exchanges.insert(exchange, Remembered { lane, index, purpose, seen: now });
    }

    fn forget(&mut self, exchange: &Exchange) {
        self.exchanges.remove(exchange);
    }

    pub(super) fn recall(&self, exchange: &Exchange) -> Option<&Remembered> {
        self.exchanges.get(exchange)
    }

    /// Notes that a ping was answered, if its session still lasts.
    pub(super) fn heard(&mut self, ping: Ping, lane: usize, number: u64) {
        let session = self.sessions.get_mut(&lane).filter(|(current, _)| *current == number);
        if let Some((_, session)) = session {
            match ping {
                Ping::Vip => session.evidence.vip = true,
                Ping::Tunnel => session.evidence.tunnel = true,
                Ping::Plain => session.evidence.plain = true,
            }
        }
    }
}

/// What the monitors' threads, the pump and the workers share.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    freed: Condvar,
}

impl Board {
    /// The state has no invariant that a panic could break half-way.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has probes travel through VIPs. Ends its thread when dropped.
#[derive(Debug)]
pub(in crate::director) struct Prober {
    pub(super) board: Arc<Board>,
    pub(super) shared: Arc<Shared>,
    sources: ProbeSources,
    /// The director's network namespace.
    pub(super) home: File,
    pump: Pump,
}

impl Prober {
    /// Starts, without a lane yet.
    pub(in crate::director) fn start(
        shared: &Arc<Shared>,
        sources: ProbeSources,
        mail: MailSender,
    ) -> io::Result<Arc<Self>> {
        let board = Arc::new(Board { state: Mutex::default(), freed: Condvar::new() });
        let home = namespace_of_thread()?;
        let pump = Pump::start(&board, shared.snapshots(), sources, mail)?;
        Ok(Arc::new(Self { board, shared: Arc::clone(shared), sources, home, pump }))
    }

    /// Makes the first lane, if there is none, so that what is not permitted is found out at once.
    pub(in crate::director) fn prepare(&self) -> io::Result<()> {
        if !self.board.lock().lanes.is_empty() {
            return Ok(());
        }
        match self.take(Instant::now()) {
            Ok(number) => self.lane(number).map(drop),
            // All are taken, so there are some.
            Err(_) => Ok(()),
        }
    }

    /// What takes in the frames that VIPs have answered with; for a worker.
    pub(in crate::director) fn receiver(&self) -> impl FnMut(&[u8]) + Send + 'static {
        let board = Arc::clone(&self.board);
        move |frame| {
            let Parse::Ip(parsed) = packet::parse(frame) else {
                return;
            };
            let packet = parsed.packet(frame);
            let Some(exchange) = Exchange::answered(packet) else {
                return;
            };
            let mut state = board.lock();
            let Some(known) = state.recall(&exchange) else {
                return;
            };
            let lane = known.lane;
            match known.purpose {
                Purpose::Probe(_) => {
                    let tunnel = state.lanes.get(lane).cloned().flatten();
                    drop(state);
                    // What does not fit into its queue is lost, as it would be on a busy link.
                    let _ = tunnel.map(|lane| lane.tunnel.send(packet));
                }
                Purpose::Ping(ping, number) => state.heard(ping, lane, number),
            }
        }
    }

    /// Takes a lane for a probe, a new one if need be, and waits for one if there cannot be more.
    pub(super) fn begin(
        &self,
        session: Session,
        patience: Duration,
    ) -> Result<Running<'_>, ProbeFailure> {
        let number = self.take(Instant::now() + patience)?;
        let running = self.lane(number).map_err(|error| failure(&error))?;
        let mut state = self.board.lock();
        state.count += 1;
        let count = state.count;
        state.sessions.insert(number, (count, session));
        drop(state);
        self.pump.wake();
        Ok(running)
    }

    /// The number of a lane that nobody else has.
    fn take(&self, deadline: Instant) -> Result<usize, ProbeFailure> {
        let mut state = self.board.lock();
        loop {
            if let Some(number) = state.idle.pop() {
                return Ok(number);
            }
            if state.lanes.len() < MOST_LANES {
                state.lanes.push(None);
                return Ok(state.lanes.len() - 1);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProbeFailure::NotProbed(format!(
                    "all {MOST_LANES} lanes for probes through VIPs are taken: fewer backends, \
                     longer intervals or shorter timeouts would free some"
                )));
            }
            let waited = self.board.freed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The lane that has been taken, made without the lock if it is a new one: workers need that.
    fn lane(&self, number: usize) -> io::Result<Running<'_>> {
        let known = self.board.lock().lanes.get(number).cloned().flatten();
        if let Some(lane) = known {
            return Ok(Running { prober: self, lane });
        }
        let made = Lane::make(number, self.sources).map(Arc::new);
        let mut state = self.board.lock();
        match made {
            Ok(lane) => {
                if let Some(place) = state.lanes.get_mut(number) {
                    *place = Some(Arc::clone(&lane));
                }
                Ok(Running { prober: self, lane })
            }
            Err(error) => {
                // The next one tries again.
                state.idle.push(number);
                Err(explain(error))
            }
        }
    }
}

/// A lane that is taken; free again when this is dropped.
pub(super) struct Running<'a> {
    prober: &'a Prober,
    pub(super) lane: Arc<Lane>,
}

impl Running<'_> {
    /// What has been found out about this probe's way, and how many packets went it.
    pub(super) fn findings(&self) -> (Evidence, u64) {
        let state = self.prober.board.lock();
        let session = state.sessions.get(&self.lane.number);
        session.map(|(_, session)| (session.evidence.clone(), session.carried)).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.prober.board.lock();
        if let Some((_, session)) = state.sessions.remove(&self.lane.number) {
            session.pings.iter().for_each(|ping| state.forget(ping));
        }
        state.idle.push(self.lane.number);
        drop(state);
        self.prober.board.freed.notify_one();
    }
}

/// Says what it takes to have lanes.
fn explain(error: io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root or with CAP_SYS_ADMIN, or probe the backends' own addresses"
        }
        io::ErrorKind::NotFound => {
            "/dev/net/tun has to be there, or probe the backends' own addresses"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "/proc/sys/net has to be writable, or probe the backends' own addresses"
        }
        _ => return error,
    };
    let text = format!("probing through the VIP takes a network namespace: {error}; {remedy}");
    io::Error::new(error.kind(), text)
}

fn failure(error: &io::Error) -> ProbeFailure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ProbeFailure::NotPermitted(error.to_string()),
        _ => ProbeFailure::NotProbed(error.to_string()),
    }
}
