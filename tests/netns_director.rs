//! The director with the real AF_XDP driver, between real hosts: network namespaces on a bridge.
//!
//! What a client gets back, from whom, and what the director counted meanwhile.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::af_xdp::{AttachMode, Attached, XdpOptions};
use dsrlb::director::{Director, DirectorBuilder, Stats};
use dsrlb::flow::HashInput;
use dsrlb::verdict::{AnswerKind, DropReason};
use lab::{
    Lab, LabOptions, http_download, http_get, http_get_from, http_post, ping, raw_ask, udp_ask,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);

/// A service on `key` with every backend of the lab, named `b1`, `b2`, ...
fn service(lab: &Lab, key: impl ToString) -> VirtualService {
    let key = key.to_string();
    let service = VirtualService::new(key.parse().unwrap());
    lab.backends.iter().fold(service, |service, host| {
        service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
    })
}

fn start_with(
    lab: &Lab,
    services: Vec<VirtualService>,
    set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send,
) -> Director {
    lab.director.enter(|| {
        // No frames of the director's own, so that what is sent adds up.
        let builder = Director::builder(&lab.director.interface).claim_checks(None);
        let builder = services.into_iter().fold(builder, DirectorBuilder::service);
        set(builder).start().unwrap()
    })
}

fn start(lab: &Lab, services: Vec<VirtualService>) -> Director {
    start_with(lab, services, |builder| builder)
}

/// Every frame has a verdict, and none was lost on the way in or out.
fn adds_up(stats: &Stats) {
    let counts = &stats.counts;
    assert_eq!(counts.io.received, counts.verdicts(), "{stats:?}");
    assert_eq!(
        counts.io.transmitted,
        counts.forwarded + counts.answers().map(|(_, count)| count).sum::<u64>(),
        "{stats:?}"
    );
    assert_eq!(counts.io.transmit_failed + counts.io.transmit_rejected, 0, "{stats:?}");
    let of_backends: u64 = stats.backends.iter().map(|backend| backend.packets).sum();
    assert_eq!(of_backends, counts.forwarded, "{stats:?}");
}

/// Fetches `count` times; how often each backend answered. Answers come from the VIP, and servers
/// see the client's own address and port.
fn fetch(lab: &Lab, vip: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = lab.client.enter(|| http_get(vip, "/", TIMEOUT)).unwrap();
        assert_eq!(answer.peer, vip);
        assert_eq!(answer.client().parse::<SocketAddr>().unwrap(), answer.local);
        *answers.entry(answer.backend().to_owned()).or_default() += 1;
    }
    answers
}

fn all_backends(answers: &BTreeMap<String, usize>) -> bool {
    answers.keys().map(String::as_str).collect::<Vec<_>>() == ["b1", "b2", "b3"]
}

#[test]
fn tcp_and_udp_over_both_families() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("proto")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let _udp = lab.start_udp(53).unwrap();
    let services = vec![
        service(&lab, format!("{}:80/tcp", lab.vip4)),
        service(&lab, format!("[{}]:80/tcp", lab.vip6)),
        service(&lab, format!("{}:any/udp", lab.vip4)),
        service(&lab, format!("[{}]:53/udp", lab.vip6)),
    ];
    let director = start(&lab, services);
    assert_eq!(director.granted().attach, Some(Attached::Native));
    // A backend that looks for the client's MAC address asks everybody, with the VIP as its source
    // (RFC 4861 section 7.2.2): all have asked before the counting begins.
    fetch(&lab, lab.vip4_port(80), 20);
    fetch(&lab, lab.vip6_port(80), 20);
    let watches = [lab.watch_vip(lab.vip4.into()), lab.watch_vip(lab.vip6.into())];

    for vip in [lab.vip4_port(80), lab.vip6_port(80)] {
        let answers = fetch(&lab, vip, 40);
        assert!(all_backends(&answers), "{answers:?}");
        let posted = lab.client.enter(|| http_post(vip, "/", &[7; 300_000], TIMEOUT)).unwrap();
        assert!(posted.body.contains("300000"), "{}", posted.body);
    }
    for vip in [lab.vip4_port(53), lab.vip6_port(53)] {
        let mut backends = BTreeSet::new();
        for _ in 0..40 {
            let answer = lab.client.enter(|| udp_ask(vip, b"question", TIMEOUT)).unwrap();
            assert_eq!(answer.payload, b"question");
            backends.insert(answer.backend);
        }
        assert_eq!(backends.len(), 3, "{backends:?}");
    }
    // A port that no service has: dropped, counted, and never routed anywhere.
    lab.client.enter(|| udp_ask(lab.vip6_port(54), b"?", Duration::from_millis(300))).unwrap_err();

    for watch in watches {
        assert_eq!(watch.unwrap().take().unwrap(), 0, "answers passed the director");
    }
    let stats = director.shutdown();
    adds_up(&stats);
    assert_eq!(stats.counts.dropped(DropReason::NoService), 1);
}

#[test]
fn ha_ports_carry_every_protocol() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("ha")) else {
        return;
    };
    let _http = lab.start_http(8080).unwrap();
    let _udp = lab.start_udp(7777).unwrap();
    let _raw = lab.start_raw(253).unwrap();
    let director = start(&lab, vec![service(&lab, lab.vip4), service(&lab, lab.vip6)]);
    assert!(all_backends(&fetch(&lab, lab.vip4_port(8080), 40)));
    assert!(all_backends(&fetch(&lab, lab.vip6_port(8080), 40)));
    for vip in lab.vips() {
        lab.client.enter(|| udp_ask((vip, 7777).into(), b"x", TIMEOUT)).unwrap();
        let answer = lab.client.enter(|| raw_ask(vip, 253, b"any protocol", TIMEOUT)).unwrap();
        assert_eq!(answer.payload, b"any protocol");
        let again = lab.client.enter(|| raw_ask(vip, 253, b"again", TIMEOUT)).unwrap();
        assert_eq!(again.backend, answer.backend, "no ports: all of a client go to one backend");
        lab.client.enter(|| ping(vip)).unwrap();
    }
    let stats = director.shutdown();
    adds_up(&stats);
    assert_eq!(stats.counts.answered(AnswerKind::Echo), 2, "the director answers pings");
}

#[test]
fn a_tagged_vlan_keeps_its_tag() {
    let options = LabOptions { vlan: Some(100), ..LabOptions::named("vlan") };
    let Some(lab) = Lab::build_or_skip(&options) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let services = vec![
        service(&lab, format!("{}:80/tcp", lab.vip4)),
        service(&lab, format!("[{}]:80/tcp", lab.vip6)),
    ];
    let director = start(&lab, services);
    // The switch drops what comes from the director untagged or with another tag.
    assert!(all_backends(&fetch(&lab, lab.vip4_port(80), 40)));
    assert!(all_backends(&fetch(&lab, lab.vip6_port(80), 40)));
    adds_up(&director.shutdown());
}

#[test]
fn weights_are_shares() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("weights")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let weighted = lab.backends.iter().zip([0, 1, 3]).fold(
        VirtualService::new(format!("{}:80/tcp", lab.vip4).parse().unwrap()),
        |service, (host, weight)| {
            let backend = RealServer::new(host.v4.into()).with_id(&host.name);
            service.backend(backend.with_weight(weight))
        },
    );
    let director = start(&lab, vec![weighted]);
    let answers = fetch(&lab, lab.vip4_port(80), 400);
    assert_eq!(answers.get("b1"), None, "weight 0 takes no new flows");
    // Binomial around 300 with a deviation of 8.7: five deviations.
    assert!((257..=343).contains(&answers["b3"]), "{answers:?}");
    adds_up(&director.shutdown());
}

#[test]
fn source_ip_is_sticky_and_spreads_clients() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("sticky")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let sticky = service(&lab, format!("{vip}/tcp")).hash_input(HashInput::SourceIp);
    let director = start(&lab, vec![sticky]);
    let more: Vec<String> = (200..220)
        .map(|last| format!("address add 10.77.0.{last}/24 dev {}", lab.client.interface))
        .collect();
    lab.client.namespace.ip_batch(&more).unwrap();
    let mut backends = BTreeSet::new();
    for last in 200..220 {
        let local: SocketAddr = format!("10.77.0.{last}:0").parse().unwrap();
        let ask = || http_get_from(local, vip, "/", TIMEOUT).unwrap().backend().to_owned();
        let first = lab.client.enter(ask);
        for _ in 0..4 {
            assert_eq!(lab.client.enter(ask), first, "a client changed its backend");
        }
        backends.insert(first);
    }
    assert_eq!(backends.len(), 3, "{backends:?}");
    adds_up(&director.shutdown());
}

#[test]
fn a_large_download_does_not_pass_the_director() {
    const BYTES: u64 = 100_000_000;
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("large")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let director = start(&lab, vec![service(&lab, format!("{vip}/tcp"))]);
    let watch = lab.watch_vip(vip.ip()).unwrap();
    let before = lab.counters(&lab.director).unwrap();
    let got = lab.client.enter(|| http_download(vip, BYTES, TIMEOUT * 10)).unwrap();
    let after = lab.counters(&lab.director).unwrap();
    assert_eq!(got, BYTES);
    assert_eq!(watch.take().unwrap(), 0);
    let stats = director.shutdown();
    adds_up(&stats);
    let carried = after.rx_bytes - before.rx_bytes;
    assert!(carried < BYTES / 20 && carried > 0, "{carried} bytes reached the director");
    assert!(stats.counts.forwarded_bytes < BYTES / 20);
}

#[test]
fn the_directors_own_traffic_is_untouched() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("own")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    // Something like SSH on the director itself: long-lived, on its own address.
    let own =
        lab::HttpServer::start(&lab.director.namespace, "[::]:22".parse().unwrap(), "director");
    let _own = own.unwrap();
    let director = start(&lab, vec![service(&lab, lab.vip4), service(&lab, lab.vip6)]);
    for address in [IpAddr::from(lab.director.v4), lab.director.v6.into()] {
        let answer = lab.client.enter(|| http_get((address, 22).into(), "/", TIMEOUT)).unwrap();
        assert_eq!(answer.backend(), "director");
        let bytes = lab.client.enter(|| http_download((address, 22).into(), 1_000_000, TIMEOUT));
        assert_eq!(bytes.unwrap(), 1_000_000);
        lab.client.enter(|| ping(address)).unwrap();
    }
    let stats = director.shutdown();
    assert_eq!(stats.counts.io.received, 0, "the director's own traffic reached user space");
}

#[test]
fn two_queues_have_a_worker_each() {
    let options = LabOptions { queues: 2, ..LabOptions::named("queues") };
    let Some(lab) = Lab::build_or_skip(&options) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let director = start(&lab, vec![service(&lab, format!("{vip}/tcp"))]);
    assert_eq!(director.granted().zero_copy.len(), 2);
    assert!(all_backends(&fetch(&lab, vip, 60)));
    let queues = director.worker_counts();
    assert_eq!(queues.len(), 2);
    assert!(queues.iter().all(|counts| counts.forwarded > 0), "{queues:?}");
    adds_up(&director.shutdown());
}

#[test]
fn generic_mode_works_too() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("generic")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let director = start_with(&lab, vec![service(&lab, format!("{vip}/tcp"))], |builder| {
        builder.xdp(XdpOptions { attach: AttachMode::Generic, ..XdpOptions::default() })
    });
    assert_eq!(director.granted().attach, Some(Attached::Generic));
    assert!(all_backends(&fetch(&lab, vip, 40)));
    adds_up(&director.shutdown());
}

#[test]
fn answers_for_a_vip_that_nobody_holds() {
    let options = LabOptions { director_holds_vip: false, ..LabOptions::named("answer") };
    let Some(lab) = Lab::build_or_skip(&options) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let (vip4, vip6) = (lab.vip4_port(80), lab.vip6_port(80));
    let services = vec![service(&lab, format!("{vip4}/tcp")), service(&lab, format!("{vip6}/tcp"))];
    // An entry that is wrong, and too fresh to be asked again: only an announcement mends it.
    let wrong = |vip: IpAddr| {
        let entry = format!(
            "neighbour replace {vip} lladdr 02:00:00:00:99:99 dev {} nud reachable",
            lab.client.interface
        );
        lab.client.namespace.ip_batch(&[entry]).unwrap();
    };
    wrong(vip4.ip());
    wrong(vip6.ip());
    let director = start_with(&lab, services, |builder| builder.answer_for_vips(true));
    assert!(all_backends(&fetch(&lab, vip4, 40)));
    assert!(all_backends(&fetch(&lab, vip6, 40)));
    // And with nothing known, the client has to ask.
    let forget = format!("neighbour flush dev {}", lab.client.interface);
    lab.client.namespace.ip_batch(&[forget]).unwrap();
    assert!(all_backends(&fetch(&lab, vip4, 40)));
    assert!(all_backends(&fetch(&lab, vip6, 40)));
    // Somebody else who takes the VIP for his own is told that it is taken (RFC 4862 section 5.4).
    let client = &lab.client;
    let taken = format!("address add {}/128 dev {}", lab.vip6, client.interface);
    client
        .namespace
        .sysctl(&[(&format!("net/ipv6/conf/{}/accept_dad", client.interface), "1")])
        .unwrap();
    client.namespace.ip_batch(&[taken]).unwrap();
    until(|| {
        let shown = client.namespace.run("ip", &["address", "show", "dadfailed"]).unwrap();
        shown.contains(&lab.vip6.to_string())
    });
    let stats = director.shutdown();
    assert!(stats.counts.answered(AnswerKind::Neighbour) >= 2, "{stats:?}");
    assert_eq!(stats.counts.io.received, stats.counts.verdicts());
}

#[test]
fn backends_come_and_go_while_it_runs() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("change")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let key = format!("{vip}/tcp").parse().unwrap();
    let first = RealServer::new(lab.backends[0].v4.into()).with_id("b1");
    let director = start(&lab, vec![VirtualService::new(key).backend(first)]);
    assert_eq!(fetch(&lab, vip, 10).len(), 1);

    for host in &lab.backends[1..] {
        director.add_backend(key, RealServer::new(host.v4.into()).with_id(&host.name)).unwrap();
    }
    until(|| director.stats().backends.iter().all(|backend| backend.idle.is_none()));
    assert!(all_backends(&fetch(&lab, vip, 40)));

    director.remove_backend(key, "b1").unwrap();
    assert!(!fetch(&lab, vip, 20).contains_key("b1"));

    // A service without backends is no error, for one may come; it is warned of.
    assert_eq!(director.warnings(), [""; 0]);
    let with_empty = |empty: bool| {
        let mut config = director.config();
        config.services.retain(|bound| bound.service.key == key);
        if empty {
            let key = format!("{}:9/udp", lab.vip4).parse().unwrap();
            config.services.push(VirtualService::new(key).into());
        }
        director.apply(config).unwrap();
    };
    with_empty(true);
    let warnings = director.warnings();
    assert!(warnings[0].contains(":9/udp has no backends"), "{warnings:?}");
    let unanswered = || udp_ask((lab.vip4, 9).into(), b"?", Duration::from_millis(300));
    lab.client.enter(unanswered).unwrap_err();
    until(|| director.stats().counts.dropped(DropReason::NoBackend) == 1);
    with_empty(false);

    // What is wrong is refused, says why, and changes nothing.
    let itself = director.add_backend(key, RealServer::new(lab.director.v4.into()));
    assert!(itself.unwrap_err().to_string().contains("director's own address"));
    let twice = director.add_backend(key, RealServer::new(lab.client.v4.into()).with_id("b2"));
    assert!(twice.unwrap_err().to_string().contains("id of its own"));
    director.remove_backend(key, "b9").unwrap_err();
    assert_eq!(director.stats().backends.len(), 2);

    // A new VIP is served at once, an old one no longer.
    let mut config = director.config();
    config.services[0].service.key = format!("{}:81/tcp", lab.vip4).parse().unwrap();
    director.apply(config).unwrap();
    let _http = lab.start_http(81).unwrap();
    fetch(&lab, lab.vip4_port(81), 5);
    lab.client.enter(|| http_get(vip, "/", Duration::from_millis(300))).unwrap_err();
    adds_up_but_for_removed(&director.shutdown());
}

/// As [`adds_up`], without the packets of backends that have been removed since.
fn adds_up_but_for_removed(stats: &Stats) {
    assert_eq!(stats.counts.io.received, stats.counts.verdicts(), "{stats:?}");
}

#[test]
fn a_backend_without_a_usable_mac_takes_no_traffic_and_says_why() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("mac")) else {
        return;
    };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let director_mac = lab.director.mac_text();
    let pinned =
        [(11u8, director_mac.as_str()), (12, "00:00:00:00:00:00"), (13, "01:00:5e:00:00:01")];
    let entries: Vec<String> = pinned
        .iter()
        .map(|(last, mac)| {
            let interface = &lab.director.interface;
            format!("neighbour replace 10.77.0.{last} lladdr {mac} dev {interface} nud permanent")
        })
        .collect();
    lab.director.namespace.ip_batch(&entries).unwrap();
    let nobody = RealServer::new("10.77.0.77".parse().unwrap()).with_id("nobody");
    let routed = RealServer::new("192.0.2.1".parse().unwrap()).with_id("routed");
    let service = service(&lab, format!("{vip}/tcp")).backend(nobody).backend(routed);
    let director = start(&lab, vec![service]);
    lab.client.enter(|| http_get(vip, "/", Duration::from_millis(400))).unwrap_err();
    let stats = director.stats();
    for (id, says) in [
        ("b1", "director's own"),
        ("b2", "zero"),
        ("b3", "multicast"),
        ("nobody", "answer"),
        ("routed", "no route"),
    ] {
        let backend = stats.backends.iter().find(|backend| backend.id == id).unwrap();
        let why = backend.idle.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(why.contains(says), "{id}: {why}");
        assert_eq!(backend.packets, 0);
    }
    assert!(stats.counts.dropped(DropReason::NoBackend) > 0);

    // The operator mends one; it is used from then on, without anybody asking.
    let mend = format!(
        "neighbour replace 10.77.0.12 lladdr {} dev {} nud permanent",
        lab.backends[1].mac_text(),
        lab.director.interface
    );
    lab.director.namespace.ip_batch(&[mend]).unwrap();
    until(|| director.stats().backends[1].idle.is_none());
    assert_eq!(fetch(&lab, vip, 5).keys().collect::<Vec<_>>(), ["b2"]);
    adds_up(&director.shutdown());
}

/// Waits for something that has to happen soon.
fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not happen within 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
