//! What is asked of backends, and that it is said so that nothing else can be.

use super::{Circumstances, Guide, System, Unsupported};
use crate::balancer::{RealServer, VirtualService, WhenAllDown};
use crate::config::Config;
use crate::forwarding::{Encapsulation, Forwarding, Tunnel};
use std::sync::Arc;

fn server(address: &str, mode: &str) -> RealServer {
    RealServer::new(address.parse().unwrap()).with_forwarding(mode.parse().unwrap())
}

fn config(services: &[(&str, RealServer)]) -> Config {
    let service = |(vip, server): &(&str, RealServer)| {
        VirtualService::new(vip.parse().unwrap()).backend(server.clone())
    };
    services.iter().map(service).collect()
}

fn all(services: &[(&str, RealServer)], system: System) -> Vec<Result<Guide, Unsupported>> {
    Guide::for_config(&config(services), system, &Circumstances::default())
}

fn linux(services: &[(&str, RealServer)]) -> Guide {
    all(services, System::Linux).remove(0).unwrap()
}

#[test]
fn services_share_a_backend_and_each_vip_is_said_once() {
    let guides = all(
        &[
            ("10.0.0.100:80/tcp", server("10.0.0.11", "l2").with_id("web")),
            ("10.0.0.100:443/tcp", server("10.0.0.11", "l2")),
            ("fd00::100", server("10.0.0.11", "l2")),
            ("203.0.113.0/24", server("10.0.0.11", "l2")),
            ("10.0.0.101", server("10.0.0.12", "l2")),
        ],
        System::Linux,
    );
    let [first, second] = &guides[..] else { panic!("{guides:?}") };
    let first = first.as_ref().unwrap();
    assert_eq!(first.names, ["10.0.0.11", "web"]);
    let hold = &first.setup[1].commands;
    assert_eq!(
        hold[..],
        [
            "ip address replace 10.0.0.100/32 dev lo",
            "ip address replace fd00::100/128 dev lo nodad preferred_lft 0",
            "ip route replace local 203.0.113.0/24 dev lo",
        ]
    );
    assert!(!second.as_ref().unwrap().to_string().contains("10.0.0.100"));
}

#[test]
fn the_fallback_is_a_backend_too() {
    let fallback = WhenAllDown::Fallback(Arc::new(server("10.0.0.99", "l2")));
    let service = VirtualService::new("10.0.0.100".parse().unwrap()).when_all_down(fallback);
    let config: Config = [service].into_iter().collect();
    let guides = Guide::for_config(&config, System::Linux, &Circumstances::default());
    assert_eq!(guides[0].as_ref().unwrap().backend.to_string(), "10.0.0.99");
}

/// Section 2 of RFC 9293's arithmetic for each header, on a link of 1,500 bytes.
#[test]
fn segments_fit_into_each_tunnel() {
    for (mode, own, ipv4, ipv6) in [
        ("ipip", "10.1.0.11", 1440, 1420),
        ("gue1:6080", "10.1.0.11", 1432, 1412),
        ("gue:6080", "10.1.0.11", 1428, 1408),
        ("ipip", "fd01::11", 1420, 1400),
        ("gue1:6080", "fd01::11", 1412, 1392),
        ("gue:6080", "fd01::11", 1408, 1388),
    ] {
        let text = linux(&[("10.0.0.100", server(own, mode)), ("fd00::100", server(own, mode))])
            .to_string();
        for rule in [
            format!("ip saddr 10.0.0.100 tcp flags syn tcp option maxseg size set {ipv4}\n"),
            format!("ip6 saddr fd00::100 tcp flags syn tcp option maxseg size set {ipv6}\n"),
        ] {
            assert!(text.contains(&rule), "{mode} over {own}: no {rule} in {text}");
        }
    }
    assert!(!linux(&[("10.0.0.100", server("10.0.0.11", "l2"))]).to_string().contains("maxseg"));
}

#[test]
fn a_smaller_path_counts_and_absurd_ones_do_no_harm() {
    let mss = |path_mtu, link_mtu| {
        let tunnel = Tunnel { path_mtu: Some(path_mtu), ..Tunnel::new(Encapsulation::IpIp) };
        let server = RealServer::new("10.1.0.11".parse().unwrap());
        let config = config(&[("10.0.0.100", server.with_forwarding(Forwarding::Tunnel(tunnel)))]);
        let circumstances = Circumstances { link_mtu, ..Circumstances::default() };
        let text = Guide::for_config(&config, System::Linux, &circumstances)
            .remove(0)
            .unwrap()
            .to_string();
        text.split("maxseg size set ").nth(1).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(mss(1400, 1500), "1340");
    assert_eq!(mss(9000, 1500), "1440");
    assert_eq!(mss(0, 0), "536");
}

#[test]
fn a_name_cannot_leave_its_comment() {
    let evil = "x\nrm -rf /\n'; $(reboot) `halt`";
    for (_, system) in System::NAMES {
        let services = [("10.0.0.100", server("10.0.0.11", "l2").with_id(evil))];
        let guide = all(&services, system).remove(0).unwrap();
        for script in
            [guide.to_string(), guide.check_script().to_string(), guide.undo_script().to_string()]
        {
            let lines: Vec<_> = script
                .lines()
                .filter(|line| ["rm -rf", "reboot"].iter().any(|what| line.contains(what)))
                .collect();
            assert!(
                !lines.is_empty() && lines.iter().all(|line| line.starts_with("# ")),
                "{lines:?}"
            );
        }
    }
}

#[test]
fn what_a_system_cannot_do_is_refused_with_what_can_be_done() {
    for (system, vip, mode, own, what) in [
        (System::Windows, "10.0.0.100", "ipip", "10.1.0.11", "forward = \"l2\""),
        (System::Windows, "10.0.0.100", "l3dsr:5", "10.1.0.11", "forward = \"l2\""),
        (System::Windows, "203.0.113.0/24", "l2", "10.0.0.11", "single addresses"),
        (System::FreeBsd, "10.0.0.100", "gue:6080", "10.1.0.11", "use l2 or ipip"),
        (System::FreeBsd, "10.0.0.100", "ipip", "10.1.0.11", "tunnel source"),
        (System::Netplan, "10.0.0.100", "ipip", "10.1.0.11", "guide for networkd"),
        (System::Linux, "203.0.113.0/24", "l3dsr:5", "10.1.0.11", "one VIP of its family"),
        (System::Linux, "fd00::100", "l3dsr:5", "10.1.0.11", "one VIP of its family"),
    ] {
        let error = all(&[(vip, server(own, mode))], system).remove(0).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(own), "{error}");
    }
    let twice = [
        ("10.0.0.100", server("10.1.0.11", "l3dsr:5")),
        ("10.0.0.101", server("10.1.0.11", "l3dsr:5")),
    ];
    let error = all(&twice, System::Linux).remove(0).unwrap_err().to_string();
    assert!(error.contains("DSCP 5 names the VIPs 10.0.0.100 and 10.0.0.101"), "{error}");
}

#[test]
fn undoing_goes_backwards_and_leaves_out_nothing() {
    for (_, system) in System::NAMES {
        let guide = all(&[("10.0.0.100", server("10.0.0.11", "l2"))], system).remove(0).unwrap();
        assert_eq!(guide.undo.len(), guide.setup.len(), "{system}");
    }
    let guide = linux(&[("10.0.0.100", server("10.1.0.11", "gue:6080"))]);
    let undo: Vec<_> = guide.undo.iter().map(|step| step.commands[0].as_str()).collect();
    assert_eq!(
        undo[..3],
        ["ip fou del port 6080", "ip link del dsrlb-ipip", "nft delete table inet dsrlb-10.1.0.11"]
    );
    assert_eq!(undo[3], "ip address del 10.0.0.100/32 dev lo");
    assert!(undo[4].contains("/run/dsrlb-10.1.0.11.sysctl"), "{undo:?}");
}
