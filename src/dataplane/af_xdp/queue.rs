//! One RX queue of an interface as a [`PacketIo`].

mod waiting;

use super::options::XdpOptions;
use super::rings::{Batch, OwnedFrame, Rings};
use super::socket::XskSocket;
use super::tx_port::TxPort;
use crate::dataplane::io::{Action, Frame, Handler, IoStats, MAX_BATCH, PacketIo, Port};
use crate::dataplane::{Polling, Waker};
use arrayvec::ArrayVec;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// The shortest Ethernet frame that is worth sending: a header.
const SHORTEST_FRAME: usize = 14;
/// Every how many fruitless calls without a wait the interface is checked to be still there.
const CHECK_EVERY: u32 = 1024;

/// An AF_XDP socket on one RX queue: receives what the XDP program redirects there, and sends, by the
/// same interface or by others ([`XdpOptions::egress`](super::XdpOptions::egress)).
///
/// Made by [`XdpInterface::take_queues`](super::XdpInterface::take_queues). Closing it, by dropping
/// it, gives the traffic of the queue back to the kernel.
///
/// Frames are lent with the memory around them: 256 bytes in front of each, and what is left of
/// [`XdpOptions::frame_size`](super::XdpOptions::frame_size) behind it. They are sent from where they
/// then begin, without being moved.
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
    waker: Waker,
    /// The interface that frames come in by, then the others that they can leave by.
    ports: Vec<TxPort>,
    /// Frames in no ring; the first [`XdpQueue::reserve`] stay here for [`PacketIo::send`].
    free: Vec<OwnedFrame>,
    /// Frames lent to the handler. Empty between calls, unless a handler panicked: they are kept
    /// here and not on the stack so that the next call finds them.
    lent: Batch,
    reserve: usize,
    zero_copy: bool,
    polling: Polling,
    /// Whether the kernel knows whose work it is that a call can do (see [`XdpQueue::is_busy_polling`]).
    has_napi: bool,
    core: Option<u32>,
    counted: IoStats,
    fruitless: u32,
    total: usize,
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
    /// Takes over a bound socket and those that share its memory, and gives the kernel frames to
    /// receive into.
    pub(super) fn new(
        socket: XskSocket,
        options: &XdpOptions,
        core: Option<u32>,
        (interface, queue): (&str, u32),
    ) -> io::Result<Self> {
        let XskSocket { fill, rx, tx, completion, umem, frames, size, .. } = socket;
        let XskSocket { frame_size, huge_pages, zero_copy, polling, .. } = socket;
        let polling = match options.polling {
            Polling::Busy if polling.is_err() => Polling::Sleep,
            wanted => wanted,
        };
        let (rings, free) = Rings::new(fill, rx, umem, frames, frame_size, huge_pages)?;
        let mut port = TxPort::new((tx, completion), None, size, zero_copy, (interface, queue))?;
        if polling == Polling::Busy && zero_copy {
            port.set_busy();
        }
        let total = free.len();
        let mut this = Self {
            rings,
            waker: Waker::new()?,
            ports: vec![port],
            free,
            lent: Batch::new(),
            reserve: MAX_BATCH.min(total / 8),
            zero_copy,
            polling,
            has_napi: false,
            core,
            counted: IoStats::default(),
            fruitless: 0,
            total,
            queue,
        };
        this.rings.fill(&mut this.free, this.reserve);
        this.is_busy_polling();
        Ok(this)
    }

    /// Adds a port that frames can leave by.
    pub(super) fn add_port(&mut self, port: TxPort) {
        self.ports.push(port);
    }

    /// The memory, for the sockets of further ports.
    pub(super) fn umem(&self) -> &xsk_rs::Umem {
        self.rings.umem()
    }

    /// The number of the RX queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether frames are shared with the driver and not copied.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The core that its worker is to run on ([`XdpOptions::cores`](super::XdpOptions::cores)); who polls
    /// it calls [`pin_thread`](super::pin_thread).
    pub fn core(&self) -> Option<u32> {
        self.core
    }

    /// Where the frames are, for tests and for whoever looks for a leak.
    pub fn census(&self) -> FrameCensus {
        let outgoing: usize = self.ports.iter().map(|port| port.outgoing.len()).sum();
        let free = self.free.len() + self.lent.len() + outgoing;
        let transmitting = self.ports.iter().map(TxPort::transmitting).sum::<u64>() as usize;
        FrameCensus { receiving: self.total - free - transmitting, transmitting, free }
    }

    /// What ends a wait of [`PacketIo::poll`] before its time.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn socket(&self) -> std::os::fd::BorrowedFd<'_> {
        self.rings.socket()
    }

    /// Collects what is no longer used and gives the kernel frames to receive into.
    fn recycle(&mut self) {
        self.free.extend(self.lent.drain(..));
        self.ports.iter_mut().for_each(|port| port.reap(&mut self.free));
        self.rings.fill(&mut self.free, self.reserve);
    }

    /// Has each port send what is for it.
    fn transmit(&mut self) -> io::Result<()> {
        let Self { ports, rings, free, counted, .. } = self;
        ports.iter_mut().try_for_each(|port| port.transmit(rings, free, counted))
    }

    /// Has each port go on sending what is in its ring.
    fn kick(&mut self) -> io::Result<()> {
        let counted = &mut self.counted;
        self.ports.iter_mut().try_for_each(|port| port.kick(counted))
    }

    /// Lends what is in `lent` to `handler` and sorts it by what the handler said.
    fn handle(&mut self, handler: &mut Handler<'_>) {
        let mut decided: ArrayVec<(Action, Range<usize>), MAX_BATCH> = ArrayVec::new();
        {
            let mut frames: ArrayVec<Frame<'_>, MAX_BATCH> = ArrayVec::new();
            self.rings.lend(&mut self.lent, &mut frames);
            handler(&mut frames);
            decided.extend(frames.iter().map(|frame| (frame.action(), frame.range())));
        }
        for (mut frame, (action, content)) in self.lent.drain(..).zip(decided) {
            let Action::Transmit(port) = action else {
                self.free.push(frame);
                continue;
            };
            match self.ports.get_mut(usize::from(port.0)) {
                Some(port) if content.len() >= SHORTEST_FRAME => {
                    frame.set_content(content);
                    port.outgoing.push(frame);
                }
                _ => {
                    self.counted.transmit_rejected += 1;
                    self.free.push(frame);
                }
            }
        }
    }
}

impl PacketIo for XdpQueue {
    /// Waits are rounded up to milliseconds and end early on a signal, or by [`XdpQueue::waker`]. While it
    /// waits, the thread sleeps, or does what [`XdpOptions::polling`](super::XdpOptions::polling) says.
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

    fn send(&mut self, port: Port, frame: &[u8]) -> io::Result<bool> {
        self.recycle();
        let fits = match self.free.last_mut() {
            Some(owned) if frame.len() >= SHORTEST_FRAME => self.rings.write(owned, frame),
            _ => false,
        };
        let port = self.ports.get_mut(usize::from(port.0)).filter(|_| fits);
        let Some(port) = port else {
            self.counted.transmit_rejected += 1;
            self.kick()?;
            return Ok(false);
        };
        let rejected = self.counted.transmit_rejected;
        port.outgoing.extend(self.free.pop());
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
            let others: u64 = self.ports.iter().map(TxPort::invalid).sum();
            let invalid = kernel.tx_invalid_descs() + others;
            stats.transmit_failed += invalid;
            stats.transmitted = stats.transmitted.saturating_sub(invalid);
        }
        stats
    }
}
