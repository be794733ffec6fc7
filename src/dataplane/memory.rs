//! Frames from memory to memory, for tests, benchmarks and simulation.

use super::io::{Action, Frame, HEADROOM, Handler, IoStats, MAX_BATCH, PacketIo, Port};
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// A [`PacketIo`] whose wire is a queue of byte vectors.
#[derive(Debug, Default)]
pub struct MemoryIo {
    waiting: VecDeque<Vec<u8>>,
    sent: Vec<(Port, Vec<u8>)>,
    stats: IoStats,
}

impl MemoryIo {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a frame on the wire, to be received.
    pub fn push(&mut self, mut frame: Vec<u8>) {
        frame.splice(..0, [0; HEADROOM]);
        self.waiting.push_back(frame);
    }

    /// The frames transmitted so far, in order, each with the port it left by.
    pub fn sent(&self) -> &[(Port, Vec<u8>)] {
        &self.sent
    }

    /// Takes the frames transmitted so far, in order.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        self.sent.drain(..).map(|(_, frame)| frame).collect()
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
        let lend = buffers.iter_mut().map(|bytes| {
            let range = HEADROOM..bytes.len();
            Frame::in_memory(bytes, range)
        });
        let mut frames: ArrayVec<Frame<'_>, MAX_BATCH> = lend.collect();
        handler(&mut frames);
        for frame in &frames {
            if let Action::Transmit(port) = frame.action() {
                self.stats.transmitted += 1;
                self.sent.push((port, frame.bytes().to_vec()));
            }
        }
        self.stats.received += count as u64;
        Ok(count)
    }

    fn send(&mut self, port: Port, frame: &[u8]) -> io::Result<bool> {
        self.sent.push((port, frame.to_vec()));
        self.stats.transmitted += 1;
        Ok(true)
    }

    fn stats(&self) -> IoStats {
        self.stats
    }
}
