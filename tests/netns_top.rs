//! `top` in a terminal, beside an appliance that serves real clients.
//!
//! With `DSRLB_PICTURE=write` what was in the terminal becomes `docs/top.svg`.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/screen.rs"]
mod screen;

use lab::{Lab, LabOptions, http_get};
use process::{Example, example};
use screen::Screen;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
/// How much of it a picture shows.
const HISTORY: Duration = Duration::from_secs(25);
const LISTEN: &str = "127.0.0.1:9100";

fn text(lab: &Lab, commands: bool) -> String {
    let (interface, vip) = (&lab.director.interface, lab.vip4_port(80));
    let mut text = format!(
        "[dataplane]\ninterface = \"{interface}\"\n\
         [metrics]\nlisten = \"{LISTEN}\"\ncommands = {commands}\n[[service]]\nvip = \"{vip}/tcp\"\n\
         monitor = {{ kind = \"tcp\", interval = \"200ms\", timeout = \"200ms\" }}\n"
    );
    for host in &lab.backends {
        let (name, address) = (&host.name, host.v4);
        text += &format!("[[service.backend]]\nid = \"{name}\"\naddress = \"{address}\"\n");
    }
    text
}

/// An appliance, where its configuration is, and `top` that looks at it.
fn watched(lab: &Lab, commands: bool) -> (tempfile::TempDir, Example, Screen) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dsrlb.toml");
    std::fs::write(&file, text(lab, commands)).unwrap();
    lab.director.namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
    let appliance = Example::start(lab, "appliance", &["--config", file.to_str().unwrap()]);
    let screen = Screen::start(lab.director.namespace.name(), &example("top"), &[LISTEN]);
    (directory, appliance, screen)
}

/// Sets a flag when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The words of the line that begins with this one.
fn words<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = lines.filter(|words| words.first() == Some(&first));
    found.next().unwrap_or_default()
}

fn state<'a>(text: &'a str, backend: &str) -> &'a str {
    words(text, backend).get(1).copied().unwrap_or_default()
}

/// A rate as it is shown, once there is one.
fn rate(word: Option<&&str>) -> f64 {
    let word = word.copied().unwrap_or("-");
    let (number, unit) = match word.strip_suffix('k') {
        Some(number) => (number, 1000.0),
        None => (word, 1.0),
    };
    number.parse().map_or(0.0, |number: f64| number * unit)
}

/// Asks the VIP, and now and then a port that nobody serves, until it is to stop.
fn ask(stop: &AtomicBool, vip: SocketAddr, nobody: SocketAddr) {
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            // Those that go to a backend whose server has just ended are refused.
            let _ = http_get(vip, "/", TIMEOUT);
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = TcpStream::connect_timeout(&nobody, Duration::from_millis(1));
    }
}

#[test]
fn top_shows_what_is_and_drains_and_undrains() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("top")) else { return };
    let mut http = lab.start_http(80).unwrap();
    let (vip, nobody) = (lab.vip4_port(80), lab.vip4_port(81));
    let (_directory, _appliance, screen) = watched(&lab, true);
    screen.until("all three take flows", |text| {
        ["b1", "b2", "b3"].iter().all(|backend| state(text, backend) == "active")
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = Stops(&stop);
        scope.spawn(|| lab.client.enter(|| ask(&stop, vip, nobody)));

        // Service, backends, health, rates, and why frames were dropped.
        let text = screen.until("rates", |text| {
            rate(words(text, "b1").get(4)) > 0.0
                && rate(words(text, "b3").get(5)) > 0.0
                && text.contains("drops and losses: no-service ")
        });
        assert!(text.lines().next().unwrap().contains("serving"), "{text}");
        let service = words(&text, &format!("{vip}/tcp"));
        assert_eq!(service[1..3], ["serving", "3/3"], "{text}");
        let sum: f64 = ["b1", "b2", "b3"].map(|of| rate(words(&text, of).get(4))).iter().sum();
        // Each is rounded by itself.
        let whole = rate(service.get(4));
        assert!(whole > 0.0 && (whole - sum).abs() <= 0.05 * whole + 1.0, "{text}");
        assert_eq!(words(&text, "b2")[2], "up", "{text}");
        assert!(text.contains('▁') || text.contains('█'), "no sparkline in\n{text}");

        // One is ill, with the reason.
        drop(http.remove(2));
        screen.press(&["End"]);
        let text = screen.until("the reason", |text| text.contains("unhealthy: "));
        assert_eq!(words(&text, "b3")[1..3], ["unhealthy", "down"], "{text}");
        assert!(text.contains("refused"), "{text}");

        assert!(text.contains("probes: ") && text.contains(" failed"), "{text}");

        // One is drained, and comes back.
        screen.press(&["Home", "Down"]);
        if drawing() {
            std::thread::sleep(HISTORY);
        }
        screen.press(&["d"]);
        let text = screen.until("draining", |text| {
            state(text, "b1") == "draining" && text.contains("b1: draining")
        });
        assert_eq!((state(&text, "b2"), state(&text, "b3")), ("active", "unhealthy"), "{text}");
        screen.until("no packets for b1", |text| {
            words(text, "b1").get(4).is_some_and(|it| rate(Some(it)) == 0.0)
        });
        screen.press(&["Down", "Down"]);
        screen.until("b3 is chosen", |text| text.contains("b3: weight 1"));
        if drawing() {
            draw(&screen);
        }
        screen.press(&["Up", "Up"]);
        screen.press(&["u"]);
        screen.until("active again", |text| state(text, "b1") == "active");
        screen.until("packets again", |text| rate(words(text, "b1").get(4)) > 0.0);
        stop.store(true, Ordering::Relaxed);
    });
    screen.press(&["q"]);
    screen.until("the end", str::is_empty);
}

/// What the appliance says of itself now.
fn health(lab: &Lab) -> String {
    let said = Command::new("ip")
        .args(["netns", "exec", lab.director.namespace.name()])
        .args(["curl", "-s", "-f", "--max-time", "3"])
        .arg(format!("http://{LISTEN}/health"))
        .output()
        .unwrap();
    assert!(said.status.success());
    String::from_utf8(said.stdout).unwrap()
}

/// Whether what is in the terminal is to become a picture.
fn drawing() -> bool {
    std::env::var_os("DSRLB_PICTURE").is_some_and(|what| what == "write")
}

fn draw(screen: &Screen) {
    let svg = anstyle_svg::Term::new().render_svg(&screen.coloured());
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/top.svg"), svg).unwrap();
}

#[test]
fn commands_are_taken_where_they_are_switched_on_and_from_operators_alone() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("topno")) else { return };
    let (_directory, mut appliance, screen) = watched(&lab, false);
    screen.until("the backends", |text| !state(text, "b1").is_empty());
    screen.press(&["Down", "d"]);
    screen.until("the refusal", |text| text.contains("commands = true"));
    assert!(!health(&lab).contains("draining"));

    // It comes back with the appliance, and says meanwhile that nobody answers.
    appliance.0.kill().unwrap();
    screen.until("silence", |text| text.lines().next().unwrap().contains("no answer"));
    assert!(!state(&screen.text(), "b1").is_empty(), "what was known stays");
    drop(appliance);
    let (directory, mut appliance, _) = watched(&lab, true);
    screen.until("an answer", |text| text.lines().next().unwrap().contains("serving"));

    // Whoever types it, as docs/metrics.md has it.
    let vip = lab.vip4_port(80);
    let curl = |path: &str, backend: &str, more: &[&str]| {
        let body = format!(r#"{{"service": "{vip}/tcp", "backend": "{backend}"}}"#);
        let said = Command::new("ip")
            .args(["netns", "exec", lab.director.namespace.name()])
            .args(["curl", "-s", "-i", "--max-time", "3", "--json", &body])
            .args(more)
            .arg(format!("http://{LISTEN}/{path}"))
            .output()
            .unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    for (page, status) in [
        ("Origin: http://127.0.0.1:9100", "HTTP/1.1 403 "),
        ("Host: rebound.example", "HTTP/1.1 403 "),
        ("Content-Type: text/plain", "HTTP/1.1 415 "),
        ("Transfer-Encoding: chunked", "HTTP/1.1 411 "),
    ] {
        let said = curl("drain", "b2", &["-H", page]);
        assert!(said.starts_with(status), "{page}: {said}");
    }
    let long = curl("drain", &"b".repeat(9000), &[]);
    assert!(long.starts_with("HTTP/1.1 413 "), "{long}");
    let absent = curl("drain", "b9", &[]);
    assert!(absent.starts_with("HTTP/1.1 404 ") && absent.contains("b9"), "{absent}");
    assert!(!health(&lab).contains("draining"));
    let said = curl("drain", "b2", &[]);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains(r#""draining""#), "{said}");
    screen.until("draining", |text| state(text, "b2") == "draining");
    let said = curl("undrain", "b2", &[]);
    assert!(said.starts_with("HTTP/1.1 200 ") && !said.contains("draining"), "{said}");
    screen.until("no longer", |text| state(text, "b2") != "draining");

    appliance.0.kill().unwrap();
    let mut log = String::new();
    appliance.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let commands: Vec<_> = log.lines().filter(|line| line.starts_with("command: ")).collect();
    let taken = |command| format!("command: {command} \"b2\" of {vip}/tcp");
    assert_eq!(commands, ["drain", "undrain"].map(taken), "{log}");

    // Without a terminal it is of no use, and ends.
    let program = Path::new("/proc").join(screen.program().to_string());
    assert!(program.exists());
    drop(screen);
    let begun = Instant::now();
    while program.exists() {
        assert!(begun.elapsed() < TIMEOUT, "top goes on without its terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(directory);
}
