//! What the tests of set-up guides have in common: a host that has never heard of load balancers, its state, what its check
//! says, and a client that is served through it.

use super::lab::{Host, Lab, http_get};
use dsrlb::config::Config;
use dsrlb::config::file::ConfigFile;
use dsrlb::director::Director;
use dsrlb::setup_guide::{Circumstances, Guide, System};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Pipes a script to a program that takes scripts; whether it succeeded, and what it printed.
pub fn pipe(command: &mut Command, script: &str) -> (bool, String) {
    let mut shell = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), out + &error)
}

/// Pipes a script to `sh` on a host; whether it succeeded, and what it printed.
pub fn sh(host: &Host, script: &str) -> (bool, String) {
    host.enter(|| pipe(&mut Command::new("sh"), script))
}

pub fn succeeds(host: &Host, script: &str) -> String {
    succeeded(sh(host, script), script)
}

/// What a script printed that has to succeed.
pub fn succeeded((success, said): (bool, String), script: &str) -> String {
    assert!(success, "{said}\nof\n{script}");
    said
}

/// Makes a backend of the laboratory a host that has never heard of load balancers.
pub fn plain(host: &Host) {
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
pub fn state(host: &Host) -> Vec<String> {
    let show = "ip -o address; ip -4 route show table all; ip -6 route show table all; ip -o link; ip rule
                nft list ruleset; sysctl -a 2> /dev/null | grep -e '\\.arp_' -e rp_filter; ls /run | grep dsrlb-.*sysctl";
    let mut lines: Vec<_> = sh(host, show).1.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The points that a guide's check does not find as they should be.
pub fn failures(host: &Host, guide: &Guide) -> Vec<String> {
    failed(sh(host, &guide.check_script().to_string()), guide)
}

/// The points of which a guide's check said that they are not as they should be.
pub fn failed((success, said): (bool, String), guide: &Guide) -> Vec<String> {
    let known = |line: &&str| line.starts_with("ok   ") || line.starts_with("FAIL ");
    assert!(said.lines().all(|line| known(&line)), "{said}");
    assert_eq!(said.lines().count(), guide.checks.len());
    let failed: Vec<_> =
        said.lines().filter(|line| line.starts_with("FAIL")).map(str::to_owned).collect();
    assert_eq!(success, failed.is_empty(), "{said}");
    failed
}

/// Services, each with a VIP, a backend and its way of forwarding in TOML.
pub fn config(services: &[(&str, IpAddr, &str)]) -> Config {
    let service = |(vip, backend, forward): &(&str, IpAddr, &str)| {
        format!(
            "[[service]]\nvip = \"{vip}\"\n[[service.backend]]\naddress = \"{backend}\"\nforward = {forward}\n"
        )
    };
    let text: String = services.iter().map(service).collect();
    ConfigFile::parse(&text).unwrap().to_config().unwrap()
}

pub fn guides(config: &Config, system: System) -> Vec<Guide> {
    let guides = Guide::for_config(config, system, &Circumstances::default());
    guides.into_iter().map(Result::unwrap).collect()
}

/// A real client is served on every VIP, by way of the director.
pub fn serves(lab: &Lab, config: &Config) {
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

/// What a director and its client need for two more VIPs than the laboratory has, and a prefix; see [`more_vips`].
pub fn hold_more_vips(lab: &Lab) {
    succeeds(
        &lab.director,
        "ip address add 10.77.0.101 dev eth0 && ip address add fd77::101 dev eth0 nodad",
    );
    succeeds(&lab.client, "ip route add 203.0.113.0/24 via 10.77.0.1");
}

/// Two VIPs of each family and a prefix, by MAC rewrite; see [`hold_more_vips`].
pub fn more_vips(backend: IpAddr) -> Config {
    config(&[
        ("10.77.0.100:80/tcp", backend, "\"l2\""),
        ("[fd77::100]:80/tcp", backend, "\"l2\""),
        ("10.77.0.101", backend, "\"l2\""),
        ("fd77::101", backend, "\"l2\""),
        ("203.0.113.0/24", backend, "\"l2\""),
    ])
}
