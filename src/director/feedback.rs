//! Listens to what routers say about the director's own tunnels: that a packet was too large.
//!
//! Such messages come to the tunnels' source addresses, which are the host's and no VIPs. Raw
//! sockets hear them beside the kernel, so nothing is taken from the host.

use super::control::Shared;
use super::icmp_socket;
use crate::dataplane::neighbour::join;
use crate::packet::icmp::{TunnelFeedback, tunnel_feedback};
use socket2::{Domain, Socket};
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
const UNREACHABLE: u8 = 3;
const PACKET_TOO_BIG: u8 = 2;

/// The listening thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct FeedbackListener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FeedbackListener {
    /// Opens the sockets in the network namespace of the calling thread, and listens.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let ipv4 = icmp_socket::open(Domain::IPV4, [UNREACHABLE; 2])?;
        let ipv6 = icmp_socket::open(Domain::IPV6, [PACKET_TOO_BIG; 2])?;
        let sockets = [(ipv4, false), (ipv6, true)];
        let sockets: Vec<_> =
            sockets.into_iter().filter_map(|(socket, v6)| Some((socket?, v6))).collect();
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
            let feedback = icmp_socket::message(message, is_ipv6)
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
