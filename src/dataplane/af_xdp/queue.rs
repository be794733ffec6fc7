//! One RX queue of an interface as a [`PacketIo`].

use super::rings::{Batch, OwnedFrame, Rings};
use super::socket::XskSocket;
use crate::dataplane::io::{Action, Frame, Handler, IoStats, MAX_BATCH, PacketIo, Port};
use arrayvec::ArrayVec;
use socket2::SockRef;
use std::io;
use std::time::{Duration, Instant};

/// The shortest Ethernet frame that is worth sending: a header.
const SHORTEST_FRAME: usize = 14;
/// How long to wait at first while the TX ring is not empty, for the kernel must be told again.
/// Each further wait is twice as long: a busy device takes frames soon, one that is down may not.
const RETRY_TRANSMIT: Duration = Duration::from_millis(1);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_millis(50);
/// Every how many fruitless calls without a wait the interface is checked to be still there.
const CHECK_EVERY: u32 = 1024;

/// An AF_XDP socket on one RX queue: receives what the XDP program redirects there, and sends.
///
/// Made by [`XdpInterface::take_queues`](super::XdpInterface::take_queues). Closing it, by dropping
/// it, gives the traffic of the queue back to the kernel.
///
/// # What the counters say
///
/// Each frame the program redirected (see
/// [`RedirectStats`](super::RedirectStats)) is `received`, still in the RX ring, or, in copy mode,
/// in one of `receive_ring_full`, `receive_no_frame` and `receive_dropped` (larger than a frame).
/// In zero-copy mode the driver takes frames ahead of packets, so `receive_no_frame` counts how
/// often it found none, which need not have cost a packet; what it cost is in the NIC's own
/// counters (`ethtool -S`).
///
/// `transmit_failed` counts, in copy mode, the frames of which the kernel said that they were
/// dropped before the driver had them (no carrier, a full queue of the device). Unknown, and so in
/// `transmitted`, are what is dropped later; what is dropped in zero-copy mode; and what is dropped
/// while the kernel drains a TX ring, left over because the device was busy, inside poll(2).
#[derive(Debug)]
pub struct XdpQueue {
    rings: Rings,
    /// Frames in no ring; the first [`XdpQueue::reserve`] stay here for [`PacketIo::send`].
    free: Vec<OwnedFrame>,
    /// Frames lent to the handler. Empty between calls, unless a handler panicked: they are kept
    /// here and not on the stack so that the next call finds them.
    lent: Batch,
    /// Frames the handler wants sent; as `lent`.
    outgoing: Batch,
    reserve: usize,
    zero_copy: bool,
    counted: IoStats,
    /// Frames put into the TX ring, less those that came back.
    transmitting: u64,
    fruitless: u32,
    total: usize,
    interface: String,
    queue: u32,
}

/// Where the frames of a queue are; the sum is their number, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameCensus {
    /// With the kernel, to be received into, or received and not yet polled.
    pub receiving: usize,
    /// With the kernel, to be sent, or sent and not yet reaped.
    pub transmitting: usize,
    /// In user space and unused.
    pub free: usize,
}

impl XdpQueue {
    /// Takes over a bound socket and gives the kernel frames to receive into.
    pub(super) fn new(socket: XskSocket, interface: &str, queue: u32) -> io::Result<Self> {
        let zero_copy = socket.is_zero_copy();
        let (rings, free) = Rings::new(socket);
        // libxdp opens it without: every program that is started later would have it, and keep
        // the queue when this is closed.
        SockRef::from(&rings.socket()).set_cloexec(true)?;
        let total = free.len();
        let mut this = Self {
            rings,
            free,
            lent: Batch::new(),
            outgoing: Batch::new(),
            reserve: MAX_BATCH.min(total / 8),
            zero_copy,
            counted: IoStats::default(),
            transmitting: 0,
            fruitless: 0,
            total,
            interface: interface.to_owned(),
            queue,
        };
        this.rings.fill(&mut this.free, this.reserve);
        Ok(this)
    }

    /// The number of the RX queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether frames are shared with the driver and not copied.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Where the frames are, for tests and for whoever looks for a leak.
    pub fn census(&self) -> FrameCensus {
        let free = self.free.len() + self.lent.len() + self.outgoing.len();
        let transmitting = self.transmitting as usize;
        FrameCensus { receiving: self.total - free - transmitting, transmitting, free }
    }

    pub(super) fn socket(&self) -> std::os::fd::BorrowedFd<'_> {
        self.rings.socket()
    }

    /// Collects what is no longer used and gives the kernel frames to receive into.
    fn recycle(&mut self) {
        self.free.extend(self.lent.drain(..));
        self.free.extend(self.outgoing.drain(..));
        self.transmitting -= self.rings.reap(&mut self.free) as u64;
        self.rings.fill(&mut self.free, self.reserve);
    }

    /// Puts `outgoing` into the TX ring, then has the kernel send what is there.
    fn transmit(&mut self) -> io::Result<()> {
        let count = self.outgoing.len() as u64;
        if self.rings.transmit(&mut self.outgoing) {
            self.transmitting += count;
            self.counted.transmitted += count;
        } else {
            self.counted.transmit_rejected += count;
            self.free.extend(self.outgoing.drain(..));
        }
        self.kick()
    }

    /// Tells the kernel to send until the TX ring is empty or it cannot take more for now.
    ///
    /// In copy mode one call sends at most 32 frames (`XDP_MAX_TX_SKB_BUDGET`) and ends with
    /// EAGAIN if there are more; it ends with EBUSY after each frame that the device refused for
    /// good. Each such call takes at least one frame out of the ring, and nobody else puts any in,
    /// so the loop ends.
    fn kick(&mut self) -> io::Result<()> {
        loop {
            let pending = self.rings.transmit_pending();
            if pending == 0 || !self.rings.transmit_needs_wakeup() {
                return Ok(());
            }
            let sent = SockRef::from(&self.socket()).send_with_flags(&[], libc::MSG_DONTWAIT);
            let Err(error) = sent else {
                return Ok(());
            };
            match error.raw_os_error() {
                Some(libc::EBUSY) if !self.zero_copy => {
                    self.counted.transmit_failed += 1;
                    self.counted.transmitted -= 1;
                }
                Some(libc::EAGAIN) if self.rings.transmit_pending() < pending => {}
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

    /// Has a driver that ran out of frames look for new ones, and finds out whether the interface
    /// is still there: poll(2) does not report that.
    fn wake_receive(&self) -> io::Result<()> {
        match SockRef::from(&self.socket()).recv_with_flags(&mut [], libc::MSG_DONTWAIT) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => self.explain(error),
            // Down for now, or busy; a socket without a message is no failure either.
            _ => Ok(()),
        }
    }

    /// Tells an interface that is gone from a driver that is not ready.
    fn explain(&self, error: io::Error) -> io::Result<()> {
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

    /// Waits for something to receive, and goes on sending meanwhile.
    fn wait(&mut self, wait: Duration) -> io::Result<()> {
        let deadline = Instant::now().checked_add(wait);
        let mut retry = RETRY_TRANSMIT;
        loop {
            let left =
                deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let pending = self.rings.transmit_pending() > 0;
            let slice = if pending { left.min(retry) } else { left };
            retry = (retry * 2).min(LONGEST_RETRY);
            let started = Instant::now();
            if self.rings.wait_readable(slice)? {
                return Ok(());
            }
            self.recycle();
            self.kick()?;
            // Before its time: a signal, which is the caller's to look at.
            let interrupted = started.elapsed() < slice;
            if interrupted || left <= slice {
                return self.wake_receive();
            }
        }
    }

    /// Lends what is in `lent` to `handler` and sorts it by what the handler said.
    fn handle(&mut self, handler: &mut Handler<'_>) {
        let actions: ArrayVec<Action, MAX_BATCH> = {
            let mut data = self.rings.lend(&mut self.lent);
            let mut frames: ArrayVec<Frame<'_>, MAX_BATCH> =
                data.iter_mut().map(|data| Frame::new(data.contents_mut())).collect();
            handler(&mut frames);
            frames.iter().map(Frame::action).collect()
        };
        for (frame, action) in self.lent.drain(..).zip(actions) {
            match action {
                Action::Transmit(_) => self.outgoing.push(frame),
                Action::Release => self.free.push(frame),
            }
        }
    }
}

impl PacketIo for XdpQueue {
    /// Waits are rounded up to milliseconds and end early on a signal. While it waits, the thread
    /// sleeps.
    fn poll(&mut self, wait: Duration, handler: &mut Handler<'_>) -> io::Result<usize> {
        self.recycle();
        self.kick()?;
        self.rings.receive(&mut self.lent);
        if self.lent.is_empty() {
            if !wait.is_zero() {
                self.wait(wait)?;
            } else {
                self.fruitless = self.fruitless.wrapping_add(1);
                if self.rings.fill_needs_wakeup() || self.fruitless.is_multiple_of(CHECK_EVERY) {
                    self.wake_receive()?;
                }
            }
            self.rings.receive(&mut self.lent);
        }
        let count = self.lent.len();
        if count > 0 {
            self.counted.received += count as u64;
            self.handle(handler);
            self.transmit()?;
        }
        Ok(count)
    }

    fn send(&mut self, _port: Port, frame: &[u8]) -> io::Result<bool> {
        self.recycle();
        let fits = match self.free.last_mut() {
            Some(owned) if frame.len() >= SHORTEST_FRAME => self.rings.write(owned, frame),
            _ => false,
        };
        if !fits {
            self.counted.transmit_rejected += 1;
            self.kick()?;
            return Ok(false);
        }
        let rejected = self.counted.transmit_rejected;
        self.outgoing.extend(self.free.pop());
        self.transmit()?;
        Ok(self.counted.transmit_rejected == rejected)
    }

    fn stats(&self) -> IoStats {
        let mut stats = self.counted;
        // Fails only of a socket that is no more; what it had counted is lost with it.
        if let Ok(kernel) = self.rings.statistics() {
            let no_frame = kernel.rx_fill_ring_empty_descs();
            stats.receive_ring_full = kernel.rx_ring_full();
            stats.receive_no_frame = no_frame;
            // In copy mode the kernel counts a packet it found no frame for in both.
            stats.receive_dropped = match self.zero_copy {
                true => kernel.rx_dropped(),
                false => kernel.rx_dropped().saturating_sub(no_frame),
            };
            let invalid = kernel.tx_invalid_descs();
            stats.transmit_failed += invalid;
            stats.transmitted = stats.transmitted.saturating_sub(invalid);
        }
        stats
    }
}
