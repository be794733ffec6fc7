//! Captures of a running director, under real traffic: what they have, that they keep within bounds, and that they end.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/tshark.rs"]
mod tshark;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::{Bounds, Chosen, Counts, TapCounts};
use dsrlb::director::{Capture, Director};
use lab::{HttpConnection, Lab, LabOptions, http_get};
use nix::sys::signal::Signal;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use process::Example;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tshark::has_tshark;

const TIMEOUT: Duration = Duration::from_secs(3);

/// A file that can be looked at while it is written.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame of a file, and its comment.
struct Captured {
    time: Duration,
    bytes: Vec<u8>,
    comment: String,
}

fn read(file: &[u8]) -> Vec<Captured> {
    let mut reader = PcapNgReader::new(Cursor::new(file)).unwrap();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else { panic!() };
            let (time, bytes) = (packet.timestamp, packet.data.to_vec());
            found.push(Captured { time, bytes, comment: comment.to_string() });
        }
    }
    found
}

impl Output {
    fn frames(&self) -> Vec<Captured> {
        read(&self.0.lock().unwrap())
    }
}

fn start(lab: &Lab) -> Director {
    let service = VirtualService::new(format!("{}/tcp", lab.vip4_port(80)).parse().unwrap());
    let service = lab.backends.iter().fold(service, |service, host| {
        service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
    });
    let builder = Director::builder(&lab.director.interface).service(service);
    lab.director.enter(|| builder.start().unwrap())
}

fn get(lab: &Lab, times: usize) {
    let vip = lab.vip4_port(80);
    lab.client.enter(|| (0..times).for_each(|_| drop(http_get(vip, "/", TIMEOUT).unwrap())));
}

/// Asks where nobody serves: a frame or two that are dropped.
fn knock(lab: &Lab) {
    let nobody = lab.vip4_port(81);
    let knock = || TcpStream::connect_timeout(&nobody, Duration::from_millis(300)).unwrap_err();
    lab.client.enter(knock);
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn counts(director: &Director) -> Counts {
    director.stats().counts
}

fn sum(counts: &TapCounts) -> u64 {
    counts.written + counts.not_chosen + counts.too_many + counts.ended + counts.missed
}

#[test]
fn what_came_is_there_as_it_came_with_what_became_of_it() {
    let Some(lab) = Lab::build_or_skip(&LabOptions { queues: 2, ..LabOptions::named("capture") })
    else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let director = start(&lab);
    let vip = lab.vip4_port(80);
    let before = counts(&director);
    assert_eq!(before.verdicts(), 0);

    let capture = |chosen: Chosen| -> (Output, Capture) {
        let output = Output::default();
        (output.clone(), director.capture(output, chosen, Bounds::NONE).unwrap())
    };
    // The connection whose flow is known before there is any packet that counts.
    let mut connection = lab.client.enter(|| HttpConnection::open(vip, TIMEOUT).unwrap());
    let flow = format!("{} > {vip} tcp", connection.local()).parse().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let before = counts(&director);
    let b1 = director.stats().backends.iter().find(|backend| backend.id == "b1").unwrap().index;
    let (all, of_all) = capture(Chosen::All);
    let (drops, of_drops) = capture(Chosen::Dropped);
    let (own, of_own) = capture(Chosen::Flow(flow));
    let (to_b1, of_b1) = capture(Chosen::Backend(vec![b1]));
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Workers take part from their next batch on.
    std::thread::sleep(Duration::from_millis(100));
    connection.get("/").unwrap();
    get(&lab, 20);
    knock(&lab);

    let mut now = counts(&director);
    until("all frames that came have been looked at", || {
        let last = now.verdicts();
        now = counts(&director);
        let came = now.verdicts() - before.verdicts();
        last == now.verdicts()
            && [&of_all, &of_drops, &of_own, &of_b1].iter().all(|of| sum(&of.counts()) == came)
    });
    let came = now.verdicts() - before.verdicts();
    for of in [of_all, of_drops, of_own, of_b1] {
        assert!(of.is_running());
        let counts = of.stop().unwrap();
        assert_eq!((sum(&counts), counts.missed, counts.too_many), (came, 0, 0));
    }
    // What comes from here on is not there.
    get(&lab, 3);
    let frames = all.frames();
    assert_eq!(frames.len() as u64, came);
    let with = |comment: &str| frames.iter().filter(|of| of.comment.starts_with(comment)).count();
    assert_eq!(with("forward to b") as u64, now.forwarded - before.forwarded);
    assert_eq!(with("drop: no-service. The VIP is ours") as u64, drops.frames().len() as u64);
    assert_eq!(with("forward to b1"), to_b1.frames().len());
    assert!(!drops.frames().is_empty() && !to_b1.frames().is_empty());
    assert!(to_b1.frames().len() < with("forward to b"));
    let is_dropped = |of: &Captured| of.comment.starts_with("drop: no-service");
    assert!(drops.frames().iter().all(is_dropped));
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for of in frames.iter().filter(|of| of.comment.starts_with("forward")) {
        assert_eq!(of.bytes[..6], lab.director.mac, "not yet rewritten");
        assert!(begun <= of.time && of.time <= ended);
    }
    let port = connection.local().port().to_be_bytes();
    let own = own.frames();
    assert!(own.len() >= 2 && own.iter().all(|of| of.bytes[34..36] == port), "{}", own.len());
}

#[test]
fn a_capture_keeps_within_its_bounds_and_ends() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("capbounds")) else { return };
    let _http = lab.start_http(80).unwrap();
    let director = start(&lab);
    get(&lab, 1);

    let output = Output::default();
    let bounds = Bounds { bytes: 2000, ..Bounds::NONE };
    let small = director.capture(output.clone(), Chosen::All, bounds).unwrap();
    get(&lab, 20);
    until("it is full", || !small.is_running());
    let counts = small.stop().unwrap();
    assert!(counts.ended > 0 && counts.bytes <= 2000, "{counts:?}");
    assert_eq!(output.0.lock().unwrap().len() as u64, counts.bytes);
    assert_eq!(output.frames().len() as u64, counts.written);

    let bounds = Bounds { frames_per_second: 5, frames_at_once: 5, ..Bounds::NONE };
    let slow = director.capture(Output::default(), Chosen::All, bounds).unwrap();
    let begun = Instant::now();
    get(&lab, 60);
    // A moment, for what is on its way.
    std::thread::sleep(Duration::from_millis(100));
    let counts = slow.stop().unwrap();
    let allowed = 5.0 + 5.0 * begun.elapsed().as_secs_f64() + 1.0;
    assert!((5.0..allowed).contains(&(counts.written as f64)), "{counts:?}, {allowed}");
    assert!(counts.too_many > 200, "{counts:?}");

    // An output that does not take anything for a while: nobody else waits for it.
    struct Stuck(Arc<AtomicU64>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.0.fetch_add(1, Ordering::Relaxed);
            if written > 0 {
                std::thread::sleep(Duration::from_secs(2));
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let stuck = director.capture(Stuck(Arc::default()), Chosen::All, Bounds::NONE).unwrap();
    let begun = Instant::now();
    get(&lab, 50);
    assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
    assert_eq!(stuck.stop().unwrap_err().kind(), io::ErrorKind::StorageFull);

    let none = Bounds { bytes: 10, ..Bounds::NONE };
    let error = director.capture(Output::default(), Chosen::All, none).unwrap_err();
    assert!(error.to_string().contains("too few"), "{error}");

    // It ends with the director, and what it has is whole.
    let output = Output::default();
    let last = director.capture(output.clone(), Chosen::All, Bounds::default()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    get(&lab, 1);
    director.shutdown();
    until("the capture ends with the director", || !last.is_running());
    let written = last.stop().unwrap().written;
    assert!(written > 3 && output.frames().len() as u64 == written);
}

#[test]
fn the_appliance_captures_what_it_drops() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("capappl")) else { return };
    let _http = lab.start_http(80).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut text = format!(
        "[dataplane]\ninterface = \"eth0\"\n[[service]]\nvip = \"{}/tcp\"\n",
        lab.vip4_port(80)
    );
    for host in &lab.backends {
        text +=
            &format!("[[service.backend]]\nid = \"{}\"\naddress = \"{}\"\n", host.name, host.v4);
    }
    std::fs::write(path("dsrlb.toml"), text).unwrap();
    let out = path("drops.pcapng");
    // Both commands are those of the page, but for where the files are.
    let page = include_str!("../docs/capture.md").split("```text\n").nth(1).unwrap();
    let mut commands = page.split("```").next().unwrap().lines();
    let words = |line: &str| -> Vec<String> {
        let words = line.split(' ').map(|word| match word {
            "dsrlb.toml" | "drops.pcapng" => path(word),
            _ => word.to_owned(),
        });
        words.collect()
    };
    let typed = words(commands.next().unwrap().strip_prefix("appliance ").unwrap());
    let arguments: Vec<&str> = typed.iter().map(String::as_str).collect();
    let mut appliance = Example::start(&lab, "appliance", &arguments);
    until("it serves", || {
        let ask = || http_get(lab.vip4_port(80), "/", Duration::from_millis(300)).is_ok();
        lab.client.enter(ask)
    });
    get(&lab, 5);
    knock(&lab);
    appliance.signal(Signal::SIGTERM);
    let mut said = String::new();
    appliance.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let mut file = Vec::new();
    File::open(&out).unwrap().read_to_end(&mut file).unwrap();
    let frames = read(&file);
    assert!(!frames.is_empty(), "{said}");
    assert!(frames.iter().all(|of| of.comment.starts_with("drop: no-service. ")));
    let line = format!("captured: {} frames, {} bytes; 0 more", frames.len(), file.len());
    assert!(said.contains(&line), "{line}: {said}");
    let tshark = words(commands.next().unwrap());
    if has_tshark(&tshark.join(" ")) {
        let shown = Command::new(&tshark[0]).args(&tshark[1..]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let comments: Vec<_> = frames.iter().map(|of| of.comment.as_str()).collect();
        assert_eq!(shown.lines().collect::<Vec<_>>(), comments);
    }
}
