//! What a running director said of each frame of real clients, `replay` says again; and where it would not, by another
//! configuration, it says so.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/example.rs"]
mod program;

use dsrlb::config::FileSource;
use dsrlb::dataplane::{Bounds, CaptureFile, CapturedFrame, Chosen};
use dsrlb::director::Director;
use dsrlb::packet::{Parse, parse};
use lab::{HttpConnection, Lab, LabOptions, http_get, ping, udp_ask};
use program::example;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
/// How long no frame has come when all have.
const QUIET: Duration = Duration::from_millis(300);
/// TCP over both families, to three backends.
const WEB: u16 = 80;
/// UDP, by two of them.
const DNS: u16 = 53;
/// UDP, through a tunnel.
const FAR: u16 = 5000;
/// TCP, to a backend that takes nothing.
const IDLE: u16 = 443;
/// TCP that nobody serves.
const NOBODY: u16 = 81;

fn config(lab: &Lab) -> String {
    let mut text = format!(
        "[dataplane]\ninterface = \"{}\"\ntunnel-source = [\"{}\"]\n",
        lab.director.interface, lab.director.v4
    );
    let mut service = |vip: SocketAddr, protocol: &str, backends: &[(String, String, &str)]| {
        text += &format!("[[service]]\nvip = \"{vip}/{protocol}\"\n");
        for (id, address, more) in backends {
            text +=
                &format!("[[service.backend]]\nid = \"{id}\"\naddress = \"{address}\"\n{more}\n");
        }
    };
    let v4 = |n: usize, prefix: &str, more| {
        let host = &lab.backends[n];
        (format!("{prefix}{}", host.name), host.v4.to_string(), more)
    };
    let v6 = |n: usize| (lab.backends[n].name.clone(), lab.backends[n].v6.to_string(), "");
    service(lab.vip4_port(WEB), "tcp", &[0, 1, 2].map(|n| v4(n, "", "")));
    service(lab.vip6_port(WEB), "tcp", &[0, 1, 2].map(v6));
    service(lab.vip4_port(DNS), "udp", &[0, 1].map(|n| v4(n, "dns-", "")));
    service(lab.vip4_port(FAR), "udp", &[v4(2, "far-", "forward = \"ipip\"")]);
    service(lab.vip4_port(IDLE), "tcp", &[v4(0, "idle-", "weight = 0")]);
    text
}

/// All kinds of what clients send, and some that no client should.
fn traffic(lab: &Lab) {
    let [web4, web6] = [lab.vip4_port(WEB), lab.vip6_port(WEB)];
    for vip in [web4, web6] {
        (0..20).for_each(|_| drop(http_get(vip, "/", TIMEOUT).unwrap()));
        let mut connection = HttpConnection::open(vip, TIMEOUT).unwrap();
        (0..5).for_each(|_| drop(connection.get("/").unwrap()));
        connection.post("/", &[7; 10_000]).unwrap();
        ping(vip.ip()).unwrap();
    }
    for port in [NOBODY, IDLE] {
        let connect = TcpStream::connect_timeout(&lab.vip4_port(port), Duration::from_millis(300));
        connect.unwrap_err();
    }
    // One packet, and some in pieces.
    for length in [10, 4000, 4000, 4000] {
        let answer = udp_ask(lab.vip4_port(DNS), &vec![7; length], TIMEOUT).unwrap();
        assert_eq!(answer.payload.len(), length);
    }
    let far = UdpSocket::bind("0.0.0.0:0").unwrap();
    far.connect(lab.vip4_port(FAR)).unwrap();
    far.send(&[7; 100]).unwrap();
    far.set_ttl(1).unwrap();
    far.send(&[7; 100]).unwrap();
    far.set_ttl(64).unwrap();
    // Not to be fragmented, and with the tunnel's header larger than the link takes.
    far.send(&[7; 1472]).unwrap();
    // TCP, and too short for that.
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
    raw.send_to(&[7; 4], &SocketAddr::new(lab.vip4.into(), 0).into()).unwrap();
}

/// Captures what the director receives, whole.
fn capture(lab: &Lab, config: &Path, output: &Path) {
    let builder = Director::builder(&lab.director.interface)
        .source(FileSource::open(config).unwrap())
        .tunnel_source(std::net::IpAddr::from(lab.director.v4));
    let director = lab.director.enter(|| builder.start().unwrap());
    let output = File::create(output).unwrap();
    let capture = director.capture(output, Chosen::All, Bounds::NONE).unwrap();
    // What workers are asked comes behind it, so they take part by now.
    director.explain("192.0.2.1:1 > 192.0.2.2:2 tcp".parse().unwrap()).unwrap();
    assert_eq!(director.stats().counts.verdicts(), 0);
    lab.client.enter(|| traffic(lab));
    let begun = Instant::now();
    let (mut last, mut since) = (0, begun);
    loop {
        let (received, written) = (director.stats().counts.verdicts(), capture.counts().written);
        if received != last {
            (last, since) = (received, Instant::now());
        }
        if received == written && since.elapsed() >= QUIET {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{written} of {received} written");
        std::thread::sleep(Duration::from_millis(10));
    }
    let counts = capture.stop().unwrap();
    assert_eq!(counts.missed + counts.too_many + counts.ended + counts.not_chosen, 0);
    director.shutdown();
}

/// Whether a packet is IPv6, and which port it is for.
fn destination(frame: &CapturedFrame) -> (bool, u16) {
    match parse(&frame.bytes) {
        Parse::Ip(parsed) => {
            (parsed.info.flow.destination.is_ipv6(), parsed.info.flow.destination_port)
        }
        Parse::NotIp { .. } | Parse::Malformed(_) => (false, 0),
    }
}

/// The commands of the page, each with what it came to.
fn commands_of_the_page(directory: &Path) -> Vec<Output> {
    let page = include_str!("../docs/capture.md").split("```text\n").nth(2).unwrap();
    let lines = page.split("```").next().unwrap().lines();
    let run = |line: &str| {
        let mut words = line.split('#').next().unwrap().split_whitespace();
        let mut command = Command::new(example(words.next().unwrap()));
        command.current_dir(directory).args(words).output().unwrap()
    };
    lines.map(run).collect()
}

#[test]
fn replay_gives_each_frame_of_a_live_capture_its_verdict_again() {
    for queues in [1, 2] {
        let options = LabOptions { queues, ..LabOptions::named("replay") };
        let Some(lab) = Lab::build_or_skip(&options) else { return };
        let _http = lab.start_http(WEB).unwrap();
        let _dns = lab.start_udp(DNS).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let text = config(&lab);
        fs::write(path("dsrlb.toml"), &text).unwrap();
        capture(&lab, &path("dsrlb.toml"), &path("all.pcapng"));

        let frames = CaptureFile::new(File::open(path("all.pcapng")).unwrap()).unwrap();
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        let was = |frame: &CapturedFrame| frame.comments[0].split(". ").next().unwrap().to_owned();
        let kinds: BTreeSet<_> = frames.iter().map(was).collect();
        for kind in [
            "answer: echo",
            "answer: packet-too-big",
            "answer: time-exceeded",
            "drop: no-backend",
            "drop: no-service",
            "drop: transport-truncated",
            "forward to b1",
            "forward to b2",
            "forward to b3",
            "forward to far-b3",
        ] {
            assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
        }
        assert!(kinds.iter().any(|kind| kind.starts_with("forward to dns-b")), "{kinds:?}");

        // Another day: one backend less, another port, no tunnel. The rest is as it was.
        let new = without(&text, "b2")
            .replace(&format!(":{DNS}/udp"), ":54/udp")
            .replace("forward = \"ipip\"", "");
        fs::write(path("new.toml"), new).unwrap();
        let [same, other] = &commands_of_the_page(directory.path())[..] else { panic!() };
        let said = |output: &Output| {
            let text = String::from_utf8(output.stdout.clone()).unwrap();
            format!("{text}{}", String::from_utf8_lossy(&output.stderr))
        };
        let printed = said(same);
        assert_eq!(same.status.code(), Some(0), "{printed}");
        let line = format!("\ncompared: {} frames, 0 of them differ\n", frames.len());
        assert!(printed.ends_with(&line), "{line}: {printed}");
        assert!(!printed.contains("=>"), "{printed}");

        let printed = said(other);
        assert_eq!(other.status.code(), Some(1), "{printed}");
        let differing: BTreeMap<usize, (&str, &str)> = printed
            .lines()
            .filter_map(|line| {
                let (before, now) = line.split_once(" => ")?;
                let number: usize = before.split_whitespace().next().unwrap().parse().unwrap();
                let (_, was) = before.rsplit_once("  ").unwrap();
                Some((number - 1, (was.trim(), now)))
            })
            .collect();
        for (number, frame) in frames.iter().enumerate() {
            let was = was(frame);
            let now = differing.get(&number).map(|(said, now)| {
                assert_eq!(*said, was);
                *now
            });
            match (destination(frame), was.as_str()) {
                ((false, WEB), "forward to b2") => {
                    assert!(matches!(now, Some("forward to b1" | "forward to b3")), "{now:?}");
                }
                // To make room some of the others' flows move too.
                ((false, WEB), "forward to b1") => {
                    assert!(matches!(now, None | Some("forward to b3")))
                }
                ((false, WEB), "forward to b3") => {
                    assert!(matches!(now, None | Some("forward to b1")))
                }
                ((false, _), "answer: packet-too-big" | "answer: time-exceeded") => {
                    assert_eq!(now, Some("forward to far-b3"));
                }
                (_, was) if was.starts_with("forward to dns-b") => {
                    assert_eq!(now, Some("drop: no-service"));
                }
                _ => assert_eq!(now, None, "{was}"),
            }
        }
        let differ = differing.len();
        let line = format!("compared: {} frames, {differ} of them differ", frames.len());
        assert!(printed.contains(&line), "{line}: {printed}");
        let rows = printed.split_once("\nwas ").unwrap().1.lines().skip(1);
        let sum: usize =
            rows.map(|row| row.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum();
        assert_eq!(sum, differ, "{printed}");
    }
}

/// A configuration without the backend of this id in its first service.
fn without(config: &str, id: &str) -> String {
    let begin = config.find(&format!("[[service.backend]]\nid = \"{id}\"\n")).unwrap();
    let length = config[begin + 2..].find("[[").unwrap() + 2;
    [&config[..begin], &config[begin + length..]].concat()
}
