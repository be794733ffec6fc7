//! What files mean.

use dsrlb::balancer::{
    AdminState, Backend, Echo, FlowTimes, Maglev, Persistence, Policy, QuicConfig, QuicLb, Record,
    WhenAllDown,
};
use dsrlb::config::file::{ConfigFile, Mode, MonitorKind, Payload};
use dsrlb::config::{Host, Limits, check};
use dsrlb::dataplane::{Cores, Polling};
use dsrlb::flow::{ConnectionId, HashInput, HashKey, QuicHeader};
use dsrlb::forwarding::{Dscp, Encapsulation, Forwarding, GueVariant, Tunnel, TunnelDscp};
use dsrlb::health::{HealthPolicy, HealthState, Through};
use std::fmt::Write;
use std::time::{Duration, Instant};

const ALL_KEYS: &str = include_str!("all-keys.toml");

#[test]
fn the_format_of_the_issue_is_read() {
    let file = ConfigFile::parse(
        r#"
        [dataplane]
        interface = "eth0"            # or several: interfaces = ["eth0", "eth1"]
        mode = "auto"                 # auto | zero-copy | copy | generic

        [[service]]
        vip = "10.0.0.100:80/tcp"
        hash = "5-tuple"
        policy = "maglev"
        when-all-down = "drop"
        monitor = { kind = "http", port = 80, path = "/", through = "vip", interval = "1s", timeout = "500ms", rise = 2, fall = 3 }

        [[service.backend]]
        address = "10.0.0.11"
        weight = 1
        forward = "l2"
        "#,
    )
    .unwrap();
    assert_eq!(file.dataplane.as_ref().unwrap().ingress(), "eth0");
    let monitor = file.services[0].monitor.as_ref().unwrap();
    assert_eq!(monitor.policy(), HealthPolicy::default());
    let service = file.services[0].to_service();
    assert_eq!(service.key.to_string(), "10.0.0.100:80/tcp");
    assert_eq!(service.hash_input, HashInput::FiveTuple);
    assert_eq!(service.backends[0].id(), "10.0.0.11");
    assert_eq!(service.backends[0].forwarding(), Forwarding::L2);
}

#[test]
fn every_key_has_its_effect() {
    let file = ConfigFile::parse(ALL_KEYS).unwrap();
    let dataplane = file.dataplane.as_ref().unwrap();
    assert_eq!(dataplane.ingress(), "eth0");
    assert_eq!(dataplane.egress().collect::<Vec<_>>(), ["eth1"]);
    assert_eq!(dataplane.mode, Some(Mode::Auto));
    let numbers = [dataplane.queues, dataplane.frames_per_queue, dataplane.frame_size];
    assert_eq!(numbers.map(|number| number.unwrap().get()), [4, 8192, 4096]);
    assert_eq!(dataplane.huge_pages, Some(true));
    assert_eq!(dataplane.transmit_budget.unwrap().get(), 128);
    assert_eq!(dataplane.polling, Some(Polling::Busy));
    assert_eq!(dataplane.busy_poll_budget.unwrap().get(), 32);
    assert_eq!(dataplane.cores, Some(Cores::List(vec![2, 3, 4, 5])));
    assert_eq!(dataplane.flows_per_queue.unwrap().get(), 1_000_000);
    assert_eq!(dataplane.record, Some(Record::Contested));
    assert_eq!(dataplane.answer_for_vips, Some(true));
    assert_eq!(dataplane.tunnel_sources().ipv4.unwrap().to_string(), "192.0.2.0/24");
    assert_eq!(dataplane.tunnel_sources().ipv6.unwrap().to_string(), "2001:db8:9::1/128");
    assert_eq!(dataplane.probe_sources().ipv4.unwrap().to_string(), "10.0.0.1");
    assert_eq!(dataplane.probe_sources().ipv6.unwrap().to_string(), "fd00::1");
    assert_eq!(dataplane.limits(), Limits { services: 2_000, backends: 20_000 });

    assert_eq!(file.metrics.as_ref().unwrap().listen.to_string(), "127.0.0.1:9100");

    let service = file.services[0].to_service();
    assert_eq!(service.hash_key, HashKey::new(std::array::from_fn(|i| i as u8)));
    assert_eq!(service.policy.fingerprint().unwrap(), "dsrlb maglev 4093");
    assert_eq!(service.echo, Echo::Forward);
    let WhenAllDown::Fallback(sorry) = &service.when_all_down else {
        panic!("{:?}", service.when_all_down);
    };
    assert_eq!((sorry.id(), sorry.address().to_string().as_str()), ("sorry", "10.0.0.99"));

    assert_eq!(service.persistence, Persistence::Always);
    let times = FlowTimes {
        syn: Duration::from_secs(30),
        copy: Duration::from_secs(1),
        established: Duration::from_secs(130 * 60),
        closing: Duration::from_secs(10),
        udp: Duration::from_secs(30),
        quic: Duration::from_secs(300),
        sctp: Duration::from_secs(90),
        other: Duration::from_secs(45),
    };
    assert_eq!(service.times, times);
    let sessionless = [0, 1].map(|n: usize| file.services[n].to_service().sessionless);
    assert_eq!(sessionless, [false, true]);

    let backends: Vec<_> = service.backends.iter().map(|backend| backend.as_ref()).collect();
    assert_eq!((backends[0].id(), backends[0].weight()), ("web-1", 10));
    assert_eq!(
        [0, 1, 2].map(|n: usize| backends[n].admin()),
        [AdminState::Enabled, AdminState::Draining, AdminState::Disabled]
    );
    let gue = Encapsulation::Gue { port: 6080, variant: GueVariant::One, checksum: true };
    let with = |encapsulation, dscp, hop_limit, path_mtu| {
        let dscp = TunnelDscp::Pipe(Dscp::new(dscp).unwrap());
        Forwarding::Tunnel(Tunnel { encapsulation, dscp, hop_limit, path_mtu: Some(path_mtu) })
    };
    assert_eq!(
        backends.iter().map(|backend| backend.forwarding()).collect::<Vec<_>>(),
        [
            Forwarding::L2,
            Forwarding::IPIP,
            with(Encapsulation::IpIp, 46, 32, 1400),
            with(gue, 0, 255, 1500),
            Forwarding::L3Dsr(Dscp::new(5).unwrap()),
        ]
    );

    let monitor = file.services[0].monitor.as_ref().unwrap();
    assert_eq!(monitor.kind, MonitorKind::Https);
    assert_eq!(monitor.port_for(&service.key).unwrap().get(), 8443);
    assert_eq!(monitor.path.as_deref(), Some("/health?full=1"));
    assert_eq!(monitor.host.as_deref(), Some("www.example.com"));
    assert_eq!(monitor.method.as_deref(), Some("GET"));
    assert_eq!(monitor.status, Some(200..=399));
    assert_eq!(monitor.body.as_deref(), Some("ok"));
    assert_eq!(monitor.through(), Through::Vip);
    let policy = HealthPolicy {
        interval: Duration::from_secs(2),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 5,
        initial: HealthState::Down,
    };
    assert_eq!(monitor.policy(), policy);

    let service = file.services[1].to_service();
    assert_eq!(service.policy.fingerprint().unwrap(), "dsrlb rendezvous");
    assert_eq!(service.hash_input, HashInput::SourceIp);
    assert_eq!(service.echo, Echo::Drop);
    assert!(matches!(service.when_all_down, WhenAllDown::KeepLast));
    let monitor = file.services[1].monitor.as_ref().unwrap();
    assert_eq!(monitor.port_for(&service.key).unwrap().get(), 53);
    assert_eq!(monitor.request, Some(Payload(vec![0, 1])));
    assert_eq!(monitor.response, Some(Payload(b"ok".to_vec())));
    assert_eq!(monitor.through(), Through::Backend);

    let policy = file.services[2].to_service().policy;
    let config = |server_id, nonce| QuicConfig::new(server_id, nonce).unwrap();
    let key = 0x8f95f09245765f80256934e50c66207fu128.to_be_bytes();
    let expected = QuicLb::new(Maglev::default())
        .config(0, config(2, 14).encrypted(&key))
        .and_then(|policy| policy.config(1, config(1, 6)))
        .and_then(|policy| policy.server("10.0.0.11", &[0x0a, 0x1b]))
        .and_then(|policy| policy.server("10.0.0.12", &[0x0a, 0x1c]))
        .and_then(|policy| policy.server("10.0.0.12", &[7]));
    assert_eq!(policy.fingerprint(), expected.unwrap().fingerprint());
    let router = policy.connections(&["10.0.0.11", "10.0.0.12"]).unwrap();
    let id = ConnectionId::new(QuicHeader::Short, &[0x20, 7, 1, 2, 3, 4, 5, 6]);
    assert_eq!(router.route(&id), Some(1));
    let shown = format!("{file:?}");
    assert!(shown.contains("QuicKey(..)") && !shown.contains("143, 149"), "{shown}");
}

#[test]
fn what_is_left_out_is_the_usual() {
    let file = ConfigFile::parse(
        "[[service]]\nvip = \"10.0.0.100\"\n\
         monitor = { kind = \"neighbour\", interval = \"100ms\" }\n\
         backend = [{ address = \"10.0.0.11\" }]",
    )
    .unwrap();
    assert_eq!(file.dataplane, None);
    let monitor = file.services[0].monitor.as_ref().unwrap();
    assert_eq!(monitor.through(), Through::Backend);
    assert_eq!(monitor.policy().timeout, Duration::from_millis(100));
    let service = file.services[0].to_service();
    let usual = dsrlb::VirtualService::new(service.key);
    assert_eq!((service.hash_key, service.echo), (usual.hash_key, usual.echo));
    assert_eq!(service.policy.fingerprint(), usual.policy.fingerprint());
    assert_eq!((service.backends[0].weight(), service.backends[0].id()), (1, "10.0.0.11"));
}

#[test]
fn a_ping_monitor_is_built() {
    let text = "[[service]]\nvip = \"10.0.0.100\"\nmonitor = { kind = \"ping\", rise = 7 }";
    let config = ConfigFile::parse(text).unwrap().to_config().unwrap();
    assert_eq!(config.services[0].monitor.as_ref().unwrap().policy.rise, 7);
}

/// With ten backends each; a limit of time that is far from what it takes, even unoptimised.
#[test]
fn ten_thousand_services_are_read_and_checked_at_once() {
    let mut text = String::from("[dataplane]\ninterface = \"eth0\"\n");
    for n in 0..10_000u32 {
        let (a, b) = (n >> 8, n & 255);
        writeln!(text, "[[service]]\nvip = \"10.1.{a}.{b}:80/tcp\"").unwrap();
        writeln!(text, "monitor = {{ kind = \"ping\" }}").unwrap();
        for backend in 0..10 {
            writeln!(text, "[[service.backend]]\naddress = \"10.2.{a}.{backend}\"\nweight = 3")
                .unwrap();
        }
    }
    let start = Instant::now();
    let file = ConfigFile::parse(&text).unwrap();
    let parsed = start.elapsed();
    let config = file.to_config().unwrap();
    let mut host = Host::default();
    host.probe_sources.ipv4 = Some([10, 0, 0, 1].into());
    let start = Instant::now();
    check(&config, &host, &Limits { services: 10_000, backends: 100_000 }).unwrap();
    let checked = start.elapsed();
    println!("{} bytes read in {parsed:?}, checked in {checked:?}", text.len());
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 3 });
    assert!(parsed + checked < limit, "{parsed:?} and {checked:?}");
}
