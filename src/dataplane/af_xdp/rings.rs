//! The frames of a queue and the rings they are received by.

use super::memory::Memory;
use super::options::PACKET_HEADROOM;
use crate::dataplane::Waker;
use crate::dataplane::io::{Frame, MAX_BATCH};
use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prefetch_index::prefetch_index;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;
use xsk_rs::{FillQueue, FrameDesc, RxQueue, Umem};

/// A batch of frames in user space's hands.
pub(super) type Batch = ArrayVec<OwnedFrame, MAX_BATCH>;

/// Descriptors on their way between a ring and a batch.
pub(super) type Descriptors = ArrayVec<FrameDesc, MAX_BATCH>;

/// The right to use one frame's memory, its chunk, and where in it the content is.
///
/// Invariant: each frame of a UMEM is at any time in exactly one place: the fill ring, the RX ring,
/// a TX ring, a completion ring, the kernel's hands between two of them, or one `OwnedFrame`.
/// It cannot be copied, is made only of a descriptor that has just been taken out of a ring (or, at
/// the start, out of the list of all frames), and is consumed by what puts it into one. To drop it
/// is to lose the frame, which is a leak and not a danger.
///
/// An `OwnedFrame` is used with the [`Rings`] it came from and no others, nor ports that do not share
/// their memory: all live in one [`XdpQueue`](super::XdpQueue), which lets none out.
#[derive(Debug)]
pub(super) struct OwnedFrame {
    /// Names the chunk, by any address in it.
    descriptor: FrameDesc,
    /// Where in the chunk the content is.
    content: Range<usize>,
}

impl OwnedFrame {
    /// The frame of a descriptor that has just left a ring and has no content.
    pub(super) fn empty(descriptor: FrameDesc) -> Self {
        Self { descriptor, content: 0..0 }
    }

    pub(super) fn set_content(&mut self, content: Range<usize>) {
        self.content = content;
    }
}

/// What a wait came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waited {
    /// There is something to receive.
    Readable,
    /// A signal came, or the waker was called: the caller is to look what for.
    Interrupted,
    /// The time is over.
    Over,
}

/// What is received into, and by.
#[derive(Debug)]
pub(super) struct Rings {
    fill: FillQueue,
    rx: RxQueue,
    // Dropped before the UMEM is: its pages are the same.
    memory: Memory,
    umem: Umem,
}

impl Rings {
    /// Takes over a socket with all of its frames, none of which is in a ring yet.
    pub(super) fn new(
        fill: FillQueue,
        rx: RxQueue,
        umem: Umem,
        frames: Vec<FrameDesc>,
        chunk_size: u32,
        huge_pages: bool,
    ) -> io::Result<(Self, Vec<OwnedFrame>)> {
        let memory = Memory::map(&umem, &frames, chunk_size, huge_pages)?;
        let rings = Self { fill, rx, memory, umem };
        Ok((rings, frames.into_iter().map(OwnedFrame::empty).collect()))
    }

    /// The memory, for another socket to share.
    pub(super) fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Adds received frames to `batch`, as many as are there and fit.
    pub(super) fn receive(&mut self, batch: &mut Batch) {
        let mut descriptors = [FrameDesc::default(); MAX_BATCH];
        let room = batch.remaining_capacity();
        // SAFETY: the ring belongs to the same UMEM as every frame here. The descriptors it hands
        // out leave the ring with this call, so each becomes the frame's only owner.
        let count = unsafe { self.rx.consume(&mut descriptors[..room]) };
        let memory = &self.memory;
        batch.extend(descriptors.iter().take(count).copied().map(|descriptor| {
            let (_, start) = memory.place(descriptor.addr());
            let content = start..start + descriptor.lengths().data();
            OwnedFrame { descriptor, content }
        }));
    }

    /// Adds to `lent` each frame of `batch` with the whole of its chunk around it, for as long as both are borrowed. Where
    /// it is to be: to return kilobytes is to copy them.
    pub(super) fn lend<'a>(
        &'a self,
        batch: &'a mut Batch,
        lent: &mut ArrayVec<Frame<'a>, MAX_BATCH>,
    ) {
        let lend = |frame: &'a mut OwnedFrame| {
            let (chunk, _) = self.memory.place(frame.descriptor.addr());
            // SAFETY: an owned frame is in no ring, so neither the kernel nor another owned frame
            // refers to its chunk, and it is mutably borrowed as long as the slice lives, as is the
            // mapping. Its descriptor came from this UMEM.
            let memory = unsafe { self.memory.chunk(chunk) };
            // Another core has written it, the kernel or the NIC: all are fetched together, and not one after the other.
            prefetch_index(&*memory, frame.content.start);
            Frame::in_memory(memory, frame.content.clone())
        };
        lent.extend(batch.iter_mut().map(lend));
    }

    /// Writes `bytes` into `frame` as its content; false, and nothing to be sent, if they do not
    /// fit.
    pub(super) fn write(&self, frame: &mut OwnedFrame, bytes: &[u8]) -> bool {
        let (chunk, _) = self.memory.place(frame.descriptor.addr());
        // SAFETY: as in `lend`.
        let memory = unsafe { self.memory.chunk(chunk) };
        let content = PACKET_HEADROOM as usize..PACKET_HEADROOM as usize + bytes.len();
        let Some(place) = memory.get_mut(content.clone()) else {
            return false;
        };
        place.copy_from_slice(bytes);
        frame.content = content;
        true
    }

    /// Where `frame` begins in the memory, and how long it is.
    pub(super) fn locate(&self, frame: &OwnedFrame) -> super::tx_ring::Descriptor {
        let (chunk, _) = self.memory.place(frame.descriptor.addr());
        // Whatever became of the frame, what is sent of it is inside its chunk.
        let end = frame.content.end.min(self.memory.chunk_size());
        let start = frame.content.start.min(end);
        super::tx_ring::Descriptor {
            address: self.memory.address(chunk, start) as u64,
            length: (end - start) as u32,
        }
    }

    /// Gives the frames of `free` beyond the first `keep` to the kernel, to receive into. The kernel
    /// looks at nothing but which chunk they are.
    pub(super) fn fill(&mut self, free: &mut Vec<OwnedFrame>, keep: usize) {
        while free.len() > keep {
            let from = keep.max(free.len().saturating_sub(MAX_BATCH));
            let descriptors: Descriptors =
                free[from..].iter().map(|frame| frame.descriptor).collect();
            // SAFETY: the frames are of this UMEM and owned; when the ring has taken them, which
            // it does with all or none, their owners are forgotten below.
            let count = unsafe { self.fill.produce(&descriptors) };
            if count == 0 {
                // Twice as large as the number of frames, it has room even while the kernel is
                // late in saying what it has taken; should it not, the frames wait here.
                return;
            }
            free.truncate(from);
        }
    }

    /// Whether the driver has run out of frames and waits to be told of new ones.
    pub(super) fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Waits until something has been received or `timeout` is over, rounded up to milliseconds. A
    /// signal ends the wait, and so does `waker`.
    ///
    /// In copy mode poll(2) also transmits what is in the TX ring, and does not say how that went.
    pub(super) fn wait_readable(&self, timeout: Duration, waker: &Waker) -> io::Result<Waited> {
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        let mut awaited = [self.socket(), waker.descriptor()]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match poll(&mut awaited, timeout) {
            Err(Errno::EINTR) => return Ok(Waited::Interrupted),
            polled => polled?,
        };
        let [readable, woken] = awaited.map(|descriptor| descriptor.any().unwrap_or_default());
        if woken {
            waker.clear();
        }
        Ok(match (readable, woken) {
            (true, _) => Waited::Readable,
            (false, true) => Waited::Interrupted,
            (false, false) => Waited::Over,
        })
    }

    /// What the kernel has counted for the socket.
    pub(super) fn statistics(&self) -> io::Result<xsk_rs::socket::XdpStatistics> {
        self.rx.fd().xdp_statistics()
    }

    /// The socket, for the system calls that concern it.
    pub(super) fn socket(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as one of the queues in `self` lives, and the
        // result borrows `self`.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}
