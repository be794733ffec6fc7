//! A forwarder over packet sockets, as good as it gets without tricks: blocks of a `TPACKET_V3` ring are rewritten in
//! place and sent by `sendmmsg`, past the queueing discipline. For IPv4, by MAC addresses; it remembers no flows.

use crate::plan::{self, BACKENDS, DIRECTOR_MAC, FIRST_BACKEND, VIP4};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const BLOCK: usize = 1 << 18;
const BLOCKS: usize = 64;
const BATCH: usize = 64;
/// Milliseconds after which a block is handed over that is not full.
const RETIRE: u32 = 1;

/// The receiving ring, mapped.
struct Ring {
    socket: OwnedFd,
    memory: *mut u8,
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: what `mmap` returned for this length, and nobody uses it any more.
        unsafe { libc::munmap(self.memory.cast(), BLOCK * BLOCKS) };
    }
}

/// Forwards until told to stop.
pub fn forward(interface: &str, stop: &AtomicBool) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(interface)? as i32;
    let ring = Ring::open(index)?;
    let out = socket(0, index)?;
    option(out.as_raw_fd(), libc::PACKET_QDISC_BYPASS, &1_i32)?;
    println!("ready");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: the number is below that of the blocks, each of this size, and blocks begin with their description.
        let block = unsafe { ring.memory.add(number * BLOCK) };
        // SAFETY: the block is mapped, aligned as pages are, and begins with this structure.
        let header = unsafe { &raw mut (*block.cast::<libc::tpacket_block_desc>()).hdr.bh1 };
        // SAFETY: a field of that structure.
        let status = unsafe { &raw mut (*header).block_status };
        // SAFETY: a word that the kernel writes to as well, so it is read and written atomically.
        let status = unsafe { AtomicU32::from_ptr(status) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            let mut waiting =
                libc::pollfd { fd: ring.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one structure, which lives until the call returns.
            unsafe { libc::poll(&mut waiting, 1, 10) };
            continue;
        }
        // SAFETY: the block is ours now, and the kernel has written its description.
        let described = unsafe { header.read() };
        // SAFETY: the kernel says that the first packet is there, within the block.
        let first = unsafe { block.add(described.offset_to_first_pkt as usize) };
        forward_block(&out, first, described.num_pkts);
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        number = (number + 1) % BLOCKS;
    }
    Ok(())
}

impl Ring {
    fn open(index: i32) -> io::Result<Self> {
        let ring = socket(libc::ETH_P_ALL, index)?;
        let fd = ring.as_raw_fd();
        option(fd, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        option(fd, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32))?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: 2048,
            tp_frame_nr: (BLOCK * BLOCKS / 2048) as u32,
            tp_retire_blk_tov: RETIRE,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        option(fd, libc::PACKET_RX_RING, &request)?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a mapping of the ring that was just asked for, at an address that the kernel chooses.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), BLOCK * BLOCKS, access, flags, fd, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket: ring, memory: memory.cast() })
    }
}

/// Rewrites what is for the VIP of `count` packets from `at` on, and sends it.
fn forward_block(out: &OwnedFd, mut at: *mut u8, count: u32) {
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut filled = 0;
    for _ in 0..count {
        // SAFETY: the kernel chains as many packets as it said, each with this header before it.
        let header = unsafe { &*at.cast::<libc::tpacket3_hdr>() };
        // SAFETY: where the kernel says that the frame begins.
        let start = unsafe { at.add(header.tp_mac.into()) };
        // SAFETY: as many bytes as the kernel says it has written there, ours until the block is given back.
        let frame = unsafe { std::slice::from_raw_parts_mut(start, header.tp_snaplen as usize) };
        if rewrite(frame) {
            parts[filled] = libc::iovec { iov_base: start.cast(), iov_len: frame.len() };
            filled += 1;
        }
        if filled == BATCH {
            send(out, &mut parts);
            filled = 0;
        }
        // SAFETY: to the next packet of the chain; behind the last one it is not used.
        at = unsafe { at.add(header.tp_next_offset as usize) };
    }
    send(out, &mut parts[..filled]);
}

/// Addresses the frame to the backend of its flow, if it is for the VIP.
fn rewrite(frame: &mut [u8]) -> bool {
    let Some((ethernet, ip)) = frame.split_at_mut_checked(14) else { return false };
    if ethernet[12..] != [8, 0] || ip.len() < 24 || ip[0] != 0x45 || ip[16..20] != VIP4.octets() {
        return false;
    }
    let word = |at: usize| u32::from_ne_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
    let hash =
        (u64::from(word(12)) << 32 | u64::from(word(20))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let backend = (hash >> 32) % u64::from(BACKENDS);
    ethernet[..6].copy_from_slice(&plan::mac(FIRST_BACKEND + backend as u8));
    ethernet[6..12].copy_from_slice(&DIRECTOR_MAC);
    true
}

fn send(out: &OwnedFd, parts: &mut [libc::iovec]) {
    let message = |part: &mut libc::iovec| {
        // SAFETY: all zero is a message without address, data and control data.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    let mut messages: [libc::mmsghdr; BATCH] =
        // SAFETY: as above; those that are not filled in are not sent.
        unsafe { zeroed() };
    let count = parts.len();
    messages.iter_mut().zip(parts).for_each(|(to, part)| *to = message(part));
    let mut done = 0;
    while done < count {
        let rest = &mut messages[done..count];
        // SAFETY: as many messages as it says, each with one part that lies in the ring.
        let sent = unsafe {
            libc::sendmmsg(
                out.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        // The one that was refused is lost; the sink counts what arrives.
        done += usize::try_from(sent).unwrap_or(0).max(1);
    }
}

fn socket(protocol: i32, index: i32) -> io::Result<OwnedFd> {
    let protocol = (protocol as u16).to_be();
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol)) };
    // SAFETY: just opened, and nobody else's.
    let socket = unsafe { (fd >= 0).then(|| OwnedFd::from_raw_fd(fd)) };
    let socket = socket.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    let length = size_of_val(&address) as u32;
    // SAFETY: an address of that length, which lives until the call returns.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn option<T>(fd: RawFd, name: i32, value: &T) -> io::Result<()> {
    let (value, length) = ((&raw const *value).cast(), size_of::<T>() as u32);
    // SAFETY: a value of that length, which lives until the call returns.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_PACKET, name, value, length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
