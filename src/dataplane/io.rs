//! How frames come in and go out: one trait, whatever carries them.
//!
//! A driver owns the memory of its frames and *lends* a batch of them to a handler, which looks,
//! rewrites in place and says of each whether it is to be transmitted. No frame outlives the call,
//! so a driver over shared kernel memory needs no `unsafe` in its interface, and nothing is copied
//! or allocated for a packet.
//!
//! ```
//! use dsrlb::dataplane::{Action, MemoryIo, PacketIo, Port};
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut io = MemoryIo::new();
//! io.push(b"a frame that is too short for Ethernet".to_vec());
//! io.poll(Duration::ZERO, &mut |frames| {
//!     for frame in frames {
//!         frame.bytes_mut().make_ascii_uppercase();
//!         frame.set_action(Action::Transmit(Port::INGRESS));
//!     }
//! })?;
//! assert_eq!(io.take_sent(), [b"A FRAME THAT IS TOO SHORT FOR ETHERNET"]);
//! # Ok(())
//! # }
//! ```

use std::io;
use std::ops::Range;
use std::time::Duration;

/// The most frames a driver lends at once.
///
/// 64 is what a NIC hands over in one NAPI poll; larger batches bring nothing but latency.
pub const MAX_BATCH: usize = 64;

/// One of the interfaces that a driver can send by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Port(pub u8);

impl Port {
    /// The one that frames come in by.
    pub const INGRESS: Self = Self(0);
    /// None of the interfaces: of a frame that is drained for it, a copy goes to whoever sent a probe
    /// through a VIP.
    pub const PROBER: Self = Self(u8::MAX);
}

/// How much room the drivers of this crate leave in front of each received frame, in bytes; what the
/// kernel leaves in front of AF_XDP frames (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// What a handler wants done with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Action {
    /// Give the frame's memory back; nothing is sent.
    #[default]
    Release,
    /// Send the frame as it now is, by this port.
    Transmit(Port),
}

/// A received frame, lent for the time of one handler call.
///
/// The bytes are the Ethernet frame from the destination address on, without preamble and frame
/// check sequence. Its memory may go on in front of it, so that a header can be put before what is there without
/// moving it.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Up to the frame's end: nothing grows at that one.
    memory: &'a mut [u8],
    start: usize,
    action: Action,
}

impl<'a> Frame<'a> {
    /// Lends `bytes`, without room in front of them; a driver calls this, as does a test. The action is
    /// [`Action::Release`].
    #[inline]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { memory: bytes, start: 0, action: Action::Release }
    }

    /// Lends the frame that is at `range` in `memory`, and the room in front of it. A range that is not
    /// in the memory is cut to what is.
    #[inline]
    pub fn in_memory(memory: &'a mut [u8], range: Range<usize>) -> Self {
        let end = range.end.min(memory.len());
        let memory = memory.get_mut(..end).unwrap_or_default();
        Self { memory, start: range.start.min(end), action: Action::Release }
    }

    /// The frame.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self.memory.split_at_checked(self.start) {
            Some((_, bytes)) => bytes,
            None => nowhere(),
        }
    }

    /// The frame, to be rewritten in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self.memory.split_at_mut_checked(self.start) {
            Some((_, bytes)) => bytes,
            None => nowhere_mut(),
        }
    }

    /// Where in its memory the frame is now.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.start..self.memory.len()
    }

    /// Moves the frame's beginning by `count` bytes to the front, and says whether there was room;
    /// if not, nothing has changed. What the new bytes hold is to be overwritten.
    #[inline]
    #[must_use]
    pub fn grow_front(&mut self, count: usize) -> bool {
        let start = self.start.checked_sub(count);
        self.start = start.unwrap_or(self.start);
        start.is_some()
    }

    /// The frame and `count` bytes of its room in front, if there are so many: what it would be if it
    /// [grew](Frame::grow_front) by that many.
    #[inline]
    pub fn with_room(&mut self, count: usize) -> Option<&mut [u8]> {
        let start = self.start.checked_sub(count)?;
        self.memory.split_at_mut_checked(start).map(|(_, bytes)| bytes)
    }

    /// Takes `count` bytes off the front, at most all.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.memory.len());
    }

    /// Cuts the frame off behind its first `length` bytes, if it has more.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        if let Some(end) = self.start.checked_add(length)
            && end < self.memory.len()
        {
            let memory = std::mem::take(&mut self.memory);
            self.memory = memory.get_mut(..end).unwrap_or_default();
        }
    }

    /// Says what is to become of the frame; the last word counts.
    #[inline]
    pub fn set_action(&mut self, action: Action) {
        self.action = action;
    }

    /// What is to become of the frame.
    #[inline]
    pub fn action(&self) -> Action {
        self.action
    }
}

/// No bytes: of a frame that is not in its memory, which the methods of [`Frame`] do not allow. Apart and cold, so
/// that a frame's bytes are not chosen between two places for each packet.
#[cold]
#[inline(never)]
fn nowhere<'a>() -> &'a [u8] {
    &[]
}

#[cold]
#[inline(never)]
fn nowhere_mut<'a>() -> &'a mut [u8] {
    &mut []
}

/// What a handler is: called with each batch. The frames keep their places in it: an action belongs
/// to a place, so one that sorts or swaps frames would have others sent than it meant.
pub type Handler<'h> = dyn FnMut(&mut [Frame<'_>]) + 'h;

/// One queue of an interface, or something that stands for one.
///
/// Object-safe, so that a program can hold several kinds; the worker is generic over it.
pub trait PacketIo: Send {
    /// Receives at most [`MAX_BATCH`] frames, lends them to `handler` in the order of arrival, and
    /// does with each what the handler said. When nothing is there, waits for at most `wait` and
    /// then returns zero, without having called the handler; a zero `wait` never blocks.
    ///
    /// Returns how many frames were lent.
    ///
    /// # Errors
    ///
    /// When the queue is no longer of use: the interface went away, the file ended in the middle.
    /// A single frame that cannot be sent is not an error; it is counted in [`IoStats`].
    fn poll(&mut self, wait: Duration, handler: &mut Handler<'_>) -> io::Result<usize>;

    /// Copies a frame of the caller's own into the transmit ring of `port` and sends it: an
    /// announcement, a fragment. Returns whether there was room; a frame that does not fit, or for a
    /// port that is not there, is counted as rejected.
    ///
    /// # Errors
    ///
    /// As for [`PacketIo::poll`].
    fn send(&mut self, port: Port, frame: &[u8]) -> io::Result<bool>;

    /// What the driver has counted since it was made.
    fn stats(&self) -> IoStats;
}

impl<T: PacketIo + ?Sized> PacketIo for Box<T> {
    fn poll(&mut self, wait: Duration, handler: &mut Handler<'_>) -> io::Result<usize> {
        (**self).poll(wait, handler)
    }

    fn send(&mut self, port: Port, frame: &[u8]) -> io::Result<bool> {
        (**self).send(port, frame)
    }

    fn stats(&self) -> IoStats {
        (**self).stats()
    }
}

/// A driver's counters, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct IoStats {
    /// Lent to the handler.
    pub received: u64,
    /// Given to the transmit side and not known to have failed.
    pub transmitted: u64,
    /// To be transmitted, but the transmit ring had no room or the frame did not fit.
    pub transmit_rejected: u64,
    /// Taken by the transmit ring, then refused by the kernel or the device.
    pub transmit_failed: u64,
    /// Lost before the handler saw them: the receive ring was full.
    pub receive_ring_full: u64,
    /// Lost before the handler saw them: no free frame was there to receive into.
    pub receive_no_frame: u64,
    /// Lost before the handler saw them: for another reason the driver names none for, such as a
    /// packet larger than a frame.
    pub receive_dropped: u64,
}

impl std::ops::AddAssign for IoStats {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.transmitted += other.transmitted;
        self.transmit_rejected += other.transmit_rejected;
        self.transmit_failed += other.transmit_failed;
        self.receive_ring_full += other.receive_ring_full;
        self.receive_no_frame += other.receive_no_frame;
        self.receive_dropped += other.receive_dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_and_shrinks_within_its_memory_and_no_further() {
        let mut memory = [0, 1, 2, 3, 4, 5, 6, 7];
        let mut frame = Frame::in_memory(&mut memory, 3..6);
        assert!(!frame.grow_front(4) && frame.with_room(4).is_none());
        assert_eq!(frame.with_room(2).map(|bytes| &*bytes), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(frame.bytes(), [3, 4, 5]);
        assert!(frame.grow_front(3));
        assert_eq!((frame.bytes(), frame.range()), (&[0, 1, 2, 3, 4, 5][..], 0..6));
        frame.trim_front(2);
        frame.truncate(3);
        frame.truncate(usize::MAX);
        assert_eq!((frame.bytes(), frame.range()), (&[2, 3, 4][..], 2..5));
        frame.trim_front(usize::MAX);
        assert!(frame.bytes().is_empty() && frame.bytes_mut().is_empty());
        let wrong = Frame::in_memory(&mut memory, 9..70);
        assert!(wrong.bytes().is_empty());
    }

    #[test]
    fn every_counter_is_added_to_itself() {
        let one = IoStats {
            received: 1,
            transmitted: 2,
            transmit_rejected: 3,
            transmit_failed: 4,
            receive_ring_full: 5,
            receive_no_frame: 6,
            receive_dropped: 7,
        };
        let mut sum = one;
        sum += one;
        let twice = IoStats {
            received: 2,
            transmitted: 4,
            transmit_rejected: 6,
            transmit_failed: 8,
            receive_ring_full: 10,
            receive_no_frame: 12,
            receive_dropped: 14,
        };
        assert_eq!(sum, twice);
    }
}
