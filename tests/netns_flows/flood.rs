//! Connections from addresses that nobody has.

use crate::lab::Host;
use crate::random::Random;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What they claim to come from: the blocks for benchmarks (RFC 2544 appendix C.2.2, RFC 5180 section 8).
pub const SOURCES: [&str; 2] = ["198.18.0.0/15", "2001:2::/48"];
const FIRST_IPV4: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const FIRST_IPV6: u128 = 0x2001_0002 << 96;
const SOURCE_COUNT: usize = 1 << 17;
const TCP_BYTES: u8 = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Has a host answer nobody in [`SOURCES`], which also keeps them out of its queue of half-open connections.
pub fn ignore_sources(host: &Host) -> io::Result<()> {
    host.namespace.ip_batch(&SOURCES.map(|block| format!("route add blackhole {block}")))
}

/// What the forger sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    /// One SYN from each address and port.
    Syns,
    /// A SYN, and at once an ACK as if it had been answered: all that a director ever sees of a handshake.
    Handshakes,
}

/// Sends as fast as one thread can until it is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    pub fn start(host: &Host, to: SocketAddr, forgery: Forgery, seed: u64) -> io::Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        // IPPROTO_RAW: what is sent begins with the IP header.
        let socket = host
            .enter(|| Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(255))))?;
        host.enter(|| socket.connect(&to.into()))?;
        let mut random = Random(seed);
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let (number, word) = (random.below(SOURCE_COUNT) as u32, random.word());
                let flags: &[u8] = if forgery == Forgery::Syns { &[SYN] } else { &[SYN, ACK] };
                for flags in flags {
                    let segment = segment(number, word, to, *flags);
                    // A full queue on the way is no reason to stop.
                    count.fetch_add(u64::from(socket.send(&segment).is_ok()), Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// From the source with this number. Six bytes of `random` are the source port and the sequence number. The kernel sets
/// the checksum of an IPv4 header.
fn segment(source: u32, random: u64, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut packet = match to.ip() {
        IpAddr::V4(to) => {
            let mut header = vec![0x45, 0, 0, 20 + TCP_BYTES, 0, 0, 0x40, 0, 64, 6, 0, 0];
            header.extend(Ipv4Addr::from(FIRST_IPV4 + source).octets());
            header.extend(to.octets());
            header
        }
        IpAddr::V6(to) => {
            let mut header = vec![0x60, 0, 0, 0, 0, TCP_BYTES, 6, 64];
            header.extend(Ipv6Addr::from(FIRST_IPV6 + u128::from(source)).octets());
            header.extend(to.octets());
            header
        }
    };
    let tcp = packet.len();
    let addresses = tcp - if to.is_ipv4() { 8 } else { 32 };
    let [a, b, sequence @ .., _, _] = random.to_be_bytes();
    packet.extend([a, b, (to.port() >> 8) as u8, to.port() as u8]);
    packet.extend(sequence);
    packet.extend([0, 0, 0, 0, 0x50, flags, 0x40, 0, 0, 0, 0, 0]);
    // RFC 9293 section 3.1, over the pseudo header too: both addresses, protocol and length.
    let words = packet[addresses..].chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>()
        + 6
        + u32::from(TCP_BYTES);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
    packet
}
