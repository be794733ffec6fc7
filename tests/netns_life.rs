//! What happens to a director while it runs: changes that cross each other, handlers that call back,
//! interfaces that change or go away, and what it costs when nothing happens.

#[path = "../examples/lab/mod.rs"]
mod lab;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::config::Config;
use dsrlb::dataplane::af_xdp::XdpOptions;
use dsrlb::director::{Director, DirectorBuilder, Event};
use dsrlb::health::{
    HealthPolicy, HealthState, Monitor, MonitorBinding, ProbeFailure, Target, Through,
};
use lab::{Host, Lab, LabOptions, http_get, udp_ask_from};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(300);

fn lab(tag: &'static str) -> Option<Lab> {
    Lab::build_or_skip(&LabOptions::named(tag))
}

fn service<'a>(vip: SocketAddr, backends: impl IntoIterator<Item = &'a Host>) -> VirtualService {
    let service = VirtualService::new(format!("{vip}/tcp").parse().unwrap());
    backends.into_iter().fold(service, |service, host| {
        service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
    })
}

fn start(lab: &Lab, set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send) -> Director {
    let vip = lab.vip4_port(80);
    lab.director.enter(|| {
        let builder = Director::builder(&lab.director.interface);
        set(builder.service(service(vip, &lab.backends))).start().unwrap()
    })
}

fn serves(lab: &Lab, vip: SocketAddr) -> bool {
    lab.client.enter(|| http_get(vip, "/", SHORT)).is_ok()
}

fn all_active(director: &Director) -> bool {
    director.stats().backends.iter().all(|backend| backend.idle.is_none())
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Probes and solicitations that leave from a VIP are answered to the backend itself.
#[test]
fn a_vip_that_the_host_may_send_from_is_warned_of() {
    let Some(lab) = lab("source") else { return };
    let vip = VirtualService::new(lab.vip6.to_string().parse().unwrap())
        .backend(RealServer::new(lab.backends[0].v6.into()));
    let warned = |says: &str| {
        let vip = vip.clone();
        let director = start(&lab, |builder| {
            builder
                .service(vip)
                .monitor(probing(dsrlb::health::IcmpEcho::new(), HealthPolicy::default()))
        });
        // In a lab this young the first solicitation may be lost, and the kernel's second comes a
        // second later; then it takes two probes to be well again.
        let begun = Instant::now();
        let is_well = || director.stats().backends.last().unwrap().idle.is_none();
        while !is_well() && begun.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let well = is_well();
        (well, director.warnings().iter().any(|warning| warning.contains(says)))
    };
    let advice = format!("{}/128 dev eth0 preferred_lft 0", lab.vip6);
    assert_eq!(warned(&advice), (true, false));
    let preferred = format!("addr change {}/128 dev eth0 preferred_lft forever", lab.vip6);
    lab.director.namespace.ip_batch(&[preferred]).unwrap();
    let (well, warned) = warned(&advice);
    println!("probes that may leave from the VIP succeed: {well}");
    assert!(warned);
}

/// The names of this process's threads that are the library's.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("dsrlb-")).collect()
}

/// How long each of the library's threads has been on a CPU.
fn cpu_times() -> BTreeMap<OsString, Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let times = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos: u64 = times.split(' ').next()?.parse().ok()?;
        name.starts_with("dsrlb-").then_some((task.file_name(), Duration::from_nanos(nanos)))
    });
    times.collect()
}

/// How long they have been together since then, without those that have ended since.
fn cpu_time_since(before: &BTreeMap<OsString, Duration>) -> Duration {
    let earlier = |thread| before.get(thread).copied().unwrap_or_default();
    cpu_times().iter().map(|(thread, time)| time.saturating_sub(earlier(thread))).sum()
}

/// An address that leaves a set and comes back before the resolver has looked is a new one: what
/// was known of it is forgotten, so it has to be told anew.
#[test]
fn a_backend_that_leaves_and_comes_back_at_once_is_found_again() {
    let Some(lab) = lab("back") else { return };
    let vip = lab.vip4_port(80);
    let director = start(&lab, |builder| builder);
    for _ in 0..20 {
        director.apply(Config::from_iter([service(vip, &lab.backends[1..])])).unwrap();
        director.apply(Config::from_iter([service(vip, &lab.backends)])).unwrap();
    }
    until("all take traffic again", || all_active(&director));
}

/// Whoever changes last is the last that resolver and monitors hear of.
#[test]
fn changes_by_many_threads_end_in_one_state() {
    let Some(lab) = lab("race") else { return };
    let vip = lab.vip4_port(80);
    let director = start(&lab, |builder| builder.monitor(probing(Custom::default(), quick())));
    for _ in 0..20 {
        std::thread::scope(|scope| {
            for count in 1..=lab.backends.len() {
                let (director, backends) = (&director, &lab.backends[..count]);
                scope.spawn(move || {
                    director.apply(Config::from_iter([service(vip, backends)])).unwrap()
                });
            }
        });
        until("those that are left take traffic", || all_active(&director));
    }
}

/// Ill are all when the switch is on.
#[derive(Default)]
struct Custom(Arc<AtomicBool>);

impl Monitor for Custom {
    fn probe(&self, _: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
        let ill = self.0.load(SeqCst);
        if ill { Err(ProbeFailure::Unexpected("the switch is on".into())) } else { Ok(()) }
    }
}

fn quick() -> HealthPolicy {
    let (interval, timeout) = (Duration::from_millis(50), Duration::from_millis(50));
    HealthPolicy { interval, timeout, ..HealthPolicy::default() }
}

#[test]
fn a_handler_may_ask_and_change_the_director_and_may_panic() {
    let Some(lab) = lab("handler") else { return };
    let vip = lab.vip4_port(80);
    let handle: Arc<OnceLock<Weak<Director>>> = Arc::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let changes = Arc::new(AtomicUsize::new(0));
    let fewer = service(vip, &lab.backends[..1]);
    let director = {
        let (handle, told, changes) = (Arc::clone(&handle), Arc::clone(&told), changes.clone());
        start(&lab, move |builder| {
            builder.on_event(move |event| {
                told.lock().unwrap().push(event.to_string());
                let Some(director) = handle.get().and_then(Weak::upgrade) else { return };
                director.stats();
                if matches!(event, Event::BackendIdle { .. }) && changes.fetch_add(1, SeqCst) == 0 {
                    director.apply(Config::from_iter([fewer.clone()])).unwrap();
                    panic!("a bug in the handler");
                }
            })
        })
    };
    let director = Arc::new(director);
    handle.set(Arc::downgrade(&director)).unwrap();
    // On the resolver's thread: the link goes down, and every backend with it.
    lab.set_link(&lab.director, false).unwrap();
    until("the handler has changed the services", || {
        director.config().services[0].service.backends.len() == 1
    });
    lab.set_link(&lab.director, true).unwrap();
    until("events are told after a panic", || {
        let told = told.lock().unwrap();
        told.last().is_some_and(|last| last.contains("no longer are all backends down"))
    });
    until("the resolver goes on", || all_active(&director));
    Arc::into_inner(director).unwrap().shutdown();
    assert_eq!(threads(), [""; 0]);
}

/// The handler holds the last handle, and lets go of it on the thread that called it.
#[test]
fn the_last_handle_may_be_dropped_in_the_handler() {
    let Some(lab) = lab("self") else { return };
    let handle: Arc<Mutex<Option<Director>>> = Arc::default();
    let theirs = Arc::clone(&handle);
    let (done, heard) = channel();
    let director = start(&lab, move |builder| {
        builder.on_event(move |event| {
            if matches!(event, Event::LinkChanged { up: false, .. }) {
                drop(theirs.lock().unwrap().take());
                done.send(()).unwrap();
            }
        })
    });
    *handle.lock().unwrap() = Some(director);
    lab.set_link(&lab.director, false).unwrap();
    heard.recv_timeout(Duration::from_secs(5)).unwrap();
    until("all threads end", || threads().is_empty());
}

#[test]
fn a_handler_that_blocks_holds_up_nobody_but_its_own_thread() {
    let Some(lab) = lab("block") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blocked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&blocked);
    let director = start(&lab, move |builder| {
        builder.monitor(probing(Custom::default(), quick())).on_event(move |event| {
            if matches!(event, Event::LinkChanged { up: false, .. }) {
                flag.store(true, SeqCst);
                let _ = wait.lock().unwrap().recv();
            }
        })
    });
    // Seen by the resolver as down and up again.
    lab.set_link(&lab.director, false).unwrap();
    until("the handler blocks", || blocked.load(SeqCst));
    lab.set_link(&lab.director, true).unwrap();
    director.apply(Config::from_iter([service(vip, &lab.backends[..1])])).unwrap();
    director.stats();
    drop(go);
    until("it goes on", || all_active(&director));
    assert!(serves(&lab, vip));
}

#[test]
fn a_change_that_the_maps_have_no_room_for_leaves_the_old_services_in_force() {
    let Some(lab) = lab("room") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let xdp = XdpOptions { max_addresses: 1, ..XdpOptions::default() };
    let director = start(&lab, |builder| builder.xdp(xdp));
    let other = SocketAddr::from(([10, 77, 0, 101], 80));
    let third = SocketAddr::from(([10, 77, 0, 102], 80));
    for more in [vec![vip, other], vec![other, third]] {
        let config = more.iter().map(|vip| service(*vip, &lab.backends)).collect();
        let error = director.apply(config).unwrap_err().to_string();
        assert!(error.contains("max_addresses"), "{error}");
        assert_eq!(director.config().services[0].service.key.to_string(), format!("{vip}/tcp"));
        assert_eq!(director.config().services.len(), 1);
        assert!(all_active(&director), "{:?}", director.stats());
        assert!(serves(&lab, vip));
    }
    // One out, one in: there is room for that.
    director.apply(Config::from_iter([service(other, &lab.backends)])).unwrap();
}

#[test]
fn a_new_mac_address_of_the_interface_is_followed() {
    let Some(lab) = lab("newmac") else { return };
    let _http = lab.start_http(80).unwrap();
    let vip = lab.vip4_port(80);
    let director = start(&lab, |builder| builder);
    assert!(serves(&lab, vip));
    let address = format!("link set dev {} address 02:00:00:00:01:99", lab.director.interface);
    lab.director.namespace.ip_batch(&[address]).unwrap();
    // The client asks anew; the kernel does not tell it.
    lab.client.namespace.run("ip", &["neigh", "flush", "dev", "eth0"]).unwrap();
    until("requests to the new address are forwarded", || serves(&lab, vip));
    assert!(director.failure().is_none());
}

#[test]
fn an_interface_that_goes_away_is_reported_and_costs_nothing() {
    let Some(lab) = lab("vanish") else { return };
    let (events, heard) = channel();
    let director = start(&lab, move |builder| {
        builder
            .monitor(probing(Custom::default(), HealthPolicy::default()))
            .on_event(move |event| drop(events.send(event.clone())))
    });
    lab.director.namespace.run("ip", &["link", "del", "dev", &lab.director.interface]).unwrap();
    until("it is reported", || director.failure().is_some());
    let failure = director.failure().unwrap();
    assert!(failure.contains("eth0") && failure.contains("lost its device"), "{failure}");
    until("the backends are idle", || {
        director.stats().backends.iter().all(|backend| backend.idle.is_some())
    });
    until("an event tells of it", || {
        heard.try_iter().any(|event| matches!(event, Event::WorkerFailed { .. }))
    });
    until("the worker ends", || !threads().iter().any(|name| name.starts_with("dsrlb-queue")));
    let before = cpu_times();
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_time_since(&before);
    assert!(used < Duration::from_millis(500), "{used:?} in a second: something spins");
    let begun = Instant::now();
    director.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(1));
    until("all threads end", || threads().is_empty());
}

/// What a monitor found out about a backend that has left must not count when it comes back.
#[test]
fn what_was_said_of_a_backend_that_left_is_not_held_against_it() {
    let Some(lab) = lab("stale") else { return };
    let vip = lab.vip4_port(80);
    let ill = Arc::new(AtomicBool::new(false));
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let heard = Arc::new(AtomicBool::new(false));
    let (monitor, flag) = (Custom(Arc::clone(&ill)), Arc::clone(&heard));
    let policy = HealthPolicy { initial: HealthState::Up, ..quick() };
    let director = start(&lab, move |builder| {
        builder.monitor(probing(monitor, policy)).on_event(move |event| {
            if matches!(event, Event::BackendIdle { .. }) && !flag.swap(true, SeqCst) {
                let _ = wait.lock().unwrap().recv();
            }
        })
    });
    // The listener tells of one backend; what is found out of the others waits to be heard.
    ill.store(true, SeqCst);
    until("the first is reported", || heard.load(SeqCst));
    std::thread::sleep(quick().interval * 10);
    director.apply(Config::from_iter([service(vip, [])])).unwrap();
    ill.store(false, SeqCst);
    // Longer than a probe takes: none that failed is left.
    std::thread::sleep(quick().interval * 2);
    director.apply(Config::from_iter([service(vip, &lab.backends)])).unwrap();
    drop(go);
    until("all take traffic again", || all_active(&director));
}

/// A monitor that does not keep to its timeout.
struct Hangs(Arc<AtomicBool>);

impl Monitor for Hangs {
    fn probe(&self, _: &Target<'_>, _: Duration) -> Result<(), ProbeFailure> {
        while !self.0.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

#[test]
fn a_monitor_that_hangs_delays_the_end_by_a_second_and_keeps_only_its_own_threads() {
    let Some(lab) = lab("hang") else { return };
    let released = Arc::new(AtomicBool::new(false));
    let monitor = Hangs(Arc::clone(&released));
    let director = start(&lab, |builder| builder.monitor(probing(monitor, quick())));
    until("it counts as failed", || {
        director.stats().backends.iter().all(|backend| {
            backend.idle.as_ref().is_some_and(|idle| idle.to_string().contains("unhealthy"))
        })
    });
    let begun = Instant::now();
    director.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    until("nothing is left but the probes", || {
        threads() == vec!["dsrlb-probe"; lab.backends.len()]
    });
    released.store(true, SeqCst);
    until("they end when the monitor does", || threads().is_empty());
}

#[test]
fn idle_it_costs_next_to_nothing_and_wakes_at_once() {
    let Some(lab) = lab("idle") else { return };
    let _udp = lab.start_udp(53).unwrap();
    let key = format!("{}:53/udp", lab.vip4).parse().unwrap();
    let udp = lab.backends.iter().fold(VirtualService::new(key), |service, host| {
        service.backend(RealServer::new(host.v4.into()).with_id(&host.name))
    });
    let director = start(&lab, |builder| {
        builder
            .service(udp)
            .monitor(probing(dsrlb::health::IcmpEcho::new(), HealthPolicy::default()))
    });
    let before = cpu_times();
    let pause = Duration::from_secs(3);
    std::thread::sleep(pause);
    let share = cpu_time_since(&before).as_secs_f64() / pause.as_secs_f64();
    println!("idle: {:.2} % of a CPU, monitor included", share * 100.0);
    // A loop that spins would take all of one.
    assert!(share < 0.5, "idle, it takes {:.1} % of a CPU", share * 100.0);

    let vip = (lab.vip4, 53).into();
    let mut times: Vec<Duration> = lab.client.enter(|| {
        let ask = |port: u16| {
            std::thread::sleep(Duration::from_millis(20));
            let begun = Instant::now();
            let from = (lab.client.v4, 40_000 + port).into();
            udp_ask_from(from, vip, b"?", TIMEOUT).unwrap();
            begun.elapsed()
        };
        (0..200).map(ask).collect()
    });
    times.sort();
    let (median, late) = (times[100], times[197]);
    println!("round trip after idle: median {median:?}, p99 {late:?}, worst {:?}", times[199]);
    // What waits for a tick of ours would wait for tens of milliseconds, and mostly.
    assert!(median < Duration::from_millis(20), "{times:?}");
    drop(director);
}

/// A monitor of the backends' own addresses.
fn probing(monitor: impl Monitor + 'static, policy: HealthPolicy) -> MonitorBinding {
    MonitorBinding::new(monitor).policy(policy).through(Through::Backend)
}
