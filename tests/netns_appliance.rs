//! The reference embedder as a process: driven by its file, under load, to its end.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;

use lab::{HttpConnection, Lab, LabOptions, http_get};
use nix::sys::signal::Signal;
use process::Example;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const ROUNDS: usize = 100;

/// A file of its own, in a directory of its own.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let name = format!("dsrlb-test-appliance-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let file = Self(directory.join("dsrlb.toml"));
        fs::write(&file.0, text).unwrap();
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// As editors do: another file takes its place.
    fn replace(&self, text: &str) {
        let beside = self.0.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, &self.0).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap_or(Path::new("/nowhere")));
    }
}

/// A service with the first so many backends, each probed by HTTP through the VIP.
fn text(lab: &Lab, backends: usize, remark: usize) -> String {
    let mut text = format!(
        "# {remark}\n[dataplane]\ninterface = \"{}\"\n\n[[service]]\nvip = \"{}/tcp\"\n\
         monitor = {{ kind = \"http\", path = \"/\", interval = \"200ms\", timeout = \"200ms\" }}\n",
        lab.director.interface,
        lab.vip4_port(80)
    );
    for host in &lab.backends[..backends] {
        text +=
            &format!("[[service.backend]]\nid = \"{}\"\naddress = \"{}\"\n", host.name, host.v4);
    }
    text
}

/// Sets a flag when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The lines on the standard error of a process so far.
fn listen(example: &mut Example) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (heard, stderr) = (Arc::clone(&lines), example.0.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            heard.lock().unwrap().push(line);
        }
    });
    lines
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(15), "not within 15 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_hundred_reloads_under_load_and_a_clean_end() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("appliance")) else { return };
    let mut http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let file = File::new(&text(&lab, 2, 0));
    let mut appliance = Example::start(&lab, "appliance", &["--config", file.path()]);
    let lines = listen(&mut appliance);
    let said = |what: &str| lines.lock().unwrap().iter().filter(|line| line.contains(what)).count();
    until("serving", || said("serving: ") == 1);

    let stop = AtomicBool::new(false);
    let client = || {
        let mut connection = HttpConnection::open(vip, TIMEOUT).unwrap();
        let first = connection.get("/").unwrap().backend().to_owned();
        let mut requests = 1_usize;
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(connection.get("/").unwrap().backend(), first);
            requests += 1;
        }
        requests
    };
    std::thread::scope(|scope| {
        // Also when a check fails: the clients end, and so does the test.
        let _end = Stops(&stop);
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| lab.client.enter(client))).collect();
        let begun = Instant::now();
        for round in 1..=ROUNDS {
            file.replace(&text(&lab, 2 + round % 2, round));
            until("applied", || said("configuration applied") == round);
        }
        println!("{ROUNDS} reloads, each in force after {:?}", begun.elapsed() / ROUNDS as u32);

        // What is not valid is refused whole, once, with every problem; what was goes on.
        file.replace(&text(&lab, 1, 0).replace("200ms", "0s").replace("id =", "ib ="));
        until("refused", || said("configuration refused") == 1);
        assert!(said("interval") > 0 && said("did you mean `id`?") == 1, "{:?}", lines.lock());
        // Half a file, as an editor leaves it for a moment.
        let (whole, before) = (text(&lab, 3, 0), said("backend b3 takes traffic"));
        fs::write(&file.0, &whole[..whole.len() - 20]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&file.0, &whole).unwrap();
        until("all three", || said("backend b3 takes traffic") > before);
        stop.store(true, Ordering::Relaxed);
        let requests: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        println!("requests by connection, none of which broke: {requests:?}");
    });

    // A line for each transition.
    http.remove(1).stop();
    until("down", || said("b2 takes no new flows: unhealthy: application down: refused") == 1);
    let _again = lab.start_http_on(&lab.backends[1], 80).unwrap();
    until("up", || said("backend b2 takes traffic") == 1);
    assert!(lab.client.enter(|| http_get(vip, "/", TIMEOUT)).is_ok());

    appliance.signal(Signal::SIGTERM);
    assert!(appliance.0.wait().unwrap().success());
    until("ended", || said("ended: ") == 1);
    let shown = lab.director.namespace.run("ip", &["-d", "link", "show", "dev", "eth0"]).unwrap();
    assert!(!shown.contains("prog/xdp"), "{shown}");
}

/// Needs neither root nor an interface.
#[test]
fn a_preview_of_another_file_is_a_table() {
    let text = |second: &str| {
        format!(
            "[dataplane]\ninterface = \"eth0\"\n[[service]]\nvip = \"10.0.0.100:80/tcp\"\n\
             [[service.backend]]\naddress = \"10.0.0.11\"\n[[service.backend]]\naddress = \"{second}\"\n"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old.toml", "new.toml"].map(|name| directory.path().join(name));
    fs::write(&old, text("10.0.0.12")).unwrap();
    fs::write(&new, text("10.0.0.13")).unwrap();
    let preview = || {
        let mut command = std::process::Command::new(process::example("appliance"));
        command.arg("--config").arg(&old).arg("--preview").arg(&new).output().unwrap()
    };
    let said = String::from_utf8(preview().stdout).unwrap();
    assert!(
        said.contains("backends: 1 added, 1 removed") && said.contains("of 65537 slots"),
        "{said}"
    );
    assert!(said.contains("10.0.0.12  50.00%   0.00%   0.00%  50.00%"), "{said}");
    fs::write(&new, text("nonsense")).unwrap();
    let refused = preview();
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && why.contains("new.toml: service[0].backend[1]"), "{why}");
}

/// Neither does this, nor the next.
#[test]
fn a_check_of_a_file_starts_nothing_and_names_every_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dsrlb.toml");
    let check = |vip: &str, address: &str| {
        let text = format!(
            "[dataplane]\ninterface = \"eth0\"\n[[service]]\nvip = \"{vip}\"\n\
             [[service.backend]]\naddress = \"{address}\"\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(process::example("appliance"));
        let output = command.arg("--config").arg(&file).arg("--check").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (is_good, said) = check("10.0.0.100:80/tcp", "10.0.0.11");
    assert!(is_good, "{said}");
    let (is_good, said) = check("10.0.0.100:80/nonsense", "10.0.0.300");
    assert!(!is_good && said.contains("service[0].vip"), "{said}");
    assert!(said.contains("service[0].backend[0].address"), "{said}");
}

#[test]
fn an_explanation_of_a_flow_is_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dsrlb.toml");
    let text = "[dataplane]\ninterface = \"eth0\"\n[[service]]\nvip = \"10.0.0.100:80/tcp\"\n\
                [[service.backend]]\naddress = \"10.0.0.11\"\n";
    fs::write(&file, text).unwrap();
    let explain = |flow| {
        let mut command = std::process::Command::new(process::example("appliance"));
        command.arg("--config").arg(&file).args(["--explain", flow]).output().unwrap()
    };
    let said = explain("192.0.2.1:40000 > 10.0.0.100:80 tcp").stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("10.0.0.100:80/tcp, by protocol and port"), "{said}");
    assert!(said.ends_with("forward to 10.0.0.11\n"), "{said}");
    let said = String::from_utf8(explain("192.0.2.1:4 > 10.0.0.100:81 tcp").stdout).unwrap();
    assert!(said.ends_with("drop: no-service\n"), "{said}");
    let refused = explain("192.0.2.1 > 10.0.0.100:80 tcp");
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && why.contains("ADDRESS:PORT on both sides"), "{why}");
}
