//! Listens to what routers say about the director's own tunnels: that a packet was too large.
//!
//! Such messages come to the tunnels' source addresses, which are the host's and no VIPs. Raw
//! sockets hear them beside the kernel, so nothing is taken from the host.

use super::control::Shared;
use crate::dataplane::neighbour::join;
use crate::packet::icmp::{TunnelFeedback, tunnel_feedback};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long messages are collected before they are acted on, so that a flood of them costs one plan;
/// also how soon the thread notices that it is to stop.
const TICK: Duration = Duration::from_millis(100);
/// How many distinct messages of one tick are looked at.
const MOST: usize = 1024;
/// Longer than any ICMP message that quotes what tells of the tunnel.
const BUFFER_LENGTH: usize = 2048;

/// ICMP "destination unreachable" (RFC 792) and ICMPv6 "packet too big" (RFC 4443 section 3.2).
const UNREACHABLE: u32 = 3;
const PACKET_TOO_BIG: u32 = 2;

/// The listening thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct FeedbackListener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FeedbackListener {
    /// Opens the sockets in the network namespace of the calling thread, and listens.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        // A host without IPv6 has no tunnels over it.
        let ipv6 = match open(Domain::IPV6) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            opened => Some(opened?),
        };
        let sockets: Vec<_> = [(open(Domain::IPV4)?, false)]
            .into_iter()
            .chain(ipv6.map(|socket| (socket, true)))
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(shared));
        let listen = move || {
            while !stopped.load(Ordering::Relaxed) {
                shared.feedback(&hear(&sockets));
            }
        };
        let thread = std::thread::Builder::new().name("dsrlb-path-mtu".into()).spawn(listen)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for FeedbackListener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}

/// What is heard in one tick, without repetitions.
fn hear(sockets: &[(Socket, bool)]) -> Vec<TunnelFeedback> {
    let deadline = Instant::now() + TICK;
    let mut heard: Vec<TunnelFeedback> = Vec::new();
    let mut buffer = [0; BUFFER_LENGTH];
    while Instant::now() < deadline {
        let mut idle = true;
        for (socket, is_ipv6) in sockets {
            let is_ipv6 = *is_ipv6;
            let mut reader: &Socket = socket;
            let Ok(length) = io::Read::read(&mut reader, &mut buffer) else {
                continue; // nothing there, or an error that the next one will not have
            };
            idle = false;
            let message = buffer.get(..length).unwrap_or_default();
            let feedback = icmp_message(message, is_ipv6)
                .and_then(|message| tunnel_feedback(message, is_ipv6));
            if let Some(feedback) = feedback
                && heard.len() < MOST
                && !heard.contains(&feedback)
            {
                heard.push(feedback);
            }
        }
        if idle {
            std::thread::sleep(TICK / 10);
        }
    }
    heard
}

/// IPv4 sockets give the IP header along, IPv6 ones do not.
fn icmp_message(received: &[u8], is_ipv6: bool) -> Option<&[u8]> {
    if is_ipv6 {
        return Some(received);
    }
    let header_length = usize::from(received.first()? & 0x0f) * 4;
    received.get(header_length..)
}

/// A raw socket that lets only the messages of interest through: a host may hear many others.
fn open(domain: Domain) -> io::Result<Socket> {
    // Classic BPF, as in `linux/filter.h`.
    const LENGTH_OF_IPV4_HEADER_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const ZERO_TO_X: u16 = 0x01; // BPF_LDX | BPF_IMM
    const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K

    let (protocol, to_x, kind) = match domain {
        Domain::IPV4 => (Protocol::ICMPV4, LENGTH_OF_IPV4_HEADER_TO_X, UNREACHABLE),
        _ => (Protocol::ICMPV6, ZERO_TO_X, PACKET_TOO_BIG),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.attach_filter(&[
        SockFilter::new(to_x, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_AT_X, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, kind),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
