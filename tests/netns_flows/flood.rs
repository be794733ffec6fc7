//! Connections from addresses that nobody has.

use crate::lab::Host;
use crate::random::Random;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What they claim to come from: a block for benchmarks (RFC 2544 appendix C.2.2).
pub const SOURCES: &str = "198.18.0.0/15";
const FIRST_SOURCE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const SOURCE_COUNT: usize = 1 << 17;
const BYTES: usize = 40;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Has a host answer nobody in [`SOURCES`], which also keeps them out of its queue of half-open connections.
pub fn ignore_sources(host: &Host) -> io::Result<()> {
    host.namespace.ip_batch(&[format!("route add blackhole {SOURCES}")])
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
    pub fn start(host: &Host, to: SocketAddrV4, forgery: Forgery, seed: u64) -> io::Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        // IPPROTO_RAW: what is sent begins with the IP header.
        let socket =
            host.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))))?;
        host.enter(|| socket.connect(&to.into()))?;
        let mut random = Random(seed);
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let source = FIRST_SOURCE + random.below(SOURCE_COUNT) as u32;
                let (source, word) = (source.into(), random.word());
                let flags: &[u8] = if forgery == Forgery::Syns { &[SYN] } else { &[SYN, ACK] };
                for flags in flags {
                    let segment = segment(source, word, to, *flags);
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

/// Six bytes of `random` are the source port and the sequence number. The kernel sets the IP header's checksum.
fn segment(source: Ipv4Addr, random: u64, to: SocketAddrV4, flags: u8) -> [u8; BYTES] {
    let [a, b, sequence @ .., _, _] = random.to_be_bytes();
    let mut packet = [0; BYTES];
    packet[..10].copy_from_slice(&[0x45, 0, 0, BYTES as u8, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..24].copy_from_slice(&[a, b, (to.port() >> 8) as u8, to.port() as u8]);
    packet[24..28].copy_from_slice(&sequence);
    packet[32..36].copy_from_slice(&[0x50, flags, 0x40, 0]);
    // RFC 9293 section 3.1, over the pseudo header too: both addresses, protocol and length.
    let words =
        packet[12..].chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum::<u32>() + 6 + 20;
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}
