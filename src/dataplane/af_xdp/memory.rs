//! The memory of a socket's frames, as one piece.
//!
//! xsk-rs lends of each frame what is behind its present start. To put headers before a packet
//! without moving it, what is in front is needed as well, so the UMEM is mapped a second time.

use std::io;
use std::ptr::NonNull;
use xsk_rs::{FrameDesc, Umem};

/// A mapping of the same pages as a UMEM's, for the handler's eyes; the kernel and xsk-rs use the
/// other. It is divided into chunks of equal size, one for each frame.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    length: usize,
    chunk_size: usize,
    /// Whether the mapping is this value's own and not that of the UMEM.
    owned: bool,
}

// SAFETY: the memory is used through this value alone, whoever mapped it, and a mapping is not bound
// to a thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps the memory of `umem` again; `frames` are all of its descriptors, each as it was made.
    ///
    /// Huge pages cannot be mapped again: the UMEM's own mapping is used for them. Whoever has this must
    /// keep `umem` for longer.
    pub(super) fn map(
        umem: &Umem,
        frames: &[FrameDesc],
        chunk_size: u32,
        huge_pages: bool,
    ) -> io::Result<Self> {
        let chunk_size = chunk_size as usize;
        let length = frames.len() * chunk_size;
        let first = frames.iter().min_by_key(|frame| frame.addr()).copied();
        let first = first.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the descriptor is of this UMEM, no ring has it yet, and the slice is not kept.
        let data = unsafe { umem.data(&first) }.contents().as_ptr().addr();
        // An address is where a frame's data begins, counted from the beginning of the memory.
        let begin = data - first.addr();
        if huge_pages {
            // The pointer that mmap returned has been given to the kernel (`XDP_UMEM_REG`), so it is
            // exposed; nobody but this value makes references into the memory from now on, and the
            // pages belong to no object of Rust's.
            let base = std::ptr::with_exposed_provenance_mut(begin);
            let base = NonNull::new(base).ok_or(io::ErrorKind::InvalidInput)?;
            return Ok(Self { base, length, chunk_size, owned: false });
        }
        // SAFETY: with an old size of zero mremap(2) leaves the old mapping as it is and makes a
        // new one of the same pages, where nothing is mapped; it fails unless the old mapping, of
        // which only the address is used, is shared, which xsk-rs makes it, and is as long as asked.
        let mapped = unsafe {
            libc::mremap(std::ptr::without_provenance_mut(begin), 0, length, libc::MREMAP_MAYMOVE)
        };
        match NonNull::new(mapped.cast()) {
            Some(base) if mapped != libc::MAP_FAILED => {
                Ok(Self { base, length, chunk_size, owned: true })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The number of the chunk that an address is in, and its place there.
    pub(super) fn place(&self, address: usize) -> (usize, usize) {
        (address / self.chunk_size, address % self.chunk_size)
    }

    /// The address of a place in a chunk.
    pub(super) fn address(&self, chunk: usize, place: usize) -> usize {
        chunk * self.chunk_size + place
    }

    pub(super) fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// A chunk's bytes; none if there is no such chunk.
    ///
    /// # Safety
    ///
    /// For as long as the slice lives, nobody else may read or write the chunk: neither the kernel
    /// nor another slice of it. `'a` must not outlive this mapping.
    pub(super) unsafe fn chunk<'a>(&self, number: usize) -> &'a mut [u8] {
        let offset = number * self.chunk_size;
        if offset + self.chunk_size > self.length {
            return &mut [];
        }
        // SAFETY: the chunk is inside the mapping, as was just checked.
        let begin = unsafe { self.base.add(offset) };
        // SAFETY: the bytes are mapped, readable, writable and initialised, as all shared memory
        // of the kernel is; that they are nobody else's for `'a` is the caller's to see to.
        unsafe { std::slice::from_raw_parts_mut(begin.as_ptr(), self.chunk_size) }
    }
}

/// The size of a memory page, in bytes.
pub(crate) fn page_size() -> u32 {
    // SAFETY: takes a number and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).unwrap_or(4096)
}

/// The size of a huge page of the usual kind, in bytes; none where the kernel has no such pages.
pub(crate) fn huge_page_size() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // SAFETY: this is what mremap returned, of that length, and no slice of it is left: they
        // borrow what owns this value. The kernel has pinned the pages by themselves.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
