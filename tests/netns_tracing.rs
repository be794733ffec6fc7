//! A director that is traced: what happens to it is there with its fields, and nothing else.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VipKey, VirtualService};
use dsrlb::director::Director;
use dsrlb::health::{HealthPolicy, MonitorBinding, TcpConnect};
use lab::{Lab, LabOptions, http_get};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU16;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const TIMEOUT: Duration = Duration::from_secs(3);

/// An event's level and fields.
struct Told {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

static TOLD: Mutex<Vec<Told>> = Mutex::new(Vec::new());

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

struct Catch;

impl<S: Subscriber> Layer<S> for Catch {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "dsrlb" {
            let mut told = Told { level: *event.metadata().level(), fields: BTreeMap::new() };
            event.record(&mut told);
            TOLD.lock().unwrap().push(told);
        }
    }
}

/// Waits for an event of this level with these fields.
#[track_caller]
fn until_told(level: Level, fields: &[(&str, &str)]) {
    let begun = Instant::now();
    let is_it = |told: &Told| {
        let has = |(name, value): &(&str, &str)| told.fields.get(name).is_some_and(|v| v == value);
        told.level == level && fields.iter().all(has)
    };
    while !TOLD.lock().unwrap().iter().any(is_it) {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {fields:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_happens_is_traced_and_no_packet_is() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("tracing")) else { return };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Catch)).unwrap();
    let mut http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let key: VipKey = format!("{vip}/tcp").parse().unwrap();
    let service = lab.backends.iter().fold(VirtualService::new(key), |service, host| {
        service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
    });
    let policy = HealthPolicy {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(100),
        ..HealthPolicy::default()
    };
    let builder = Director::builder(&lab.director.interface)
        .service(service)
        .monitor(MonitorBinding::new(TcpConnect::new(NonZeroU16::new(80).unwrap())).policy(policy));
    let director = lab.director.enter(|| builder.start().unwrap());
    let service = key.to_string();
    for id in ["b1", "b2", "b3"] {
        let fields = [("kind", "backend-active"), ("service", &*service), ("backend", id)];
        until_told(Level::INFO, &fields);
    }

    // Whatever is told takes another snapshot, and there is none for a packet.
    let before = (TOLD.lock().unwrap().len(), director.stats().generation);
    lab.client.enter(|| (0..50).for_each(|_| drop(http_get(vip, "/", TIMEOUT).unwrap())));
    let count = TOLD.lock().unwrap().len();
    assert_eq!((count, director.stats().generation), before);

    http.remove(0).stop();
    let ill = [("kind", "backend-idle"), ("service", &*service), ("backend", "b1")];
    until_told(Level::WARN, &[&ill[..], &[("state", "unhealthy")]].concat());
    director.drain(key, "b2", Duration::from_millis(1)).unwrap();
    until_told(Level::INFO, &[("backend", "b2"), ("state", "draining")]);
    until_told(Level::INFO, &[("backend", "b2"), ("state", "disabled")]);
    lab.set_link(&lab.backends[2], false).unwrap();
    until_told(Level::ERROR, &[("kind", "all-down"), ("service", &service)]);
    let config = director.config();
    let applied = director.apply(config).unwrap();
    let generation = applied.generation.to_string();
    until_told(Level::INFO, &[("kind", "config-applied"), ("generation", &generation)]);
    until_told(Level::DEBUG, &[("kind", "snapshot"), ("generation", &generation)]);
    lab.set_link(&lab.director, false).unwrap();
    until_told(Level::WARN, &[("kind", "link-changed"), ("port", "0"), ("up", "false")]);
    lab.director.namespace.run("ip", &["link", "del", "eth0"]).unwrap();
    until_told(Level::ERROR, &[("kind", "worker-failed"), ("queue", "0")]);
}
