//! A second director takes over, after a change of the pool, and the connections of the first go on.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::Hub;
use dsrlb::director::Director;
use dsrlb::flow::HashKey;
use lab::{Host, HttpConnection, Lab, LabOptions};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 40;

/// A service for these backends, with these weights.
fn service<'a>(lab: &Lab, backends: impl IntoIterator<Item = (&'a Host, u16)>) -> VirtualService {
    let key = format!("{}/tcp", lab.vip4_port(80)).parse().unwrap();
    backends.into_iter().fold(VirtualService::new(key), |service, (host, weight)| {
        let server = RealServer::new(host.v4.into()).with_id(&host.name);
        service.backend(server.with_weight(weight))
    })
}

/// Sends what the client has for the VIP to this host, as a router would that has learnt of another way.
fn route_to(lab: &Lab, host: &Host) {
    let (vip, mac, interface) =
        (lab.vip4.to_string(), host.mac_text(), lab.client.interface.as_str());
    let neighbour =
        ["neigh", "replace", &vip, "lladdr", &mac, "dev", interface, "nud", "permanent"];
    lab.client.namespace.run("ip", &neighbour).unwrap();
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many of the connections that the first director had went on at the second; how many were to the
/// backend that takes no new ones.
fn take_over(lab: &Lab, hub: Option<&Hub>) -> (usize, usize) {
    let [b1, b2, b3, second] = &lab.backends[..] else { panic!("four") };
    let start = |host: &Host, service: VirtualService| {
        let mut builder = Director::builder(&host.interface).service(service);
        if let Some(hub) = hub {
            let side = hub.side();
            builder = builder.sync(HashKey::new([5; 16]), move |_queue| side.member());
        }
        host.enter(|| builder.start().unwrap())
    };
    let first = start(&lab.director, service(lab, [(b1, 1), (b2, 1)]));
    route_to(lab, &lab.director);
    let vip = lab.vip4_port(80);
    let mut connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            lab.client.enter(|| {
                let mut connection = HttpConnection::open(vip, TIMEOUT).unwrap();
                let backend = connection.get("/").unwrap().backend().to_owned();
                (connection, backend)
            })
        })
        .collect();
    let of_b1 = connections.iter().filter(|(_, backend)| backend == "b1").count();

    // One is drained, another comes; the second director has known them in no other way, nor in that order.
    first.apply([service(lab, [(b1, 0), (b2, 1), (b3, 1)])].into_iter().collect()).unwrap();
    let other = start(second, service(lab, [(b3, 1), (b2, 1), (b1, 0)]));
    let resolved =
        |one: &Director| one.stats().backends.iter().filter(|b| b.idle.is_none()).count();
    until("both have found the backends", || resolved(&first) == 2 && resolved(&other) == 2);
    for (connection, backend) in &mut connections {
        assert_eq!(connection.get("/").unwrap().backend(), *backend, "at the first");
    }
    if hub.is_some() {
        until("the second knows them", || other.stats().counts.sync.new >= CONNECTIONS as u64);
    }
    drop(first);
    route_to(lab, second);
    let went_on = |(connection, backend): &mut (HttpConnection, String)| {
        connection.get("/").is_ok_and(|answer| answer.backend() == *backend)
    };
    let kept = connections.iter_mut().filter_map(|one| went_on(one).then_some(())).count();
    let counts = other.shutdown().counts;
    println!("{kept} of {CONNECTIONS} connections went on, {of_b1} were to b1; {:?}", counts.sync);
    assert!(counts.forwarded > CONNECTIONS as u64, "{counts:?}");
    (kept, of_b1)
}

#[test]
fn connections_go_on_at_another_director_that_shares_flows() {
    // The two spread packets over their queues in different ways: one has no others.
    let options = LabOptions { backends: 4, queues: 2, ..LabOptions::named("sync") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _servers = lab.start_http(80).unwrap();
    // As on the first director's cable: frames are whole when they come.
    let whole = ["-K", &lab.backends[3].name, "tx", "off", "tso", "off", "gso", "off"];
    lab.switch.run("ethtool", &whole).unwrap();

    let (kept, of_b1) = take_over(&lab, None);
    assert!(of_b1 > 0 && kept <= CONNECTIONS - of_b1, "without sharing, those of b1 break");
    let (kept, of_b1) = take_over(&lab, Some(&Hub::new(Hub::ROOM)));
    assert_eq!(kept, CONNECTIONS);
    assert!(of_b1 > 0);
}
