//! The guides for Linux backends, run as they are printed: a host that is none becomes one and serves through a real
//! director, its check finds each fault, and undoing leaves nothing behind.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;

use dsrlb::config::Config;
use dsrlb::config::file::ConfigFile;
use dsrlb::director::Director;
use dsrlb::setup_guide::{Circumstances, Guide, System};
use lab::{Host, Lab, LabOptions, http_get};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const SECOND: [&str; 2] = ["10.77.0.101", "fd77::101"];

/// Pipes a script to `sh` on a host; whether it succeeded, and what it printed.
fn sh(host: &Host, script: &str) -> (bool, String) {
    host.enter(|| {
        let mut shell = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        let [out, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.success(), out + &error)
    })
}

fn succeeds(host: &Host, script: &str) -> String {
    let (success, said) = sh(host, script);
    assert!(success, "{said}\nof\n{script}");
    said
}

/// Makes a backend of the laboratory a host that has never heard of load balancers.
fn plain(host: &Host) {
    let (_, _) = sh(
        host,
        "for vip in 10.77.0.100/32 fd77::100/128; do ip address del $vip dev lo; done
         rm -f /run/dsrlb-10.77.* /run/dsrlb-10.78.* /run/dsrlb-fd77*",
    );
    // What is written for `default` is so for the interfaces that there are, too.
    let keys = ["all", "default", "eth0"]
        .map(|of| ["arp_ignore", "arp_announce"].map(|key| format!("net/ipv4/conf/{of}/{key}")));
    let settings: Vec<_> = keys.iter().flatten().map(|key| (key.as_str(), "0")).collect();
    host.namespace.sysctl(&settings).unwrap();
}

/// All that a guide changes.
fn state(host: &Host) -> Vec<String> {
    let show = "ip -o address; ip -4 route show table all; ip -6 route show table all; ip -o link; ip rule
                nft list ruleset; sysctl -a 2> /dev/null | grep -e '\\.arp_' -e rp_filter; ls /run | grep dsrlb-.*sysctl";
    let mut lines: Vec<_> = sh(host, show).1.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn failures(host: &Host, guide: &Guide) -> Vec<String> {
    let (success, said) = sh(host, &guide.check_script().to_string());
    let known = |line: &&str| line.starts_with("ok   ") || line.starts_with("FAIL ");
    assert!(said.lines().all(|line| known(&line)), "{said}");
    assert_eq!(said.lines().count(), guide.checks.len());
    let failed: Vec<_> =
        said.lines().filter(|line| line.starts_with("FAIL")).map(str::to_owned).collect();
    assert_eq!(success, failed.is_empty(), "{said}");
    failed
}

fn config(services: &[(&str, IpAddr, &str)]) -> Config {
    let service = |(vip, backend, forward): &(&str, IpAddr, &str)| {
        format!(
            "[[service]]\nvip = \"{vip}\"\n[[service.backend]]\naddress = \"{backend}\"\nforward = {forward}\n"
        )
    };
    let text: String = services.iter().map(service).collect();
    ConfigFile::parse(&text).unwrap().to_config().unwrap()
}

fn guides(config: &Config) -> Vec<Guide> {
    let guides = Guide::for_config(config, System::Linux, &Circumstances::default());
    guides.into_iter().map(Result::unwrap).collect()
}

/// A real client is served on every VIP, by way of the director.
fn serves(lab: &Lab, config: &Config) {
    let _http = lab.start_http_on(&lab.backends[0], 80).unwrap();
    let director = lab.director.enter(|| {
        let services = config.services.iter().map(|bound| bound.service.clone());
        let builder = Director::builder(&lab.director.interface);
        services.fold(builder, |builder, service| builder.service(service)).start().unwrap()
    });
    for service in &config.services {
        let vip = SocketAddr::new(service.service.key.prefix().addr(), 80);
        let before = director.stats().counts.forwarded;
        let answer = lab.client.enter(|| http_get(vip, "/", TIMEOUT)).unwrap();
        assert_eq!((answer.backend(), answer.peer), ("b1", vip));
        assert!(director.stats().counts.forwarded > before, "{vip} went past the director");
    }
    director.shutdown();
}

/// Each fault is found by one line, which says what to do; that done, it is gone.
fn faults_are_found(host: &Host, guide: &Guide, faults: &[(&str, &str, &str)]) {
    for (fault, line, mend) in faults {
        succeeds(host, fault);
        let failed = failures(host, guide);
        assert!(failed.len() == 1 && failed[0].contains(line), "{fault}: {failed:?}");
        let remedy = failed[0].rsplit_once(": ").unwrap().1;
        // Where the remedy is a command, as it is.
        succeeds(host, if mend.is_empty() { remedy } else { mend });
        assert_eq!(failures(host, guide), [""; 0], "after {fault}, mended");
    }
}

#[test]
fn mac_rewrite_with_two_vips_of_each_family() {
    let options = LabOptions { backends: 1, ..LabOptions::named("setupl2") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let backend = &lab.backends[0];
    plain(backend);
    let hold = SECOND.map(|vip| {
        format!("ip address add {vip} dev eth0 $([ {vip} = 10.77.0.101 ] || echo nodad)")
    });
    succeeds(&lab.director, &hold.join("\n"));
    let own = backend.v4.into();
    let config = config(&[
        ("10.77.0.100:80/tcp", own, "\"l2\""),
        ("[fd77::100]:80/tcp", own, "\"l2\""),
        ("10.77.0.101", own, "\"l2\""),
        ("fd77::101", own, "\"l2\""),
        ("203.0.113.0/24", own, "\"l2\""),
    ]);
    let guide = guides(&config).remove(0);
    let before = state(backend);

    let failed = failures(backend, &guide);
    let fails = |what: &str| failed.iter().any(|line| line.contains(what));
    assert!(
        fails("VIP 10.77.0.101 is this host's") && fails("VIP fd77::100 is this host's"),
        "{failed:?}"
    );
    assert!(fails("arp_ignore (eth0 has 0)") && fails("arp_announce"), "{failed:?}");

    // The second time is as the first.
    for _ in 0..2 {
        succeeds(backend, &guide.to_string());
        assert_eq!(failures(backend, &guide), [""; 0]);
    }
    succeeds(&lab.client, "ip route add 203.0.113.0/24 via 10.77.0.1");
    serves(&lab, &config);

    faults_are_found(
        backend,
        &guide,
        &[
            ("ip address del 10.77.0.100/32 dev lo", "VIP 10.77.0.100 is this host's", ""),
            ("ip address del fd77::101/128 dev lo", "VIP fd77::101 is this host's", ""),
            ("ip route del local 203.0.113.0/24 dev lo", "VIP 203.0.113.0/24 is this host's", ""),
            (
                "ip address add 10.77.0.101/32 dev eth0",
                "VIP 10.77.0.101 is on lo alone, where no neighbour can ask for it (it is on eth0)",
                "ip address del 10.77.0.101/32 dev eth0",
            ),
            (
                "ip address change fd77::100/128 dev lo preferred_lft forever valid_lft forever",
                "VIP fd77::100 is no source",
                "",
            ),
            ("sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp_ignore (eth0 has 0)", ""),
            // Answers for what is on lo.
            (
                "sysctl -w net.ipv4.conf.eth0.arp_ignore=3",
                "arp_ignore (eth0 has 3)",
                "sysctl -w net.ipv4.conf.eth0.arp_ignore=0",
            ),
            ("sysctl -w net.ipv4.conf.all.arp_announce=1", "arp_announce (eth0 has 1)", ""),
            (
                "ip link add other type veth peer name third && ip link set other up
                 ip route add default dev other && sysctl -w net.ipv4.conf.eth0.rp_filter=1",
                "rp_filter (strict on eth0)",
                "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
            ),
            (
                "ip link del other; sysctl -w net.ipv4.conf.eth0.rp_filter=0
                 ip route del 10.77.0.0/24 dev eth0",
                "there is a way to clients of IPv4",
                &format!("ip route add 10.77.0.0/24 dev eth0 proto kernel scope link src {own}"),
            ),
        ],
    );
    serves(&lab, &config);
    succeeds(backend, &guide.undo_script().to_string());
    assert_eq!(state(backend), before);
}

/// A host with an address of each family is two backends, and can be.
#[test]
fn l3dsr_of_both_families_on_one_host() {
    let options = LabOptions { routed: true, backends: 1, ..LabOptions::named("setupl3dsr") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let backend = &lab.backends[0];
    plain(backend);
    let config = config(&[
        ("10.77.0.100", backend.v4.into(), "{ l3dsr = { dscp = 10 } }"),
        ("fd77::100", backend.v6.into(), "{ l3dsr = { dscp = 63 } }"),
    ]);
    let guides = guides(&config);
    let before = state(backend);
    for guide in &guides {
        let failed = failures(backend, guide);
        assert!(failed.iter().any(|line| line.contains("names the VIP")), "{failed:?}");
    }
    for guide in &guides {
        succeeds(backend, &guide.to_string());
    }
    for guide in &guides {
        assert_eq!(failures(backend, guide), [""; 0]);
    }
    serves(&lab, &config);
    let setup = guides[0].to_string();
    let faults = [(
        format!("nft delete table inet dsrlb-{}", backend.v4),
        "DSCP 10 names the VIP 10.77.0.100",
        setup.as_str(),
    )];
    let faults = faults.each_ref().map(|(fault, line, mend)| (fault.as_str(), *line, *mend));
    faults_are_found(backend, &guides[0], &faults);
    for guide in guides.iter().rev() {
        succeeds(backend, &guide.undo_script().to_string());
    }
    assert_eq!(state(backend), before);
}

/// The program prints the library's scripts, for the backend that is meant.
#[test]
fn the_example_prints_them() {
    if let Err(missing) = Lab::privileged() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}");
        return;
    }
    let file = std::env::temp_dir().join(format!("dsrlb-test-setup-{}.toml", std::process::id()));
    let text = "[[service]]\nvip = \"10.0.0.100\"\n[[service.backend]]\nid = \"web\"\naddress = \"10.0.0.11\"\n\
                [[service.backend]]\naddress = \"10.0.0.12\"\nforward = \"ipip\"\n";
    std::fs::write(&file, text).unwrap();
    let print = |arguments: &[&str]| {
        let program = process::example("backend_setup");
        let output =
            Command::new(program).arg("--config").arg(&file).args(arguments).output().unwrap();
        let [out, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        if output.status.success() { Ok(out) } else { Err(error) }
    };
    let config = ConfigFile::parse(text).unwrap().to_config().unwrap();
    let guides = guides(&config);
    assert_eq!(print(&["--backend", "web"]), Ok(guides[0].to_string()));
    assert_eq!(
        print(&["--backend", "10.0.0.12", "--check"]),
        Ok(guides[1].check_script().to_string())
    );
    assert_eq!(print(&["--backend", "web", "--undo"]), Ok(guides[0].undo_script().to_string()));
    let several = print(&[]).unwrap_err();
    assert!(several.contains("10.0.0.11 (web), 10.0.0.12 (10.0.0.12)"), "{several}");
    let windows = print(&["--backend", "10.0.0.12", "--system", "windows"]).unwrap_err();
    assert!(windows.contains("forward = \"l2\""), "{windows}");
    std::fs::remove_file(&file).unwrap();
}
