//! How a director begins and ends: refusals, signals, panics, sudden death; and what is left of it.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
mod process;

use dsrlb::balancer::{Assignment, Balancer, RealServer, ServiceTable, VirtualService};
use dsrlb::dataplane::af_xdp::{AttachMode, Attached, CopyMode, XdpOptions};
use dsrlb::director::{Director, DirectorBuilder, Event};
use dsrlb::flow::{PacketInfo, Timestamp};
use dsrlb::health::{HealthPolicy, Monitor, MonitorBinding, ProbeFailure, Target, Through};
use lab::{Host, Lab, LabOptions, http_get};
use nix::sys::signal::Signal;
use process::{Example, example};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(300);

fn lab(tag: &'static str) -> Option<Lab> {
    Lab::build_or_skip(&LabOptions::named(tag))
}

fn service(lab: &Lab, vip: SocketAddr) -> VirtualService {
    let service = VirtualService::new(format!("{vip}/tcp").parse().unwrap());
    lab.backends.iter().fold(service, |service, host| {
        service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
    })
}

fn builder(lab: &Lab, vip: SocketAddr) -> DirectorBuilder {
    Director::builder(&lab.director.interface).service(service(lab, vip))
}

fn serves(lab: &Lab, vip: SocketAddr) -> bool {
    lab.client.enter(|| http_get(vip, "/", SHORT)).is_ok()
}

/// The XDP program on an interface, as `ip` shows it.
fn program(host: &Host) -> Option<String> {
    let shown = host.namespace.run("ip", &["-d", "link", "show", "dev", &host.interface]).unwrap();
    shown.contains("prog/xdp").then_some(shown)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_it_with_its_counters_and_nothing_left() {
    let Some(lab) = lab("signal") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let key = format!("{vip}/tcp");
    let backend = lab.backends[0].v4.to_string();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running =
            Example::simple_vip(&lab, &["--vip", &key, "--backend", &backend, "--json"]);
        until("serving", || serves(&lab, vip));
        assert!(program(&lab.director).is_some());
        running.signal(signal);
        let output = BufReader::new(running.0.stdout.take().unwrap());
        let last = output.lines().map(Result::unwrap).last().unwrap();
        let counters: serde_json::Value = serde_json::from_str(&last).unwrap();
        assert!(counters["forwarded"].as_u64().unwrap() > 4, "{last}");
        assert!(running.0.wait().unwrap().success());
        assert_eq!(program(&lab.director), None);
    }
}

#[test]
fn killed_without_warning_it_leaves_nothing_and_starts_again_at_once() {
    let Some(lab) = lab("kill") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let key = format!("{vip}/tcp");
    let backend = lab.backends[0].v4.to_string();
    for _ in 0..3 {
        let mut running = Example::simple_vip(&lab, &["--vip", &key, "--backend", &backend]);
        until("serving", || serves(&lab, vip));
        running.signal(Signal::SIGKILL);
        running.0.wait().unwrap();
        // The next one starts right now, whatever the kernel still has to tidy up.
    }
    until("the program is gone", || program(&lab.director).is_none());
    assert!(!serves(&lab, vip));
}

/// A balancer with a bug.
struct Panics(Arc<AtomicBool>);

impl Balancer for Panics {
    fn assign(&mut self, _: &ServiceTable, _: &PacketInfo, _: Timestamp) -> Assignment {
        if self.0.load(Ordering::Relaxed) {
            panic!("a bug in the balancer");
        }
        Assignment::NotVip
    }
}

#[test]
fn a_panic_gives_the_traffic_back_to_the_kernel_and_is_reported() {
    let Some(lab) = lab("panic") else { return };
    // The director's own server on the VIP: it is reached only when the kernel gets the packets.
    let own =
        lab::HttpServer::start(&lab.director.namespace, "0.0.0.0:80".parse().unwrap(), "kernel");
    let _own = own.unwrap();
    let vip = lab.vip4_port(80);
    let armed = Arc::new(AtomicBool::new(false));
    let (events, heard) = channel();
    let director = lab.director.enter(|| {
        let armed = Arc::clone(&armed);
        builder(&lab, vip)
            .balancer(move || Panics(Arc::clone(&armed)))
            .on_event(move |event| drop(events.send(event.clone())))
            .start()
            .unwrap()
    });
    assert!(!serves(&lab, vip), "the director takes the VIP's packets");
    armed.store(true, Ordering::Relaxed);
    until("the kernel answers", || serves(&lab, vip));
    // The queue's socket goes first, and with it what is redirected; then it is told.
    until("the failure is known", || director.failure().is_some());
    assert!(director.failure().unwrap().contains("a bug in the balancer"));
    assert!(heard.try_iter().any(|event| matches!(event, Event::WorkerFailed { queue: 0, .. })));
    assert_eq!(program(&lab.director), None);
    director.shutdown();
    // And it can start again.
    let _http = lab.start_http(80).unwrap();
    let director = lab.director.enter(|| builder(&lab, vip).start().unwrap());
    assert!(serves(&lab, vip));
    drop(director);
}

#[test]
fn starting_and_stopping_many_times_leaves_nothing() {
    let Some(lab) = lab("again") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let mut before = None;
    for _ in 0..8 {
        let director = lab.director.enter(|| builder(&lab, vip).start().unwrap());
        assert!(serves(&lab, vip));
        drop(director);
        let now = (files(), threads());
        assert_eq!(*before.get_or_insert(now), now, "files or threads are left behind");
    }
    assert_eq!(program(&lab.director), None);
}

#[test]
fn what_cannot_work_is_refused_with_the_reason_and_leaves_the_host_as_it_was() {
    let Some(lab) = lab("refuse") else { return };
    let vip = lab.vip4_port(80);
    let own = SocketAddr::new(lab.director.v4.into(), 80);
    let start = |builder: DirectorBuilder| match lab.director.enter(|| builder.start()) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    let refused = |builder: DirectorBuilder, says: &[&str]| {
        let error = start(builder);
        assert!(says.iter().all(|says| error.contains(says)), "{error}");
        assert_eq!(program(&lab.director), None);
    };
    let options = XdpOptions::default;

    refused(Director::builder("nosuch0"), &["nosuch0", "ip link"]);
    refused(
        builder(&lab, vip).xdp(XdpOptions { queues: Some(4), ..options() }),
        &["eth0", "4", "ethtool -L"],
    );
    refused(
        builder(&lab, vip).xdp(XdpOptions { frames_per_queue: 3, ..options() }),
        &["frames_per_queue", "3"],
    );
    refused(
        builder(&lab, vip).xdp(XdpOptions { copy: CopyMode::ZeroCopy, ..options() }),
        &["eth0", "zero-copy"],
    );
    refused(builder(&lab, own), &["10.77.0.1", "director's own address"]);
    let looped = service(&lab, vip).backend(RealServer::new(lab.director.v4.into()));
    refused(Director::builder("eth0").service(looped), &["backend 10.77.0.1", "director's own"]);
    let itself = service(&lab, vip).backend(RealServer::new(vip.ip()));
    refused(
        Director::builder("eth0").service(itself),
        &["backend 10.77.0.100", "covered by the VIP"],
    );
    let hasty = HealthPolicy { timeout: Duration::from_secs(9), ..HealthPolicy::default() };
    refused(
        builder(&lab, vip).monitor(probing(Custom::default(), hasty)),
        &["timeout", "9s", "interval"],
    );

    // Another program on the interface is not pushed aside.
    let first = lab.director.enter(|| builder(&lab, vip).start().unwrap());
    let error = start(builder(&lab, vip));
    assert!(error.contains("eth0"), "{error}");
    assert!(program(&lab.director).is_some(), "the first director lost its program");
    drop(first);

    let down = format!("link set dev {} down", lab.director.interface);
    lab.director.namespace.ip_batch(&[down]).unwrap();
    refused(builder(&lab, vip), &["eth0", "down", "ip link set dev eth0 up"]);
}

#[test]
fn without_root_it_says_what_is_missing() {
    let Some(lab) = lab("rootless") else { return };
    let vip = format!("{}/tcp", lab.vip4_port(80));
    let program = Copied::readable("simple_vip");
    let output = as_nobody(&lab, "", None, &program.0, &vip, "backend").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("CAP_NET_ADMIN") && error.contains("root"), "{error}");
    assert_eq!(error.lines().count(), 1, "one clear line, and no noise: {error}");
}

/// What the message for those without root asks for is enough, and each of it is needed.
#[test]
fn three_capabilities_are_enough_and_none_can_be_spared() {
    let Some(lab) = lab("caps") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = format!("{}/tcp", lab.vip4_port(80));
    let program = Copied::readable("simple_vip");
    let spawn = |capabilities, memory| {
        let mut command = as_nobody(&lab, capabilities, memory, &program.0, &vip, "backend");
        Example(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let running = spawn("+bpf,+net_admin,+net_raw", None);
    until("serving", || serves(&lab, lab.vip4_port(80)));
    drop(running);
    let refused = |capabilities, memory| {
        let mut failing = spawn(capabilities, memory);
        assert!(!failing.0.wait().unwrap().success());
        std::io::read_to_string(failing.0.stderr.take().unwrap()).unwrap()
    };
    for two in ["+bpf,+net_admin", "+bpf,+net_raw", "+net_admin,+net_raw"] {
        let error = refused(two, None);
        assert!(error.contains("CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"), "{two}: {error}");
        assert_eq!(self::program(&lab.director), None);
    }
    let error = refused("+bpf,+net_admin,+net_raw", Some("65536"));
    assert!(error.contains("RLIMIT_MEMLOCK") && error.contains("CAP_IPC_LOCK"), "{error}");
    assert!(error.contains("8388608 bytes"), "{error}");
    // With the capability the limit does not count.
    let _running = spawn("+bpf,+net_admin,+net_raw,+ipc_lock", Some("65536"));
    until("serving", || serves(&lab, lab.vip4_port(80)));
}

#[test]
fn probing_through_the_vip_needs_one_more_and_says_so() {
    let Some(lab) = lab("lanes") else { return };
    let vip = format!("{}/tcp", lab.vip4_port(80));
    let program = Copied::readable("simple_vip");
    let capabilities = "+bpf,+net_admin,+net_raw";
    let mut command = as_nobody(&lab, capabilities, None, &program.0, &vip, "vip");
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("CAP_SYS_ADMIN") && error.contains("own addresses"), "{error}");
    assert_eq!(self::program(&lab.director), None);
}

/// The example in the director's namespace, as a user who has these capabilities and no others.
fn as_nobody(
    lab: &Lab,
    capabilities: &str,
    memory: Option<&str>,
    program: &Path,
    vip: &str,
    through: &str,
) -> Command {
    let set = format!("-all,{capabilities}").trim_end_matches(',').to_owned();
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", lab.director.namespace.name()])
        .args(
            memory
                .iter()
                .flat_map(|bytes| ["prlimit".to_owned(), format!("--memlock={bytes}:{bytes}")]),
        )
        // `setpriv` drops everything else in the process that then becomes the example.
        .args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
        .arg(format!("--bounding-set={set}"))
        .arg(format!("--inh-caps={set}"))
        .arg(format!("--ambient-caps={set}"))
        .arg(program)
        .args(["--interface", &lab.director.interface, "--vip", vip, "--backend", "10.77.0.11"])
        .args(["--through", through]);
    command
}

/// A copy of an example that everybody may run: the build directory may be closed to others.
struct Copied(PathBuf);

impl Copied {
    fn readable(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = format!("dsrlb-test-{}-{number}", std::process::id());
        let copy = std::env::temp_dir().join(file);
        std::fs::copy(example(name), &copy).unwrap();
        Self(copy)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bridges and macvlans have no driver that could run a program: the generic hook does.
#[test]
fn without_native_xdp_it_says_so_and_forwards_in_generic_mode() {
    for (kind, make) in [
        (
            "bridge",
            &[
                "link add name up0 address 02:00:00:00:01:01 type bridge",
                "link set dev eth0 master up0",
            ][..],
        ),
        (
            "macvlan",
            &["link add link eth0 name up0 address 02:00:00:00:01:77 type macvlan mode bridge"][..],
        ),
    ] {
        let Some(lab) = lab("generic") else { return };
        let _http = lab.start_http(80).unwrap();
        let vip = lab.vip4_port(80);
        // Else the kernel would answer ARP for up0's addresses on eth0 as well, with eth0's MAC.
        let own = [("net/ipv4/conf/all/arp_ignore", "1")];
        lab.director.namespace.sysctl(&own).unwrap();
        let mut lines = vec!["addr flush dev eth0".to_owned()];
        lines.extend(make.iter().map(ToString::to_string));
        lines.push("link set dev up0 up".to_owned());
        lines.push(format!("addr add {}/24 dev up0", lab.director.v4));
        lines.push(format!("addr add {}/32 dev up0", lab.vip4));
        lab.director.namespace.ip_batch(&lines).unwrap();
        let builder = |attach| {
            let xdp = XdpOptions { attach, ..XdpOptions::default() };
            Director::builder("up0").service(service(&lab, vip)).xdp(xdp)
        };

        let refused = lab.director.enter(|| builder(AttachMode::Native).start());
        let error = refused.map(drop).unwrap_err().to_string();
        assert!(error.contains("up0") && error.contains("`generic`"), "{kind}: {error}");

        let director = lab.director.enter(|| builder(AttachMode::Auto).start().unwrap());
        let granted = director.granted();
        assert_eq!(granted.attach, Some(Attached::Generic), "{kind}");
        let said = |text| granted.fallbacks.iter().any(|note| note.contains(text));
        assert!(said("up0: generic mode") && said("copy mode"), "{kind}: {granted:?}");
        for _ in 0..20 {
            let answer = lab.client.enter(|| http_get(vip, "/", TIMEOUT)).unwrap();
            assert_eq!(answer.peer, vip);
        }
        let counts = director.shutdown().counts;
        assert!(counts.forwarded >= 20 * 4, "{kind}: {counts:?}");
        assert_eq!(counts.io.transmit_failed, 0, "{kind}: {counts:?}");
    }
}

#[test]
fn the_reflector_reflects() {
    let Some(lab) = lab("reflect") else { return };
    for vip in lab.vips() {
        let arguments = [lab.director.interface.as_str(), &vip.to_string()];
        let running = Example::start(&lab, "reflector", &arguments);
        until("the program is there", || program(&lab.director).is_some());
        let socket = lab
            .client
            .enter(|| UdpSocket::bind(if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }));
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut buffer = [0; 2000];
        for length in [0, 1, 1400] {
            socket.send_to(&vec![7; length], (vip, 9)).unwrap();
            let (got, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((got, from), (length, (vip, 9).into()));
        }
        running.signal(Signal::SIGTERM);
        until("the program is gone", || program(&lab.director).is_none());
    }
}

/// Well is who is not on the list.
#[derive(Default)]
struct Custom(Arc<AtomicBool>);

impl Monitor for Custom {
    fn probe(&self, target: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
        let ill = self.0.load(Ordering::Relaxed) && target.address == IpAddr::from([10, 77, 0, 11]);
        if ill { Err(ProbeFailure::Unexpected("on the list".into())) } else { Ok(()) }
    }
}

/// The classic bug of the field: with a custom monitor alone, nobody learned the MAC address.
#[test]
fn mac_addresses_are_learned_under_a_custom_monitor() {
    let Some(lab) = lab("custom") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let ill = Arc::new(AtomicBool::new(false));
    let policy = HealthPolicy {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(50),
        ..HealthPolicy::default()
    };
    let monitor = Custom(Arc::clone(&ill));
    let director = lab
        .director
        .enter(|| builder(&lab, vip).monitor(probing(monitor, policy)).start().unwrap());
    // From the first packet on.
    lab.client.enter(|| http_get(vip, "/", TIMEOUT)).unwrap();
    let idle = || director.stats().backends[0].idle.as_ref().map(ToString::to_string);
    assert_eq!(idle(), None);
    ill.store(true, Ordering::Relaxed);
    until("it is taken out", || idle().is_some());
    assert_eq!(idle().unwrap(), "unhealthy: unexpected answer: on the list");
    for _ in 0..20 {
        let answer = lab.client.enter(|| http_get(vip, "/", TIMEOUT)).unwrap();
        assert_ne!(answer.backend(), "b1");
    }
    ill.store(false, Ordering::Relaxed);
    until("it is back", || idle().is_none());
}

#[test]
fn the_stock_modes_are_granted_as_asked() {
    let Some(lab) = lab("modes") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    for attach in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
        let xdp = XdpOptions { attach, ..XdpOptions::default() };
        let director = lab.director.enter(|| builder(&lab, vip).xdp(xdp).start().unwrap());
        let granted = director.granted();
        let shown = program(&lab.director).unwrap();
        let generic = attach == AttachMode::Generic;
        assert_eq!(shown.contains("xdpgeneric"), generic, "{shown}");
        // Copy mode on veth, and it is said.
        assert_eq!(granted.zero_copy, [false]);
        assert!(granted.fallbacks.iter().any(|note| note.contains("copy mode")), "{granted:?}");
        assert!(serves(&lab, vip));
    }
}

/// A monitor of the backends' own addresses.
fn probing(monitor: impl Monitor + 'static, policy: HealthPolicy) -> MonitorBinding {
    MonitorBinding::new(monitor).policy(policy).through(Through::Backend)
}
