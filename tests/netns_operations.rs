//! What an operator does to a running director: draining, disabling, sources of configurations, and what holds when
//! every backend is down.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{
    AdminState, FlowBalancer, FlowTimes, HashBalancer, RealServer, VipKey, VirtualService,
    WhenAllDown,
};
use dsrlb::config::{Config, ConfigSource, Limits, SourceError};
use dsrlb::dataplane::Idle;
use dsrlb::director::{Director, DirectorBuilder, DrainEnd, Event};
use dsrlb::flow::HashKey;
use dsrlb::health::{HealthPolicy, Monitor, MonitorBinding, ProbeFailure, Target, Through};
use lab::{Host, HttpConnection, Lab, LabOptions, http_get};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(300);

fn server(host: &Host) -> RealServer {
    RealServer::new(host.v4.into()).with_id(&host.name)
}

fn service<'a>(vip: SocketAddr, backends: impl IntoIterator<Item = &'a Host>) -> VirtualService {
    let service = VirtualService::new(format!("{vip}/tcp").parse().unwrap());
    backends.into_iter().fold(service, |service, host| service.backend(server(host)))
}

fn start(lab: &Lab, set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send) -> Director {
    lab.director.enter(|| set(Director::builder(&lab.director.interface)).start().unwrap())
}

/// Room for more flows than any test here has.
fn remembering() -> FlowBalancer {
    FlowBalancer::new(1 << 16, Limits::default().backends, HashKey::new([7; 16])).unwrap()
}

/// Who answers `count` requests.
fn answering(lab: &Lab, vip: SocketAddr, count: usize) -> BTreeSet<String> {
    let get = || http_get(vip, "/", TIMEOUT).unwrap().backend().to_owned();
    lab.client.enter(|| (0..count).map(|_| get()).collect())
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_operators_word_and_what_is_observed_do_not_blur() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("admin")) else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let key: VipKey = format!("{vip}/tcp").parse().unwrap();
    let director = start(&lab, |builder| {
        builder.balancer(|| HashBalancer).service(service(vip, &lab.backends))
    });
    assert_eq!(answering(&lab, vip, 40), set(["b1", "b2", "b3"]));

    director.set_admin(key, "b1", AdminState::Disabled).unwrap();
    assert_eq!(answering(&lab, vip, 40), set(["b2", "b3"]));
    let drain = director.drain(key, "b2", Duration::from_millis(700)).unwrap();
    assert_eq!(answering(&lab, vip, 20), set(["b3"]));
    let status = director.stats().backends;
    assert_eq!(
        status.iter().map(|backend| backend.admin).collect::<Vec<_>>(),
        [AdminState::Disabled, AdminState::Draining, AdminState::Enabled]
    );
    assert_eq!(
        (status[0].idle.clone(), status[1].idle.clone()),
        (Some(Idle::Disabled), Some(Idle::Draining))
    );
    // The balancer remembers no flows, so there are none to wait for.
    assert_eq!(drain.wait(), DrainEnd::Empty);
    until("the deadline", || director.stats().backends[1].idle == Some(Idle::Disabled));

    // A new configuration does not take back what the operator has said; the operator does.
    director.apply(Config::from_iter([service(vip, &lab.backends)])).unwrap();
    assert_eq!(answering(&lab, vip, 20), set(["b3"]));
    for id in ["b1", "b2"] {
        director.set_admin(key, id, None).unwrap();
    }
    assert_eq!(answering(&lab, vip, 40), set(["b1", "b2", "b3"]));
    let error = director.drain(key, "b9", TIMEOUT).unwrap_err().to_string();
    assert!(error.contains("b9"), "{error}");
}

/// What is said of connections to b1, which is drained, is what happens to them; nothing else changes.
fn explains_them(director: &Director, vip: SocketAddr, of_b1: &[HttpConnection]) {
    // Until the last answers are acknowledged, which may be delayed (RFC 9293 section 3.8.6.3).
    std::thread::sleep(SHORT);
    let count = || director.worker_counts().iter().map(|counts| counts.verdicts()).sum::<u64>();
    let counted = count();
    for connection in of_b1 {
        let flow = format!("{} > {vip} tcp", connection.local()).parse().unwrap();
        let explained = director.explain(flow).unwrap();
        let text = explained.to_string();
        assert!(text.contains("forward to b1") && text.contains("hit: b1, established"), "{text}");
        assert_eq!(explained.known_by().count(), 1, "{text}");
        assert!(explained.main().is_some_and(|main| main.knows()), "{text}");
        assert_eq!(director.explain(flow).unwrap().known_by().count(), 1);
    }
    let stranger = format!("192.0.2.250:9 > {vip} tcp").parse().unwrap();
    let text = director.explain(stranger).unwrap().to_string();
    println!("{text}");
    assert!(text.contains("none knows the flow") && !text.contains("forward to b1"), "{text}");
    let text = director.explain_frame(&[0; 14]).unwrap().to_string();
    assert!(text.contains("not addressed to the director"), "{text}");
    assert_eq!(count(), counted, "nothing is counted");
}

/// Connections to a backend that is drained go on to their end; the handle tells how many are left.
#[test]
fn a_drain_waits_for_the_connections_there_are() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("drain")) else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let key: VipKey = format!("{vip}/tcp").parse().unwrap();
    let times = FlowTimes { closing: Duration::from_millis(300), ..FlowTimes::default() };
    let director = start(&lab, |builder| {
        builder.balancer(remembering).service(service(vip, &lab.backends).times(times))
    });
    let open = || HttpConnection::open(vip, TIMEOUT).unwrap();
    let mut connections: Vec<_> = lab.client.enter(|| (0..30).map(|_| open()).collect());
    let mut of_b1 = Vec::new();
    for mut connection in connections.drain(..) {
        if connection.get("/").unwrap().backend() == "b1" {
            of_b1.push(connection);
        }
    }
    // Those of the others are closed, and forgotten after a moment.
    assert!(of_b1.len() > 2, "{}", of_b1.len());
    let drain = director.drain(key, "b1", TIMEOUT * 20).unwrap();
    assert_eq!(answering(&lab, vip, 40), set(["b2", "b3"]));
    until("it is counted", || drain.flows_left() == Some(of_b1.len() as u64));
    assert_eq!(drain.end(), None);
    for connection in &mut of_b1 {
        assert_eq!(connection.get("/").unwrap().backend(), "b1");
    }
    explains_them(&director, vip, &of_b1);
    let mut last = of_b1.pop().unwrap();
    drop(of_b1);
    until("the closed ones are forgotten", || drain.flows_left() == Some(1));
    assert_eq!(last.get("/").unwrap().backend(), "b1");
    drop(last);
    assert_eq!(drain.wait(), DrainEnd::Empty);

    // A deadline cuts what is left, and so does a flush.
    director.set_admin(key, "b1", None).unwrap();
    for cut in ["deadline", "flush"] {
        let mut connection = lab.client.enter(|| {
            loop {
                let mut connection = open();
                if connection.get("/").unwrap().backend() == "b1" {
                    return connection;
                }
            }
        });
        if cut == "deadline" {
            let drain = director.drain(key, "b1", Duration::from_millis(400)).unwrap();
            assert_eq!(connection.get("/").unwrap().backend(), "b1");
            assert_eq!(drain.wait(), DrainEnd::Deadline);
        } else {
            director.flush(key, "b1").unwrap();
        }
        connection.get("/").unwrap_err();
        director.set_admin(key, "b1", None).unwrap();
    }
}

/// Finds ill whoever is named.
#[derive(Clone, Default)]
struct Ill(Arc<Mutex<BTreeSet<String>>>);

impl Monitor for Ill {
    fn probe(&self, target: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
        match self.0.lock().unwrap().contains(target.id) {
            true => Err(ProbeFailure::Unexpected("as told".to_owned())),
            false => Ok(()),
        }
    }
}

#[test]
fn when_all_are_down_what_was_configured_holds() {
    let options = LabOptions { backends: 4, ..LabOptions::named("alldown") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let (pool, sorry) = lab.backends.split_at(3);
    let sorry = Arc::new(server(&sorry[0]));
    for (what, answers) in [
        (WhenAllDown::Drop, set([])),
        (WhenAllDown::SendToAll, set(["b1", "b2", "b3"])),
        (WhenAllDown::KeepLast, set(["b2", "b3"])),
        (WhenAllDown::Fallback(sorry), set(["b4"])),
    ] {
        let ill = Ill::default();
        let told = Arc::new(Mutex::new(Vec::new()));
        let interval = Duration::from_millis(50);
        let policy = HealthPolicy {
            interval,
            timeout: interval,
            rise: 1,
            fall: 1,
            ..HealthPolicy::default()
        };
        let director = {
            let (told, name) = (Arc::clone(&told), what.as_str());
            let binding = MonitorBinding::new(ill.clone()).policy(policy).through(Through::Backend);
            start(&lab, |builder| {
                builder.service(service(vip, pool).when_all_down(what)).monitor(binding).on_event(
                    move |event| {
                        if matches!(event, Event::AllDown { .. } | Event::Recovered { .. }) {
                            told.lock().unwrap().push(format!("{name}: {event}"));
                        }
                    },
                )
            })
        };
        assert_eq!(answering(&lab, vip, 40), set(["b1", "b2", "b3"]));
        ill.0.lock().unwrap().insert("b1".to_owned());
        until("one is ill", || director.stats().backends[0].idle.is_some());
        // Later than what falls together is found out.
        std::thread::sleep(interval * 4);
        ill.0.lock().unwrap().extend(["b2".to_owned(), "b3".to_owned()]);
        until("all are ill", || director.stats().backends[..3].iter().all(|b| b.idle.is_some()));
        if answers.is_empty() {
            lab.client.enter(|| http_get(vip, "/", SHORT)).unwrap_err();
        } else {
            assert_eq!(answering(&lab, vip, 40), answers);
        }
        ill.0.lock().unwrap().clear();
        until("all are well", || director.stats().backends[..3].iter().all(|b| b.idle.is_none()));
        assert_eq!(answering(&lab, vip, 40), set(["b1", "b2", "b3"]));
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("down: ") && told[1].contains("no longer"), "{told:?}");
    }
}

/// What is told before is what is told after, and nothing happens until then.
#[test]
fn a_preview_says_what_applying_then_does() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("preview")) else { return };
    let vip = lab.vip4_port(80);
    let director = start(&lab, |builder| builder.service(service(vip, &lab.backends)));
    let well = || director.stats().backends.iter().filter(|b| b.idle.is_none()).count();
    until("all are resolved", || well() == 3);
    let before = director.stats().generation;

    // One goes, and one comes that does not exist: it is taken to be well, but cannot be later.
    let nobody = RealServer::new([10, 0, 0, 250].into()).with_id("b9");
    let new = Config::from_iter([service(vip, &lab.backends[..2]).backend(nobody)]);
    let preview = director.preview(new).unwrap();
    println!("{preview}");
    let share = |id: &str| {
        let of = preview.moves[0].backends.iter().find(|backend| backend.id == id).unwrap();
        [of.before, of.after].map(|share| (share * 3.0).round())
    };
    assert_eq!((share("b1"), share("b3"), share("b9")), ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]));

    let fewer = Config::from_iter([service(vip, &lab.backends[..2])]);
    let preview = director.preview(fewer.clone()).unwrap();
    assert_eq!((director.stats().generation, well()), (before, 3), "nothing has happened");
    let applied = director.apply(fewer.clone()).unwrap();
    assert_eq!(preview.changes, applied.changes);
    let told: Vec<_> = preview.moves.iter().map(|moves| (moves.service, moves.share)).collect();
    assert_eq!(told, applied.moved);
    assert!((0.33..0.36).contains(&told[0].1), "{told:?}");

    // One that takes nothing now does not in a preview either.
    let key: VipKey = format!("{vip}/tcp").parse().unwrap();
    director.set_admin(key, "b1", AdminState::Disabled).unwrap();
    let preview = director.preview(Config::from_iter([service(vip, &lab.backends)])).unwrap();
    let ids: Vec<_> = preview.moves[0].backends.iter().map(|backend| &backend.id[..]).collect();
    assert_eq!(ids, ["b2", "b3"]);

    let bad = Config::from_iter([service(vip, [&lab.director])]);
    let error = director.preview(bad).unwrap_err().to_string();
    assert!(error.contains("director's own address"), "{error}");
}

/// What a test says, as a source.
struct Scripted(Receiver<Result<Config, SourceError>>);

impl ConfigSource for Scripted {
    fn next(&mut self, timeout: Duration) -> Result<Option<Config>, SourceError> {
        match self.0.recv_timeout(timeout) {
            Ok(config) => config.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
        }
    }
}

/// Connections to backends that stay go on through a hundred changes, and no request is lost.
#[test]
fn a_hundred_configurations_under_load_break_nothing_that_stays() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("reload")) else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let (sender, receiver) = channel();
    let with = |count: usize| Config::from_iter([service(vip, &lab.backends[..count])]);
    sender.send(Ok(with(2))).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let director = {
        let told = Arc::clone(&told);
        start(&lab, move |builder| {
            builder.balancer(remembering).source(Scripted(receiver)).on_event(move |event| {
                if matches!(event, Event::ConfigApplied(_) | Event::ConfigRefused(_)) {
                    told.lock().unwrap().push(event.to_string());
                }
            })
        })
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    lab.client.enter(|| {
                        let mut connection = HttpConnection::open(vip, TIMEOUT).unwrap();
                        let first = connection.get("/").unwrap().backend().to_owned();
                        let mut requests = 1;
                        while !stop.load(Ordering::Relaxed) {
                            assert_eq!(connection.get("/").unwrap().backend(), first);
                            requests += 1;
                        }
                        requests
                    })
                })
            })
            .collect();
        for round in 0..100 {
            sender.send(Ok(with(2 + round % 2))).unwrap();
            until("applied", || told.lock().unwrap().len() == round + 1);
        }
        let bad = Config::from_iter([service(vip, [&lab.director])]);
        sender.send(Ok(bad)).unwrap();
        sender.send(Err(SourceError::Unreadable("as told".into()))).unwrap();
        until("refused", || told.lock().unwrap().len() == 102);
        stop.store(true, Ordering::Relaxed);
        let requests: Vec<usize> =
            clients.into_iter().map(|client| client.join().unwrap()).collect();
        println!("requests by connection through 100 configurations: {requests:?}");
        assert!(requests.iter().all(|requests| *requests > 10));
    });
    let told = told.lock().unwrap();
    assert!(told[..100].iter().all(|told| told.contains("configuration applied")), "{told:?}");
    assert!(told[100].contains("director's own address"), "{}", told[100]);
    assert!(told[101].contains("stays in force: as told"), "{}", told[101]);
    let counts = director.shutdown().counts;
    assert_eq!(counts.drops().count(), 0, "{counts:?}");
    assert_eq!(counts.io.received, counts.verdicts());
}
