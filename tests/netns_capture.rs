//! Captures of a running director, under real traffic: what they have, that they keep within bounds, and that they end.
//! `netns_replay` has what comes of them offline.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/skip.rs"]
mod skip;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::{Bounds, CaptureFile, CapturedFrame, Chosen, Counts, TapCounts};
use dsrlb::director::{Capture, Director};
use dsrlb::verdict::DropReason;
use lab::{HttpConnection, Lab, LabOptions, http_get, http_get_from};
use nix::sys::signal::Signal;
use process::Example;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{ChildStderr, Command};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// A frame of a file, and what became of it.
struct Captured {
    time: Duration,
    bytes: Vec<u8>,
    comment: String,
}

impl Captured {
    fn of(frame: CapturedFrame) -> Self {
        let [comment] = &frame.comments[..] else { panic!("{frame:?}") };
        Self { time: frame.time, comment: comment.clone(), bytes: frame.bytes }
    }

    /// The ports of a TCP segment, which all of them are here: source, and destination.
    fn ports(&self) -> [u16; 2] {
        [34, 36].map(|at| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }
}

fn read(file: impl Read) -> Vec<Captured> {
    CaptureFile::new(file).unwrap().map(|frame| Captured::of(frame.unwrap())).collect()
}

impl Output {
    fn frames(&self) -> Vec<Captured> {
        read(Cursor::new(&*self.0.lock().unwrap()))
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
fn knock(lab: &Lab, port: u16) {
    let nobody = lab.vip4_port(port);
    let knock = || TcpStream::connect_timeout(&nobody, Duration::from_millis(300)).unwrap_err();
    lab.client.enter(knock);
}

/// Begins a capture that all workers take part in by now: they answer questions in the order in which they get
/// whatever is put to them.
fn begin(director: &Director, output: impl Write + Send + 'static, chosen: Chosen) -> Capture {
    let capture = director.capture(output, chosen, Bounds::NONE).unwrap();
    take_part(director);
    capture
}

fn take_part(director: &Director) {
    let flow = "192.0.2.1:1 > 192.0.2.2:2 tcp".parse().unwrap();
    director.explain(flow).unwrap();
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

/// Waits until all that came since `before` has been looked at by each capture, and returns how much that is.
fn settle(director: &Director, before: &Counts, captures: &[&Capture]) -> u64 {
    let mut came = 0;
    until("all frames that came have been looked at", || {
        let last = came;
        came = counts(director).verdicts() - before.verdicts();
        last == came && captures.iter().all(|of| sum(&of.counts()) == came)
    });
    came
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
        (output.clone(), begin(&director, output, chosen))
    };
    // The connection whose flow is known before there is any packet that counts.
    let mut connection = lab.client.enter(|| HttpConnection::open(vip, TIMEOUT).unwrap());
    let flow = format!("{} > {vip} tcp", connection.local()).parse().unwrap();
    // Its handshake, of which two frames are the client's.
    until("the connection has begun", || counts(&director).verdicts() == 2);
    let before = counts(&director);
    let b1 = director.stats().backends.iter().find(|backend| backend.id == "b1").unwrap().index;
    let (all, of_all) = capture(Chosen::All);
    let (drops, of_drops) = capture(Chosen::Dropped);
    let (own, of_own) = capture(Chosen::Flow(flow));
    let (to_b1, of_b1) = capture(Chosen::Backend(vec![b1]));
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    connection.get("/").unwrap();
    get(&lab, 20);
    knock(&lab, 81);

    let came = settle(&director, &before, &[&of_all, &of_drops, &of_own, &of_b1]);
    let now = counts(&director);
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
    let port = connection.local().port();
    let own = own.frames();
    assert!(own.len() >= 2 && own.iter().all(|of| of.ports()[0] == port), "{}", own.len());
}

/// What tshark makes of the same file: times, ports and comments.
fn shown(file: &Path) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|"]);
    for field in ["frame.time_epoch", "tcp.srcport", "tcp.dstport", "frame.comment"] {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Whether a frame of that number is to be there.
type Expected<'a> = Box<dyn Fn(usize, &Captured) -> bool + 'a>;

/// Clients say which of them were served by whom; the files are to have just that.
#[test]
fn each_choice_of_a_running_director_is_just_that() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("capchoice")) else { return };
    let _http = lab.start_http(80).unwrap();
    // None that the kernel gives to another of the client's connections.
    const PORT: u16 = 20_000;
    let (vip, local) = (lab.vip4_port(80), SocketAddr::new(lab.client.v4.into(), PORT));
    let director = start(&lab);
    let empty = VirtualService::new(format!("{}/tcp", lab.vip4_port(443)).parse().unwrap());
    let mut config = director.config();
    config.services.push(empty.into());
    director.apply(config).unwrap();
    let index = |id| {
        let backends = director.stats().backends;
        backends.iter().find(|backend| backend.id == id).unwrap().index
    };

    const SEVEN: NonZeroU32 = NonZeroU32::new(7).unwrap();
    let mut served_by_b1 = HashSet::new();
    let directory = tempfile::tempdir().unwrap();
    let before = counts(&director);
    let flow = format!("{local} > {vip} tcp").parse().unwrap();
    let choices = [
        Chosen::All,
        Chosen::Dropped,
        Chosen::Drops(DropReason::NoService),
        Chosen::Drops(DropReason::NoBackend),
        Chosen::Drops(DropReason::Looped),
        Chosen::Flow(flow),
        Chosen::Backend(vec![index("b1")]),
        Chosen::Backend(vec![index("b2"), index("b3")]),
        Chosen::OneIn(SEVEN),
    ];
    let path = |number: usize| directory.path().join(format!("{number}.pcapng"));
    let captures = choices.iter().enumerate().map(|(number, chosen)| {
        begin(&director, File::create(path(number)).unwrap(), chosen.clone())
    });
    let captures: Vec<_> = captures.collect();

    for round in 0..30 {
        let get = || match round {
            10 => http_get_from(local, vip, "/", TIMEOUT).unwrap(),
            _ => http_get(vip, "/", TIMEOUT).unwrap(),
        };
        let answer = lab.client.enter(get);
        if answer.backend() == "b1" {
            served_by_b1.insert(answer.local.port());
        }
    }
    knock(&lab, 81);
    knock(&lab, 443);
    let came = settle(&director, &before, &captures.iter().collect::<Vec<_>>());
    for capture in captures {
        let counts = capture.stop().unwrap();
        assert_eq!((sum(&counts), counts.missed + counts.too_many + counts.ended), (came, 0));
    }

    let is_for = |of: &Captured, port| of.ports()[1] == port;
    let expected: [Expected<'_>; 9] = [
        Box::new(|_, _| true),
        Box::new(|_, of| is_for(of, 81) || is_for(of, 443)),
        Box::new(|_, of| is_for(of, 81)),
        Box::new(|_, of| is_for(of, 443)),
        Box::new(|_, _| false),
        Box::new(|_, of| is_for(of, 80) && of.ports()[0] == PORT),
        Box::new(|_, of| is_for(of, 80) && served_by_b1.contains(&of.ports()[0])),
        Box::new(|_, of| is_for(of, 80) && !served_by_b1.contains(&of.ports()[0])),
        Box::new(|number, _| number % 7 == 0),
    ];
    let all = read(File::open(path(0)).unwrap());
    assert_eq!(all.len() as u64, came);
    let has_tshark = skip::has_tshark("captures by each choice");
    for (number, (chosen, is_expected)) in choices.iter().zip(expected).enumerate() {
        let row = |of: &Captured| (of.time, of.ports(), of.comment.clone());
        let numbered = all.iter().enumerate();
        let expected: Vec<_> =
            numbered.filter(|(at, of)| is_expected(*at, of)).map(|(_, of)| row(of)).collect();
        let is_none = matches!(chosen, Chosen::Drops(DropReason::Looped));
        assert_eq!(expected.is_empty(), is_none, "{chosen:?}: there is to be something to see");
        let found: Vec<_> = read(File::open(path(number)).unwrap()).iter().map(row).collect();
        assert_eq!(found, expected, "{chosen:?}");
        if has_tshark {
            let rows = expected.iter().map(|(time, [from, to], comment)| {
                let (seconds, nanoseconds) = (time.as_secs(), time.subsec_nanos());
                format!("{seconds}.{nanoseconds:09}|{from}|{to}|{comment}")
            });
            assert_eq!(shown(&path(number)), rows.collect::<Vec<_>>(), "{chosen:?}");
        }
    }
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
    let done = small.stop().unwrap();
    assert!(done.ended > 0 && done.bytes <= 2000, "{done:?}");
    assert_eq!(output.0.lock().unwrap().len() as u64, done.bytes);
    assert_eq!(output.frames().len() as u64, done.written);

    let bounds = Bounds { frames_per_second: 5, frames_at_once: 5, ..Bounds::NONE };
    let slow = director.capture(Output::default(), Chosen::All, bounds).unwrap();
    take_part(&director);
    let (begun, before) = (Instant::now(), counts(&director));
    get(&lab, 60);
    settle(&director, &before, &[&slow]);
    let done = slow.stop().unwrap();
    let allowed = 5.0 + 5.0 * begun.elapsed().as_secs_f64() + 1.0;
    assert!((5.0..allowed).contains(&(done.written as f64)), "{done:?}, {allowed}");
    assert!(done.too_many > 200, "{done:?}");

    // An output that does not take anything until it is told to: nobody else waits for it.
    struct Stuck(Receiver<()>, u64);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1 > 1 {
                self.0.recv().unwrap();
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (release, released) = channel();
    let stuck = begin(&director, Stuck(released, 0), Chosen::All);
    get(&lab, 50);
    assert!(stuck.is_running());
    release.send(()).unwrap();
    assert_eq!(stuck.stop().unwrap_err().kind(), io::ErrorKind::StorageFull);

    let none = Bounds { bytes: 10, ..Bounds::NONE };
    let error = director.capture(Output::default(), Chosen::All, none).unwrap_err();
    assert!(error.to_string().contains("too few"), "{error}");

    // It ends with the director, and what it has is whole.
    let output = Output::default();
    let last = director.capture(output.clone(), Chosen::All, Bounds::default()).unwrap();
    take_part(&director);
    get(&lab, 1);
    director.shutdown();
    until("the capture ends with the director", || !last.is_running());
    let written = last.stop().unwrap().written;
    assert!(written > 3 && output.frames().len() as u64 == written);
}

/// The lab's backends, as the appliance is told of them.
fn config(lab: &Lab) -> String {
    let vip = lab.vip4_port(80);
    let mut text = format!("[dataplane]\ninterface = \"eth0\"\n[[service]]\nvip = \"{vip}/tcp\"\n");
    for host in &lab.backends {
        text +=
            &format!("[[service.backend]]\nid = \"{}\"\naddress = \"{}\"\n", host.name, host.v4);
    }
    text
}

/// Waits until the appliance serves, and returns what it will say.
fn serving(appliance: &mut Example) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(appliance.0.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("serving: ") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
    stderr
}

/// Ends the appliance, and returns what it said since it began to serve.
fn end(appliance: &Example, mut stderr: BufReader<ChildStderr>) -> String {
    appliance.signal(Signal::SIGTERM);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn the_appliance_captures_what_it_drops() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("capappl")) else { return };
    let _http = lab.start_http(80).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("dsrlb.toml"), config(&lab)).unwrap();
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
    let said = serving(&mut appliance);
    get(&lab, 5);
    knock(&lab, 81);
    let said = end(&appliance, said);
    let file = std::fs::read(&out).unwrap();
    let frames = read(Cursor::new(&file));
    assert!(!frames.is_empty(), "{said}");
    assert!(frames.iter().all(|of| of.comment.starts_with("drop: no-service. ")));
    let line = format!("captured: {} frames, {} bytes; 0 more", frames.len(), file.len());
    assert!(said.contains(&line), "{line}: {said}");
    let tshark = words(commands.next().unwrap());
    if skip::has_tshark(&tshark.join(" ")) {
        let shown = Command::new(&tshark[0]).args(&tshark[1..]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let comments: Vec<_> = frames.iter().map(|of| of.comment.as_str()).collect();
        assert_eq!(shown.lines().collect::<Vec<_>>(), comments);
    }
}

#[test]
fn the_appliance_captures_one_backend_or_one_frame_in_so_many() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("caponly")) else { return };
    let _http = lab.start_http(80).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("dsrlb.toml"), config(&lab)).unwrap();
    // The frames of a file, the ports of those whom b2 served, and how many frames came in all.
    let run = |only: &str| -> (Vec<Captured>, HashSet<u16>, usize) {
        let (file, out) = (path("dsrlb.toml"), path("out.pcapng"));
        let arguments = ["--config", &file, "--capture", &out, "--capture-only", only];
        let mut appliance = Example::start(&lab, "appliance", &arguments);
        let said = serving(&mut appliance);
        let vip = lab.vip4_port(80);
        let get = || http_get(vip, "/", TIMEOUT).unwrap();
        let answers: Vec<_> = lab.client.enter(|| (0..20).map(|_| get()).collect());
        let of_b2 = answers.iter().filter(|answer| answer.backend() == "b2");
        let of_b2 = of_b2.map(|answer| answer.local.port()).collect();
        let said = end(&appliance, said);
        let received = said.split("ended: ").nth(1).unwrap().split(' ').next().unwrap();
        (read(File::open(&out).unwrap()), of_b2, received.parse().unwrap())
    };

    let (frames, of_b2, received) = run("backend=b2");
    assert!(!of_b2.is_empty() && frames.len() < received, "{of_b2:?} of {received}");
    assert!(frames.iter().all(|of| of.comment == "forward to b2"));
    let seen: HashSet<_> = frames.iter().map(|of| of.ports()[0]).collect();
    assert_eq!(seen, of_b2);

    let (frames, _, received) = run("one-in=5");
    assert!(received >= 60, "{received}");
    // It begins when the first batch comes, or at the second.
    let possible = (received - 5).div_ceil(5)..=received.div_ceil(5);
    assert!(possible.contains(&frames.len()), "{} of {received}", frames.len());
}

/// None of this gets as far as the interface, but for the last one.
#[test]
fn what_the_appliance_is_to_capture_is_checked_before_it_begins() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let text = "[dataplane]\ninterface = \"dsrlb-none\"\n[[service]]\nvip = \"10.0.0.100:80/tcp\"\n\
                [[service.backend]]\nid = \"web=1\"\naddress = \"10.0.0.11\"\n";
    std::fs::write(path("dsrlb.toml"), text).unwrap();
    let run = |only: &str| {
        let mut command = Command::new(process::example("appliance"));
        command.args(["--config", &path("dsrlb.toml"), "--capture", &path("out.pcapng")]);
        let output = command.args(["--capture-only", only]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (only, why) in [
        ("one-in=0", "N is a number, from 1 on"),
        ("one-in=", "N is a number, from 1 on"),
        ("one-in=4294967296", "N is a number, from 1 on"),
        ("no-such-reason", "neither drops, backend=ID or one-in=N, nor one of ethernet-truncated"),
        ("backend:web=1", "neither drops, backend=ID or one-in=N, nor one of ethernet-truncated"),
        ("backend=web", "backend=web: no service has a backend of that id"),
        ("backend=", "backend=: no service has a backend of that id"),
    ] {
        let said = run(only);
        assert!(said.contains(why), "{only}: {said}");
        assert!(!Path::new(&path("out.pcapng")).exists());
    }
    for only in ["drops", "no-service", "backend=web=1", "one-in=1", "one-in=4294967295"] {
        let said = run(only);
        assert!(said.contains("dsrlb-none"), "{only}: {said}");
    }
}
