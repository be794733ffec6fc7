use super::*;
use crate::verdict::DropReason;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io::Cursor;

const DROP: Verdict = Verdict::Drop(DropReason::NoService);

/// What is read back: time, frame and comment of each.
fn read(file: Vec<u8>) -> Vec<(Duration, Vec<u8>, String)> {
    let mut reader = PcapNgReader::new(Cursor::new(file)).unwrap();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else {
                panic!("{packet:?}")
            };
            found.push((packet.timestamp, packet.data.to_vec(), comment.to_string()));
        }
    }
    found
}

#[test]
fn what_is_written_is_read_back_with_its_verdict() {
    let [named, unnamed] = [BackendIndex::new(0, 0), BackendIndex::new(1, 2)];
    let mut tap = Tap::new(Vec::new(), Chosen::All, Bounds::default()).unwrap();
    tap.name_backends([(named, "web-1".to_owned())].into());
    let samples: [(&[u8], Verdict, &str); 4] = [
        (b"four", Verdict::Forward(named), "forward to web-1"),
        (b"seventeen bytes!!", Verdict::Forward(unnamed), "forward to backend 1.2"),
        (b"", Verdict::Pass, "pass: not for us"),
        (
            b"x",
            DROP,
            "drop: no-service. The VIP is ours, but no service covers this protocol and port.",
        ),
    ];
    let times = (0..).map(|number| Duration::new(1_700_000_000, number));
    let mut expected = Vec::new();
    for (time, (frame, verdict, comment)) in times.zip(samples) {
        assert_eq!(tap.offer(&Sample::new(time, frame, verdict)).unwrap(), Taken::Written);
        expected.push((time, frame.to_vec(), comment.to_owned()));
    }
    let counts = tap.counts();
    let file = tap.into_output();
    assert_eq!((counts.written, counts.bytes), (4, file.len() as u64));
    assert_eq!(read(file), expected);
}

#[test]
fn a_full_file_is_whole_and_no_longer_than_it_may_be() {
    let sample = Sample::new(Duration::ZERO, b"a frame", Verdict::Pass);
    let mut tap = Tap::new(Vec::new(), Chosen::All, Bounds::NONE).unwrap();
    let empty = tap.counts().bytes;
    tap.offer(&sample).unwrap();
    let each = tap.counts().bytes - empty;
    for room in 0..4 * each {
        let bytes = empty + room;
        let bounds = Bounds { bytes, ..Bounds::NONE };
        let mut tap = Tap::new(Vec::new(), Chosen::All, bounds).unwrap();
        let written = (0..20).take_while(|_| tap.offer(&sample).unwrap() == Taken::Written).count();
        let counts = tap.counts();
        let file = tap.into_output();
        assert!(file.len() as u64 <= bytes && counts.bytes == file.len() as u64);
        assert_eq!(written as u64, room / each);
        assert_eq!((counts.written, counts.ended), (written as u64, 1));
        assert_eq!(read(file).len(), written);
    }
    let bounds = Bounds { bytes: empty - 1, ..Bounds::NONE };
    let error = Tap::new(Vec::new(), Chosen::All, bounds).unwrap_err();
    assert!(error.to_string().contains("too few"), "{error}");
}

/// Takes so many bytes, then fails once.
struct Faulty(usize, bool);

impl Write for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 && !std::mem::replace(&mut self.1, true) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(self.0 > 0, "written to after it failed");
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_is_written_after_a_failure() {
    let mut tap = Tap::new(Faulty(200, false), Chosen::All, Bounds::NONE).unwrap();
    let sample = Sample::new(Duration::ZERO, &[7; 300], Verdict::Pass);
    let error = tap.offer(&sample).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(tap.offer(&sample).unwrap(), Taken::Ended);
    assert_eq!(tap.counts().written, 0);
}
