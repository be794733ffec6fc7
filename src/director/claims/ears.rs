//! Hearing who says to have an address, beside the kernel, and nothing else of what it hears.

use crate::packet::{Claim, claim};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Longer than any advertisement of one address.
const BUFFER_LENGTH: usize = 512;
/// How many frames of a kind are read before they are acted on.
const AT_ONCE: usize = 256;

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// Packet sockets for ARP and IPv6. One for all protocols would have the kernel copy every frame that this
/// host sends; these see only what comes in.
#[derive(Debug)]
pub(crate) struct Ears([Socket; 2]);

impl Ears {
    /// Listens to one interface, in the network namespace of the calling thread.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        let ears = Self([
            open(ARP, &arp_program(interface))?,
            open(IPV6, &advertisement_program(interface))?,
        ]);
        // What came before the filters were in place may be anything.
        for socket in &ears.0 {
            while receive(socket, &mut [0; BUFFER_LENGTH]).is_ok() {}
        }
        Ok(ears)
    }

    /// Waits until there is something to hear, `other` is ready, or it is time.
    pub(crate) fn wait(&self, other: BorrowedFd<'_>, due: Instant) -> io::Result<()> {
        let descriptors = self.0.iter().map(AsFd::as_fd).chain([other]);
        let mut awaited: Vec<_> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        // Rounded up, or it would turn idly for the last millisecond.
        let left = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut awaited, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What has been claimed since the last call, or a part of it if it is much.
    pub(crate) fn hear(&self) -> Vec<Claim> {
        let mut heard = Vec::new();
        let mut buffer = [0; BUFFER_LENGTH];
        for socket in &self.0 {
            for _ in 0..AT_ONCE {
                let Ok(length) = receive(socket, &mut buffer) else {
                    break; // nothing there, or an error that the next one will not have
                };
                heard.extend(buffer.get(..length).and_then(claim));
            }
        }
        heard
    }
}

fn receive(mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut socket, buffer)
}

fn open(protocol: u16, program: &[SockFilter]) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(program)?;
    Ok(socket)
}

// Classic BPF, as in `linux/filter.h`. The kernel has taken a VLAN tag out of the frame by then.
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const COPY_TO_X: u16 = 0x07; // BPF_MISC | BPF_TAX
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_EQUAL_X: u16 = 0x1d; // BPF_JMP | BPF_JEQ | BPF_X
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const INTERFACE_INDEX: u32 = 0xffff_f000 + 8; // SKF_AD_OFF + SKF_AD_IFINDEX

/// Lets ARP replies and announcements of an interface through: ordinary requests are many.
fn arp_program(interface: u32) -> [SockFilter; 10] {
    const OPERATION: u32 = 20;
    const SENDER_IP: u32 = 28;
    const TARGET_IP: u32 = 38;
    [
        SockFilter::new(LOAD_WORD, 0, 0, INTERFACE_INDEX),
        SockFilter::new(JUMP_IF_EQUAL, 0, 7, interface),
        SockFilter::new(LOAD_HALF, 0, 0, OPERATION),
        SockFilter::new(JUMP_IF_EQUAL, 4, 0, 2),
        SockFilter::new(LOAD_WORD, 0, 0, SENDER_IP),
        SockFilter::new(COPY_TO_X, 0, 0, 0),
        SockFilter::new(LOAD_WORD, 0, 0, TARGET_IP),
        SockFilter::new(JUMP_IF_EQUAL_X, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Lets neighbour advertisements of an interface through.
fn advertisement_program(interface: u32) -> [SockFilter; 8] {
    const NEXT_HEADER: u32 = 20;
    const TYPE: u32 = 54;
    [
        SockFilter::new(LOAD_WORD, 0, 0, INTERFACE_INDEX),
        SockFilter::new(JUMP_IF_EQUAL, 0, 5, interface),
        SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
