//! A server for thousands of connections on one thread, and what is said on them.
//!
//! A message is its length (two bytes), who sends it (eight), its number (four) and bytes that follow from those. The
//! answer is the backend's number and the whole message again. A client has one message under way at a time.

use crate::lab::Host;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const HEAD: usize = 14;
/// One in so many messages takes several segments.
const LONG_ONE_IN: u32 = 16;
const LONG: usize = 4000;
const BACKLOG: i32 = 4096;
const TICK: u8 = 50;

/// What a client says.
pub fn message(connection: u64, number: u32) -> Vec<u8> {
    let mut state = connection << 32 | u64::from(number);
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (state ^ state >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let length = match number % LONG_ONE_IN {
        0 => LONG,
        _ => HEAD + (word() >> 40) as usize % 100,
    };
    let mut bytes = (length as u16).to_le_bytes().to_vec();
    bytes.extend(connection.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    while bytes.len() < length {
        bytes.extend(word().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Answers until it is dropped.
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on a port of every address of the host, of both families.
    pub fn start(host: &Host, port: u16, number: u8) -> io::Result<Self> {
        let listener = host.enter(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new([0u16; 8].into(), port).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok::<TcpListener, io::Error>(socket.into())
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Sockets stay in their namespace, whoever uses them.
        let thread = std::thread::Builder::new()
            .name(format!("echo-{}", host.name))
            .spawn(move || serve(&listener, number, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and its clients have seen their connections close.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, number: u8, stop: &AtomicBool) {
    const LISTENER: u64 = 0;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).unwrap();
    let mut connections = HashMap::new();
    let mut accepted = LISTENER;
    let mut events = [EpollEvent::empty(); 256];
    while !stop.load(Ordering::Relaxed) {
        let count = match epoll.wait(&mut events, TICK) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => panic!("epoll_wait: {error}"),
        };
        for event in &events[..count] {
            if event.data() != LISTENER {
                let open = connections.get_mut(&event.data()).map(|one| answer(one, number));
                if !matches!(open, Some(Ok(()))) {
                    connections.remove(&event.data());
                }
                continue;
            }
            // An error is that there is none left, or a client that has gone again.
            while let Ok((stream, _)) = listener.accept() {
                accepted += 1;
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, accepted)).unwrap();
                connections.insert(accepted, (stream, Vec::new()));
            }
        }
    }
}

/// Answers what has come in full. Any error ends the connection; the client notices that.
fn answer((stream, pending): &mut (TcpStream, Vec<u8>), number: u8) -> io::Result<()> {
    read_all(stream, pending)?;
    while let Some(length) = pending.first_chunk().map(|head| u16::from_le_bytes(*head).into()) {
        if pending.len() < length || length < HEAD {
            break;
        }
        let mut answer = vec![number];
        answer.extend(pending.drain(..length));
        // There is room for it: the client has had what it waited for before.
        stream.write_all(&answer)?;
    }
    Ok(())
}

/// Everything that is there. The end is an error.
pub fn read_all(mut stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 8192];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => into.extend(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
