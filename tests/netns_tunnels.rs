//! Backends beyond the director's link, with the real AF_XDP driver: clients, a router, and receiving ends in network
//! namespaces.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::director::{Director, DirectorBuilder, Stats};
use dsrlb::forwarding::{Dscp, Forwarding, GueVariant};
use dsrlb::packet::icmp::{TunnelFeedback, tunnel_feedback};
use dsrlb::verdict::{AnswerKind, DropReason};
use lab::{Arrival, Host, Lab, LabOptions, SECOND_ARM, TunnelReceiver, http_get, http_post};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(5);
const GUE_PORT: u16 = 6080;
const UPLOAD: usize = 2 << 20;

fn routed(tag: &'static str) -> LabOptions {
    LabOptions { routed: true, backends: 2, ..LabOptions::named(tag) }
}

/// A service on both VIPs, with one backend, reached at `address` by `forwarding`.
fn start(
    lab: &Lab,
    address: impl Fn(&Host) -> IpAddr,
    forwarding: Forwarding,
    set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send,
) -> Director {
    let services = lab.vips().into_iter().map(|vip| {
        let service = VirtualService::new(vip.to_string().parse().unwrap());
        let server = RealServer::new(address(&lab.backends[0])).with_id("b1");
        service.backend(server.with_forwarding(forwarding))
    });
    start_services(lab, services.collect(), set)
}

fn start_services(
    lab: &Lab,
    services: Vec<VirtualService>,
    set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send,
) -> Director {
    let director = lab.director.enter(|| {
        let builder = Director::builder(&lab.director.interface)
            .tunnel_source(IpAddr::from(lab.director.v4))
            .tunnel_source(IpAddr::from(lab.director.v6));
        let builder = services.into_iter().fold(builder, DirectorBuilder::service);
        set(builder).start().unwrap()
    });
    let idle: Vec<_> = director.stats().backends.into_iter().filter_map(|b| b.idle).collect();
    assert!(idle.is_empty(), "{idle:?}");
    director
}

fn get(lab: &Lab, vip: IpAddr) -> String {
    let answer = lab.client.enter(|| http_get(SocketAddr::new(vip, 80), "/", TIMEOUT));
    answer.unwrap().backend().to_owned()
}

/// Every frame has a verdict, and none was lost on the way in or out.
fn adds_up(stats: &Stats) {
    let counts = &stats.counts;
    assert_eq!(counts.io.received, counts.verdicts(), "{stats:?}");
    assert_eq!(counts.io.transmit_failed + counts.io.transmit_rejected, 0, "{stats:?}");
    assert_eq!(counts.held, 0, "{stats:?}");
}

/// Hears the "packet too big" messages that reach the client.
struct IcmpListener(UdpSocket, bool);

impl IcmpListener {
    fn open(is_ipv6: bool) -> Self {
        let (domain, protocol) = match is_ipv6 {
            false => (Domain::IPV4, Protocol::ICMPV4),
            true => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.set_nonblocking(true).unwrap();
        // In the guise of a UDP socket, of which the standard library reads the sender.
        Self(socket.into(), is_ipv6)
    }

    fn messages(&self) -> Vec<(IpAddr, TunnelFeedback)> {
        let mut buffer = [0; 2048];
        let mut messages = Vec::new();
        while let Ok((length, from)) = self.0.recv_from(&mut buffer) {
            // IPv4 sockets give the IP header along.
            let message = &buffer[if self.1 { 0 } else { 20 }..length];
            let feedback = tunnel_feedback(message, self.1);
            messages.extend(feedback.map(|feedback| (from.ip(), feedback)));
        }
        messages
    }
}

#[test]
fn every_encapsulation_and_family_mix_carries_real_connections() {
    let Some(lab) = Lab::build_or_skip(&routed("mix")) else { return };
    let _http = lab.start_http(80).unwrap();
    let receiver = TunnelReceiver::start(&lab.backends[0], GUE_PORT).unwrap();
    let v4 = |host: &Host| IpAddr::from(host.v4);
    let v6 = |host: &Host| IpAddr::from(host.v6);
    for over_ipv6 in [false, true] {
        for forwarding in [
            Forwarding::IPIP,
            Forwarding::gue(GUE_PORT, GueVariant::Zero),
            Forwarding::gue(GUE_PORT, GueVariant::One),
        ] {
            let seen = receiver.arrivals().len();
            let director = start(&lab, if over_ipv6 { v6 } else { v4 }, forwarding, |b| b);
            for vip in lab.vips() {
                assert_eq!(get(&lab, vip), "b1", "{forwarding} over IPv6: {over_ipv6}");
            }
            adds_up(&director.shutdown());
            let arrivals = &receiver.arrivals()[seen..];
            for inside_ipv6 in [false, true] {
                let protocol = match forwarding {
                    Forwarding::IPIP if inside_ipv6 => 41,
                    Forwarding::IPIP => 4,
                    _ => 17,
                };
                let expected = Arrival { over_ipv6, protocol, inside_ipv6 };
                assert!(arrivals.contains(&expected), "{forwarding}: {expected:?}");
            }
            assert!(arrivals.iter().all(|arrival| arrival.over_ipv6 == over_ipv6));
        }
    }
    assert_eq!(receiver.malformed(), 0);
}

/// One pool, one backend by each mode: the client sees no difference.
#[test]
fn modes_mix_in_one_pool() {
    let Some(lab) = Lab::build_or_skip(&routed("pool")) else { return };
    let _http = lab.start_http(80).unwrap();
    let _receivers: Vec<_> = lab
        .backends
        .iter()
        .map(|backend| TunnelReceiver::start(backend, GUE_PORT).unwrap())
        .collect();
    let service = VirtualService::new(format!("{}:80/tcp", lab.vip4).parse().unwrap())
        .backend(
            RealServer::new(lab.backends[0].v4.into())
                .with_id("b1")
                .with_forwarding(Forwarding::IPIP),
        )
        .backend(
            RealServer::new(lab.backends[1].v6.into())
                .with_id("b2")
                .with_forwarding(Forwarding::gue(GUE_PORT, GueVariant::One)),
        );
    let director = start_services(&lab, vec![service], |b| b);
    let answers: Vec<_> = (0..40).map(|_| get(&lab, lab.vip4.into())).collect();
    assert!(answers.iter().any(|b| b == "b1") && answers.iter().any(|b| b == "b2"), "{answers:?}");
    adds_up(&director.shutdown());
}

/// No MSS is clamped anywhere: the client's kernel learns the path MTU from what the director says.
#[test]
fn a_large_upload_works_by_packet_too_big_alone() {
    let Some(lab) = Lab::build_or_skip(&routed("ptb")) else { return };
    let _http = lab.start_http(80).unwrap();
    let _receiver = TunnelReceiver::start(&lab.backends[0], GUE_PORT).unwrap();
    let gue = Forwarding::gue(GUE_PORT, GueVariant::Zero);
    let director = start(&lab, |host| host.v4.into(), gue, |b| b);
    let body = vec![b'x'; UPLOAD];
    for vip in lab.vips() {
        let heard = lab.client.enter(|| IcmpListener::open(vip.is_ipv6()));
        let before = director.stats().counts.answered(AnswerKind::PacketTooBig);
        let watch = lab.client.enter(|| {
            let answer = http_post(SocketAddr::new(vip, 80), "/", &body, TIMEOUT * 4);
            answer.map(|answer| answer.backend().to_owned())
        });
        assert_eq!(watch.unwrap(), "b1", "{vip}");
        let told = director.stats().counts.answered(AnswerKind::PacketTooBig) - before;
        assert!(told > 0, "{vip}");
        // On the wire: from the VIP, about what the client sent to it, with what fits.
        let messages = heard.messages();
        assert!(!messages.is_empty(), "{vip}");
        for (from, feedback) in messages {
            assert_eq!((from, feedback.destination, feedback.mtu), (vip, vip, 1468));
        }
        // What the client's kernel has learned: 1500 bytes less 20 of IPv4, 8 of UDP, 4 of GUE.
        let route = lab.client.namespace.run("ip", &["route", "get", &vip.to_string()]).unwrap();
        assert!(route.contains("mtu 1468"), "{route}");
    }
    adds_up(&director.shutdown());
}

/// A link beyond the router is smaller: the router tells the director, and the director the client.
#[test]
fn what_a_router_says_about_the_tunnel_reaches_the_client() {
    let Some(lab) = Lab::build_or_skip(&routed("far")) else { return };
    let _http = lab.start_http(80).unwrap();
    let _receiver = TunnelReceiver::start(&lab.backends[0], GUE_PORT).unwrap();
    for (address, overhead) in
        [(IpAddr::from(lab.backends[0].v4), 20), (IpAddr::from(lab.backends[0].v6), 40)]
    {
        lab.set_far_mtu(&lab.backends[0], 1400).unwrap();
        let director = start(&lab, |_| address, Forwarding::IPIP, |b| b);
        for vip in lab.vips() {
            lab.client.namespace.run("ip", &["route", "flush", "cache"]).unwrap();
            lab.client.namespace.run("ip", &["-6", "route", "flush", "cache"]).unwrap();
            let body = vec![b'x'; UPLOAD];
            let answer = lab.client.enter(|| {
                let answer = http_post(SocketAddr::new(vip, 80), "/", &body, TIMEOUT * 4);
                answer.map(|answer| answer.backend().to_owned())
            });
            assert_eq!(answer.unwrap(), "b1", "{vip} by {address}");
            let route = lab.client.namespace.run("ip", &["route", "get", &vip.to_string()]);
            let expected = format!("mtu {}", 1400 - overhead);
            let route = route.unwrap();
            assert!(route.contains(&expected), "{vip} by {address}: {route}");
        }
        adds_up(&director.shutdown());
        lab.set_far_mtu(&lab.backends[0], 1500).unwrap();
    }
}

#[test]
fn frames_leave_by_a_second_interface() {
    let options = LabOptions { second_arm: true, ..routed("arms") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _http = lab.start_http(80).unwrap();
    let _receiver = TunnelReceiver::start(&lab.backends[0], GUE_PORT).unwrap();
    // Without the interface the reason names it and what to do.
    let alone = lab.director.enter(|| {
        let service = VirtualService::new(lab.vip4.to_string().parse().unwrap());
        let server = RealServer::new(lab.backends[0].v4.into()).with_forwarding(Forwarding::IPIP);
        let builder =
            Director::builder(&lab.director.interface).tunnel_source(IpAddr::from(lab.director.v4));
        builder.service(service.backend(server)).start().unwrap()
    });
    let why = alone.stats().backends[0].idle.clone().unwrap().to_string();
    assert!(why.contains("egress"), "{why}");
    drop(alone);

    let director = start(&lab, |host| host.v4.into(), Forwarding::IPIP, |b| b.egress(SECOND_ARM));
    for vip in lab.vips() {
        assert_eq!(get(&lab, vip), "b1");
    }
    let fallbacks = director.granted().fallbacks;
    assert!(fallbacks.iter().any(|text| text.contains("other interfaces")), "{fallbacks:?}");
    adds_up(&director.shutdown());
}

/// The backend behind the router changes routers: the kernel's routes are followed.
#[test]
fn a_route_that_changes_is_followed_at_once() {
    let options = LabOptions { second_arm: true, ..routed("reroute") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _http = lab.start_http(80).unwrap();
    let _receiver = TunnelReceiver::start(&lab.backends[0], GUE_PORT).unwrap();
    let director = start(&lab, |host| host.v4.into(), Forwarding::IPIP, |b| b.egress(SECOND_ARM));
    assert_eq!(get(&lab, lab.vip4.into()), "b1");
    let router = lab.router.as_ref().unwrap().v4.to_string();
    lab.director
        .namespace
        .run("ip", &["route", "replace", "10.78.0.0/16", "via", &router])
        .unwrap();
    lab.director.namespace.run("ip", &["link", "set", "dev", SECOND_ARM, "down"]).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while director.stats().backends.iter().any(|backend| backend.idle.is_some()) {
        assert!(Instant::now() < deadline, "{:?}", director.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(get(&lab, lab.vip4.into()), "b1");
}

/// A backend that must be on link says that it is not.
#[test]
fn mac_rewrite_does_not_reach_behind_a_router() {
    let Some(lab) = Lab::build_or_skip(&routed("l2far")) else { return };
    let director = lab.director.enter(|| {
        let service = VirtualService::new(lab.vip4.to_string().parse().unwrap());
        let server = RealServer::new(lab.backends[0].v4.into());
        Director::builder(&lab.director.interface).service(service.backend(server)).start().unwrap()
    });
    let why = director.stats().backends[0].idle.clone().unwrap().to_string();
    assert!(why.contains("router 10.77.0.3"), "{why}");
}

#[test]
fn l3dsr_names_the_vip_by_a_dscp_value() {
    let Some(lab) = Lab::build_or_skip(&routed("l3dsr")) else { return };
    let backend = &lab.backends[0];
    // The backend's side: what has the value is for the VIP.
    let chain = "type filter hook prerouting priority raw;";
    let (v4, v6) = (
        format!("{} ip daddr set {}", backend.v4, lab.vip4),
        format!("{} ip6 daddr set {}", backend.v6, lab.vip6),
    );
    let rules = format!(
        "table ip l3dsr {{\nchain c {{\n{chain}\nip dscp 10 ip daddr {v4}\n}}\n}}\n\
         table ip6 l3dsr {{\nchain c {{\n{chain}\nip6 dscp 10 ip6 daddr {v6}\n}}\n}}\n"
    );
    backend.namespace.run("nft", &[&rules]).unwrap();
    let _http = lab.start_http(80).unwrap();
    let forwarding = Forwarding::L3Dsr(Dscp::new(10).unwrap());
    for (vip, address) in [
        (IpAddr::from(lab.vip4), IpAddr::from(backend.v4)),
        (IpAddr::from(lab.vip6), IpAddr::from(backend.v6)),
    ] {
        let service = VirtualService::new(vip.to_string().parse().unwrap());
        let server = RealServer::new(address).with_id("b1").with_forwarding(forwarding);
        let director = start_services(&lab, vec![service.backend(server)], |b| b);
        assert_eq!(get(&lab, vip), "b1");
        let body = vec![b'x'; UPLOAD];
        let answer = lab.client.enter(|| {
            http_post(SocketAddr::new(vip, 80), "/", &body, TIMEOUT * 4)
                .map(|answer| answer.backend().to_owned())
        });
        assert_eq!(answer.unwrap(), "b1", "no room is taken, so nothing is too large");
        let stats = director.shutdown();
        adds_up(&stats);
        assert_eq!(stats.counts.answered(AnswerKind::PacketTooBig), 0);
    }
}

/// UDP of several fragments to a service by port and five-tuple, and pings of several.
#[test]
fn fragmented_datagrams_and_pings_arrive() {
    let options = LabOptions { backends: 3, ..LabOptions::named("frag") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _udp = lab.start_udp(7777).unwrap();
    let services = lab.vips().into_iter().map(|vip| {
        let key = match vip {
            IpAddr::V4(vip) => format!("{vip}:7777/udp"),
            IpAddr::V6(vip) => format!("[{vip}]:7777/udp"),
        };
        let service = VirtualService::new(key.parse().unwrap());
        lab.backends.iter().fold(service, |service, host| {
            service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
        })
    });
    let director = start_services(&lab, services.collect(), |b| b);
    for vip in lab.vips() {
        let payload = vec![b'f'; 5000];
        for _ in 0..10 {
            let answer =
                lab.client.enter(|| lab::udp_ask((vip, 7777).into(), &payload, TIMEOUT)).unwrap();
            assert_eq!(answer.payload, payload);
        }
        let address = vip.to_string();
        let ping = ["-n", "-q", "-c3", "-i0.2", "-W2", "-s5000", &address];
        lab.client.namespace.run("ping", &ping).unwrap();
    }
    let stats = director.shutdown();
    adds_up(&stats);
    assert!(stats.counts.answered(AnswerKind::Echo) >= 2 * 3 * 4, "{stats:?}");
    assert_eq!(stats.counts.dropped(DropReason::FragmentWithoutPorts), 0);
}
