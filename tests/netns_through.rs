//! Probes that travel through the VIP as clients' packets do, between real hosts: what serves no client is found
//! unwell, with the reason.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::Idle;
use dsrlb::director::Director;
use dsrlb::forwarding::{Forwarding, GueVariant};
use dsrlb::health::{HealthPolicy, IcmpEcho, Monitor, MonitorBinding, ProbeFailure, Target};
use lab::{Host, Lab, LabOptions, TunnelReceiver, http_get};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const GUE_PORT: u16 = 6080;
const INTERVAL: Duration = Duration::from_millis(200);

/// An embedder's own monitor, which knows nothing of the way its connection takes.
struct Connects;

impl Monitor for Connects {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let address = SocketAddr::new(target.address, 80);
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                Err(ProbeFailure::Timeout(timeout))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn policy() -> HealthPolicy {
    HealthPolicy {
        interval: INTERVAL,
        timeout: INTERVAL,
        rise: 1,
        fall: 2,
        ..HealthPolicy::default()
    }
}

/// A service on each VIP, each backend reached at `address` by `forwarding`, probed by `monitor` through the VIP.
fn start(
    lab: &Lab,
    address: impl Fn(&Host) -> IpAddr,
    forwarding: Forwarding,
    monitor: impl Monitor + 'static,
) -> Director {
    let monitor: Arc<dyn Monitor> = Arc::new(monitor);
    let services: Vec<_> = lab
        .vips()
        .into_iter()
        .map(|vip| {
            let service = VirtualService::new(vip.to_string().parse().unwrap());
            lab.backends.iter().fold(service, |service, host| {
                let server = RealServer::new(address(host)).with_id(&host.name);
                service.backend(server.with_forwarding(forwarding))
            })
        })
        .collect();
    lab.director.enter(|| {
        let builder = Director::builder(&lab.director.interface)
            .tunnel_source(IpAddr::from(lab.director.v4))
            .tunnel_source(IpAddr::from(lab.director.v6))
            .monitor(MonitorBinding::new(monitor).policy(policy()));
        services
            .into_iter()
            .fold(builder, |builder, service| builder.service(service))
            .start()
            .unwrap()
    })
}

/// What the backends of one name say of why they take no traffic, over all services; empty if they do.
fn reasons(director: &Director, id: &str) -> Vec<String> {
    let of_backend = |why: Option<Idle>| why.map(|why| why.to_string()).unwrap_or_default();
    let backends = director.stats().backends.into_iter();
    backends.filter(|backend| backend.id == id).map(|backend| of_backend(backend.idle)).collect()
}

/// Waits until all backends of that name say `expected`; an empty text is that they take traffic.
fn until_says(director: &Director, id: &str, expected: &str) -> Duration {
    let begun = Instant::now();
    let holds = |reason: &String| match expected {
        "" => reason.is_empty(),
        expected => reason.contains(expected),
    };
    while !reasons(director, id).iter().all(holds) {
        let reasons = reasons(director, id);
        assert!(begun.elapsed() < Duration::from_secs(10), "{id}: {reasons:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

fn vip_on_loopback(lab: &Lab, host: &Host, is_there: bool) {
    let verb = if is_there { "add" } else { "del" };
    let v6 = if is_there { "nodad preferred_lft 0" } else { "" };
    host.namespace
        .ip_batch(&[
            format!("addr {verb} {}/32 dev lo", lab.vip4),
            format!("addr {verb} {}/128 dev lo {v6}", lab.vip6),
        ])
        .unwrap();
}

/// The director's host holds the VIPs itself, and still its probes get out.
#[test]
fn on_the_link_each_fault_is_found_and_named_and_mends() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("through")) else { return };
    let mut http = lab.start_http(80).unwrap();
    let director = start(&lab, |host| host.v4.into(), Forwarding::L2, Connects);
    for id in ["b1", "b2", "b3"] {
        until_says(&director, id, "");
    }
    let vip = lab.vip4_port(80);
    assert!(lab.client.enter(|| http_get(vip, "/", TIMEOUT)).is_ok());

    // The VIP is gone from one loopback: pings to the host's own address are still answered.
    vip_on_loopback(&lab, &lab.backends[0], false);
    until_says(&director, "b1", "VIP not bound");
    // The server ends on another: the VIP is there, and refuses.
    http.remove(1).stop();
    until_says(&director, "b2", "application down: refused");
    // A cable is cut.
    lab.set_link(&lab.backends[2], false).unwrap();
    until_says(&director, "b3", "no answer");
    assert!(lab.client.enter(|| http_get(vip, "/", Duration::from_millis(300))).is_err());

    vip_on_loopback(&lab, &lab.backends[0], true);
    until_says(&director, "b1", "");
    let _again = lab.start_http_on(&lab.backends[1], 80).unwrap();
    lab.set_link(&lab.backends[2], true).unwrap();
    until_says(&director, "b3", "");
    let counts = director.shutdown().counts;
    assert!(counts.probes > 0);
    assert_eq!(counts.io.received, counts.verdicts());
}

/// A server that takes connections into its backlog and never answers is up for TCP; a host that drops them is not.
#[test]
fn a_silent_application_is_told_from_a_missing_vip() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("silent")) else { return };
    let _http = lab.start_http(80).unwrap();
    let director = start(&lab, |host| host.v6.into(), Forwarding::L2, Connects);
    until_says(&director, "b1", "");
    let silence = "add table inet dsrlb
\
         add chain inet dsrlb input { type filter hook input priority 0 ; }
\
         add rule inet dsrlb input tcp dport 80 drop
";
    lab.backends[0].namespace.run("nft", &[silence]).unwrap();
    until_says(&director, "b1", "application down: no answer within");
    lab.backends[0].namespace.run("nft", &["delete", "table", "inet", "dsrlb"]).unwrap();
    until_says(&director, "b1", "");
}

#[test]
fn a_tunnel_that_does_not_decapsulate_is_told_from_a_missing_vip() {
    let options = LabOptions { routed: true, backends: 2, ..LabOptions::named("decap") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _http = lab.start_http(80).unwrap();
    for (forwarding, over_ipv6) in [
        (Forwarding::IPIP, false),
        (Forwarding::gue(GUE_PORT, GueVariant::Zero), false),
        (Forwarding::gue(GUE_PORT, GueVariant::One), true),
    ] {
        let address = |host: &Host| match over_ipv6 {
            false => IpAddr::from(host.v4),
            true => host.v6.into(),
        };
        let receiver = TunnelReceiver::start(&lab.backends[0], GUE_PORT).unwrap();
        let director = start(&lab, address, forwarding, Connects);
        until_says(&director, "b1", "");
        until_says(&director, "b2", "tunnel not decapsulated");
        vip_on_loopback(&lab, &lab.backends[0], false);
        until_says(&director, "b1", "VIP not bound");
        vip_on_loopback(&lab, &lab.backends[0], true);
        until_says(&director, "b1", "");
        drop(receiver);
        until_says(&director, "b1", "tunnel not decapsulated");
    }
}

/// Any monitor goes through the VIP, the stock one too; and one that panics there leaves its lane in order.
#[test]
fn pings_and_panics_through_the_vip() {
    struct Panics;
    impl Monitor for Panics {
        fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
            assert!(target.id != "b2", "as told");
            IcmpEcho::new().probe(target, timeout)
        }
    }
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("pinging")) else { return };
    let director = start(&lab, |host| host.v4.into(), Forwarding::L2, Panics);
    until_says(&director, "b1", "");
    until_says(&director, "b2", "the monitor panicked: ");
    vip_on_loopback(&lab, &lab.backends[2], false);
    until_says(&director, "b3", "VIP not bound");
    assert_eq!(reasons(&director, "b1"), [""; 2]);
}

/// One whose packets do not come from the thread that probes has found out nothing about the VIP, whatever it says.
#[test]
fn a_monitor_that_sends_nothing_from_its_thread_is_not_believed() {
    struct Elsewhere;
    impl Monitor for Elsewhere {
        fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
            if target.id == "b1" {
                return Ok(());
            }
            Connects.probe(target, timeout)
        }
    }
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("elsewhere")) else { return };
    let _http = lab.start_http(80).unwrap();
    let director = start(&lab, |host| host.v4.into(), Forwarding::L2, Elsewhere);
    until_says(&director, "b2", "");
    until_says(&director, "b1", "nothing went through the VIP");
}
