//! A capture of verdicts: frames as pcapng, each with what became of it as its comment.

mod choice;
mod feed;
mod gate;

pub use choice::Chosen;
pub(super) use feed::process_tapped;
pub use feed::{TapFeed, TapReader};
pub use gate::{Bounds, Taken, TapCounts};

use super::pcap::to_io;
use crate::flow::FiveTuple;
use crate::packet::{self, Parse};
use crate::verdict::{BackendIndex, Verdict};
use gate::Gate;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

/// A frame and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// When it came, since 1970-01-01 00:00 UTC.
    pub time: Duration,
    /// What is written: the frame as it came or as it was sent, from its destination address on.
    pub frame: &'a [u8],
    /// How long the frame was, in bytes; more than what is written of it if it was cut off.
    pub length: usize,
    /// What became of it.
    pub verdict: Verdict,
    /// The flow it is of, if that is known; it is looked for in the frame otherwise.
    pub flow: Option<FiveTuple>,
}

impl<'a> Sample<'a> {
    /// A frame whose flow is to be found in it.
    pub fn new(time: Duration, frame: &'a [u8], verdict: Verdict) -> Self {
        Self { time, frame, length: frame.len(), verdict, flow: None }
    }

    /// The same, of a flow that was found in the frame before it was rewritten: behind the outer header of
    /// a tunnel it is not looked for.
    #[must_use]
    pub fn of_flow(self, flow: Option<FiveTuple>) -> Self {
        Self { flow, ..self }
    }

    /// The same, of which there is only the beginning: the frame was so many bytes long.
    #[must_use]
    pub fn cut_from(self, length: usize) -> Self {
        Self { length, ..self }
    }

    fn find_flow(&self) -> Option<FiveTuple> {
        self.flow.or_else(|| match packet::parse(self.frame) {
            Parse::Ip(parsed) => Some(parsed.info.flow),
            Parse::NotIp { .. } | Parse::Malformed(_) => None,
        })
    }
}

/// Writes [chosen](Chosen) frames to a pcapng file, within [`Bounds`]. Wireshark and tshark show the
/// [verdict](Verdict::in_full) of each as its comment (`frame.comment`).
///
/// For whoever drives a [`Pipeline`](super::Pipeline): frames are offered with the verdicts that
/// [`process`](super::Pipeline::process) returned, in the state they then are in. Those dropped and passed are
/// as they came, those forwarded as they are sent. It allocates for frames that it writes, and waits for the
/// output. So it is no part of a running [`Worker`](super::Worker): that copies frames to a [`TapFeed`], and
/// whoever has the [`TapReader`] writes them.
///
/// ```
/// # use dsrlb::balancer::HashBalancer;
/// # use dsrlb::dataplane::{Bounds, Chosen, Frame, Pipeline, Sample, Snapshot, Taken, Tap, WorkerCounters};
/// # use dsrlb::{flow::Timestamp, verdict::DropReason};
/// # use std::{sync::Arc, time::Duration};
/// # fn main() -> std::io::Result<()> {
/// let chosen = Chosen::Drops(DropReason::EthernetTruncated);
/// let mut tap = Tap::new(Vec::new(), chosen, Bounds::default())?;
/// let mut pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(16)));
/// let mut bytes = *b"too short";
/// let mut frames = [Frame::new(&mut bytes)];
/// let verdicts = pipeline.process(&Snapshot::default(), Timestamp(0), &mut frames);
/// for (frame, verdict) in frames.iter().zip(verdicts) {
///     let time = Duration::from_secs(1_700_000_000);
///     assert_eq!(tap.offer(&Sample::new(time, frame.bytes(), *verdict))?, Taken::Written);
/// }
/// let file = tap.into_output();
/// # assert!(file.windows(9).any(|bytes| bytes == b"too short"));
/// # Ok(())
/// # }
/// ```
pub struct Tap<W> {
    /// Encodes into memory, so that a block's length is known before any of it is written.
    encoder: PcapNgWriter<Vec<u8>>,
    output: W,
    gate: Gate,
    names: BTreeMap<BackendIndex, String>,
}

impl<W> std::fmt::Debug for Tap<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl<W: Write> Tap<W> {
    /// Begins a file, and writes its headers.
    ///
    /// # Errors
    ///
    /// If `output` cannot be written, or the bounds leave no room for the headers.
    pub fn new(output: W, chosen: Chosen, bounds: Bounds) -> io::Result<Self> {
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed("dsrlb"))],
            ..SectionHeaderBlock::default()
        };
        let mut encoder = PcapNgWriter::with_section_header(Vec::new(), section).map_err(to_io)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            // Units of 10^-9 s, which the encoder takes for granted.
            options: vec![InterfaceDescriptionOption::IfTsResol(9)],
        };
        encoder.write_pcapng_block(interface).map_err(to_io)?;
        let (gate, names) = (Gate::new(chosen, bounds), BTreeMap::new());
        let mut tap = Self { encoder, output, gate, names };
        match tap.write_encoded(0)? {
            Taken::Written => Ok(tap),
            _ => {
                let text =
                    format!("{} bytes are too few for a pcapng file's headers", bounds.bytes);
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }

    /// Sets what backends are called in comments from now on; others are called by their index.
    pub fn name_backends(&mut self, names: BTreeMap<BackendIndex, String>) {
        self.names = names;
    }

    /// Writes a frame if it is chosen and within the bounds, and says whether it did.
    ///
    /// # Errors
    ///
    /// If the output cannot be written. The file then ends in the middle of a frame, so the capture has ended:
    /// nothing is written to it any more.
    pub fn offer(&mut self, sample: &Sample<'_>) -> io::Result<Taken> {
        if let Err(refused) = self.gate.choose(sample) {
            return Ok(refused);
        }
        let name = |index| match self.names.get(&index) {
            Some(name) => name.clone(),
            None => format!("backend {index:?}"),
        };
        let comment = sample.verdict.in_full(name);
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: sample.time,
            original_len: u32::try_from(sample.length).unwrap_or(u32::MAX),
            data: Cow::Borrowed(sample.frame),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment))],
        };
        self.encoder.write_pcapng_block(block).map_err(to_io)?;
        self.write_encoded(1)
    }

    /// Writes what has been encoded, if it fits.
    fn write_encoded(&mut self, frames: u64) -> io::Result<Taken> {
        let encoded = self.encoder.get_mut();
        let length = encoded.len() as u64;
        let result = match self.gate.fits(length) {
            Ok(()) => self.output.write_all(encoded).map(|()| Taken::Written),
            Err(refused) => Ok(refused),
        };
        encoded.clear();
        match result {
            Ok(Taken::Written) => self.gate.wrote(length, frames),
            Ok(_) => {}
            Err(_) => self.gate.end(),
        }
        result
    }

    /// Whether nothing will be written any more: what was chosen did not fit, or could not be written.
    pub fn has_ended(&self) -> bool {
        self.gate.has_ended()
    }

    /// Has the output pass on what it holds back.
    ///
    /// # Errors
    ///
    /// If the output cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// What it has done.
    pub fn counts(&self) -> TapCounts {
        self.gate.counts()
    }

    /// Gives the output back, for instance to flush and close it where a failure can be told.
    pub fn into_output(self) -> W {
        self.output
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
