//! Captures in both formats, as others write them: what is read of each, with tshark for a witness, and files that are
//! not right or mean harm.
#![cfg(feature = "pcap")]

#[path = "support/skip.rs"]
mod skip;

use dsrlb::dataplane::{CaptureFile, CapturedFrame};
use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};
use std::io::{Cursor, ErrorKind};
use std::process::Command;
use std::time::Duration;

const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// All frames, and the error behind them.
fn read(file: &[u8]) -> (Vec<CapturedFrame>, Option<String>) {
    let mut frames = Vec::new();
    let mut reader = match CaptureFile::new(Cursor::new(file)) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error.to_string())),
    };
    let mut failure = None;
    for frame in &mut reader {
        match frame {
            Ok(frame) => frames.push(frame),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof),
                    "{error:?}"
                );
                failure = Some(error.to_string());
            }
        }
    }
    assert!(reader.next().is_none(), "the end is the end");
    (frames, failure)
}

fn whole(file: &[u8]) -> Vec<CapturedFrame> {
    let (frames, failure) = read(file);
    assert_eq!(failure, None);
    frames
}

fn refused(file: &[u8]) -> String {
    read(file).1.expect("an error")
}

/// A pcap file, of which each frame has its time in seconds and units, its length, and what there is of it.
fn pcap(header: PcapHeader, frames: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    header.write_to(&mut file).unwrap();
    for &(ts_sec, ts_frac, orig_len, data) in frames {
        let number = |number: u32| match header.endianness {
            Endianness::Little => number.to_le_bytes(),
            Endianness::Big => number.to_be_bytes(),
        };
        let fields = [ts_sec, ts_frac, data.len() as u32, orig_len];
        file.extend(fields.into_iter().flat_map(number));
        file.extend(data);
    }
    file
}

#[test]
fn a_pcap_file_is_read_in_either_byte_order_and_unit() {
    for endianness in [Endianness::Little, Endianness::Big] {
        for (ts_resolution, unit) in
            [(TsResolution::MicroSecond, 1000), (TsResolution::NanoSecond, 1)]
        {
            // As `tcpdump -s 4` writes it: frames are longer than what there is to be of each.
            let header =
                PcapHeader { endianness, ts_resolution, snaplen: 4, ..PcapHeader::default() };
            let frames: [(_, _, _, &[u8]); 3] =
                [(0, 0, 3, b"one"), (1_700_000_000, 999_999, 700, b"two,"), (u32::MAX, 1, 0, b"")];
            let read = whole(&pcap(header, &frames));
            let times = [(0, 0), (1_700_000_000, 999_999), (u32::MAX.into(), 1)];
            let times = times.map(|(seconds, units)| Duration::new(seconds, units * unit));
            assert_eq!(read.iter().map(|of| of.time).collect::<Vec<_>>(), times);
            assert_eq!(read.iter().map(|of| of.length).collect::<Vec<_>>(), [3, 700, 0]);
            assert_eq!(
                read.iter().map(|of| &*of.bytes).collect::<Vec<_>>(),
                [&b"one"[..], b"two,", b""]
            );
            let cut: Vec<_> = read.iter().map(CapturedFrame::is_cut_off).collect();
            assert_eq!(cut, [false, true, false]);
            assert!(read.iter().all(|of| of.comments.is_empty()));
        }
    }
}

/// Writes blocks of one byte order.
#[derive(Clone, Copy)]
struct Writer {
    is_little: bool,
}

const LITTLE: Writer = Writer { is_little: true };
const BIG: Writer = Writer { is_little: false };

const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
const COMMENT: u16 = 1;
const ETHERNET: u16 = 1;

impl Writer {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.is_little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.is_little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| self.u32(*word)).collect()
    }

    fn block(self, kind: u32, parts: &[&[u8]]) -> Vec<u8> {
        let body = padded(&parts.concat());
        let length = self.u32(body.len() as u32 + 12);
        [&self.u32(kind), &length, &*body, &length].concat()
    }

    /// Options, with the end of them, which there need not be.
    fn options(self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let option = |(code, value): &(u16, &[u8])| {
            [&self.u16(*code)[..], &self.u16(value.len() as u16), &padded(value)].concat()
        };
        options.iter().chain(&[(0, &b""[..])]).flat_map(option).collect()
    }

    fn section(self) -> Vec<u8> {
        let rest = [&self.u16(1)[..], &self.u16(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &[&self.u32(0x1a2b_3c4d), &rest])
    }

    fn interface(self, link: u16, limit: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let link = self.u16(link);
        self.block(1, &[&link, &[0; 2], &self.u32(limit), &self.options(options)])
    }

    fn enhanced(
        self,
        interface: u32,
        units: u64,
        frame: &[u8],
        length: u32,
        options: &[u8],
    ) -> Vec<u8> {
        let words = [interface, (units >> 32) as u32, units as u32, frame.len() as u32, length];
        self.block(6, &[&self.words(&words), &padded(frame), options])
    }

    fn simple(self, frame: &[u8], length: u32) -> Vec<u8> {
        self.block(3, &[&self.u32(length), frame])
    }

    /// A frame of the first interface.
    fn frame(self, frame: &[u8]) -> Vec<u8> {
        self.enhanced(0, 0, frame, frame.len() as u32, &[])
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Two sections, of both byte orders; four clocks; blocks that are nobody's business here; all kinds of frames.
fn many() -> (Vec<u8>, Vec<CapturedFrame>) {
    let (first, second) = (BEGIN.as_secs(), BEGIN.as_secs() + 1);
    let comment = LITTLE.options(&[
        (2, &[0; 4]),
        (COMMENT, "drop: no-service".as_bytes()),
        (COMMENT, "ä".as_bytes()),
    ]);
    // The last option ends without there being an end.
    let endless = [&LITTLE.u16(COMMENT)[..], &LITTLE.u16(4), b"last"].concat();
    let mut file = LITTLE.section();
    file.extend(LITTLE.interface(ETHERNET, 0, &[(IF_NAME, b"eth0"), (IF_TSRESOL, &[9])]));
    file.extend(LITTLE.interface(ETHERNET, 0, &[]));
    file.extend(LITTLE.enhanced(0, first * 1_000_000_000 + 7, b"nano", 4, &comment));
    // Names of hosts, one of them in Latin-1, statistics, and one that somebody thought of.
    let name = [&LITTLE.u16(1)[..], &LITTLE.u16(8), &[10, 0, 0, 1], b"\xe4.b\0", &[0; 4]].concat();
    file.extend(LITTLE.block(4, &[&name]));
    file.extend(LITTLE.block(5, &[&[0; 12]]));
    file.extend(LITTLE.block(0x0000_0b0d, &[b"whatever"]));
    file.extend(LITTLE.enhanced(1, first * 1_000_000 + 7, b"micro", 900, &endless));
    file.extend(LITTLE.simple(b"simple", 6));

    file.extend(BIG.section());
    file.extend(BIG.interface(ETHERNET, 5, &[(IF_TSRESOL, &[0x80 | 10])]));
    let offset = (BEGIN.as_secs() as i64).to_be_bytes();
    file.extend(BIG.interface(ETHERNET, 0, &[(IF_TSRESOL, &[3]), (IF_TSOFFSET, &offset)]));
    file.extend(BIG.enhanced(0, second * 1024 + 512, b"binary", 6, &[]));
    file.extend(BIG.simple(b"simpl", 600));
    file.extend(BIG.enhanced(1, 2_034, b"", 0, &[]));

    let mut frames = Vec::new();
    let mut expect = |time: Duration, bytes: &[u8], length, comments: &[&str]| {
        let mut frame = CapturedFrame::default();
        (frame.time, frame.bytes, frame.length) = (time, bytes.to_vec(), length);
        frame.comments = comments.iter().map(|comment| comment.to_string()).collect();
        frames.push(frame);
    };
    let micro = BEGIN + Duration::from_micros(7);
    expect(BEGIN + Duration::from_nanos(7), b"nano", 4, &["drop: no-service", "ä"]);
    expect(micro, b"micro", 900, &["last"]);
    expect(micro, b"simple", 6, &[]);
    let half = BEGIN + Duration::from_millis(1500);
    expect(half, b"binary", 6, &[]);
    expect(half, b"simpl", 600, &[]);
    expect(BEGIN + Duration::from_millis(2034), b"", 0, &[]);
    (file, frames)
}

#[test]
fn a_pcapng_file_is_read_whatever_its_sections_and_interfaces() {
    let (file, frames) = many();
    assert_eq!(whole(&file), frames);
    assert_eq!(whole(&LITTLE.section()), []);
}

/// Times, lengths and remarks of the same file, as tshark has them.
#[test]
fn tshark_reads_the_same() {
    if !skip::has_tshark("the witness of what a capture holds") {
        return;
    }
    let (file, _) = many();
    let frames = whole(&file);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many.pcapng");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=|"]);
    for field in ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.comment"] {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let shown: Vec<_> = shown.lines().collect();
    assert_eq!(shown.len(), frames.len());
    for (line, frame) in shown.iter().zip(&frames) {
        let [time, length, captured, comments] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!([length, captured], [frame.length, frame.bytes.len()].map(|n| n.to_string()));
        assert_eq!(comments, frame.comments.join(","));
        // A simple block has no time, and each reader makes of that what it will.
        if !frame.bytes.starts_with(b"simpl") {
            let seconds: f64 = time.parse().unwrap();
            assert!((seconds - frame.time.as_secs_f64()).abs() < 1e-6, "{line}: {frame:?}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let pcap_of = |datalink| pcap(PcapHeader { datalink, ..PcapHeader::default() }, &[]);
    assert!(refused(&pcap_of(DataLink::RAW)).contains("has RAW frames"));
    for no_capture in [&b""[..], b"\x0a\x0d", b"no capture at all, whatever its name says"] {
        let error = refused(no_capture);
        assert!(error.contains("neither in pcap nor in pcapng format"), "{error}");
    }
    let late = pcap(PcapHeader::default(), &[(0, 1_000_000, 0, b"")]);
    assert!(refused(&late).contains("more than a second"));

    // The first frame is read, and then it is said what is wrong with the second.
    let begun = |rest: &[Vec<u8>]| {
        let ethernet = LITTLE.interface(ETHERNET, 0, &[]);
        [LITTLE.section(), ethernet, LITTLE.frame(b"one"), rest.concat()].concat()
    };
    let says = |rest: &[Vec<u8>], what: &str| {
        let (frames, failure) = read(&begun(rest));
        assert_eq!(frames.len(), 1);
        let failure = failure.expect(what);
        assert!(failure.contains(what), "{failure}, not {what}");
    };
    says(&[LITTLE.enhanced(1, 0, b"two", 3, &[])], "of interface 1, and 1 have been described");
    // Each section has its own.
    says(&[LITTLE.section(), LITTLE.frame(b"two")], "of interface 0, and 0 have been described");
    says(&[BIG.section(), BIG.simple(b"two", 3)], "of interface 0, and 0 have been described");
    let usb = LITTLE.interface(220, 0, &[(IF_NAME, b"usbmon0")]);
    let of_usb = LITTLE.enhanced(1, 0, b"two", 3, &[]);
    says(&[usb.clone(), of_usb], "interface 1 (usbmon0) has USB_LINUX_MMAPPED frames");
    // As long as nothing came by it, it does not matter.
    assert_eq!(whole(&begun(&[usb, LITTLE.frame(b"two")])).len(), 2);
    says(&[LITTLE.block(2, &[&[0; 20]])], "obsolete since 2009");

    let longer = LITTLE.words(&[0, 0, 0, 5, 5]);
    says(&[LITTLE.block(6, &[&longer, b"two!"])], "longer than the block");
    says(&[LITTLE.block(6, &[&longer[..16]])], "longer than the block");
    says(&[LITTLE.simple(b"two!", 5)], "longer than the block");
    let option = [&LITTLE.u16(COMMENT)[..], &LITTLE.u16(9), b"no more"].concat();
    says(&[LITTLE.enhanced(0, 0, b"two", 3, &option)], "longer than the block");
    let mut unequal = LITTLE.frame(b"two");
    *unequal.last_mut().unwrap() ^= 1;
    says(&[unequal], "length");
}

#[test]
fn what_is_too_large_is_refused_before_it_fills_the_memory() {
    let most = vec![7; 1 << 18];
    let more = [&most[..], b"."].concat();
    let file = |frame: &[u8]| {
        [LITTLE.section(), LITTLE.interface(ETHERNET, 0, &[]), LITTLE.frame(frame)].concat()
    };
    assert_eq!(whole(&file(&most)).len(), 1);
    assert!(refused(&file(&more)).contains("more than 262144"));
    let header = PcapHeader { snaplen: u32::MAX, ..PcapHeader::default() };
    let of_pcap = |frame: &[u8]| pcap(header, &[(0, 0, frame.len() as u32, frame)]);
    assert_eq!(whole(&of_pcap(&most)).len(), 1);
    assert!(refused(&of_pcap(&more)).contains("more than 262144"));

    // One that says that it has 4 GiB, and goes on for as long as anybody reads.
    let endless = [&LITTLE.u32(6)[..], &LITTLE.u32(u32::MAX - 3)].concat();
    let file = Cursor::new([LITTLE.section(), endless].concat());
    let mut file = CaptureFile::new(std::io::Read::chain(file, std::io::repeat(0))).unwrap();
    assert!(file.next().unwrap().is_err() && file.next().is_none());
    let file = [pcap(header, &[]), vec![0xff; 16]].concat();
    let file = std::io::Read::chain(Cursor::new(file), std::io::repeat(0));
    let mut file = CaptureFile::new(file).unwrap();
    assert!(file.next().unwrap().is_err() && file.next().is_none());

    let interface = LITTLE.interface(ETHERNET, 0, &[]);
    let room = (1 << 20) / (interface.len() - 12);
    let described = |count| [LITTLE.section(), interface.repeat(count)].concat();
    let fits = [described(room), described(room), LITTLE.frame(b"one")].concat();
    assert_eq!(whole(&fits).len(), 1);
    let fits_not = [described(room + 1), LITTLE.frame(b"one")].concat();
    assert!(refused(&fits_not).contains("more than 1 MiB of interfaces"));
}

/// Wherever a file ends, and whichever byte of it is another: frames, perhaps an error, and an end.
#[test]
fn no_harm_comes_of_a_file_that_is_broken_anywhere() {
    let (many, frames) = many();
    let small = pcap(PcapHeader::default(), &[(1, 2, 3, b"one"), (4, 5, 6, b"two")]);
    for (file, most) in [(many, frames.len()), (small, 2)] {
        for end in 0..file.len() {
            let (frames, _) = read(&file[..end]);
            assert!(frames.len() <= most);
        }
        for place in 0..file.len() {
            for change in [0x01, 0x04, 0x80, 0xff] {
                let mut file = file.clone();
                file[place] ^= change;
                assert!(read(&file).0.len() <= 2 * most);
            }
        }
    }
}
