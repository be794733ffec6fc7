use super::*;
use crate::balancer::HashBalancer;
use crate::dataplane::{Bounds, Counts, MailSender, Mailbox, MemoryIo, Worker, WorkerCounters};
use crate::packet::MacAddress;
use crate::verdict::{AnswerKind, DropReason};
use arc_swap::ArcSwap;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io::Cursor;
use std::sync::atomic::AtomicBool;

const DROP: Verdict = Verdict::Drop(DropReason::NoService);

fn tap(bounds: Bounds) -> Tap<Vec<u8>> {
    Tap::new(Vec::new(), Chosen::All, bounds).unwrap()
}

/// One batch through the feed, as a worker sends it.
fn batch(feed: &mut TapFeed, frames: &[&[u8]], verdicts: &[Verdict]) {
    let mut memory: Vec<Vec<u8>> = frames.iter().map(|bytes| bytes.to_vec()).collect();
    let mut frames: Vec<_> = memory.iter_mut().map(|bytes| Frame::new(bytes)).collect();
    feed.copy(Duration::from_secs(1), &frames);
    frames.iter_mut().for_each(|frame| frame.bytes_mut().fill(0xee));
    feed.offer(verdicts);
}

/// Whole length, bytes and comment of each frame of a file.
fn read(tap: Tap<Vec<u8>>) -> Vec<(u32, Vec<u8>, String)> {
    let mut reader = PcapNgReader::new(Cursor::new(tap.into_output())).unwrap();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else { panic!() };
            found.push((packet.original_len, packet.data.to_vec(), comment.to_string()));
        }
    }
    found
}

#[test]
fn frames_are_written_as_they_came_with_what_became_of_them() {
    let index = BackendIndex::new(0, 0);
    let (mut feed, mut reader) = TapFeed::new(Chosen::All);
    let long = vec![7; TapFeed::MOST + 5];
    batch(&mut feed, &[b"first", b"", &long], &[Verdict::Forward(index), DROP, Verdict::Pass]);
    batch(&mut feed, &[b"later"], &[Verdict::Forward(index)]);
    let (mut tap, mut asked) = (tap(Bounds::NONE), 0);
    let names = || {
        asked += 1;
        BTreeMap::from([(index, "web-1".to_owned())])
    };
    assert_eq!(reader.write_to(&mut tap, names).unwrap(), 4);
    assert_eq!(asked, 1);
    batch(&mut feed, &[b"known"], &[Verdict::Forward(index)]);
    reader.write_to(&mut tap, || panic!("the name is known")).unwrap();
    let read = read(tap);
    let comments: Vec<_> = read.iter().map(|(.., comment)| comment.split('.').next()).collect();
    let to = Some("forward to web-1");
    assert_eq!(comments, [to, Some("drop: no-service"), Some("pass: not for us"), to, to]);
    let bytes: Vec<_> = read.iter().map(|(_, bytes, _)| &bytes[..]).collect();
    assert_eq!(bytes, [b"first", &b""[..], &long[..TapFeed::MOST], b"later", b"known"]);
    let lengths: Vec<_> = read.iter().map(|(length, ..)| *length as usize).collect();
    assert_eq!(lengths, [5, 0, TapFeed::MOST + 5, 5, 5]);
}

#[test]
fn what_finds_no_room_is_counted_and_the_rest_is_whole() {
    for (length, room) in [(1000, BYTES / 1000), (10, FRAMES)] {
        let (mut feed, mut reader) = TapFeed::new(Chosen::Dropped);
        let mut tap = tap(Bounds::NONE);
        let offered = 2 * room.max(FRAMES);
        for number in 0..offered {
            let frame = vec![number as u8; length];
            batch(&mut feed, &[&frame, &frame], &[DROP, Verdict::Answer(AnswerKind::Echo)]);
        }
        assert_eq!(reader.write_to(&mut tap, BTreeMap::new).unwrap(), room);
        // There is room again.
        batch(&mut feed, &[&[9; 10]], &[DROP]);
        assert_eq!(reader.write_to(&mut tap, BTreeMap::new).unwrap(), 1);
        let counts = tap.counts();
        assert_eq!(counts.missed as usize, offered - room);
        assert_eq!((counts.not_chosen, counts.written as usize), (offered as u64, room + 1));
        let read = read(tap);
        for (number, (_, bytes, _)) in read[..room].iter().enumerate() {
            assert!(*bytes == vec![number as u8; length], "frame {number}");
        }
        assert_eq!(read[room].1, [9; 10]);
    }
}

/// A worker whose frames are those of a service with one backend, each end of it in a thread.
#[test]
fn a_worker_feeds_who_reads_and_no_one_else() {
    let counters = Arc::new(WorkerCounters::new(1));
    let station = MacAddress([2, 0, 0, 0, 0, 1]);
    let frame = [&station.0[..], &[2, 0, 0, 0, 0, 9, 8, 0], &[0; 46]].concat();
    let run = |mail: Vec<TapFeed>| {
        let mut io = MemoryIo::new();
        (0..200).for_each(|_| io.push(frame.clone()));
        let (sender, mailbox): (MailSender, _) = Mailbox::new(|| ());
        mail.into_iter().for_each(|feed| sender.tap(feed));
        let snapshot = Snapshot { station, ..Snapshot::default() };
        let snapshots = Arc::new(ArcSwap::from_pointee(snapshot));
        let pipeline = Pipeline::new(HashBalancer, Arc::clone(&counters));
        let mut worker = Worker::new(io, pipeline, snapshots, mailbox);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| worker.run(&stop).unwrap());
            // Long enough for what nobody reads to be let go of.
            std::thread::sleep(Duration::from_millis(250));
            stop.store(true, Ordering::Relaxed);
        });
        worker
    };
    let [(one, mut first), (two, mut second), (three, third)] =
        [Chosen::All, Chosen::Dropped, Chosen::All].map(TapFeed::new);
    drop(third);
    let let_go = Arc::downgrade(&three.tally);
    let worker = run(vec![one, two, three]);
    assert!(let_go.upgrade().is_none(), "nobody reads the third");
    assert!(!first.is_over());
    drop(worker);
    assert!(first.is_over() && second.is_over());
    let [mut all, mut dropped] = [tap(Bounds::NONE), tap(Bounds::NONE)];
    first.write_to(&mut all, BTreeMap::new).unwrap();
    second.write_to(&mut dropped, BTreeMap::new).unwrap();
    let mut counts = Counts::default();
    counters.add_to(&mut counts);
    let drops: u64 = DropReason::ALL.iter().map(|reason| counts.dropped(*reason)).sum();
    assert_eq!((counts.verdicts(), drops), (200, 200));
    assert_eq!((all.counts().written, dropped.counts().written), (200, 200));
    assert!(read(all).iter().all(|(_, bytes, _)| *bytes == frame));
}
