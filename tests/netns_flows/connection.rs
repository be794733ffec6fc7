//! One connection of a client that never waits.

use crate::echo::{message, read_all};
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Which service a connection is of, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub service: usize,
    /// Of the service's history.
    pub phase: usize,
    /// Whether it is one of those that are to last.
    pub lasting: bool,
    /// Whether it was among the first.
    pub first: bool,
}

/// A connection and the answer that it waits for.
#[derive(Debug)]
pub struct Connection {
    pub origin: Origin,
    pub backend: Option<u8>,
    /// The round in which the last message was sent.
    pub round: u64,
    /// How many messages have been answered.
    pub answered: u32,
    /// The last round of which a message was answered.
    pub done: u64,
    socket: TcpStream,
    id: u64,
    connected: bool,
    sent: Option<Instant>,
    expected: Vec<u8>,
    received: Vec<u8>,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, backend, answered, round, origin, .. } = self;
        write!(f, "connection {id} to {backend:?}, {answered} answers, round {round}, {origin:?}")
    }
}

impl Connection {
    /// Begins to connect, from a port that nothing else has had.
    pub fn open(vip: SocketAddr, port: u16, id: u64, origin: Origin) -> io::Result<Self> {
        let any = match vip {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&vip.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(Self {
            origin,
            backend: None,
            round: 0,
            answered: 0,
            done: 0,
            socket: socket.into(),
            id,
            connected: false,
            sent: Some(Instant::now()),
            expected: Vec::new(),
            received: Vec::new(),
        })
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether it has waited for longer than this.
    pub fn is_overdue(&self, timeout: Duration) -> bool {
        self.sent.is_some_and(|sent| sent.elapsed() > timeout)
    }

    /// Sends the next message.
    pub fn say(&mut self, round: u64) -> io::Result<()> {
        self.expected = message(self.id, self.answered);
        self.round = round;
        self.sent = Some(Instant::now());
        self.socket.write_all(&self.expected)
    }

    /// Something has happened; the backend that has answered, if it has. Whatever is not as it should be is an error.
    pub fn look(&mut self, round: u64) -> io::Result<Option<u8>> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        if !self.connected {
            match self.socket.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
                Err(error) => return Err(error),
                Ok(_) => self.connected = true,
            }
            self.say(round)?;
        }
        read_all(&self.socket, &mut self.received)?;
        if self.received.len() <= self.expected.len() && self.sent.is_some() {
            return Ok(None);
        }
        let Some((backend, bytes)) = self.received.split_first() else { return Ok(None) };
        if self.sent.take().is_none() || bytes != self.expected {
            return Err(io::Error::other("other bytes than were sent"));
        }
        let backend = *backend;
        if self.backend.is_some_and(|before| before != backend) {
            return Err(io::Error::other(format!("answered by b{backend}")));
        }
        self.received.clear();
        self.answered += 1;
        self.done = self.round;
        Ok(Some(backend))
    }
}
