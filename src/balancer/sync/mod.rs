//! Flows that directors tell each other of, so that one can go on where another has ended.
//!
//! # Contract
//!
//! No I/O, no clock, no panic, and no allocation per packet: but for what the transport does, which is called with
//! every batch and must not block.

mod exchange;
mod names;
mod record;

pub(super) use exchange::Exchange;
pub use names::BackendNames;
pub use record::{SharedFlow, SharedFlowError};

use std::ops::AddAssign;
use std::time::Duration;

/// A worker's way to the balancers that it shares flows with: a queue, a socket, whatever carries 24 bytes.
/// [`Hub`](crate::dataplane::Hub) connects those of one process.
///
/// Called on the packet path, with every batch: nothing here may block. What is lost, repeated or overtaken
/// does no harm. Each flow comes from its sender alone and is passed on by nobody, so a transport reaches all
/// others.
///
/// # What is shared
///
/// Each proven flow that is heard of here is told of once in each [interval](FlowSync::interval), and again
/// in the next, for as long as it is in the table. Nothing is acknowledged or asked for again: what is lost
/// comes again, and who joins late knows all within one interval.
///
/// What packets did to a flow here goes before what is told: it keeps its backend, but where a single packet in
/// the midst of a connection was all that came. Of what is only told, the newest counts.
///
/// Where contested flows alone are recorded ([`Record::Contested`](super::Record::Contested)), only those are told
/// of: who comes later does not learn of flows that were not contested when it came.
///
/// # Cost
///
/// 24 bytes ([`SharedFlow`]) for each proven flow, interval and receiver. Another director may spread flows over
/// its queues in another way, so each of its workers has to know all: a table that takes part needs room for the
/// flows of its own worker and those of all workers of all other directors, twice that many entries, of 16 bytes
/// each: 32 bytes a flow and worker. A told flow takes its place like any proven one: in a table that is too small,
/// new flows are not remembered, whoever has them. Directors that spread flows alike (`ethtool -x`) can pair
/// their queues: the function that `DirectorBuilder::sync` takes is told the queue.
///
/// # Example
///
/// ```
/// use dsrlb::balancer::{FlowSync, SharedFlow};
/// use std::net::{SocketAddr, UdpSocket};
///
/// /// One peer, on a link that nobody else is on: nothing is authenticated.
/// struct Udp {
///     socket: UdpSocket, // non-blocking
///     peer: SocketAddr,
///     datagram: Vec<u8>,
/// }
///
/// impl FlowSync for Udp {
///     fn send(&mut self, flows: &[SharedFlow]) -> usize {
///         let bytes: Vec<u8> = flows.iter().flat_map(SharedFlow::to_bytes).collect();
///         let sent = self.socket.send_to(&bytes, self.peer);
///         if sent.is_ok() { 0 } else { flows.len() }
///     }
///
///     fn receive(&mut self) -> Option<SharedFlow> {
///         while self.datagram.len() < SharedFlow::BYTES {
///             let mut received = [0; 1500];
///             let (length, from) = self.socket.recv_from(&mut received).ok()?;
///             if from == self.peer {
///                 let whole = length / SharedFlow::BYTES * SharedFlow::BYTES;
///                 self.datagram.extend_from_slice(&received[..whole]);
///             }
///         }
///         let at = self.datagram.len() - SharedFlow::BYTES;
///         let flow = SharedFlow::from_bytes(self.datagram[at..].first_chunk()?);
///         self.datagram.truncate(at);
///         flow.ok()
///     }
/// }
/// # let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
/// # let peer = socket.local_addr().unwrap();
/// # socket.set_nonblocking(true).unwrap();
/// # let mut udp = Udp { socket, peer, datagram: Vec::new() };
/// # let mut bytes = [7; SharedFlow::BYTES];
/// # bytes[..4].copy_from_slice(&[1, 1, 0, 0]);
/// # let flow = SharedFlow::from_bytes(&bytes).unwrap();
/// # assert_eq!((udp.receive(), udp.send(&[flow, flow])), (None, 0));
/// # assert_eq!([udp.receive(), udp.receive(), udp.receive()], [Some(flow), Some(flow), None]);
/// ```
pub trait FlowSync: Send {
    /// Hands on flows, at most 56 at a time: as datagram, 1,344 bytes. Returns how many of them did not go to
    /// everybody they were for, which are counted as lost.
    fn send(&mut self, flows: &[SharedFlow]) -> usize;

    /// The next flow that another has sent, if one has come.
    fn receive(&mut self) -> Option<SharedFlow>;

    /// How long it takes from one time that a flow is told of to the next: what a flow is too new to
    /// be known elsewhere. Asked once; from 100 ms to an hour.
    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl<T: FlowSync + ?Sized> FlowSync for Box<T> {
    fn send(&mut self, flows: &[SharedFlow]) -> usize {
        (**self).send(flows)
    }
    fn receive(&mut self) -> Option<SharedFlow> {
        (**self).receive()
    }
    fn interval(&self) -> Duration {
        (**self).interval()
    }
}

/// What has been told and heard of flows since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SyncCounts {
    /// Handed to the transport. A flow is told of again and again.
    pub sent: u64,
    /// Of those, what the transport said did not reach all others.
    pub lost: u64,
    /// What has come from others; the sum of the counts below.
    pub received: u64,
    /// Flows that were not known here.
    pub new: u64,
    /// Flows of which something newer was told than what was known.
    pub updated: u64,
    /// Flows of which as much was known, or more.
    pub known: u64,
    /// Flows of a backend that is not configured here, or keeps no flows here.
    pub unknown: u64,
    /// Flows for which there was no place.
    pub refused: u64,
}

impl AddAssign for SyncCounts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.received += other.received;
        self.new += other.new;
        self.updated += other.updated;
        self.known += other.known;
        self.unknown += other.unknown;
        self.refused += other.refused;
    }
}
