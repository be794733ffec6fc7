//! Frames from a capture file, for replay and offline debugging.

use super::capture::{CaptureFile, MOST};
use super::io::{Action, Frame, HEADROOM, Handler, IoStats, MAX_BATCH, PacketIo, Port};
use arrayvec::ArrayVec;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{Endianness, TsResolution};
use std::io::{self, Read, Write};
use std::time::Duration;

/// A [`PacketIo`] that receives the frames of a [`CaptureFile`], pcap or pcapng, and transmits into a pcap file,
/// whatever the port.
///
/// Frames are transmitted with the time of capture of the frame they were; frames of the
/// director's own ([`PacketIo::send`]) get the time of the last one received.
pub struct PcapIo<R: Read, W: Write> {
    reader: CaptureFile<R>,
    writer: PcapWriter<W>,
    clock: Duration,
    /// Why the last batch ended early; told when what was read before has been dealt with.
    failed: Option<io::Error>,
    stats: IoStats,
}

impl<R: Read, W: Write> std::fmt::Debug for PcapIo<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapIo").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<R: Read, W: Write> PcapIo<R, W> {
    /// Reads captured Ethernet frames from `input` and writes those transmitted to `output`.
    ///
    /// # Errors
    ///
    /// If `input` is no [capture](CaptureFile::new) of Ethernet frames, or `output` cannot be written.
    pub fn new(input: R, output: W) -> io::Result<Self> {
        let reader = CaptureFile::new(input)?;
        let header = PcapHeader {
            snaplen: MOST,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        Ok(Self {
            reader,
            writer: PcapWriter::with_header(output, header).map_err(to_io)?,
            clock: Duration::ZERO,
            failed: None,
            stats: IoStats::default(),
        })
    }

    /// Gives the output back, for instance to flush and close it where a failure can be told.
    pub fn into_output(self) -> W {
        self.writer.into_writer()
    }

    fn write(&mut self, time: Duration, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // A pcapng file may have later ones, which this format has no room for.
        let time = time.min(Duration::from_secs(u32::MAX.into()));
        let packet = PcapPacket::new(time, length, bytes);
        self.writer.write_packet(&packet).map_err(to_io)?;
        self.stats.transmitted += 1;
        Ok(())
    }
}

impl<R: Read + Send, W: Write + Send> PacketIo for PcapIo<R, W> {
    /// Never waits: zero means that the file is at its end.
    fn poll(&mut self, _wait: Duration, handler: &mut Handler<'_>) -> io::Result<usize> {
        let mut batch: ArrayVec<(Duration, Vec<u8>), MAX_BATCH> = ArrayVec::new();
        while !batch.is_full() && self.failed.is_none() {
            match self.reader.next() {
                None => break,
                Some(Ok(frame)) => {
                    batch.push((frame.time, [&[0; HEADROOM], &*frame.bytes].concat()));
                }
                Some(Err(error)) => self.failed = Some(error),
            }
        }
        match batch.last() {
            Some((time, _)) => self.clock = *time,
            None => return self.failed.take().map_or(Ok(0), Err),
        }
        let times: ArrayVec<Duration, MAX_BATCH> = batch.iter().map(|(time, _)| *time).collect();
        let lend = batch.iter_mut().map(|(_, bytes)| {
            let range = HEADROOM..bytes.len();
            Frame::in_memory(bytes, range)
        });
        let mut frames: ArrayVec<Frame<'_>, MAX_BATCH> = lend.collect();
        handler(&mut frames);
        self.stats.received += times.len() as u64;
        for (frame, time) in frames.iter().zip(&times) {
            if let Action::Transmit(_) = frame.action() {
                self.write(*time, frame.bytes())?;
            }
        }
        Ok(times.len())
    }

    fn send(&mut self, _port: Port, frame: &[u8]) -> io::Result<bool> {
        self.write(self.clock, frame)?;
        Ok(true)
    }

    fn stats(&self) -> IoStats {
        self.stats
    }
}

pub(super) fn to_io(error: pcap_file::PcapError) -> io::Error {
    match error {
        pcap_file::PcapError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
