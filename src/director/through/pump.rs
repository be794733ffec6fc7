//! The thread between the lanes and the worker that sends.

use super::exchange::Exchange;
use super::lane::Lane;
use super::pings::{Ears, Heard, Ping, exchange, packet};
use super::prober::{Board, Purpose, State};
use crate::dataplane::neighbour::join;
use crate::dataplane::{MailSender, ProbeFramer, Snapshot, Waker};
use crate::flow::Protocol;
use crate::forwarding::ProbeSources;
use crate::verdict::BackendIndex;
use arc_swap::ArcSwap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than a lane's device lets packets be.
const BUFFER_LENGTH: usize = 2048;
/// How many packets of one lane, and messages of one socket, are taken before the others' turn.
const AT_ONCE: usize = 64;

/// How soon to wait again when waiting has failed.
const RETRY: Duration = Duration::from_millis(100);

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Pump {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts in the network namespace of the calling thread.
    pub(super) fn start(
        board: &Arc<Board>,
        snapshots: Arc<ArcSwap<Snapshot>>,
        sources: ProbeSources,
        mail: MailSender,
    ) -> io::Result<Self> {
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new()?);
        let work = Work {
            board: Arc::clone(board),
            sender: Sender { framer: ProbeFramer::new(), snapshots, mail },
            sources,
            ears: Ears::open()?,
            waker: waker.clone(),
            sequence: 0,
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("dsrlb-through-vip".to_owned())
            .spawn(move || work.run(&stopped))?;
        Ok(Self { stop, waker, thread: Some(thread) })
    }

    /// Has the thread look at what lanes and sessions there are now.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}

struct Work {
    board: Arc<Board>,
    sender: Sender,
    sources: ProbeSources,
    ears: Ears,
    waker: Waker,
    sequence: u16,
}

impl Work {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let lanes = self.board.lock().lanes();
            let due = self.board.lock().next_due();
            if self.wait(&lanes, due).is_err() {
                // For want of memory, which may pass.
                std::thread::sleep(RETRY);
            }
            self.waker.clear();
            for lane in &lanes {
                self.carry(lane);
            }
            self.listen();
            self.ask();
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, lanes: &[Arc<Lane>], due: Option<Instant>) -> io::Result<()> {
        let descriptors = lanes.iter().map(|lane| lane.tunnel.as_fd());
        let descriptors =
            descriptors.chain(self.ears.descriptors()).chain([self.waker.descriptor()]);
        let mut awaited: Vec<_> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        // Rounded up, or it would turn idly for the last millisecond.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut awaited, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what a monitor has sent in its lane.
    fn carry(&mut self, lane: &Lane) {
        let mut buffer = [0; BUFFER_LENGTH];
        for _ in 0..AT_ONCE {
            let Ok(length) = lane.tunnel.recv(&mut buffer) else {
                return;
            };
            let packet = buffer.get(..length).unwrap_or_default();
            let Some((exchange, opens)) = Exchange::sent(packet) else {
                continue; // neighbour discovery and the like: there are no neighbours here
            };
            if let Some(index) = backend(&mut self.board.lock(), lane.number, exchange, opens) {
                self.sender.send(index, packet);
            }
        }
    }

    /// Takes note of what has been heard.
    fn listen(&mut self) {
        let board = &self.board;
        self.ears.hear(AT_ONCE, |heard| {
            let mut state = board.lock();
            match heard {
                Heard::Answer(exchange) => {
                    let known = state.recall(&exchange);
                    if let Some((lane, Purpose::Ping(ping, number))) =
                        known.map(|known| (known.lane, known.purpose))
                    {
                        state.heard(ping, lane, number);
                    }
                }
                Heard::Refusal(refusal) => {
                    for (_, session) in state.sessions.values_mut() {
                        if refusal.is_about(&session.way) {
                            session.evidence.refused = Some((refusal.kind, refusal.code));
                        }
                    }
                }
            }
        });
    }

    /// Sends the pings of probes that have waited for half of their time.
    fn ask(&mut self) {
        let now = Instant::now();
        let mut pings = Vec::new();
        let board = Arc::clone(&self.board);
        let mut state = board.lock();
        let mut due = Vec::new();
        for (lane, (number, session)) in &mut state.sessions {
            if session.ask_at.is_some_and(|at| at <= now) {
                session.ask_at = None;
                due.push((*lane, *number, session.way, session.vip));
            }
        }
        for (lane, number, way, vip) in due {
            let inside = way.tunnel.map(|_| (Ping::Tunnel, way.address));
            for (ping, to) in
                [(Ping::Vip, vip), (Ping::Plain, way.address)].into_iter().chain(inside)
            {
                self.sequence = self.sequence.wrapping_add(1);
                let exchange = exchange(to, self.sequence);
                state.remember(exchange, lane, way.index, Purpose::Ping(ping, number));
                if let Some((_, session)) = state.sessions.get_mut(&lane) {
                    session.pings.push(exchange);
                }
                pings.push((ping, to, way.index, self.sequence));
            }
        }
        drop(state);
        for (ping, to, index, sequence) in pings {
            self.ping(ping, to, index, sequence);
        }
    }

    fn ping(&mut self, ping: Ping, to: IpAddr, index: BackendIndex, sequence: u16) {
        if ping == Ping::Plain {
            return self.ears.ping(to, sequence);
        }
        let source = self.sources.towards(to);
        if let Some(packet) = source.and_then(|source| packet(source, to, sequence)) {
            self.sender.send(index, &packet);
        }
    }
}

/// Which backend a packet from a lane is for: that of the running probe. Only the last packets of an
/// earlier probe's connection go where that one went; a port that is used again, of any protocol, must
/// not take a probe to another backend than its own.
fn backend(
    state: &mut State,
    lane: usize,
    exchange: Exchange,
    opens: bool,
) -> Option<BackendIndex> {
    let session = state.sessions.get(&lane).map(|(number, session)| (*number, session.way.index));
    let known = state.recall(&exchange).filter(|known| known.lane == lane);
    if let Some(known) = known {
        let is_rest = exchange.protocol == Protocol::TCP && !opens;
        let is_of = |(number, _): (u64, BackendIndex)| known.purpose == Purpose::Probe(number);
        if is_rest || session.is_some_and(is_of) {
            return Some(known.index);
        }
    }
    let (number, index) = session?;
    state.remember(exchange, lane, index, Purpose::Probe(number));
    if let Some((_, session)) = state.sessions.get_mut(&lane) {
        session.carried += 1;
    }
    Some(index)
}

/// Frames packets as the pipeline does, and has them sent.
struct Sender {
    framer: ProbeFramer,
    snapshots: Arc<ArcSwap<Snapshot>>,
    mail: MailSender,
}

impl Sender {
    /// What cannot be sent is lost, which the probe notices as it would notice any other loss.
    fn send(&mut self, index: BackendIndex, packet: &[u8]) {
        let Self { framer, snapshots, mail } = self;
        let send = |port, frame: &[u8]| mail.send(port, frame.to_vec());
        let _ = framer.frame(&snapshots.load(), index, packet, send);
    }
}

#[cfg(test)]
mod tests {
    use super::super::prober::{Session, Way};
    use super::*;

    fn session(slot: usize) -> Session {
        let address = IpAddr::from([10, 0, 0, slot as u8]);
        let way = Way { index: BackendIndex::new(slot, 0), address, tunnel: None };
        Session::new(address, way, Instant::now())
    }

    /// A port is soon used again, and what was sent from it went to another backend.
    #[test]
    fn a_packet_goes_to_the_backend_of_its_own_probe() {
        let mut state = State::default();
        let exchange = |protocol| Exchange { protocol, number: 40_000 };
        let (tcp, udp) = (exchange(Protocol::TCP), exchange(Protocol::UDP));
        let slot = |index: Option<BackendIndex>| index.map(BackendIndex::slot);
        state.sessions.insert(0, (1, session(1)));
        for (exchange, opens) in [(tcp, true), (tcp, false), (udp, false)] {
            assert_eq!(slot(backend(&mut state, 0, exchange, opens)), Some(1));
        }
        state.sessions.insert(0, (2, session(2)));
        // The end of the first connection, and then what is the second probe's own.
        assert_eq!(slot(backend(&mut state, 0, tcp, false)), Some(1));
        assert_eq!(slot(backend(&mut state, 0, udp, false)), Some(2));
        assert_eq!(slot(backend(&mut state, 0, tcp, true)), Some(2));
        assert_eq!(slot(backend(&mut state, 0, tcp, false)), Some(2));
        // Without a probe, nothing but the end of a connection is anybody's.
        state.sessions.clear();
        assert_eq!(slot(backend(&mut state, 0, tcp, false)), Some(2));
        assert_eq!(slot(backend(&mut state, 0, udp, false)), None);
        assert_eq!(slot(backend(&mut state, 1, tcp, false)), None, "another lane");
    }
}
