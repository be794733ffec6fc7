//! The frames of a pcapng file (draft-ietf-opsawg-pcapng). `pcap_file` finds the blocks, and knows sections and
//! interfaces. What is in a frame's block is read here: it takes every time for nanoseconds, whatever the interface says, and
//! refuses a frame for its remarks.

use super::{CapturedFrame, captured, invalid, not_ethernet, to_io};
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::{
    ENHANCED_PACKET_BLOCK, INTERFACE_DESCRIPTION_BLOCK, PACKET_BLOCK, SECTION_HEADER_BLOCK,
    SIMPLE_PACKET_BLOCK,
};
use pcap_file::{DataLink, Endianness};
use std::io::{self, Read};
use std::time::Duration;

/// How many bytes of interfaces a section has at most, since they are kept: some ten thousand.
const INTERFACES: usize = 1 << 20;

const BILLION: u128 = 1_000_000_000;

/// A pcapng file, block by block.
pub(super) struct Blocks<R: Read> {
    reader: PcapNgReader<R>,
    /// Those of this section.
    interfaces: Vec<Interface>,
    /// The bytes that described them.
    described: usize,
    /// The time of the last frame that has one.
    latest: Duration,
}

impl<R: Read> Blocks<R> {
    /// Reads the first header.
    pub(super) fn new(input: R) -> io::Result<Self> {
        let reader = PcapNgReader::new(input).map_err(to_io)?;
        Ok(Self { reader, interfaces: Vec::new(), described: 0, latest: Duration::ZERO })
    }

    /// The next frame; none at the end of the file.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<CapturedFrame>> {
        // Not by `next_block`, which refuses a file for what is in blocks that do not matter here.
        while let Some(block) = self.reader.next_raw_block() {
            let block = block.map_err(to_io)?;
            let (kind, body) = (block.type_, block.body.into_owned());
            let is_little = self.reader.section().endianness == Endianness::Little;
            let mut fields = Fields { rest: &body, is_little };
            let frame = match kind {
                SECTION_HEADER_BLOCK => {
                    self.interfaces.clear();
                    self.described = 0;
                    continue;
                }
                INTERFACE_DESCRIPTION_BLOCK => {
                    self.describe(body.len())?;
                    continue;
                }
                ENHANCED_PACKET_BLOCK => self.enhanced(&mut fields),
                SIMPLE_PACKET_BLOCK => self.simple(&mut fields),
                PACKET_BLOCK => Err(invalid(
                    "is in a packet block, which has been obsolete since 2009; `editcap IN OUT` writes another",
                )),
                // Names, statistics, secrets, what others thought of.
                _ => continue,
            };
            return frame.map(Some);
        }
        Ok(None)
    }

    fn describe(&mut self, bytes: usize) -> io::Result<()> {
        self.described += bytes;
        if self.described > INTERFACES {
            return Err(invalid("there is more than 1 MiB of interfaces"));
        }
        self.interfaces.extend(self.reader.interfaces().last().map(Interface::new));
        Ok(())
    }

    fn enhanced(&mut self, fields: &mut Fields<'_>) -> io::Result<CapturedFrame> {
        let number = fields.u32()?;
        let units = (u64::from(fields.u32()?) << 32) | u64::from(fields.u32()?);
        let (captured_length, length) = (fields.u32()?, fields.u32()?);
        let bytes = fields.padded(captured_length as usize)?;
        let time = self.interface(number)?.clock.time(units);
        self.latest = time;
        captured(time, bytes, length, comments(fields)?)
    }

    /// One without time and interface: it is the first, and its limit tells how much there is of the frame.
    fn simple(&self, fields: &mut Fields<'_>) -> io::Result<CapturedFrame> {
        let length = fields.u32()?;
        let captured_length = length.min(self.interface(0)?.limit);
        let bytes = fields.padded(captured_length as usize)?;
        captured(self.latest, bytes, length, Vec::new())
    }

    fn interface(&self, number: u32) -> io::Result<&Interface> {
        let Some(interface) = self.interfaces.get(number as usize) else {
            let count = self.interfaces.len();
            return Err(invalid(format!(
                "is of interface {number}, and {count} have been described"
            )));
        };
        match interface.link {
            DataLink::ETHERNET => Ok(interface),
            link => {
                let name = interface.name.as_deref().unwrap_or("unnamed");
                Err(not_ethernet(&format!("interface {number} ({name})"), link))
            }
        }
    }
}

/// What matters of an interface.
struct Interface {
    link: DataLink,
    name: Option<String>,
    clock: Clock,
    /// The most bytes of a frame.
    limit: u32,
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let limit = if block.snaplen == 0 { u32::MAX } else { block.snaplen };
        let clock = Clock { resolution: 6, offset: 0 };
        let mut interface = Self { link: block.linktype, name: None, clock, limit };
        for option in &block.options {
            match option {
                InterfaceDescriptionOption::IfName(name) => interface.name = Some(name.to_string()),
                InterfaceDescriptionOption::IfTsResol(power) => interface.clock.resolution = *power,
                InterfaceDescriptionOption::IfTsOffset(offset) => {
                    interface.clock.offset = offset.cast_signed();
                }
                _ => {}
            }
        }
        interface
    }
}

/// How an interface counts time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// The unit is ten to the minus this many seconds; or two, with the highest bit set.
    resolution: u8,
    /// Seconds to be added.
    offset: i64,
}

impl Clock {
    /// So many units after 1970-01-01 00:00 UTC, within what 64 bits have room for in nanoseconds.
    fn time(self, units: u64) -> Duration {
        let (units, power) = (u128::from(units), u32::from(self.resolution & 0x7f));
        let nanoseconds = if self.resolution & 0x80 != 0 {
            // Below 2^94, and the power below 2^7.
            (units * BILLION) >> power
        } else {
            10_u128.checked_pow(power).map_or(0, |second| units * BILLION / second)
        };
        let offset = u128::from(self.offset.unsigned_abs()) * BILLION;
        let nanoseconds = match self.offset {
            0.. => nanoseconds + offset,
            _ => nanoseconds.saturating_sub(offset),
        };
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// What has been remarked, among the options at the end of a block.
fn comments(fields: &mut Fields<'_>) -> io::Result<Vec<String>> {
    const END: u16 = 0;
    const COMMENT: u16 = 1;
    let mut comments = Vec::new();
    while !fields.rest.is_empty() {
        let (code, length) = (fields.u16()?, fields.u16()?);
        let value = fields.padded(length.into())?;
        match code {
            END => break,
            COMMENT => comments.push(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    Ok(comments)
}

/// What is left of a block's body.
struct Fields<'a> {
    rest: &'a [u8],
    is_little: bool,
}

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk().ok_or_else(short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.array()?;
        Ok(if self.is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.array()?;
        Ok(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// So many bytes, behind which there are more up to a multiple of four.
    fn padded(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(short)?;
        self.rest = rest.get(length.wrapping_neg() % 4..).ok_or_else(short)?;
        Ok(bytes)
    }
}

fn short() -> io::Error {
    invalid("is longer than the block that it is in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_clock_tells_the_time_and_none_overflows() {
        let time = |resolution, offset, units| Clock { resolution, offset }.time(units);
        let second = Duration::from_secs(1);
        for (resolution, units) in
            [(0, 1), (3, 1000), (6, 1_000_000), (9, 1_000_000_000), (0x80, 1), (0x8a, 1024)]
        {
            assert_eq!(time(resolution, 0, units), second, "{resolution:#x}");
            assert_eq!(time(resolution, 5, units), 6 * second, "{resolution:#x}");
            assert_eq!(time(resolution, -1, 3 * units), 2 * second, "{resolution:#x}");
            assert_eq!(time(resolution, -2, units), Duration::ZERO, "{resolution:#x}");
        }
        // Units that are finer than what there is of time.
        assert_eq!(time(12, 0, 1_000_000_001_999), second + Duration::from_nanos(1));
        assert_eq!(time(0x80 | 40, 0, 3 << 39), second * 3 / 2);
        let latest = Duration::from_nanos(u64::MAX);
        for resolution in 0..=u8::MAX {
            for units in [0, 1, u64::MAX] {
                for offset in [i64::MIN, -1, 0, 1, i64::MAX] {
                    assert!(time(resolution, offset, units) <= latest);
                }
            }
        }
        assert_eq!(time(0, 0, u64::MAX), latest);
        assert_eq!(time(9, 0, u64::MAX), latest);
        assert_eq!(time(6, i64::MAX, 0), latest);
    }
}
