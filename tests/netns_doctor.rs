//! Each misconfiguration that the doctor claims to find is made on purpose and found; what the finding says is typed,
//! word for word, and the finding is gone. In between the laboratory is well, and the doctor finds nothing.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/doctor.rs"]
#[allow(dead_code)]
mod program;
#[path = "support/skip.rs"]
mod skip;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::config::Config;
use dsrlb::dataplane::af_xdp::{AttachMode, XdpInterface, XdpOptions};
use dsrlb::doctor::{Checkup, Diagnosis, Severity};
use dsrlb::forwarding::{Forwarding, TunnelSources};
use lab::{Host, HttpServer, Lab, LabOptions, TunnelReceiver};
use process::example;
use program::{doctor, json, severities};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(800);

/// A service on port 80 of each VIP, with these backends.
fn config(lab: &Lab, forwarding: Forwarding) -> Config {
    let service = |vip: IpAddr| {
        let key = match vip {
            IpAddr::V4(vip) => format!("{vip}:80/tcp"),
            IpAddr::V6(vip) => format!("[{vip}]:80/tcp"),
        };
        lab.backends.iter().fold(VirtualService::new(key.parse().unwrap()), |service, host| {
            let server = RealServer::new(host.v4.into()).with_id(&host.name);
            service.backend(server.with_forwarding(forwarding))
        })
    };
    lab.vips().into_iter().map(service).collect()
}

fn checkup(lab: &Lab) -> Checkup {
    Checkup::new(&lab.director.interface).config(config(lab, Forwarding::L2)).patience(PATIENCE)
}

fn examine(lab: &Lab, checkup: &Checkup) -> Diagnosis {
    lab.director.enter(|| checkup.run())
}

/// The only complaint of that kind: how bad it is, and what to type.
#[track_caller]
fn found(diagnosis: &Diagnosis, id: &str) -> (Severity, String) {
    let mut complaints = diagnosis.complaints(id);
    let first = complaints.next().unwrap_or_else(|| panic!("no {id} in\n{diagnosis}"));
    assert!(complaints.all(|other| other.remedy == first.remedy), "{diagnosis}");
    println!("{id}: {} {}\n  > {}", first.subject, first.evidence, first.remedy);
    (first.severity, first.remedy.clone())
}

#[track_caller]
fn gone(diagnosis: &Diagnosis, id: &str) {
    assert_eq!(diagnosis.complaints(id).count(), 0, "{id} is still in\n{diagnosis}");
}

/// Types a command, word for word, on a host.
#[track_caller]
fn type_in(host: &Host, command: &str) {
    let typed = host.namespace.run("sh", &["-ec", command]);
    typed.unwrap_or_else(|error| panic!("{command}: {error}"));
}

/// Breaks something, finds it, types on `host` what is said, and finds it gone.
#[track_caller]
fn each_way(
    lab: &Lab,
    checkup: &Checkup,
    id: &str,
    expected: Severity,
    host: &Host,
    break_it: &str,
) {
    type_in(host, break_it);
    let (severity, remedy) = found(&examine(lab, checkup), id);
    assert_eq!(severity, expected, "{id}");
    type_in(host, &remedy);
    gone(&examine(lab, checkup), id);
}

fn start(options: LabOptions) -> Option<(Lab, Vec<HttpServer>)> {
    let lab = Lab::build_or_skip(&options)?;
    let servers = lab.start_http(80).unwrap();
    Some((lab, servers))
}

fn small(tag: &'static str) -> LabOptions {
    LabOptions { backends: 2, ..LabOptions::named(tag) }
}

fn options(change: impl FnOnce(&mut XdpOptions)) -> XdpOptions {
    let mut options = XdpOptions::default();
    change(&mut options);
    options
}

#[test]
fn a_healthy_host_has_neither_warning_nor_error() {
    let Some((lab, _servers)) = start(LabOptions::named("dochealth")) else { return };
    let diagnosis = examine(&lab, &checkup(&lab));
    println!("{diagnosis}");
    assert!(diagnosis.worst() < Some(Severity::Warning), "{diagnosis}");
    assert_eq!(diagnosis.not_looked_at, [""; 0]);
    for id in ["xdp-mode", "peer-checksum", "neighbour", "vip-claimed", "service-down", "mss"] {
        assert!(diagnosis.findings.iter().any(|finding| finding.id == id), "{id}\n{diagnosis}");
    }
    // All is taken away again: a second time is like the first, and the VIP's backends have no connection left.
    assert!(examine(&lab, &checkup(&lab)).worst() < Some(Severity::Warning));
    for backend in &lab.backends {
        let open = backend.namespace.run("ss", &["-Htn", "state", "syn-recv"]).unwrap();
        assert_eq!(open, "");
    }
}

#[test]
fn settings_of_the_interface() {
    let Some((lab, _servers)) = start(small("doclink")) else { return };
    let (director, usual) = (&lab.director, checkup(&lab));
    let warn = Severity::Warning;
    each_way(
        &lab,
        &usual,
        "frame-size",
        Severity::Error,
        director,
        "ip link set dev eth0 mtu 2000",
    );
    type_in(director, "ip link set dev eth0 mtu 1500");
    each_way(&lab, &usual, "vlan-stripping", Severity::Info, director, "ethtool -K eth0 rxvlan on");
    each_way(
        &lab,
        &usual,
        "interface-down",
        Severity::Error,
        director,
        "ip link set dev eth0 down",
    );

    let generic = usual.clone().xdp(options(|options| options.attach = AttachMode::Generic));
    each_way(&lab, &generic, "gro", warn, director, "ethtool -K eth0 gro on");
    assert_eq!(found(&examine(&lab, &generic), "xdp-mode").0, Severity::Info);

    // At the other end, from here.
    lab.switch.run("ethtool", &["-K", &director.name, "tx", "on"]).unwrap();
    let (severity, remedy) = found(&examine(&lab, &usual), "peer-checksum");
    assert_eq!(severity, warn);
    type_in(director, &remedy);
    gone(&examine(&lab, &usual), "peer-checksum");

    lab.set_link(director, false).unwrap();
    assert_eq!(found(&examine(&lab, &usual), "carrier").0, Severity::Error);
    lab.set_link(director, true).unwrap();
    gone(&examine(&lab, &usual), "carrier");

    // It exists, and takes no XDP program in its driver.
    type_in(
        director,
        "ip link add link eth0 name other type macvlan mode private && ip link set other up",
    );
    let other = Checkup::new("other").patience(PATIENCE);
    assert_eq!(found(&examine(&lab, &other), "xdp-mode").0, warn);
    let lo = Checkup::new("lo").patience(PATIENCE);
    assert_eq!(found(&examine(&lab, &lo), "interface-kind").0, Severity::Error);
}

#[test]
fn queues_and_who_has_them() {
    let Some((lab, _servers)) = start(LabOptions { queues: 2, ..small("docqueue") }) else {
        return;
    };
    let (director, usual) = (&lab.director, checkup(&lab));
    let one = usual.clone().xdp(options(|options| options.queues = Some(1)));
    let (severity, remedy) = found(&examine(&lab, &one), "queues-unbound");
    assert_eq!(severity, Severity::Warning);
    type_in(director, &remedy);
    gone(&examine(&lab, &one), "queues-unbound");
    let two = usual.clone().xdp(options(|options| options.queues = Some(2)));
    let (severity, remedy) = found(&examine(&lab, &two), "queues");
    assert_eq!(severity, Severity::Error);
    type_in(director, &remedy);
    gone(&examine(&lab, &two), "queues");

    let open = || director.enter(|| XdpInterface::open("eth0", &XdpOptions::default()).unwrap());
    let mut interface = open();
    assert_eq!(found(&examine(&lab, &usual), "queue-busy").0, Severity::Error);
    director.enter(|| interface.attach().unwrap());
    let taken = examine(&lab, &usual);
    assert_eq!(found(&taken, "xdp-program").0, Severity::Error);
    assert!(taken.not_looked_at.len() >= 2, "{taken}");
    drop(interface);
    let free = examine(&lab, &usual);
    for id in ["queue-busy", "xdp-program", "not-looked-at"] {
        gone(&free, id);
    }
    if !skip::has_ip_with_libbpf() {
        return;
    }
    let object = concat!(env!("OUT_DIR"), "/redirect.bpf.o");
    type_in(director, &format!("ip link set dev eth0 xdpgeneric obj {object} sec xdp"));
    let (_, remedy) = found(&examine(&lab, &usual), "xdp-program");
    type_in(director, &remedy);
    gone(&examine(&lab, &usual), "xdp-program");
}

#[test]
fn losses_are_told_and_worse_while_they_last() {
    if !skip::has("python3", "--version", "python3", "to send what nobody takes") {
        return;
    }
    let Some((lab, _servers)) = start(small("docdrops")) else { return };
    let interface = Checkup::new("eth0").patience(PATIENCE);
    gone(&examine(&lab, &interface), "nic-drops");
    // No kernel knows this EtherType (one for experiments), and what no one takes is dropped.
    let script = "import socket,time\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind(('eth0',0))\n\
                  end=time.time()+6\nframe=bytes.fromhex('020000000101020000000102')+b'\\x88\\xb5'+bytes(46)\n\
                  while time.time()<end:\n s.send(frame); time.sleep(0.001)";
    let mut flood = Command::new("ip")
        .args(["netns", "exec", lab.client.namespace.name(), "python3", "-c", script])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let lossy = checkup(&lab);
    let now = examine(&lab, &lossy);
    flood.kill().unwrap();
    flood.wait().unwrap();
    assert_eq!(found(&now, "nic-drops").0, Severity::Warning);
    assert_eq!(found(&examine(&lab, &lossy), "nic-drops").0, Severity::Info);
}

#[test]
fn settings_of_the_host() {
    let Some((lab, _servers)) = start(LabOptions { director_holds_vip: false, ..small("dochost") })
    else {
        return;
    };
    let (director, usual) = (&lab.director, checkup(&lab));
    let warn = Severity::Warning;
    let v4 = "sysctl -w net.ipv4.conf.eth0.forwarding=1";
    each_way(&lab, &usual, "ip-forwarding", warn, director, v4);
    let v6 = "sysctl -w net.ipv6.conf.all.forwarding=1";
    each_way(&lab, &usual, "ip-forwarding", warn, director, v6);

    // Of each VIP there is one.
    let unanswered = examine(&lab, &usual);
    let remedies: Vec<_> = unanswered.complaints("vip-unanswered").collect();
    assert_eq!(remedies.len(), 2, "{unanswered}");
    for finding in remedies {
        assert_eq!(finding.severity, Severity::Info);
        type_in(director, &finding.remedy);
    }
    gone(&examine(&lab, &usual), "vip-unanswered");
    let prefer = format!("ip addr change {}/128 dev eth0 preferred_lft forever", lab.vip6);
    each_way(&lab, &usual, "vip-source", warn, director, &prefer);

    let source = TunnelSources::default().with("10.77.9.9/32".parse().unwrap());
    let tunnel = usual.clone().tunnel_sources(source);
    each_way(&lab, &tunnel, "tunnel-source", warn, director, "true");

    let wrong = VirtualService::new("10.77.0.100".parse().unwrap())
        .backend(RealServer::new(director.v4.into()));
    let wrong = usual.clone().config([wrong].into_iter().collect());
    assert_eq!(found(&examine(&lab, &wrong), "config").0, Severity::Error);
    assert_eq!(found(&examine(&lab, &wrong), "neighbour").0, Severity::Error);
}

#[test]
fn a_strict_filter_and_a_second_arm() {
    let options = LabOptions { routed: true, second_arm: true, ..small("docarm") };
    let Some((lab, _servers)) = start(options) else { return };
    let source = TunnelSources::default().with(IpAddr::from(lab.director.v4).into());
    let arms = Checkup::new("eth0")
        .config(config(&lab, Forwarding::IPIP))
        .tunnel_sources(source)
        .xdp(self::options(|options| options.egress = vec![lab::SECOND_ARM.to_owned()]))
        .patience(PATIENCE);
    type_in(&lab.director, "sysctl -w net.ipv4.conf.eth0.rp_filter=1");
    let (severity, remedy) = found(&examine(&lab, &arms), "rp-filter");
    assert_eq!(severity, Severity::Warning);
    type_in(&lab.director, &remedy);
    gone(&examine(&lab, &arms), "rp-filter");

    // What is left of the way to that backend, and back by the interface that packets come in by.
    let (own, b1) = (lab.director.v4, lab.backends[0].v4);
    let hears = || {
        let ping = ["-n", "-c1", "-W1", "-I", &own.to_string(), &b1.to_string()];
        lab.director.namespace.run("ping", &ping).is_ok()
    };
    assert!(hears(), "loose, with an address");
    // Loose is as strict where the interface has no address.
    let move_it = format!(
        "ip addr flush dev eth0 scope global; ip addr add {own}/32 dev lo; \
         ip route add 10.77.0.0/24 dev eth0 src {own}"
    );
    type_in(&lab.director, &move_it);
    assert!(!hears(), "loose, without an address");
    let arms = Checkup::new("eth0").xdp(self::options(|options| {
        options.egress = vec![lab::SECOND_ARM.to_owned()];
    }));
    let (severity, remedy) = found(&examine(&lab, &arms), "rp-filter");
    assert_eq!(severity, Severity::Warning);
    type_in(&lab.director, &remedy);
    assert!(hears(), "{remedy}");
    gone(&examine(&lab, &arms), "rp-filter");
}

#[test]
fn backends_that_claim_the_vips_or_do_not_take_them() {
    let Some((lab, mut servers)) = start(small("docvips")) else { return };
    let (usual, b1) = (checkup(&lab), &lab.backends[0]);
    let error = Severity::Error;
    let answer = "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0";
    each_way(&lab, &usual, "vip-claimed", error, b1, answer);
    let (v4, v6) = (lab.vip4, lab.vip6);
    let answer = format!("ip addr add {v6}/128 dev eth0 nodad");
    type_in(b1, &format!("ip addr del {v6}/128 dev lo"));
    each_way(&lab, &usual, "vip-claimed", error, b1, &answer);
    let strange = format!("ip addr add {v4}/32 dev eth0");
    each_way(&lab, &usual, "vip-claimed", error, &lab.client, &strange);

    each_way(&lab, &usual, "vip-not-bound", error, b1, &format!("ip addr del {v4}/32 dev lo"));
    each_way(&lab, &usual, "vip-not-bound", error, b1, &format!("ip addr del {v6}/128 dev lo"));

    drop(servers.remove(0));
    assert_eq!(found(&examine(&lab, &usual), "service-down").0, Severity::Warning);
    let _again = lab.start_http_on(b1, 80).unwrap();
    gone(&examine(&lab, &usual), "service-down");
}

/// As far as the link is asked: small prefixes as a whole, large ones here and there.
#[test]
fn hosts_that_claim_a_prefix_or_part_of_it() {
    let Some((lab, _servers)) = start(small("docprefix")) else { return };
    let of = |prefix: &str| {
        let service = VirtualService::new(prefix.parse().unwrap());
        let service = service.backend(RealServer::new(lab.backends[0].v4.into()));
        checkup(&lab).config([service].into_iter().collect())
    };
    let (client, b1, error) = (&lab.client, &lab.backends[0], Severity::Error);
    let answer = "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0";
    let small = of("10.77.0.192/28");
    gone(&examine(&lab, &small), "vip-claimed");
    let whole = "ip route add local 10.77.0.192/28 dev lo";
    each_way(&lab, &small, "vip-claimed", error, b1, &format!("{whole}; {answer}"));
    each_way(&lab, &small, "vip-claimed", error, client, whole);
    let one = "ip addr add 10.77.0.200/32 dev eth0";
    each_way(&lab, &small, "vip-claimed", error, client, one);

    for (prefix, host, claim) in [
        ("10.80.0.0/16", b1, &*format!("ip route add local 10.80.0.0/16 dev lo; {answer}")),
        ("10.80.0.0/16", client, "ip route add local 10.80.0.0/16 dev lo"),
        ("fd78::/64", b1, "ip addr add fd78::1/128 dev eth0 nodad"),
        ("fd78::/64", client, "ip addr add fd78::1/128 dev eth0 nodad"),
    ] {
        let large = of(prefix);
        assert_eq!(found(&examine(&lab, &large), "vip-claimed").0, Severity::Info);
        type_in(host, claim);
        let (severity, remedy) = found(&examine(&lab, &large), "vip-claimed");
        assert_eq!(severity, error, "{prefix}");
        type_in(host, &remedy);
        assert_eq!(found(&examine(&lab, &large), "vip-claimed").0, Severity::Info);
    }
}

#[test]
fn an_address_that_two_have_beyond_the_second_arm() {
    let options = LabOptions { routed: true, second_arm: true, ..small("docarms") };
    let Some((lab, _servers)) = start(options) else { return };
    let server = RealServer::new("10.79.0.3".parse().unwrap());
    let service = VirtualService::new(lab.vip4.to_string().parse().unwrap()).backend(server);
    let arms = Checkup::new("eth0")
        .config([service].into_iter().collect())
        .xdp(self::options(|options| options.egress = vec![lab::SECOND_ARM.to_owned()]))
        .patience(PATIENCE);
    gone(&examine(&lab, &arms), "address-conflict");
    let router = lab.router.as_ref().unwrap();
    let twice =
        "ip link add link director name twice type macvlan mode bridge && ip link set twice up";
    type_in(router, twice);
    assert_eq!(found(&examine(&lab, &arms), "address-conflict").0, Severity::Warning);
    type_in(router, "ip link del twice");
    gone(&examine(&lab, &arms), "address-conflict");
}

#[test]
fn backends_that_are_off_elsewhere_or_twice() {
    let Some((lab, _servers)) = start(small("docoff")) else { return };
    let (usual, b1) = (checkup(&lab), &lab.backends[0]);
    lab.set_link(b1, false).unwrap();
    assert_eq!(found(&examine(&lab, &usual), "neighbour").0, Severity::Warning);
    lab.set_link(b1, true).unwrap();
    gone(&examine(&lab, &usual), "neighbour");

    let twice = format!("addr add {}/32 dev eth0", b1.v4);
    lab.client.namespace.ip_batch(&[twice]).unwrap();
    assert_eq!(found(&examine(&lab, &usual), "address-conflict").0, Severity::Warning);
    lab.client.namespace.ip_batch(&[format!("addr del {}/32 dev eth0", b1.v4)]).unwrap();
    gone(&examine(&lab, &usual), "address-conflict");

    // It is there, on another subnet, and drops everything.
    type_in(
        b1,
        "ip addr add 10.99.0.1/32 dev lo && sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0",
    );
    let server = RealServer::new("10.99.0.1".parse().unwrap()).with_id("far");
    let service = VirtualService::new("10.77.0.101:80/tcp".parse().unwrap()).backend(server);
    let far = usual.clone().config([service].into_iter().collect());
    let (severity, remedy) = found(&examine(&lab, &far), "neighbour");
    assert_eq!(severity, Severity::Error);
    type_in(&lab.director, &remedy);
    gone(&examine(&lab, &far), "neighbour");
    type_in(b1, "sysctl -w net.ipv4.icmp_echo_ignore_all=1");
    assert_eq!(found(&examine(&lab, &far), "backend-silent").0, Severity::Warning);
    type_in(b1, "sysctl -w net.ipv4.icmp_echo_ignore_all=0 && ip addr add 10.77.0.101/32 dev lo");
    gone(&examine(&lab, &far), "backend-silent");
}

#[test]
fn tunnels_that_are_not_taken_out_or_too_narrow() {
    let Some((lab, _servers)) = start(LabOptions { ipv6: false, ..small("doctunnel") }) else {
        return;
    };
    let source = TunnelSources::default().with(IpAddr::from(lab.director.v4).into());
    let tunnel = checkup(&lab).config(config(&lab, Forwarding::IPIP)).tunnel_sources(source);
    let closed = examine(&lab, &tunnel);
    let (severity, remedy) = found(&closed, "tunnel-not-decapsulated");
    assert_eq!(severity, Severity::Error);
    assert!(remedy.contains("ip link set dev tunl0 up"), "{remedy}");
    let _receivers: Vec<_> =
        lab.backends.iter().map(|host| TunnelReceiver::start(host, 6080).unwrap()).collect();
    let open = examine(&lab, &tunnel);
    gone(&open, "tunnel-not-decapsulated");

    // A segment of 1460 bytes and two headers of 20 are 1500, and the tunnel's header is 20 more.
    let (severity, remedy) = found(&open, "mss");
    assert_eq!(severity, Severity::Warning);
    lab.backends.iter().for_each(|backend| type_in(backend, &remedy));
    gone(&examine(&lab, &tunnel), "mss");
    let (severity, remedy) = found(&open, "backend-mtu");
    assert_eq!(severity, Severity::Warning);
    type_in(&lab.director, &remedy);
    gone(&examine(&lab, &tunnel), "backend-mtu");
}

#[test]
fn as_a_program_with_a_file_with_little_rights_and_on_nothing() {
    let Some((lab, _servers)) = start(small("docprog")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dsrlb.toml");
    std::fs::write(&file, program::file(&lab, "")).unwrap();
    let file = file.to_str().unwrap();

    let well = doctor(&lab, &[], &["--config", file, "--json"]);
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    assert_eq!(severities(&json(&well), "service-down"), ["ok", "ok"]);
    let text = doctor(&lab, &[], &["--config", file]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("ok       xdp-mode"), "{text:?}");

    // What is only the interface is looked at without a file; a missing one is an error.
    assert_eq!(doctor(&lab, &[], &["--interface", "eth0"]).status.code(), Some(0));
    let missing = doctor(&lab, &[], &["--interface", "nothing0", "--json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(severities(&json(&missing), "interface-missing"), ["error"]);
    assert_eq!(severities(&json(&missing), "not-looked-at"), ["warning"]);
    assert_eq!(doctor(&lab, &[], &["--config", "/nowhere"]).status.code(), Some(2));

    // As nobody, who may not even enter the directory that the test was built into.
    let copy = "/proc/self/fd/0";
    let nobody = Command::new("ip")
        .args(["netns", "exec", lab.director.namespace.name(), "setpriv", "--reuid=65534"])
        .args(["--regid=65534", "--clear-groups", "--bounding-set=-all", copy])
        .args(["--interface", "eth0", "--json"])
        .stdin(std::fs::File::open(example("doctor")).unwrap())
        .output()
        .unwrap();
    let seen = json(&nobody);
    assert_eq!(nobody.status.code(), Some(0), "{seen:#}");
    assert_eq!(severities(&seen, "capabilities"), ["warning"]);
    let unseen = seen["not_looked_at"].as_array().unwrap();
    println!("{unseen:#?}");
    assert!(unseen.iter().any(|what| what.as_str().unwrap().contains("XDP mode")), "{seen:#}");
    assert_eq!(severities(&seen, "not-looked-at").len(), unseen.len());

    // Without the right to lock any amount of memory there is a limit, which can be raised.
    let bounded = ["setpriv", "--bounding-set=-ipc_lock", "prlimit", "--memlock=65536:"];
    let small = doctor(&lab, &bounded, &["--interface", "eth0", "--json"]);
    assert_eq!(small.status.code(), Some(1), "{small:?}");
    let seen = json(&small);
    assert_eq!(severities(&seen, "memlock"), ["error"]);
    let finding = seen["findings"].as_array().unwrap().iter().find(|f| f["id"] == "memlock");
    let remedy = finding.unwrap()["remedy"].as_str().unwrap();
    let typed = format!("{remedy} && exec \"$0\" \"$@\"");
    let raised = doctor(
        &lab,
        &[&bounded[..], &["sh", "-c", &typed]].concat(),
        &["--interface", "eth0", "--json"],
    );
    assert_eq!(severities(&json(&raised), "memlock"), ["ok"], "{raised:?}");
    assert_eq!(raised.status.code(), Some(0));
}
