//! Counting frames from the VIP on the director's cable: Direct Server Return means that there are none.

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, Read};
use std::mem::size_of;
use std::net::IpAddr;

/// Counts frames whose IP source is one address, on one interface, in both directions.
///
/// It listens at the switch's end of the director's cable. At the director's own end a packet socket is blind to what
/// matters: frames that XDP takes on arrival, and frames that AF_XDP sends.
#[derive(Debug)]
pub struct SourceWatch {
    socket: Socket,
}

impl SourceWatch {
    /// Starts to count, in the namespace of the calling thread.
    pub(super) fn start(source: IpAddr, interface_index: u32) -> io::Result<SourceWatch> {
        const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERY_PROTOCOL)))?;
        socket.attach_filter(&program(source, interface_index))?;
        socket.set_nonblocking(true)?;
        let watch = SourceWatch { socket };
        // What arrived before the filter was in place does not count.
        watch.take()?;
        Ok(watch)
    }

    /// The number of frames since the last call. Should the socket's buffer overflow it is too low, but never zero.
    pub fn take(&self) -> io::Result<u64> {
        let mut frames = 0;
        let mut start_of_frame = [0; size_of::<u64>()];
        loop {
            match (&self.socket).read(&mut start_of_frame) {
                Ok(_) => frames += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(frames),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The classic BPF program: accept if it is this interface, an (optionally tagged) IP frame, and from `source`.
fn program(source: IpAddr, interface_index: u32) -> Vec<SockFilter> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD_AT_X: u16 = 0x40;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const SET_X: u16 = 0x01;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const INTERFACE_INDEX: u32 = 0xffff_f000 + 8; // SKF_AD_OFF + SKF_AD_IFINDEX

    let (ether_type, source_offset, words): (u32, u32, Vec<u32>) = match source {
        IpAddr::V4(v4) => (0x0800, 26, vec![v4.to_bits()]),
        IpAddr::V6(v6) => (
            0x86dd,
            22,
            v6.octets()
                .chunks_exact(4)
                .map(|w| w.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
                .collect(),
        ),
    };
    // (instruction, operand); every comparison that fails rejects the frame, save the one for the tag.
    let mut checks = vec![(LOAD_WORD, INTERFACE_INDEX), (JUMP_IF_EQUAL, interface_index)];
    checks.extend([(SET_X, 0), (LOAD_HALF, 12), (JUMP_IF_EQUAL, 0x8100), (SET_X, 4)]);
    let tag_check = 4;
    checks.extend([(LOAD_HALF_AT_X, 12), (JUMP_IF_EQUAL, ether_type)]);
    for (offset, word) in (source_offset..).step_by(4).zip(words) {
        checks.extend([(LOAD_WORD_AT_X, offset), (JUMP_IF_EQUAL, word)]);
    }
    let accept = checks.len();
    let reject = accept + 1;
    let mut program: Vec<SockFilter> = checks
        .iter()
        .enumerate()
        .map(|(at, &(code, operand))| match code {
            JUMP_IF_EQUAL if at == tag_check => SockFilter::new(code, 0, 1, operand),
            JUMP_IF_EQUAL => SockFilter::new(code, 0, (reject - at - 1) as u8, operand),
            _ => SockFilter::new(code, 0, 0, operand),
        })
        .collect();
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}
