//! One socket's sending side: the interface that packets come in by, or another that they leave by.

use super::rings::{Batch, OwnedFrame, Rings};
use super::tx_ring::TxRing;
use crate::dataplane::io::{IoStats, MAX_BATCH};
use socket2::SockRef;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

/// What keeps a socket open whose frames are only sent: nothing is received by it.
pub(super) struct Unused {
    pub(super) _fill: FillQueue,
    pub(super) rx: RxQueue,
}

/// A TX ring and the completion ring that gives its frames back.
pub(super) struct TxPort {
    ring: TxRing,
    completion: CompQueue,
    /// Set up, and not to be written to: the ring is written above.
    tx: TxQueue,
    /// Frames put into the TX ring, less those that came back.
    transmitting: u64,
    /// Frames to be put into the ring. Empty between calls, unless a handler panicked.
    pub(super) outgoing: Batch,
    zero_copy: bool,
    /// Whether the kernel is called also when it has not asked for it, as it leaves the queue to
    /// whoever calls.
    busy: bool,
    interface: String,
    queue: u32,
    unused: Option<Unused>,
}

impl std::fmt::Debug for TxPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("TxPort");
        debug.field("interface", &self.interface).field("queue", &self.queue);
        debug.field("transmitting", &self.transmitting).finish_non_exhaustive()
    }
}

impl TxPort {
    /// Takes over the sending side of a socket whose TX ring has `size` entries.
    pub(super) fn new(
        (tx, completion): (TxQueue, CompQueue),
        unused: Option<Unused>,
        size: u32,
        zero_copy: bool,
        (interface, queue): (&str, u32),
    ) -> io::Result<Self> {
        // SAFETY: the descriptor is open as long as `tx` lives, which is longer than the borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(tx.fd().as_raw_fd()) };
        // libxdp opens it without: every program that is started later would have it, and keep
        // the queue when this is closed.
        SockRef::from(&socket).set_cloexec(true)?;
        Ok(Self {
            ring: TxRing::map(socket, size)?,
            completion,
            tx,
            transmitting: 0,
            outgoing: Batch::new(),
            zero_copy,
            busy: false,
            interface: interface.to_owned(),
            queue,
            unused,
        })
    }

    /// From now on the kernel leaves the queue to whoever calls.
    pub(super) fn set_busy(&mut self) {
        self.busy = true;
    }

    pub(super) fn transmitting(&self) -> u64 {
        self.transmitting
    }

    pub(super) fn is_pending(&self) -> bool {
        self.ring.pending() > 0
    }

    /// Adds the frames that have been sent to `free`.
    pub(super) fn reap(&mut self, free: &mut Vec<OwnedFrame>) {
        free.extend(self.outgoing.drain(..));
        loop {
            let mut descriptors = [FrameDesc::default(); MAX_BATCH];
            // SAFETY: the ring belongs to the same UMEM as every frame of the queue. What it hands
            // out leaves it with this call, so each becomes the frame's only owner.
            let count = unsafe { self.completion.consume(&mut descriptors) };
            free.extend(descriptors.iter().take(count).copied().map(OwnedFrame::empty));
            self.transmitting = self.transmitting.saturating_sub(count as u64);
            if count < MAX_BATCH {
                return;
            }
        }
    }

    /// Puts `outgoing` into the TX ring, then has the kernel send what is there. `rings` are those
    /// that the frames came by.
    pub(super) fn transmit(
        &mut self,
        rings: &Rings,
        free: &mut Vec<OwnedFrame>,
        counted: &mut IoStats,
    ) -> io::Result<()> {
        let count = self.outgoing.len() as u64;
        let descriptors = self.outgoing.iter().map(|frame| rings.locate(frame));
        // SAFETY: the frames are owned, of the memory that this port shares, and the descriptors
        // inside of their chunks; when the ring has taken them, all or none, their owners are
        // forgotten below.
        if unsafe { self.ring.produce(descriptors) } {
            self.outgoing.clear();
            self.transmitting += count;
            counted.transmitted += count;
        } else {
            counted.transmit_rejected += count;
            free.extend(self.outgoing.drain(..));
        }
        self.kick(counted)
    }

    /// Tells the kernel to send until the TX ring is empty or it cannot take more for now.
    ///
    /// In copy mode one call sends as many frames as its budget is (`XDP_MAX_TX_SKB_BUDGET`) and ends
    /// with EAGAIN if there are more; it ends with EBUSY after each frame that the device refused for
    /// good. Each such call takes at least one frame out of the ring, and nobody else puts any in,
    /// so the loop ends.
    pub(super) fn kick(&mut self, counted: &mut IoStats) -> io::Result<()> {
        loop {
            let pending = self.ring.pending();
            if pending == 0 || !(self.busy || self.ring.needs_wakeup()) {
                return Ok(());
            }
            let sent = SockRef::from(&self.socket()).send_with_flags(&[], libc::MSG_DONTWAIT);
            let Err(error) = sent else {
                return Ok(());
            };
            match error.raw_os_error() {
                Some(libc::EBUSY) if !self.zero_copy => {
                    counted.transmit_failed += 1;
                    counted.transmitted -= 1;
                }
                Some(libc::EAGAIN) if self.ring.pending() < pending => {}
                // The completion ring, the socket's send buffer or the device is full, memory is
                // short, or the interface is down for now: the frames stay in the ring, and the
                // next call tries again.
                Some(
                    libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::ENETDOWN,
                ) => return Ok(()),
                Some(libc::EINTR) => {}
                _ => return self.explain(error),
            }
        }
    }

    /// Tells an interface that is gone from a driver that is not ready.
    pub(super) fn explain(&self, error: io::Error) -> io::Result<()> {
        if error.raw_os_error() == Some(libc::ENXIO) {
            // Copy mode says ENXIO of a socket that lost its device and of nothing else. Drivers
            // with zero-copy also say it while they are reset or have no XDP program; the socket's
            // pending error tells the two apart.
            let lost = !self.zero_copy || SockRef::from(&self.socket()).take_error()?.is_some();
            if !lost {
                return Ok(());
            }
        }
        let (interface, queue) = (&self.interface, self.queue);
        Err(io::Error::new(
            error.kind(),
            format!("interface {interface} queue {queue}: the socket has lost its device: {error}"),
        ))
    }

    /// Frames that the kernel found not to be sendable.
    pub(super) fn invalid(&self) -> u64 {
        let statistics = self.unused.as_ref().map(|unused| unused.rx.fd().xdp_statistics());
        statistics.and_then(Result::ok).map_or(0, |statistics| statistics.tx_invalid_descs())
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `tx` lives, and the result borrows `self`.
        unsafe { BorrowedFd::borrow_raw(self.tx.fd().as_raw_fd()) }
    }
}
