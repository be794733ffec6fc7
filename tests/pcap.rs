//! The driver over capture files: what is replayed, what is written, and files that are not right.
#![cfg(feature = "pcap")]

mod support;

use dsrlb::dataplane::{MAX_BATCH, PacketIo, PcapIo, Port};
use dsrlb::flow::Timestamp;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use std::io::{Cursor, ErrorKind};
use std::time::Duration;
use support::frames::{Protocol, ipv4};
use support::pool;

/// Frames 1 ms apart; every fourth is for a port that no service has.
fn capture(count: usize, datalink: DataLink) -> Vec<u8> {
    let header = PcapHeader { datalink, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for number in 0..count {
        let port = if number % 4 == 3 { 81 } else { 80 };
        let protocol = Protocol::Tcp(1000 + number as u16, port);
        let frame = ipv4([192, 0, 2, 7], [10, 0, 0, 100], protocol, b"");
        let packet = PcapPacket::new(time(number), frame.len() as u32, &frame);
        writer.write_packet(&packet).unwrap();
    }
    writer.into_writer()
}

fn time(number: usize) -> Duration {
    Duration::from_secs(1_000_000) + Duration::from_millis(number as u64)
}

#[test]
fn a_capture_is_replayed_and_what_is_sent_is_captured() {
    const FRAMES: usize = MAX_BATCH * 2 + 10;
    let input = capture(FRAMES, DataLink::ETHERNET);
    let mut io = PcapIo::new(Cursor::new(input), Vec::new()).unwrap();
    let (plan, mut pipeline) = (pool::plan(), pool::pipeline());
    let mut lent = Vec::new();
    loop {
        let polled = io.poll(Duration::ZERO, &mut |frames| {
            pipeline.process(&plan.snapshot, Timestamp(0), frames);
        });
        match polled.unwrap() {
            0 => break,
            count => lent.push(count),
        }
    }
    assert!(io.send(Port::INGRESS, b"of our own").unwrap());
    assert_eq!(lent, [MAX_BATCH, MAX_BATCH, 10]);
    let sent = FRAMES - FRAMES / 4;
    assert_eq!(io.stats().received, FRAMES as u64);
    assert_eq!(io.stats().transmitted, sent as u64 + 1);

    let mut reader = PcapReader::new(Cursor::new(io.into_output())).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        packets.push((packet.timestamp, packet.data.into_owned()));
    }
    let (own, forwarded) = packets.split_last().unwrap();
    assert_eq!(own, &(time(FRAMES - 1), b"of our own".to_vec()));
    assert_eq!(forwarded.len(), sent);
    let times = (0..FRAMES).filter(|number| number % 4 != 3).map(time);
    assert!(forwarded.iter().map(|(time, _)| *time).eq(times), "a frame keeps its time of capture");
    assert!(forwarded.iter().all(|(_, frame)| frame[6..12] == pool::STATION.0));
}

#[test]
fn files_that_are_not_right_are_errors_not_panics() {
    let refused = |input: Vec<u8>| PcapIo::new(Cursor::new(input), Vec::new()).unwrap_err();
    assert!(refused(capture(1, DataLink::RAW)).to_string().contains("RAW"));
    refused(b"no capture at all, whatever its name says".to_vec());
    refused(Vec::new());

    let mut cut = capture(3, DataLink::ETHERNET);
    cut.truncate(cut.len() - 5);
    let mut io = PcapIo::new(Cursor::new(cut), Vec::new()).unwrap();
    // What is whole comes first, and then the error.
    assert_eq!(io.poll(Duration::ZERO, &mut |_| {}).unwrap(), 2);
    let error = io.poll(Duration::ZERO, &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof), "{error:?}");
}
