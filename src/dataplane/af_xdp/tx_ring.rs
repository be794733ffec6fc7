//! The user's side of a TX ring (Documentation/networking/af_xdp.rst).
//!
//! xsk-rs has one too, but sends a frame only from where it was received. libxdp sets the ring up and
//! maps it; here it is mapped again, and only here written to.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A frame to be sent: where in the UMEM, and how many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) length: u32,
}

/// The only producer of one socket's TX ring.
#[derive(Debug)]
pub(super) struct TxRing {
    mapping: NonNull<u8>,
    length: usize,
    offsets: Offsets,
    size: u32,
    /// How many descriptors have been produced so far, modulo 2^32.
    produced: u32,
}

#[derive(Clone, Copy, Debug)]
struct Offsets {
    producer: usize,
    consumer: usize,
    descriptors: usize,
    flags: usize,
}

// SAFETY: the mapping belongs to this value alone and is not bound to a thread.
unsafe impl Send for TxRing {}

impl TxRing {
    /// Maps the TX ring of `socket`, which has `size` entries and has not been used.
    pub(super) fn map(socket: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let offsets = offsets(socket)?;
        let length = offsets.descriptors + size as usize * size_of::<libc::xdp_desc>();
        // SAFETY: a new mapping, where nothing is mapped; the kernel allows as much of the ring as
        // there is of it and refuses more.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                libc::XDP_PGOFF_TX_RING,
            )
        };
        match NonNull::new(mapped.cast()) {
            Some(mapping) if mapped != libc::MAP_FAILED => {
                let mut ring = Self { mapping, length, offsets, size, produced: 0 };
                ring.produced = ring.word(offsets.producer).load(Ordering::Relaxed);
                Ok(ring)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A 32-bit field that the kernel shares.
    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + size_of::<u32>() <= self.length);
        // SAFETY: the offset is one that the kernel gave for this mapping, so it is inside.
        let word = unsafe { self.mapping.add(offset) };
        // SAFETY: the field is mapped as long as `self` lives, aligned by the kernel's layout
        // (struct xdp_ring), and every access to it, here and in the kernel, is atomic.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// How many descriptors the kernel has not taken, as far as it has said.
    pub(super) fn pending(&self) -> u32 {
        // Acquire: what the kernel read of an entry it read before it says that it is free.
        let consumed = self.word(self.offsets.consumer).load(Ordering::Acquire);
        self.produced.wrapping_sub(consumed)
    }

    /// Whether the kernel looks at the ring only when told to (`XDP_RING_NEED_WAKEUP`).
    pub(super) fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Puts all of `descriptors` into the ring, or nothing if it has no room for all; returns
    /// whether it did.
    ///
    /// # Safety
    ///
    /// Each descriptor must name memory of the socket's UMEM that nobody reads or writes until the
    /// completion ring gives it back.
    pub(super) unsafe fn produce(
        &mut self,
        descriptors: impl ExactSizeIterator<Item = Descriptor>,
    ) -> bool {
        let room = self.size.saturating_sub(self.pending()) as usize;
        if descriptors.len() > room {
            return false;
        }
        for Descriptor { address, length } in descriptors.take(room) {
            let index = self.produced & (self.size - 1);
            let offset = self.offsets.descriptors + index as usize * size_of::<libc::xdp_desc>();
            // SAFETY: the index is below the ring's size, so the entry is inside the mapping.
            let entry = unsafe { self.mapping.add(offset) };
            let descriptor = libc::xdp_desc { addr: address, len: length, options: 0 };
            // SAFETY: aligned by the kernel's layout; the entry is free, as counted above, so the
            // kernel does not look at it until the producer index says so.
            unsafe { entry.cast().write(descriptor) };
            self.produced = self.produced.wrapping_add(1);
        }
        // Release: the entries, and the frames they name, are written before they are offered.
        self.word(self.offsets.producer).store(self.produced, Ordering::Release);
        true
    }
}

impl Drop for TxRing {
    fn drop(&mut self) {
        // SAFETY: this is what mmap returned, of that length, and nothing borrows from it.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.length) };
    }
}

/// Where the fields of the TX ring are.
fn offsets(socket: BorrowedFd<'_>) -> io::Result<Offsets> {
    let none = || libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut all = libc::xdp_mmap_offsets { rx: none(), tx: none(), fr: none(), cr: none() };
    let mut length = size_of_val(&all) as libc::socklen_t;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes to `all`, which is
    // that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut all).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // Before Linux 5.4 there were no flags.
    if length as usize != size_of_val(&all) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Offsets {
        producer: all.tx.producer as usize,
        consumer: all.tx.consumer as usize,
        descriptors: all.tx.desc as usize,
        flags: all.tx.flags as usize,
    })
}
