//! Frames from memory to memory, for tests, benchmarks and simulation.

use super::io::{Action, Frame, Handler, IoStats, MAX_BATCH, PacketIo};
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// A [`PacketIo`] whose wire is a queue of byte vectors.
#[derive(Debug, Default)]
pub struct MemoryIo {
    waiting: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    stats: IoStats,
}

impl MemoryIo {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a frame on the wire, to be received.
    pub fn push(&mut self, frame: Vec<u8>) {
        self.waiting.push_back(frame);
    }

    /// Takes the frames transmitted so far, in order.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }
}

impl PacketIo for MemoryIo {
    /// Never waits: what is not in memory by now will not come.
    fn poll(&mut self, _wait: Duration, handler: &mut Handler<'_>) -> io::Result<usize> {
        let count = self.waiting.len().min(MAX_BATCH);
        if count == 0 {
            return Ok(0);
        }
        let mut buffers: ArrayVec<Vec<u8>, MAX_BATCH> = self.waiting.drain(..count).collect();
        let actions: ArrayVec<Action, MAX_BATCH> = {
            let lend = buffers.iter_mut().map(|bytes| Frame::new(bytes));
            let mut frames: ArrayVec<Frame<'_>, MAX_BATCH> = lend.collect();
            handler(&mut frames);
            frames.iter().map(Frame::action).collect()
        };
        for (bytes, action) in buffers.into_iter().zip(actions) {
            if action == Action::Transmit {
                self.stats.transmitted += 1;
                self.sent.push(bytes);
            }
        }
        self.stats.received += count as u64;
        Ok(count)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<bool> {
        self.sent.push(frame.to_vec());
        self.stats.transmitted += 1;
        Ok(true)
    }

    fn stats(&self) -> IoStats {
        self.stats
    }
}
