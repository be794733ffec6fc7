//! The laboratory itself: what the other tests take for granted about it.

#[path = "../examples/lab/mod.rs"]
mod lab;

use lab::{
    DatagramServer, Host, HttpConnection, Lab, LabOptions, http_download, http_get, http_get_from,
    http_post, ping, raw_ask, udp_ask,
};
use std::error::Error;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

type TestResult = Result<(), Box<dyn Error>>;

const TIMEOUT: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(300);
/// RFC 3692: for experiments and testing.
const EXPERIMENTAL: u8 = 253;

fn own_addresses(host: &Host) -> [IpAddr; 2] {
    [host.v4.into(), host.v6.into()]
}

/// The MAC addresses that a host's neighbour table has for an address; none while it only asks for it.
fn neighbour(host: &Host, address: IpAddr) -> Result<Vec<String>, Box<dyn Error>> {
    let text = host.namespace.run("ip", &["-j", "neigh", "show", "to", &address.to_string()])?;
    let entries: serde_json::Value = serde_json::from_str(&text)?;
    let entries = entries.as_array().ok_or("not a list")?;
    Ok(entries.iter().filter_map(|entry| Some(entry["lladdr"].as_str()?.to_owned())).collect())
}

/// Delivers the client's packets for the VIPs to one host, as a director would.
fn direct_vips_to(lab: &Lab, host: &Host) -> TestResult {
    for vip in lab.vips() {
        let entry =
            ["neigh", "replace", &vip.to_string(), "lladdr", &host.mac_text(), "nud", "permanent"];
        lab.client.namespace.run("ip", &[&entry[..], &["dev", &lab.client.interface]].concat())?;
    }
    Ok(())
}

#[test]
fn hosts_talk_to_each_other_from_their_own_addresses() -> TestResult {
    let started = Instant::now();
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("own")) else {
        return Ok(());
    };
    assert!(started.elapsed() < Duration::from_secs(2), "building took {:?}", started.elapsed());
    let _http = lab.start_http(80)?;

    for (backend, address) in
        lab.backends.iter().flat_map(|b| own_addresses(b).map(|address| (b, address)))
    {
        let port = SocketAddr::new(address, 80);
        let answer = lab.client.enter(|| http_get(port, "/", TIMEOUT))?;
        assert_eq!((answer.backend(), answer.peer), (backend.name.as_str(), port));
        assert_eq!(answer.client(), answer.local.to_string());
        assert_eq!(lab.client.enter(|| http_download(port, 3_000_000, TIMEOUT))?, 3_000_000);
        let uploaded = lab.client.enter(|| http_post(port, "/", &[7; 300_000], TIMEOUT))?;
        assert!(uploaded.body.ends_with("received=300000"), "{}", uploaded.body);

        let _udp =
            DatagramServer::udp(&backend.namespace, SocketAddr::new(address, 53), &backend.name)?;
        let answer =
            lab.client.enter(|| udp_ask(SocketAddr::new(address, 53), &[9; 4000], TIMEOUT))?;
        assert_eq!((answer.backend, answer.payload), (backend.name.clone(), vec![9; 4000]));
        let _raw = DatagramServer::raw(&backend.namespace, address, EXPERIMENTAL, &backend.name)?;
        let answer = lab.client.enter(|| raw_ask(address, EXPERIMENTAL, b"hello", TIMEOUT))?;
        assert_eq!((answer.backend, answer.payload), (backend.name.clone(), b"hello".to_vec()));
        lab.client.enter(|| ping(address))?;
        assert_eq!(neighbour(&lab.client, address)?, [backend.mac_text()]);
    }
    assert_eq!(lab.client.mac_text(), "02:00:00:00:01:02");
    assert_eq!(lab.director.mac_text(), "02:00:00:00:01:01");
    assert_eq!(lab.backends[2].mac_text(), "02:00:00:00:01:13");
    assert!(lab.counters(&lab.client)?.rx_bytes > 6 * 3_000_000);
    Ok(())
}

#[test]
fn nobody_uses_the_vip_as_a_source_of_his_own() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("source")) else {
        return Ok(());
    };
    // The director's health checks, for one, have to come from its own address.
    let hosts = [&lab.client, &lab.director].into_iter().chain(&lab.backends);
    for (from, to) in hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to))) {
        for (own, other) in own_addresses(from).into_iter().zip(own_addresses(to)) {
            let any =
                SocketAddr::new(if own.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
            let source = from.enter(|| {
                let socket = UdpSocket::bind(any)?;
                socket.connect((other, 9))?;
                socket.local_addr()
            })?;
            if from.name != to.name {
                assert_eq!(source.ip(), own, "{} to {}", from.name, to.name);
            }
        }
    }
    Ok(())
}

#[test]
fn only_the_director_answers_for_the_vip() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("arp")) else {
        return Ok(());
    };
    let _http = lab.start_http(80)?;
    for vip in lab.vips() {
        // No data path runs: the director's own kernel refuses the connection, which shows who got the packet.
        let error =
            lab.client.enter(|| http_get(SocketAddr::new(vip, 80), "/", TIMEOUT)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(neighbour(&lab.client, vip)?, [lab.director.mac_text()]);
    }
    Ok(())
}

#[test]
fn without_the_director_nobody_answers_for_the_vip() -> TestResult {
    let options = LabOptions { director_holds_vip: false, ..LabOptions::named("noarp") };
    let Some(lab) = Lab::build_or_skip(&options) else {
        return Ok(());
    };
    let _http = lab.start_http(80)?;
    for vip in lab.vips() {
        // Backends talk first, which must not teach the client the VIP either.
        for backend in &lab.backends {
            backend.enter(|| {
                UdpSocket::bind((vip, 0))?.send_to(
                    b"hello",
                    SocketAddr::new(own_addresses(&lab.client)[usize::from(vip.is_ipv6())], 9),
                )
            })?;
        }
        lab.client.enter(|| http_get(SocketAddr::new(vip, 80), "/", SHORT)).unwrap_err();
        assert_eq!(neighbour(&lab.client, vip)?, [""; 0]);
    }
    Ok(())
}

#[test]
fn backends_answer_from_the_vip_and_past_the_director() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("dsr")) else {
        return Ok(());
    };
    let _servers = (lab.start_http(80)?, lab.start_udp(53)?, lab.start_raw(EXPERIMENTAL)?);
    for backend in &lab.backends {
        direct_vips_to(&lab, backend)?;
        for vip in lab.vips() {
            let watch = lab.watch_vip(vip)?;
            let http = SocketAddr::new(vip, 80);
            assert_eq!(lab.client.enter(|| http_get(http, "/", TIMEOUT))?.backend(), backend.name);
            assert_eq!(lab.client.enter(|| http_download(http, 1_000_000, TIMEOUT))?, 1_000_000);
            assert_eq!(
                lab.client.enter(|| udp_ask(SocketAddr::new(vip, 53), b"x", TIMEOUT))?.backend,
                backend.name
            );
            assert_eq!(
                lab.client.enter(|| raw_ask(vip, EXPERIMENTAL, b"x", TIMEOUT))?.backend,
                backend.name
            );
            assert_eq!(watch.take()?, 0, "frames from {vip} on the director's cable");
        }
    }
    let from = (lab.client.v4, 40_000).into();
    for _ in 0..2 {
        let answer = lab.client.enter(|| http_get_from(from, lab.vip4_port(80), "/", TIMEOUT))?;
        assert_eq!(answer.client(), "10.77.0.2:40000");
    }
    Ok(())
}

#[test]
fn the_watch_sees_frames_from_the_vip() -> TestResult {
    for vlan in [None, Some(42)] {
        let Some(lab) = Lab::build_or_skip(&LabOptions { vlan, ..LabOptions::named("watch") })
        else {
            return Ok(());
        };
        let pairs = lab
            .vips()
            .into_iter()
            .zip(own_addresses(&lab.client))
            .zip(own_addresses(&lab.director));
        for ((vip, client), director) in pairs {
            let watch = lab.watch_vip(vip)?;
            // Out of the director, and, from a backend, into it.
            lab.director.enter(|| UdpSocket::bind((vip, 0))?.send_to(b"out", (client, 9)))?;
            lab.backends[0].enter(|| UdpSocket::bind((vip, 0))?.send_to(b"in", (director, 9)))?;
            // Sending returns before a neighbour is resolved.
            let deadline = Instant::now() + TIMEOUT;
            let mut seen = 0;
            while seen < 2 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
                seen += watch.take()?;
            }
            assert!(seen >= 2, "saw {seen} frames from {vip} with VLAN {vlan:?}");
        }
    }
    Ok(())
}

#[test]
fn a_trunk_tags_the_wire_and_nothing_else() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions { vlan: Some(42), ..LabOptions::named("vlan") })
    else {
        return Ok(());
    };
    for address in own_addresses(&lab.director) {
        let _udp =
            DatagramServer::udp(&lab.director.namespace, SocketAddr::new(address, 53), "director")?;
        let ask =
            || lab.client.enter(|| udp_ask(SocketAddr::new(address, 53), &[0; 1000], TIMEOUT));
        ask()?;
        let before = lab.counters(&lab.director)?;
        for _ in 0..20 {
            ask()?;
        }
        let after = lab.counters(&lab.director)?;
        let headers = 14 + 4 + 8 + if address.is_ipv4() { 20 } else { 40 };
        let received = after.rx_bytes - before.rx_bytes;
        // Between n frames with a tag and n frames without lie 80 bytes; a stray ND frame would be longer than that.
        assert!(
            received >= 20 * (1000 + headers),
            "20 frames had {received} bytes: no tag on the wire"
        );
    }
    // TCP too: its checksums and segments must be complete before the tag goes on.
    let _http = lab.start_http_on(&lab.director, 80)?;
    let port = (lab.director.v4, 80).into();
    assert_eq!(lab.client.enter(|| http_download(port, 1_000_000, TIMEOUT))?, 1_000_000);
    lab.client.enter(|| http_post(port, "/", &[0; 300_000], TIMEOUT))?;
    Ok(())
}

#[test]
fn the_directors_cable_has_its_queues_and_no_offloads() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions { queues: 4, ..LabOptions::named("queues") })
    else {
        return Ok(());
    };
    let channels = lab.director.namespace.run("ethtool", &["-l", &lab.director.interface])?;
    let (_, current) = channels.split_once("Current hardware settings").ok_or(channels.clone())?;
    let queues =
        |name: &str| current.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!((queues("RX:"), queues("TX:")), (Some("4"), Some("4")), "{channels}");
    let features = lab.switch.run("ethtool", &["-k", &lab.director.name])?;
    for feature in ["tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload"] {
        assert!(
            features.contains(&format!("{feature}: off\n")),
            "{feature} is not off:\n{features}"
        );
    }
    Ok(())
}

#[test]
fn servers_stop_and_cables_come_out() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions { backends: 1, ..LabOptions::named("faults") })
    else {
        return Ok(());
    };
    let backend = &lab.backends[0];
    let port = SocketAddr::from((backend.v4, 80));
    let server = lab.start_http_on(backend, 80)?;
    let mut connection = lab.client.enter(|| HttpConnection::open(port, TIMEOUT))?;
    assert_eq!(connection.get("/")?.client(), connection.get("/again")?.client());
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(1), "stopping took {:?}", started.elapsed());
    connection.get("/").unwrap_err();
    let refused = lab.client.enter(|| http_get(port, "/", TIMEOUT)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");

    let _server = lab.start_http_on(backend, 80)?;
    lab.set_link(backend, false)?;
    lab.client.enter(|| http_get(port, "/", SHORT)).unwrap_err();
    lab.set_link(backend, true)?;
    for address in own_addresses(backend) {
        lab.client.enter(|| http_get(SocketAddr::new(address, 80), "/", TIMEOUT))?;
    }
    Ok(())
}

#[test]
fn a_lab_without_ipv6_has_none() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions { ipv6: false, ..LabOptions::named("v4") })
    else {
        return Ok(());
    };
    let _http = lab.start_http(80)?;
    let port = (lab.backends[1].v4, 80).into();
    assert_eq!(lab.client.enter(|| http_get(port, "/", TIMEOUT))?.backend(), "b2");
    assert_eq!(lab.client.namespace.run("ip", &["-6", "addr", "show", "dev", "eth0"])?, "");
    Ok(())
}
