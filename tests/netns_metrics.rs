//! The appliance is scraped while it serves real clients: what it says of itself adds up.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;

use lab::{HttpConnection, Lab, LabOptions, http_get};
use process::Example;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const LISTEN: &str = "127.0.0.1:9100";
const FILE: &str = "dsrlb.toml";

fn text(lab: &Lab, admin_of_b1: &str) -> String {
    let (interface, vip) = (&lab.director.interface, lab.vip4_port(80));
    let mut text = format!(
        "[dataplane]\ninterface = \"{interface}\"\n[metrics]\nlisten = \"{LISTEN}\"\n[[service]]\n\
         vip = \"{vip}/tcp\"\nmonitor = {{ kind = \"tcp\", interval = \"200ms\", timeout = \"200ms\" }}\n"
    );
    for host in &lab.backends {
        let admin = if host.name == "b1" { admin_of_b1 } else { "enabled" };
        text += &format!(
            "[[service.backend]]\nid = \"{}\"\naddress = \"{}\"\nadmin = \"{admin}\"\n",
            host.name, host.v4
        );
    }
    text
}

/// Asks the appliance, by TCP, in its namespace; status line and body.
fn ask(lab: &Lab, request: &str) -> Option<(String, String)> {
    ask_at(lab, LISTEN, request)
}

/// The same of whoever listens there.
fn ask_at(lab: &Lab, address: &str, request: &str) -> Option<(String, String)> {
    let mut answer = String::new();
    let asked = lab.director.enter(|| {
        let address: SocketAddr = address.parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    asked.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

fn get(lab: &Lab, path: &str) -> (String, String) {
    ask(lab, &format!("GET {path} HTTP/1.1\r\nHost: appliance\r\n\r\n")).expect("an answer")
}

/// What was scraped, by name and labels.
struct Scrape(HashMap<String, u64>);

impl Scrape {
    fn of(lab: &Lab) -> Self {
        let (status, body) = get(lab, "/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| line.rsplit_once(' ').unwrap());
        Self(
            samples
                .map(|(series, value)| (series.to_owned(), value.parse::<f64>().unwrap() as u64))
                .collect(),
        )
    }

    /// The sum over all series of a name with this among their labels; all have to be there.
    fn sum(&self, name: &str, label: &str) -> u64 {
        let is_it = |series: &str| series.split('{').next() == Some(name) && series.contains(label);
        let of: Vec<_> = self.0.iter().filter(|(series, _)| is_it(series)).collect();
        assert!(!of.is_empty(), "{name} with {label} is not there");
        of.into_iter().map(|(_, value)| value).sum()
    }

    fn has(&self, name: &str, label: &str) -> bool {
        self.0.keys().any(|series| series.starts_with(name) && series.contains(label))
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sets a flag when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Scrapes while clients ask: at each moment every frame received has its verdict.
fn add_up_under_load(lab: &Lab, vip: SocketAddr) {
    let stop = AtomicBool::new(false);
    let client = || {
        let mut requests = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            http_get(vip, "/", TIMEOUT).unwrap();
            requests += 1;
        }
        requests
    };
    std::thread::scope(|scope| {
        let _end = Stops(&stop);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| lab.client.enter(client))).collect();
        let (mut last, mut rises) = (0, 0);
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(60));
            let scrape = Scrape::of(lab);
            let received = scrape.sum("dsrlb_frames_received_total", "worker");
            assert_eq!(scrape.sum("dsrlb_frames_judged_total", "worker"), received);
            rises += u32::from(received > last);
            last = received;
        }
        stop.store(true, Ordering::Relaxed);
        let requests: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        println!("{requests} requests, {last} frames received by the last scrape");
        assert!(rises >= 5 && last > requests, "{rises} rises to {last}");
    });
}

/// An appliance that answers, and where its configuration is.
fn answering(lab: &Lab) -> (tempfile::TempDir, Example) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    std::fs::write(&file, text(lab, "enabled")).unwrap();
    lab.director.namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
    let appliance = Example::start(lab, "appliance", &["--config", file.to_str().unwrap()]);
    until("an answer", || ask(lab, "GET /health HTTP/1.1\r\n\r\n").is_some());
    (directory, appliance)
}

#[test]
fn what_the_appliance_says_of_itself_adds_up() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("metrics")) else { return };
    let mut http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let (directory, _appliance) = answering(&lab);
    let serves = |count| Scrape::of(&lab).sum("dsrlb_service_active_backends", "") == count;
    until("all three", || serves(3));

    add_up_under_load(&lab, vip);

    // Backends have what was forwarded, once it is quiet; the verdicts are all there is.
    let settled = || {
        let scrape = Scrape::of(&lab);
        let sum = |name: &str| scrape.sum(name, "");
        let verdicts = sum("dsrlb_forwarded_packets_total")
            + sum("dsrlb_answered_frames_total")
            + sum("dsrlb_probe_frames_total")
            + sum("dsrlb_passed_frames_total")
            + sum("dsrlb_dropped_frames_total")
            + sum("dsrlb_held_frames");
        let same = |name: &str, of: &str| sum(name) == sum(of);
        verdicts == sum("dsrlb_frames_received_total")
            && same("dsrlb_backend_packets_total", "dsrlb_forwarded_packets_total")
            && same("dsrlb_backend_bytes_total", "dsrlb_forwarded_bytes_total")
            && same("dsrlb_backend_flows", "dsrlb_flows")
            && same("dsrlb_backend_flows_begun_total", "dsrlb_flows_begun_total")
    };
    until("the verdicts and the flows add up", settled);

    // Each connection began one flow.
    let scrape = Scrape::of(&lab);
    let begun = scrape.sum("dsrlb_flows_begun_total", "worker");
    assert!(begun > 0 && begun >= scrape.sum("dsrlb_flows", ""), "{begun}");

    // A drop has its reason.
    let dropped = |reason: &str| {
        Scrape::of(&lab).sum("dsrlb_dropped_frames_total", &format!("reason=\"{reason}\""))
    };
    assert_eq!(dropped("no-service"), 0);
    let other = lab.vip4_port(81);
    lab.client
        .enter(|| TcpStream::connect_timeout(&other, Duration::from_millis(300)))
        .unwrap_err();
    assert!(dropped("no-service") > 0);

    // A drain shows, and so do the flows that it waits for.
    let mut connections: Vec<_> =
        lab.client.enter(|| (0..20).map(|_| HttpConnection::open(vip, TIMEOUT).unwrap()).collect());
    let of_b1 = connections
        .iter_mut()
        .filter_map(|connection| (connection.get("/").unwrap().backend() == "b1").then_some(()));
    assert!(of_b1.count() > 0);
    std::fs::write(directory.path().join(FILE), text(&lab, "draining")).unwrap();
    until("draining", || {
        Scrape::of(&lab).has("dsrlb_backend_state", "backend=\"b1\",state=\"draining\"")
    });
    let scrape = Scrape::of(&lab);
    assert_eq!(scrape.sum("dsrlb_backend_active", "backend=\"b1\""), 0);
    assert!(scrape.sum("dsrlb_backend_flows", "backend=\"b1\"") > 0);
    assert!(scrape.has("dsrlb_service_state", "state=\"serving\""));

    // So does who is ill, with the reason where there is room for one.
    http.remove(1).stop();
    until("ill", || Scrape::of(&lab).has("dsrlb_backend_health", "backend=\"b2\",health=\"down\""));
    let (status, health) = get(&lab, "/health");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    let idle = health["idle"].as_array().unwrap();
    let probes = |backend: &str, result: &str| {
        let labels = format!("backend=\"{backend}\",result=\"{result}\"");
        Scrape::of(&lab).sum("dsrlb_backend_probes_total", &labels)
    };
    assert!(probes("b2", "failed") > 0 && probes("b2", "succeeded") > 0);
    assert_eq!(probes("b3", "failed"), 0);
    assert!(Scrape::of(&lab).has("dsrlb_backend_probe_duration_seconds", "backend=\"b3\""));
    assert_eq!((health["status"].as_str(), idle.len()), (Some("serving"), 2), "{health:#}");
    assert!(idle[1]["why"].as_str().unwrap().contains("refused"), "{health:#}");
}

/// More services and backends than are named: those left out are counted, both together.
#[test]
fn what_health_has_no_room_for_is_counted() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("leftout")) else { return };
    let _http = lab.start_http(80).unwrap();
    let (directory, _appliance) = answering(&lab);
    let (vip, b1) = (lab.vip4, lab.backends[0].v4);
    // Beside the one that is well: a service whose backends are all disabled, and those without any.
    let fill = |disabled: u32, empty: u16| {
        let mut file = text(&lab, "enabled");
        file += &format!("[[service]]\nvip = \"{vip}:81/tcp\"\n");
        for id in 0..disabled {
            file += &format!(
                "[[service.backend]]\nid = \"{id}\"\naddress = \"{b1}\"\nadmin = \"disabled\"\n"
            );
        }
        for port in 1000..1000 + empty {
            file += &format!("[[service]]\nvip = \"{vip}:{port}/tcp\"\n");
        }
        std::fs::write(directory.path().join(FILE), file).unwrap();
    };
    let told = || {
        let health: serde_json::Value = serde_json::from_str(&get(&lab, "/health").1).unwrap();
        let named = |what: &str| health[what].as_array().unwrap().len();
        (named("services"), named("idle"), health["left_out"].as_u64().unwrap())
    };
    for (disabled, empty, expected) in [
        (2, 3, (4, 2, 0)),
        (1000, 999, (1000, 1000, 0)),
        (1007, 999, (1000, 1000, 7)),
        (5, 1002, (1000, 5, 3)),
        (1007, 1002, (1000, 1000, 10)),
    ] {
        fill(disabled, empty);
        let begun = Instant::now();
        while told() != expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}, not {expected:?}", told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Neither who asks for nothing nor who says nothing keeps anybody else from being answered.
#[test]
fn bad_clients_are_refused_and_the_others_served() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("badasks")) else { return };
    let (_directory, _appliance) = answering(&lab);
    assert_eq!(get(&lab, "/nothing").0, "HTTP/1.1 404 Not Found");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(8300));
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("\u{1}\u{2}\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
    ] {
        let (said, body) = ask(&lab, request).unwrap();
        assert_eq!((said.as_str(), body.is_empty()), (status, request.starts_with("HEAD")));
    }
    // The rest of it is not read, so the answer may be lost when the connection is reset.
    if let Some((said, _)) = ask(&lab, &long) {
        assert_eq!(said, "HTTP/1.1 400 Bad Request");
    }
    // As many as are served at a time, and more: all are let go of when their time is over.
    let silent: Vec<_> =
        lab.director.enter(|| (0..6).map(|_| TcpStream::connect(LISTEN).unwrap()).collect());
    until("those who are silent are let go", || {
        ask(&lab, "GET /health HTTP/1.1\r\n\r\n").is_some_and(|(status, _)| status.contains("200"))
    });
    drop(silent);
}

/// A Prometheus in the director's namespace that scrapes the appliance; killed when dropped.
struct Prometheus {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    const LISTEN: &str = "127.0.0.1:9090";

    fn start(lab: &Lab) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "scrape_configs: [{{job_name: dsrlb, scrape_interval: 500ms, scrape_timeout: 400ms, \
             static_configs: [{{targets: [\"{LISTEN}\"]}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("ip")
            .args(["netns", "exec", lab.director.namespace.name(), "prometheus"])
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={}", Self::LISTEN))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, _directory: directory }
    }

    /// What its API answers. Nothing is an answer that is not there yet, and while it starts it has none.
    fn ask(lab: &Lab, path: &str, parameter: &str, value: &str) -> Option<serde_json::Value> {
        let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // By HTTP/1.0 the answer is in one piece.
        let request = format!("GET /api/v1/{path}?{parameter}={value} HTTP/1.0\r\n\r\n");
        let (status, body) = ask_at(lab, Self::LISTEN, &request)?;
        if status.contains(" 503 ") {
            return None;
        }
        assert!(status.ends_with("200 OK"), "{path} {value}: {status}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{answer:#}");
        let data = answer["data"].clone();
        let found = if path == "query" { &data["result"] } else { &data };
        (!found.as_array().unwrap().is_empty()).then_some(data)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the dashboard asks Prometheus of this service: queries, and of its variables labels and the series that
/// have them.
fn questions(dashboard: &serde_json::Value, service: &str) -> Vec<(String, &'static str, String)> {
    let fill = |text: &str| {
        let text = text.replace("$__rate_interval", "3s").replace("$service", service);
        // What is said where there is no answer would hide that there is none.
        text.replace("$instance", LISTEN).replace(" or vector(0)", "")
    };
    let mut questions = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let query = variable["query"]["query"].as_str().unwrap();
            let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (series, label) = inner.rsplit_once(", ").unwrap();
            questions.push((format!("label/{label}/values"), "match[]", fill(series)));
        }
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = fill(target["expr"].as_str().unwrap());
            assert!(!query.contains('$'), "{query}");
            questions.push(("query".to_owned(), "query", query));
        }
    }
    questions
}

#[test]
#[ignore = "needs Prometheus; cargo xtask dashboard"]
fn prometheus_answers_each_query_of_the_dashboard() {
    let lab = Lab::build(&LabOptions::named("dashboard")).unwrap();
    let _http = lab.start_http(80).unwrap();
    let (vip, other) = (lab.vip4_port(80), lab.vip4_port(81));
    let (directory, _appliance) = answering(&lab);
    // So that the panels of idle backends, and of services without any, have something to show.
    let empty = format!("[[service]]\nvip = \"{}/tcp\"\n", lab.vip4_port(82));
    std::fs::write(directory.path().join(FILE), text(&lab, "draining") + &empty).unwrap();
    until("two serve", || Scrape::of(&lab).sum("dsrlb_service_active_backends", "") == 2);
    let _prometheus = Prometheus::start(&lab);

    let text = std::fs::read_to_string("docs/grafana.json").unwrap();
    let questions = questions(&serde_json::from_str(&text).unwrap(), &format!("{vip}/tcp"));
    let variables = questions.iter().filter(|(path, ..)| path.starts_with("label/")).count();
    assert_eq!(variables, 2, "{questions:#?}");
    let (mut open, begun) = (questions.clone(), Instant::now());
    while !open.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is found by {open:#?}");
        lab.client.enter(|| {
            http_get(vip, "/", TIMEOUT).unwrap();
            // Dropped, for there is no such service.
            TcpStream::connect_timeout(&other, Duration::from_millis(100)).unwrap_err();
        });
        open.retain(|(path, parameter, value)| {
            Prometheus::ask(&lab, path, parameter, value).is_none()
        });
    }
    println!("{} questions answered in {:.1?}", questions.len(), begun.elapsed());
}
