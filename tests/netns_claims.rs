//! Hosts that tell the link to have a VIP, between real hosts: backends are taken out with the reason and come back,
//! others are warned of.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::Idle;
use dsrlb::director::{Director, DirectorBuilder, Event};
use dsrlb::packet::MacAddress;
use lab::{Host, Lab, LabOptions, http_get};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(500);

/// A service on each VIP, with all backends and no monitor.
fn start(
    lab: &Lab,
    set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send,
) -> (Director, Receiver<Event>) {
    let (events, heard) = channel();
    let services = lab.vips().into_iter().map(|vip| {
        let service = VirtualService::new(vip.to_string().parse().unwrap());
        lab.backends.iter().fold(service, |service, host| {
            service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
        })
    });
    let builder = Director::builder(&lab.director.interface)
        .claim_checks(Some(INTERVAL))
        .on_event(move |event| drop(events.send(event.clone())));
    let builder = services.fold(builder, |builder, service| builder.service(service));
    let director = lab.director.enter(|| set(builder).start().unwrap());
    until("all take traffic", || director.stats().backends.iter().all(|b| b.idle.is_none()));
    (director, heard)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

/// Who takes no new flows, with the VIP of the service and why.
fn idle(director: &Director) -> Vec<(String, IpAddr, Idle)> {
    let backends = director.stats().backends.into_iter();
    backends.filter_map(|b| Some((b.id, b.service.prefix().addr(), b.idle?))).collect()
}

fn answer_arp(host: &Host, answers: bool) {
    let value = if answers { "0" } else { "1" };
    let keys = ["all", "default", "eth0"].map(|of| format!("net/ipv4/conf/{of}/arp_ignore"));
    let settings: Vec<_> = keys.iter().map(|key| (key.as_str(), value)).collect();
    host.namespace.sysctl(&settings).unwrap();
}

/// Moves the IPv6 VIP of a backend: on its link's interface it is answered for.
fn move_vip6(lab: &Lab, host: &Host, from: &str, to: &str) {
    let (vip, options) = (lab.vip6, "nodad preferred_lft 0");
    let lines = [
        format!("addr del {vip}/128 dev {from}"),
        format!("addr add {vip}/128 dev {to} {options}"),
    ];
    host.namespace.ip_batch(&lines).unwrap();
}

/// The faults of both families, one after the other, each with its mending.
fn backends_that_claim_are_found_and_come_back(lab: &Lab, director: &Director) {
    let _http = lab.start_http(80).unwrap();
    // What is tested is who is found, not who of two wins the client's cache.
    let permanent = |vip: IpAddr| {
        format!("neigh replace {vip} lladdr {} dev eth0 nud permanent", lab.director.mac_text())
    };
    let lines: Vec<_> = lab.vips().into_iter().map(permanent).collect();
    lab.client.namespace.ip_batch(&lines).unwrap();
    let b1 = &lab.backends[0];
    let arp: (&dyn Fn(bool), _) = (&|on| answer_arp(b1, on), IpAddr::from(lab.vip4));
    let nd: (&dyn Fn(bool), _) = (
        &|on| {
            let (from, to) = if on { ("lo", "eth0") } else { ("eth0", "lo") };
            move_vip6(lab, b1, from, to);
        },
        IpAddr::from(lab.vip6),
    );
    for (set, vip) in [arp, nd] {
        set(true);
        let found = until("b1 is found to claim", || {
            idle(director) == [("b1".to_owned(), vip, Idle::ClaimsVip { vip })]
        });
        println!("{vip}: found after {found:?}, asked every {INTERVAL:?}");
        assert!(found < 2 * INTERVAL, "{found:?}");
        let says = idle(director)[0].2.to_string();
        assert!(says.contains(&vip.to_string()) && says.contains("bypass the director"), "{says}");
        assert_eq!(director.warnings(), [""; 0]);
        // The others serve.
        for _ in 0..20 {
            let to = (vip, 80).into();
            let answer = lab.client.enter(|| http_get(to, "/", TIMEOUT)).unwrap();
            assert_ne!(answer.backend(), "b1");
        }
        // Not for one lost answer: it stays as long as the fault does.
        std::thread::sleep(4 * INTERVAL);
        assert_eq!(idle(director).len(), 1);
        set(false);
        let mended = until("b1 comes back", || idle(director).is_empty());
        println!("{vip}: back after {mended:?}");
        assert!(mended < 4 * INTERVAL, "{mended:?}");
    }
}

#[test]
fn a_backend_that_claims_a_vip_of_the_host_takes_no_new_flows_until_it_is_silent() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("claims")) else { return };
    let (director, heard) = start(&lab, |builder| builder);
    backends_that_claim_are_found_and_come_back(&lab, &director);
    let is_claim = |event: &Event| matches!(event, Event::VipClaimed { .. });
    assert!(!heard.try_iter().any(|event| is_claim(&event)));
    let begun = Instant::now();
    director.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn nor_where_the_director_answers_for_the_vips() {
    let options = LabOptions { director_holds_vip: false, ..LabOptions::named("claimans") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let (director, _heard) = start(&lab, |builder| builder.answer_for_vips(true));
    backends_that_claim_are_found_and_come_back(&lab, &director);
}

#[test]
fn a_stranger_that_claims_a_vip_is_told_of_once_and_warned_of_while_it_does() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("stranger")) else { return };
    let (director, heard) = start(&lab, |builder| builder);
    let mac = MacAddress(lab.client.mac);
    for (vip, length, options) in
        [(IpAddr::from(lab.vip4), 32, ""), (lab.vip6.into(), 128, "nodad preferred_lft 0")]
    {
        let change = |verb: &str, options: &str| {
            let line = format!("addr {verb} {vip}/{length} dev eth0 {options}");
            lab.client.namespace.ip_batch(&[line]).unwrap();
        };
        heard.try_iter().for_each(drop);
        change("add", options);
        let found = until("it is warned of", || !director.warnings().is_empty());
        println!("{vip}: stranger found after {found:?}");
        assert!(found < 2 * INTERVAL, "{found:?}");
        let warnings = director.warnings();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains(&format!("{mac} answers for the VIP {vip}")), "{warning}");
        std::thread::sleep(4 * INTERVAL);
        assert!(idle(&director).is_empty());
        change("del", "");
        until("the warning goes", || director.warnings().is_empty());
        let told = heard.try_iter().filter(|event| match event {
            Event::VipClaimed { vip: of, mac: by } => (*of, *by) == (vip, mac),
            _ => false,
        });
        assert_eq!(told.count(), 1);
    }
}
