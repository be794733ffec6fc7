//! Each stock monitor against the faults it is for, between real hosts: found with the right reason, in about the time
//! that the configuration promises, and mended. The times are printed.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::dataplane::neighbour::NeighbourReachable;
use dsrlb::director::Director;
use dsrlb::health::{
    All, HealthPolicy, Http, IcmpEcho, Monitor, MonitorBinding, Push, TcpConnect, Through,
    UdpRequest, monitor_fn,
};
use lab::{DatagramServer, HttpServer, Lab, LabOptions, http_get};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const HTTP_PORT: NonZeroU16 = NonZeroU16::new(80).unwrap();
const UDP_PORT: NonZeroU16 = NonZeroU16::new(5353).unwrap();

fn policy() -> HealthPolicy {
    HealthPolicy {
        interval: Duration::from_millis(200),
        timeout: Duration::from_millis(150),
        rise: 2,
        fall: 2,
        ..HealthPolicy::default()
    }
}

/// One service on each VIP, over all backends, with this monitor.
fn start(lab: &Lab, monitor: Option<MonitorBinding>) -> Director {
    let services = lab.vips().into_iter().map(|vip| {
        let service = VirtualService::new(vip.to_string().parse().unwrap());
        lab.backends.iter().fold(service, |service, host| {
            service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
        })
    });
    let services: Vec<_> = services.collect();
    lab.director.enter(|| {
        let mut builder = Director::builder(&lab.director.interface);
        if let Some(monitor) = monitor {
            builder = builder.monitor(monitor);
        }
        services.into_iter().fold(builder, |all, service| all.service(service)).start().unwrap()
    })
}

/// Why the first backend takes no traffic, by service.
fn reasons(director: &Director) -> Vec<String> {
    let backends = director.stats().backends.into_iter().filter(|backend| backend.id == "b1");
    backends.map(|backend| backend.idle.map(|why| why.to_string()).unwrap_or_default()).collect()
}

/// Waits until it says so of every service; nothing: until it takes traffic.
fn until_says(director: &Director, expected: &str) -> Duration {
    let begun = Instant::now();
    let holds = |reason: &String| match expected {
        "" => reason.is_empty(),
        expected => reason.contains(expected),
    };
    while !reasons(director).iter().all(holds) {
        let reasons = reasons(director);
        assert!(begun.elapsed() < Duration::from_secs(10), "{reasons:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

/// How long it takes until a client is served again, request after request.
fn until_served(lab: &Lab, vip: SocketAddr) -> Duration {
    let begun = Instant::now();
    lab.client.enter(|| {
        let mut in_a_row = 0;
        while in_a_row < 30 {
            let served = http_get(vip, "/", Duration::from_millis(50)).is_ok();
            in_a_row = if served { in_a_row + 1 } else { 0 };
            assert!(begun.elapsed() < Duration::from_secs(10), "no fail-over");
        }
    });
    begun.elapsed()
}

/// What can be broken at the first backend.
struct Servers<'a> {
    lab: &'a Lab,
    http: Option<HttpServer>,
    udp: Vec<DatagramServer>,
    push: Arc<Push>,
}

impl<'a> Servers<'a> {
    fn start(lab: &'a Lab, push: Arc<Push>) -> Self {
        push.report("b1", Ok(()));
        push.report("b2", Ok(()));
        let mut servers = Self { lab, http: None, udp: Vec::new(), push };
        servers.start_http();
        servers.start_udp();
        servers
    }

    fn start_http(&mut self) {
        self.http = Some(self.lab.start_http_on(&self.lab.backends[0], 80).unwrap());
    }

    fn start_udp(&mut self) {
        let host = &self.lab.backends[0];
        let vips = self.lab.vips().into_iter();
        let start =
            |vip| DatagramServer::udp(&host.namespace, SocketAddr::new(vip, UDP_PORT.get()), "b1");
        self.udp = vips.map(|vip| start(vip).unwrap()).collect();
    }

    fn set_vip(&self, is_there: bool) {
        let verb = if is_there { "add" } else { "del" };
        let nodad = if is_there { "nodad preferred_lft 0" } else { "" };
        let lines = [
            format!("addr {verb} {}/32 dev lo", self.lab.vip4),
            format!("addr {verb} {}/128 dev lo {nodad}", self.lab.vip6),
        ];
        self.lab.backends[0].namespace.ip_batch(&lines).unwrap();
    }

    fn set_link(&self, up: bool) {
        self.lab.set_link(&self.lab.backends[0], up).unwrap();
    }

    fn set_failing(&self, failing: bool) {
        self.http.as_ref().unwrap().set_failing(failing);
    }
}

/// A fault: its name, how it is made, how it is mended.
type Fault = (&'static str, fn(&mut Servers<'_>), fn(&mut Servers<'_>));

const KILLED: Fault = ("server killed", |s| drop(s.http.take()), |s| s.start_http());
const UDP_KILLED: Fault = ("UDP server killed", |s| s.udp.clear(), |s| s.start_udp());
const CUT: Fault = ("cable cut", |s| s.set_link(false), |s| s.set_link(true));
const NO_VIP: Fault = ("VIP removed", |s| s.set_vip(false), |s| s.set_vip(true));
const STATUS_500: Fault = ("HTTP status 500", |s| s.set_failing(true), |s| s.set_failing(false));
const REPORTED: Fault = (
    "reported down",
    |s| s.push.report("b1", Err("disk full".to_owned())),
    |s| s.push.report("b1", Ok(())),
);

#[test]
fn each_fault_is_found_by_the_right_monitor_with_the_right_reason() {
    let options = LabOptions { backends: 2, ..LabOptions::named("faults") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _b2 = lab.start_http_on(&lab.backends[1], 80).unwrap();
    let push = Arc::new(Push::new(Duration::from_secs(60)).unwrap());
    let mut servers = Servers::start(&lab, Arc::clone(&push));
    let tcp = || TcpConnect::new(HTTP_PORT);
    let udp = || UdpRequest::new(UDP_PORT, *b"?").unwrap();
    let http = || Http::new(HTTP_PORT);
    let both: Vec<Arc<dyn Monitor>> = vec![Arc::new(IcmpEcho::new()), Arc::new(http())];
    let (vip, backend) = (Through::Vip, Through::Backend);
    type Row = (&'static str, Arc<dyn Monitor>, Through, Vec<(Fault, &'static str)>);
    let rows: Vec<Row> = vec![
        (
            "tcp",
            Arc::new(tcp()),
            vip,
            vec![
                (KILLED, "application down: refused"),
                (CUT, "no answer"),
                (NO_VIP, "VIP not bound"),
            ],
        ),
        ("http", Arc::new(http()), vip, vec![(STATUS_500, "500"), (NO_VIP, "VIP not bound")]),
        ("udp", Arc::new(udp()), vip, vec![(UDP_KILLED, "application down: refused")]),
        ("ping", Arc::new(IcmpEcho::new()), vip, vec![(NO_VIP, "VIP not bound")]),
        ("ping and http", Arc::new(All::new(both).unwrap()), vip, vec![(STATUS_500, "500")]),
        ("neighbour", Arc::new(NeighbourReachable), backend, vec![(CUT, "")]),
        ("push", push, backend, vec![(REPORTED, "disk full")]),
    ];
    println!("promised: down within {:?}", policy().detection());
    for (name, monitor, through, faults) in rows {
        let binding = MonitorBinding::new(monitor).policy(policy()).through(through);
        let director = start(&lab, Some(binding));
        until_says(&director, "");
        for ((fault, make, mend), reason) in faults {
            make(&mut servers);
            let begun = Instant::now();
            let served = match fault {
                "reported down" | "HTTP status 500" | "UDP server killed" => None,
                _ => Some(until_served(&lab, lab.vip4_port(80))),
            };
            match reason {
                // Either way round: the kernel may find out before we ask.
                "" => {
                    while reasons(&director).iter().any(String::is_empty) {
                        assert!(begun.elapsed() < Duration::from_secs(10), "{name} {fault}");
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                reason => drop(until_says(&director, reason)),
            }
            let found = begun.elapsed();
            let why = reasons(&director).remove(0);
            mend(&mut servers);
            let mended = until_says(&director, "");
            println!(
                "{name}, {fault}: found after {found:?}, clients served after {served:?}, back after {mended:?}: {why}"
            );
        }
    }
}

/// Whatever monitor is bound or none: the first packet already has its way, and a backend whose neighbour is unresolved
/// takes none and says why.
#[test]
fn mac_addresses_are_learned_whatever_the_monitor() {
    let options = LabOptions { backends: 2, ..LabOptions::named("macs") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let push = Arc::new(Push::new(Duration::from_secs(60)).unwrap());
    let _servers = Servers::start(&lab, Arc::clone(&push));
    let _b2 = lab.start_http_on(&lab.backends[1], 80).unwrap();
    let _udp: Vec<_> = lab
        .vips()
        .into_iter()
        .map(|vip| {
            let address = SocketAddr::new(vip, UDP_PORT.get());
            DatagramServer::udp(&lab.backends[1].namespace, address, "b2").unwrap()
        })
        .collect();
    let monitors: Vec<(&str, Option<Arc<dyn Monitor>>)> = vec![
        ("none", None),
        ("custom", Some(Arc::new(monitor_fn(|_, _| Ok(()))))),
        ("tcp", Some(Arc::new(TcpConnect::new(HTTP_PORT)))),
        ("udp", Some(Arc::new(UdpRequest::new(UDP_PORT, *b"?").unwrap()))),
        ("http", Some(Arc::new(Http::new(HTTP_PORT)))),
        ("ping", Some(Arc::new(IcmpEcho::new()))),
        ("neighbour", Some(Arc::new(NeighbourReachable))),
        ("push", Some(push)),
    ];
    for (name, monitor) in monitors {
        for through in [Through::Vip, Through::Backend] {
            // There are no neighbours in a lane, one that sends nothing is refused there, and the UDP
            // servers are on the VIPs alone.
            let cannot = match through {
                Through::Vip => ["neighbour", "custom"].contains(&name),
                Through::Backend => name == "udp",
            };
            if cannot {
                continue;
            }
            // Nothing is known from before.
            lab.director.namespace.run("ip", &["neigh", "flush", "dev", "eth0"]).unwrap();
            let binding = monitor
                .clone()
                .map(|monitor| MonitorBinding::new(monitor).policy(policy()).through(through));
            let director = start(&lab, binding);
            let begun = Instant::now();
            let answer = lab.client.enter(|| http_get(lab.vip4_port(80), "/", TIMEOUT));
            assert!(answer.is_ok(), "{name} {through:?}: {answer:?}");
            println!("{name} {through:?}: the first request took {:?}", begun.elapsed());
            let counts = director.shutdown().counts;
            assert_eq!(counts.drops().count(), 0, "{name} {through:?}: {counts:?}");
        }
    }
}
