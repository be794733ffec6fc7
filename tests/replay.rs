//! A capture of all kinds of frames, replayed: the same each time, the same as the pipeline, and readable by others.

#[path = "support/skip.rs"]
mod skip;
mod support;

use dsrlb::balancer::FlowBalancer;
use dsrlb::config::file::ConfigFile;
use dsrlb::dataplane::neighbour::Path as Way;
use dsrlb::dataplane::{
    Action, Bounds, Chosen, Frame, HEADROOM, Member, Observed, Pipeline, Plan, Planner, Port,
    Sample, Site, Tap, WorkerCounters,
};
use dsrlb::flow::{HashKey, Timestamp};
use dsrlb::packet::MacAddress;
use dsrlb::verdict::{DropReason, Verdict};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use support::frames::{CLIENT_MAC, Protocol, fragment, ipv4, with_ipv4};
use support::{example::example, pool};
use tempfile::TempDir;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const VIP: [u8; 4] = [10, 0, 0, 100];

/// What a frame is, when it comes (in milliseconds), and what its verdict begins with.
struct Case(u64, Vec<u8>, &'static str);

fn cases() -> Vec<Case> {
    let tcp = |from, to| ipv4(CLIENT, VIP, Protocol::Tcp(from, to), b"hello");
    // 24 bytes of data, of which the first 16 and the last 16 are sent, in that order or not.
    let part = |identification, offset, more| {
        let whole = ipv4(CLIENT, VIP, Protocol::Udp(5000, 53), &[0; 8]);
        let whole = with_ipv4(whole, |header| header.identification = identification);
        fragment(whole, offset, more)
    };
    let mut not_ours = tcp(1000, 80);
    not_ours[0] ^= 4;
    let mut looped = tcp(1000, 80);
    looped[6..12].copy_from_slice(&pool::STATION.0);
    let expired = with_ipv4(tcp(1000, 80), |header| header.time_to_live = 1);
    let large = |dont_fragment| {
        let frame = ipv4(CLIENT, [10, 0, 0, 101], Protocol::Tcp(1000, 80), &[0; 1460]);
        with_ipv4(frame, |header| header.dont_fragment = dont_fragment)
    };
    vec![
        Case(0, not_ours, "pass: not for us"),
        Case(1, tcp(1000, 80), "forward to web-"),
        Case(2, tcp(1001, 80), "forward to web-"),
        Case(3, tcp(1000, 80), "forward to web-"),
        Case(3, expired, "forward to web-"),
        Case(4, part(1, 0, true), "forward to dns"),
        Case(5, part(1, 16, false), "forward to dns"),
        Case(6, part(2, 16, false), "hold"),
        Case(7, tcp(1000, 81), "drop: no-service. The VIP is ours, but"),
        Case(8, ipv4(CLIENT, [10, 0, 0, 200], Protocol::Tcp(1, 80), b""), "pass: not for us"),
        Case(9, ipv4(CLIENT, VIP, Protocol::Other(6), &[0; 4]), "drop: transport-truncated. The "),
        Case(10, ipv4([127, 0, 0, 1], VIP, Protocol::Tcp(1, 80), b""), "drop: martian-source. "),
        Case(11, ipv4(VIP, VIP, Protocol::Tcp(1, 80), b""), "drop: source-is-vip. "),
        Case(12, ipv4(CLIENT, [10, 0, 0, 102], Protocol::Tcp(1, 443), b""), "drop: no-backend. "),
        Case(13, looped, "drop: looped. "),
        Case(14, ipv4(CLIENT, VIP, Protocol::Echo, b"ping"), "answer: echo"),
        Case(15, large(false), "forward to far"),
        Case(16, large(true), "answer: packet-too-big"),
        Case(17, b"short".to_vec(), "drop: ethernet-truncated. "),
        // By now, in capture time, the second part does not wait any more.
        Case(60_000, part(2, 0, true), "forward to dns"),
    ]
}

fn time(milliseconds: u64) -> Duration {
    Duration::from_secs(1_700_000_000) + Duration::from_millis(milliseconds)
}

/// The configuration and the commands of the page.
fn page() -> (String, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/capture.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks = |kind: &str| -> Vec<String> {
        let begin = format!("```{kind}\n");
        let blocks = text.split(&begin).skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
    };
    let [config] = &blocks("toml")[..] else { panic!("not one configuration") };
    let commands = blocks("sh");
    assert!(!commands.is_empty());
    (config.clone(), commands.iter().flat_map(|block| block.lines().map(str::to_owned)).collect())
}

/// A directory with the capture and the configuration, by the names that the page gives them.
fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    let mut writer = PcapWriter::with_header(Vec::new(), PcapHeader::default()).unwrap();
    for Case(at, frame, _) in cases() {
        let packet = PcapPacket::new(time(at), frame.len() as u32, &frame);
        writer.write_packet(&packet).unwrap();
    }
    fs::write(directory.path().join("in.pcap"), writer.into_writer()).unwrap();
    fs::write(directory.path().join("dsrlb.toml"), page().0).unwrap();
    directory
}

fn replay(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(example("replay"));
    command.current_dir(directory.path()).args(["in.pcap", "dsrlb.toml"]).args(arguments);
    command.output().unwrap()
}

fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(output: Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// What a director knows that finds all backends well, at other MAC addresses than the program makes up.
fn plan() -> Plan {
    let file = ConfigFile::parse(&page().0).unwrap();
    let services: Vec<_> = file.services.iter().map(|service| service.to_service()).collect();
    let sources = file.dataplane.as_ref().unwrap().tunnel_sources();
    let site = Site {
        ports: vec![(pool::STATION, 1500)],
        tunnel_sources: sources,
        ..Site::new(pool::STATION)
    };
    let way = Way { mtu: 1500, ..Way::on_link(MacAddress([2, 9, 9, 9, 9, 9])) };
    Planner::new(64).plan(&services, &site, |_, _| Observed::well(way))
}

/// The verdict of each frame, and how many frames leave, without the program: by [`Pipeline::process_one`].
fn directly() -> (Vec<String>, usize) {
    let (plan, (verdicts, sent)) = (plan(), settled());
    let in_full = |verdict: Verdict| {
        verdict.in_full(|index| {
            let member = plan.members.iter().find(|member| member.index == index);
            member.unwrap().backend.id().to_owned()
        })
    };
    (verdicts.into_iter().map(in_full).collect(), sent)
}

fn settled() -> (Vec<Verdict>, usize) {
    let plan = plan();
    let balancer = FlowBalancer::new(1024, 64, HashKey::default()).unwrap();
    let mut pipeline = Pipeline::new(balancer, Arc::new(WorkerCounters::new(64)));
    let (mut verdicts, mut sent) = (Vec::new(), 0);
    for Case(at, frame, _) in cases() {
        let mut memory = [&[0; HEADROOM], &*frame].concat();
        let end = memory.len();
        let mut frame = Frame::in_memory(&mut memory, HEADROOM..end);
        let verdict = pipeline.process_one(&plan.snapshot, Timestamp(at * 1_000_000), &mut frame);
        verdicts.push(verdict);
        sent += usize::from(frame.action() != Action::Release);
        let drained: Result<(), ()> = pipeline.drain(|port, _| {
            assert_ne!(port, Port::PROBER);
            sent += 1;
            Ok(())
        });
        drained.unwrap();
    }
    (verdicts, sent)
}

#[test]
fn each_verdict_is_that_of_the_pipeline_and_twice_the_same() {
    let directory = directory();
    let printed = succeeds(replay(&directory, &["--each"]));
    assert_eq!(succeeds(replay(&directory, &["--each"])), printed);

    let (verdicts, sent) = directly();
    let (head, rest) = printed.split_once("\n     1 ").unwrap();
    assert!(head.starts_with("director: 02:00:00:00:00:d1, which most frames"), "{head}");
    assert!(head.contains("10.0.0.100:80/tcp  web-1 (10.0.0.11)  0e:00:00:00:00:01"), "{head}");
    assert!(head.contains("10.0.0.102:443/tcp  spare (10.0.0.14)"), "{head}");
    assert!(head.contains("its weight is 0"), "{head}");
    let (each, table) = rest.split_once("\n\n").unwrap();
    let each: Vec<_> = each.lines().collect();
    assert_eq!((each.len(), verdicts.len()), (cases().len(), cases().len()));
    for ((line, verdict), Case(at, _, expected)) in each.iter().zip(&verdicts).zip(cases()) {
        assert!(line.ends_with(&format!(" {verdict}")), "{line}, not {verdict}");
        assert!(verdict.starts_with(expected), "{verdict}, not {expected}");
        assert!(line.contains(&format!("{}.{:03}000  ", at / 1000, at % 1000)), "{line}");
    }
    assert!(each[1].contains(" 192.0.2.7:1000 > 10.0.0.100:80 tcp "), "{}", each[1]);

    // The table has each verdict as often as it was.
    for verdict in &verdicts {
        let words = verdict.split(". ").next().unwrap();
        let count = verdicts.iter().filter(|other| other.split(". ").next() == Some(words)).count();
        let row = table.lines().find(|row| row.starts_with(&format!("{words} "))).unwrap();
        let number = row[words.len()..].split_whitespace().next().unwrap();
        assert_eq!(number, count.to_string(), "{row}");
    }
    assert!(table.contains(&format!("\n{sent} frames sent")), "{sent}: {table}");
}

/// Comments and frames of a file.
fn read(path: PathBuf) -> Vec<(Duration, String, Vec<u8>)> {
    let mut reader = PcapNgReader::new(fs::File::open(path).unwrap()).unwrap();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else { panic!() };
            found.push((packet.timestamp, comment.to_string(), packet.data.to_vec()));
        }
    }
    found
}

#[test]
fn the_output_has_what_left_as_it_left_and_the_rest_as_it_came() {
    let directory = directory();
    let file = || directory.path().join("out.pcapng");
    succeeds(replay(&directory, &["--output", "out.pcapng"]));
    let written = read(file());
    let (verdicts, sent) = directly();
    let leaves = |comment: &str| comment.starts_with("forward") || comment.starts_with("answer");
    assert_eq!(written.iter().filter(|(_, comment, _)| leaves(comment)).count(), sent);
    let stays = |comment: &&String| !leaves(comment);
    assert_eq!(written.len(), sent + verdicts.iter().filter(stays).count());

    let mut rest = &written[..];
    for (Case(at, frame, _), verdict) in cases().into_iter().zip(&verdicts) {
        // In pieces, where it was too large for the tunnel.
        let own = rest.iter().take_while(|(when, of, _)| *when == time(at) && of == verdict);
        let own: Vec<_> = own.take(if verdict == "forward to far" { 2 } else { 1 }).collect();
        assert!(!own.is_empty(), "{verdict} at {at} ms");
        rest = &rest[own.len()..];
        match verdict.split([':', ' ']).next().unwrap() {
            "forward" => {
                assert!(own.iter().all(|(.., bytes)| bytes[6..12] == pool::STATION.0));
                if verdict.contains("web") {
                    assert_eq!(own[0].2[..5], [0x0e, 0, 0, 0, 0]);
                    assert_eq!(own[0].2[12..], frame[12..], "no more than the MAC addresses");
                }
            }
            "answer" => assert_eq!(own[0].2[..6], CLIENT_MAC),
            _ => assert_eq!(own[0].2, frame, "{verdict}"),
        }
    }
    assert!(rest.is_empty(), "{rest:?}");

    for (arguments, count) in [
        (&["--drops", "no-service"][..], 1),
        (&["--flow", "192.0.2.7:1000 > 10.0.0.101:80 tcp"], 3),
        (&["--backend", "dns"], 3),
        (&["--one-in", "5"], written.len().div_ceil(5)),
        (&["--max-bytes", "300"], 1),
    ] {
        let printed =
            succeeds(replay(&directory, &[&["--output", "out.pcapng"], arguments].concat()));
        assert_eq!(read(file()).len(), count, "{arguments:?}");
        assert!(printed.contains(&format!("output: {count} frames, ")), "{printed}");
    }
}

/// A capture as a director writes it: the frames as they came, each with the verdict that `verdicts` has for it.
/// One may be cut off.
fn tapped(verdicts: &[Verdict], plan: &Plan, cut_off: Option<usize>) -> Vec<u8> {
    let mut tap = Tap::new(Vec::new(), Chosen::All, Bounds::NONE).unwrap();
    let name = |member: &Member| (member.index, member.backend.id().to_owned());
    tap.name_backends(plan.members.iter().map(name).collect());
    for (number, (Case(at, frame, _), verdict)) in cases().iter().zip(verdicts).enumerate() {
        let length = frame.len() + usize::from(cut_off == Some(number));
        tap.offer(&Sample::new(time(*at), frame, *verdict).cut_from(length)).unwrap();
    }
    tap.into_output()
}

#[test]
fn a_pcapng_file_is_replayed_like_a_pcap_file() {
    let directory = directory();
    let of_pcap = succeeds(replay(&directory, &["--each"]));
    let plan = plan();
    let passed = vec![Verdict::Pass; cases().len()];
    fs::write(directory.path().join("in.pcap"), tapped(&passed, &plan, None)).unwrap();
    assert_eq!(succeeds(replay(&directory, &["--each"])), of_pcap);
}

#[test]
fn what_differs_from_the_comments_is_said_and_counted() {
    let directory = directory();
    let write = |verdicts: &[Verdict], cut_off| {
        let file = tapped(verdicts, &plan(), cut_off);
        fs::write(directory.path().join("in.pcap"), file).unwrap();
    };
    let compare = |code| {
        let output = replay(&directory, &["--compare"]);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (mut verdicts, _) = settled();
    write(&verdicts, None);
    let printed = compare(0);
    let all = cases().len();
    assert!(printed.ends_with(&format!("compared: {all} frames, 0 of them differ\n")), "{printed}");

    // Two that fared otherwise. Of an answer to a probe, and a frame that is not whole, nothing can be said.
    let held = verdicts.iter().position(|verdict| *verdict == Verdict::Hold).unwrap();
    verdicts[held] = Verdict::Pass;
    verdicts[9] = Verdict::Drop(DropReason::NoService);
    verdicts[0] = Verdict::Probe;
    verdicts[1] = Verdict::Hold;
    write(&verdicts, Some(1));
    let printed = compare(1);
    let each = printed.lines().filter(|line| line.contains(" => "));
    let each: Vec<_> = each.map(|line| line.rsplit_once("  ").unwrap().1).collect();
    assert_eq!(each, ["pass: not for us => hold", "drop: no-service => pass: not for us"]);
    let table = format!(
        "\ncompared: {} frames, 2 of them differ\n\
         was               now               frames\n\
         drop: no-service  pass: not for us       1\n\
         pass: not for us  hold                   1\n\
         not compared: 1 frames that were cut off when they were captured\n\
         not compared: 1 frames that are answers to the director's own probes\n",
        all - 2
    );
    assert!(printed.ends_with(&table), "{printed}");
}

/// With the program's own reading of the file for a witness, tshark.
#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let directory = directory();
    let mut shown = Vec::new();
    for line in page().1 {
        let words = line.split('#').next().unwrap();
        let is_ours = words.starts_with("replay ");
        let path = example("replay").parent().unwrap().display().to_string();
        let path = format!("{path}:{}", std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.current_dir(directory.path()).args(["-c", words]).env("PATH", path);
        if !is_ours && !skip::has_tshark(words) {
            continue;
        }
        let printed = succeeds(command.output().unwrap());
        assert!(!printed.is_empty(), "{words}");
        if !is_ours {
            shown.push((words.trim().to_owned(), printed));
        }
    }
    if shown.is_empty() {
        return; // as has been said
    }
    let [all, dropped] = &shown[..] else { panic!("{shown:?}") };
    // What is sent in two pieces is there twice.
    let mut comments: Vec<_> = all.1.lines().collect();
    comments.dedup_by(|a, b| a == b && *a == "forward to far");
    assert_eq!(comments, directly().0);
    let of_no_service = dropped.1.lines().count();
    assert_eq!(of_no_service, 1, "{}", dropped.1);
    assert!(dropped.1.contains("10.0.0.100") && dropped.1.contains("81"), "{}", dropped.1);
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let directory = directory();
    let file = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    let error = fails(replay(&directory, &["--output", "x.pcapng", "--backend", "nobody"]));
    assert!(error.contains("--backend nobody: no service has"), "{error}");
    let error = fails(replay(&directory, &["--output", "x.pcapng", "--drops", "other"]));
    assert!(error.contains("no-service, no-backend"), "{error}");
    let before = fs::read(directory.path().join("in.pcap")).unwrap();
    let error = fails(replay(&directory, &["--output", "./in.pcap"]));
    assert!(error.contains("is the input"), "{error}");
    assert_eq!(fs::read(directory.path().join("in.pcap")).unwrap(), before);

    // What is whole comes first, and then the error.
    file("in.pcap", &before[..before.len() - 3]);
    let cut = replay(&directory, &["--each"]);
    let printed = String::from_utf8_lossy(&cut.stdout).into_owned();
    assert!(printed.contains("\nall ") && printed.contains("drop: martian-source"), "{printed}");
    let error = fails(cut);
    assert!(error.contains(&format!("in.pcap: frame {}: ", cases().len())), "{error}");

    file("in.pcap", &before);
    let error = fails(replay(&directory, &["--compare"]));
    assert!(error.contains("in.pcap: has no frame that can be compared"), "{error}");

    file("in.pcap", b"no capture at all, whatever its name says");
    assert!(fails(replay(&directory, &[])).contains("in.pcap: "));
    file("dsrlb.toml", b"[[service]]\nvip = 5\n");
    assert!(fails(replay(&directory, &[])).contains("dsrlb.toml: "));
}
