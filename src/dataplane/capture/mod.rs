//! Reading captures, whoever wrote them.

mod pcapng;

use super::pcap::to_io;
use pcap_file::pcap::{PcapReader, RawPcapPacket};
use pcap_file::{DataLink, TsResolution};
use pcapng::Blocks;
use std::io::{self, Chain, Cursor, Read, Take};
use std::time::Duration;

/// How a pcap file begins, by byte order and unit of time.
const PCAP: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0x4d, 0x3c, 0xb2, 0xa1],
];
/// How a pcapng file begins, in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The most bytes of a frame, as of libpcap.
pub(super) const MOST: u32 = 1 << 18;

/// What was read to tell the format by, and then the rest.
type Whole<R> = Chain<Take<Cursor<[u8; 4]>>, R>;

/// An Ethernet frame of a capture, as it was captured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CapturedFrame {
    /// When it came, since 1970-01-01 00:00 UTC, in the year 2554 at the latest. Where the file does not say, it
    /// is the time of the frame before it.
    pub time: Duration,
    /// The frame, from its destination address on, or the beginning of it.
    pub bytes: Vec<u8>,
    /// How long the frame was, in bytes; more than there are of it if it was cut off.
    pub length: usize,
    /// What was remarked on it. Of one that a [`Tap`](super::Tap) wrote, what became of it.
    pub comments: Vec<String>,
}

impl CapturedFrame {
    /// Whether only its beginning was captured.
    pub fn is_cut_off(&self) -> bool {
        self.bytes.len() < self.length
    }
}

/// The frames of a capture, one after the other, in the order of the file: of a pcap file, or of a pcapng file with
/// any number of sections and interfaces, each with a unit of time of its own. The first bytes tell which.
///
/// Whatever the file has, there is no panic, and what is in memory does not grow with it: frames of more than 256 KiB are
/// refused, and whatever else is longer than 8 MB. After an error there are no more frames.
///
/// ```
/// # use dsrlb::dataplane::{Bounds, CaptureFile, Chosen, Sample, Tap};
/// # use dsrlb::verdict::Verdict;
/// # use std::{io::Cursor, time::Duration};
/// # fn main() -> std::io::Result<()> {
/// # let mut tap = Tap::new(Vec::new(), Chosen::All, Bounds::NONE)?;
/// # tap.offer(&Sample::new(Duration::from_secs(1_700_000_000), b"a frame", Verdict::Pass))?;
/// # let file = Cursor::new(tap.into_output());
/// for frame in CaptureFile::new(file)? {
///     let frame = frame?;
///     assert_eq!(frame.bytes, b"a frame");
///     assert_eq!(frame.comments, ["pass: not for us"]);
/// }
/// # Ok(())
/// # }
/// ```
pub struct CaptureFile<R: Read> {
    /// None when there will be no more.
    format: Option<Format<Whole<R>>>,
}

enum Format<R: Read> {
    Pcap(PcapReader<R>),
    PcapNg(Blocks<R>),
}

impl<R: Read> std::fmt::Debug for CaptureFile<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match self.format {
            None => "ended",
            Some(Format::Pcap(_)) => "pcap",
            Some(Format::PcapNg(_)) => "pcapng",
        };
        f.debug_struct("CaptureFile").field("format", &format).finish_non_exhaustive()
    }
}

impl<R: Read> CaptureFile<R> {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// If `input` is no capture in either format, or cannot be read. That a pcap file's frames are not Ethernet ones is
    /// told here; in a pcapng file that is for each interface to say, so it is told when a frame of one comes.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut magic = Vec::new();
        input.by_ref().take(4).read_to_end(&mut magic)?;
        let magic: [u8; 4] = magic.try_into().map_err(|_| no_capture())?;
        let whole = Cursor::new(magic).take(4).chain(input);
        let format = if magic == PCAPNG {
            Format::PcapNg(Blocks::new(whole)?)
        } else if PCAP.contains(&magic) {
            let reader = PcapReader::new(whole).map_err(to_io)?;
            match reader.header().datalink {
                DataLink::ETHERNET => Format::Pcap(reader),
                link => return Err(not_ethernet("the capture", link)),
            }
        } else {
            return Err(no_capture());
        };
        Ok(Self { format: Some(format) })
    }
}

impl<R: Read> Iterator for CaptureFile<R> {
    type Item = io::Result<CapturedFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.format.as_mut()? {
            Format::Pcap(reader) => next_of_pcap(reader),
            Format::PcapNg(blocks) => blocks.next_frame(),
        };
        if !matches!(next, Ok(Some(_))) {
            self.format = None;
        }
        next.transpose()
    }
}

/// Not what `PcapReader` makes of a packet: that refuses frames that were longer than what the file was to have of
/// each, and so the captures of `tcpdump -s 96`.
fn next_of_pcap<R: Read>(reader: &mut PcapReader<R>) -> io::Result<Option<CapturedFrame>> {
    let unit = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    let Some(packet) = reader.next_raw_packet() else {
        return Ok(None);
    };
    let RawPcapPacket { ts_sec, ts_frac, orig_len, data, .. } = packet.map_err(to_io)?;
    let nanoseconds = ts_frac.checked_mul(unit).filter(|nanoseconds| *nanoseconds < 1_000_000_000);
    let nanoseconds = nanoseconds.ok_or_else(|| invalid("its time has more than a second"))?;
    let time = Duration::new(ts_sec.into(), nanoseconds);
    captured(time, &data, orig_len, Vec::new()).map(Some)
}

fn captured(
    time: Duration,
    bytes: &[u8],
    length: u32,
    comments: Vec<String>,
) -> io::Result<CapturedFrame> {
    if bytes.len() > MOST as usize {
        return Err(invalid(format!("has {} bytes, more than {MOST}", bytes.len())));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX).max(bytes.len());
    Ok(CapturedFrame { time, bytes: bytes.to_vec(), length, comments })
}

fn not_ethernet(what: &str, link: DataLink) -> io::Error {
    invalid(format!("{what} has {link:?} frames; only ETHERNET ones can be read"))
}

fn no_capture() -> io::Error {
    invalid("is no capture, neither in pcap nor in pcapng format")
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}
