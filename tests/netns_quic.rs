//! Real datagrams with QUIC headers, from addresses that change, to a running director.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{FlowBalancer, Maglev, QuicConfig, QuicLb, RealServer, VirtualService};
use dsrlb::config::Limits;
use dsrlb::director::Director;
use dsrlb::flow::HashKey;
use lab::{Lab, LabOptions, udp_ask_from};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

/// A datagram with a short header, whose ID says server `number`; no two have the same ID.
fn packet(number: u8, nonce: u16) -> Vec<u8> {
    let [high, low] = nonce.to_be_bytes();
    [&[0x43, 0x20 | low & 0x1f, number, high, low, 7, 7], &[0x5a; 30][..]].concat()
}

#[test]
fn a_client_that_moves_stays_with_its_server_and_a_drained_server_with_its_clients() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("quic")) else { return };
    let _servers = lab.start_udp(443).unwrap();
    let vip = lab.vip4_port(443);
    let [a, b, c, _] = lab.client.v4.octets();
    let other = IpAddr::from([a, b, c, 201]);
    let (subnet, interface) = (format!("{other}/24"), &lab.client.interface);
    lab.client.namespace.run("ip", &["addr", "add", &subnet, "dev", interface]).unwrap();

    let policy = QuicLb::new(Maglev::default()).config(1, QuicConfig::new(1, 4).unwrap()).unwrap();
    let policy = (1..)
        .zip(&lab.backends)
        .fold(policy, |policy, (number, host)| policy.server(&host.name, &[number]).unwrap());
    let key = format!("{vip}/udp").parse().unwrap();
    let service =
        lab.backends.iter().fold(VirtualService::new(key).policy(policy), |service, host| {
            service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
        });
    let director = lab.director.enter(|| {
        let flows = || {
            FlowBalancer::new(1 << 12, Limits::default().backends, HashKey::new([7; 16])).unwrap()
        };
        Director::builder(&lab.director.interface).balancer(flows).service(service).start().unwrap()
    });

    let homes = [IpAddr::from(lab.client.v4), other];
    let asked = |number: u8, nonce: u16| {
        let from = SocketAddr::new(homes[usize::from(nonce % 2)], 20_000 + nonce);
        let payload = packet(number, nonce);
        let answer = lab.client.enter(|| udp_ask_from(from, vip, &payload, TIMEOUT)).unwrap();
        assert_eq!(answer.payload, payload);
        (answer.backend, answer.client)
    };
    let mut clients = BTreeSet::new();
    for (number, host) in (1..).zip(&lab.backends) {
        for nonce in 0..20 {
            let (backend, client) = asked(number, u16::from(number) * 100 + nonce);
            assert_eq!(backend, host.name);
            clients.insert(client.split(':').next().unwrap().to_owned());
        }
    }
    assert_eq!(clients, homes.map(|home| home.to_string()).into());

    // Two IDs that no server has given out: their flows are for whoever takes new ones.
    let drained = &lab.backends[0].name;
    director.drain(key, drained, Duration::from_secs(60)).unwrap();
    for nonce in 1000..1020 {
        assert_eq!(&asked(1, nonce).0, drained);
        assert_ne!(&asked(99, nonce + 100).0, drained);
    }
    let stats = director.shutdown();
    assert_eq!(stats.counts.drops().count(), 0, "{stats:?}");
}
