//! The four rings of a socket and the frames they hand to and fro: all `unsafe` of the packet path.

use super::socket::XskSocket;
use crate::dataplane::io::MAX_BATCH;
use arrayvec::ArrayVec;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;
use xsk_rs::umem::frame::DataMut;
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

/// A batch of frames in user space's hands.
pub(super) type Batch = ArrayVec<OwnedFrame, MAX_BATCH>;

/// Descriptors on their way between a ring and a batch.
type Descriptors = ArrayVec<FrameDesc, MAX_BATCH>;

/// The right to use one frame's memory.
///
/// Invariant: each frame of a UMEM is at any time in exactly one place: the fill ring, the RX ring,
/// the TX ring, the completion ring, the kernel's hands between two of them, or one `OwnedFrame`.
/// It cannot be copied, is made only of a descriptor that has just been taken out of a ring (or, at
/// the start, out of the list of all frames), and is consumed by what puts it into one. To drop it
/// is to lose the frame, which is a leak and not a danger.
///
/// An `OwnedFrame` is used with the [`Rings`] it came from and no others: both live in one
/// [`XdpQueue`](super::XdpQueue), which lets neither out.
#[derive(Debug)]
pub(super) struct OwnedFrame(FrameDesc);

/// A bound socket, its rings and its memory.
#[derive(Debug)]
pub(super) struct Rings {
    fill: FillQueue,
    rx: RxQueue,
    tx: TxQueue,
    completion: CompQueue,
    umem: Umem,
    tx_size: u32,
}

impl Rings {
    /// Takes over a socket with all of its frames, none of which is in a ring yet.
    pub(super) fn new(socket: XskSocket) -> (Self, Vec<OwnedFrame>) {
        let XskSocket { fill, rx, tx, completion, umem, frames, tx_size } = socket;
        let rings = Self { fill, rx, tx, completion, umem, tx_size };
        (rings, frames.into_iter().map(OwnedFrame).collect())
    }

    /// Adds received frames to `batch`, as many as are there and fit.
    pub(super) fn receive(&mut self, batch: &mut Batch) {
        let mut descriptors = [FrameDesc::default(); MAX_BATCH];
        let room = batch.remaining_capacity();
        // SAFETY: the ring belongs to the same UMEM as every frame here. The descriptors it hands
        // out leave the ring with this call, so each becomes the frame's only owner.
        let count = unsafe { self.rx.consume(&mut descriptors[..room]) };
        batch.extend(descriptors.into_iter().take(count).map(OwnedFrame));
    }

    /// The bytes of each frame of `batch`, for as long as both are borrowed.
    pub(super) fn lend<'a>(&'a self, batch: &'a mut Batch) -> ArrayVec<DataMut<'a>, MAX_BATCH> {
        batch
            .iter_mut()
            .map(|frame| {
                // SAFETY: an owned frame is in no ring, so neither the kernel nor another owned
                // frame refers to its memory, and it is mutably borrowed as long as the slice
                // lives. Its descriptor came from this UMEM.
                unsafe { self.umem.data_mut(&mut frame.0) }
            })
            .collect()
    }

    /// Writes `bytes` into `frame` as its content; false, and nothing to be sent, if they do not
    /// fit.
    pub(super) fn write(&self, frame: &mut OwnedFrame, bytes: &[u8]) -> bool {
        // SAFETY: as in `lend`.
        let mut data = unsafe { self.umem.data_mut(&mut frame.0) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        cursor.write_all(bytes).is_ok()
    }

    /// Gives the frames of `free` beyond the first `keep` to the kernel, to receive into.
    pub(super) fn fill(&mut self, free: &mut Vec<OwnedFrame>, keep: usize) {
        while free.len() > keep {
            let from = keep.max(free.len().saturating_sub(MAX_BATCH));
            let descriptors: Descriptors = free[from..].iter().map(|frame| frame.0).collect();
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

    /// Puts all of `batch` into the TX ring, or, if it has no room for all, nothing. Returns
    /// whether it did; the batch is then empty.
    pub(super) fn transmit(&mut self, batch: &mut Batch) -> bool {
        if batch.is_empty() {
            return true;
        }
        let descriptors: Descriptors = batch.iter().map(|frame| frame.0).collect();
        // SAFETY: as in `fill`; each frame has been written or received, so its descriptor's
        // length is that of its content.
        let count = unsafe { self.tx.produce(&descriptors) };
        if count == 0 {
            return false;
        }
        batch.clear();
        true
    }

    /// Adds the frames that have been sent to `free`, and returns how many.
    pub(super) fn reap(&mut self, free: &mut Vec<OwnedFrame>) -> usize {
        let mut total = 0;
        loop {
            let mut descriptors = [FrameDesc::default(); MAX_BATCH];
            // SAFETY: as in `receive`.
            let count = unsafe { self.completion.consume(&mut descriptors) };
            free.extend(descriptors.into_iter().take(count).map(OwnedFrame));
            total += count;
            if count < MAX_BATCH {
                return total;
            }
        }
    }

    /// How many frames in the TX ring the kernel has not taken, as far as it has said.
    pub(super) fn transmit_pending(&mut self) -> u32 {
        self.tx_size.saturating_sub(self.tx.nb_free_exact())
    }

    /// Whether the kernel looks at the TX ring only when told to.
    pub(super) fn transmit_needs_wakeup(&self) -> bool {
        self.tx.needs_wakeup()
    }

    /// Whether the driver has run out of frames and waits to be told of new ones.
    pub(super) fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Waits until something has been received or `timeout` is over, rounded up to milliseconds;
    /// returns whether there is something. A signal ends the wait.
    ///
    /// In copy mode poll(2) also transmits what is in the TX ring, and does not say how that went.
    pub(super) fn wait_readable(&mut self, timeout: Duration) -> io::Result<bool> {
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        self.rx.poll(i32::try_from(milliseconds).unwrap_or(i32::MAX))
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
