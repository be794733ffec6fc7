//! The runner at scale: a thousand backends probed every second, half of them silent.
//!
//! Prints how late probes began and how many threads it took; asserts what does not depend on how busy
//! the machine is. `cargo test --release --test probe_many -- --nocapture`

use dsrlb::health::{
    HealthPolicy, HealthState, Monitor, News, ProbeFailure, ProbeTarget, Runner, Target,
    TcpConnect, UdpRequest,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const BACKENDS: usize = 1000;
const SECONDS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Notes when each target's probes begin.
struct Noted<M> {
    monitor: M,
    begun: Mutex<BTreeMap<String, Vec<Instant>>>,
}

impl<M: Monitor> Noted<M> {
    fn new(monitor: M) -> Arc<Self> {
        Arc::new(Self { monitor, begun: Mutex::default() })
    }
}

impl<M: Monitor> Monitor for Noted<M> {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let now = Instant::now();
        self.begun.lock().unwrap().entry(target.id.to_owned()).or_default().push(now);
        self.monitor.probe(target, timeout)
    }

    fn subscribe(&self, news: News) {
        self.monitor.subscribe(news);
    }
}

/// How much later than in its best round each probe began; the first, which is made at once, and not
/// in its turn, does not count.
fn lateness(begun: &[Instant]) -> Vec<Duration> {
    let rounds = &begun[1.min(begun.len())..];
    let Some(&first) = rounds.first() else { return Vec::new() };
    // Rounds may have been missed, but the place within the second is the same.
    let places: Vec<_> = rounds
        .iter()
        .map(|time| {
            let nanos = (*time - first).as_nanos() as i128;
            let second = SECOND.as_nanos() as i128;
            nanos - (nanos + second / 2).div_euclid(second) * second
        })
        .collect();
    let best = places.iter().min().copied().unwrap_or_default();
    places.iter().map(|place| Duration::from_nanos((place - best) as u64)).collect()
}

fn address(number: usize) -> IpAddr {
    IpAddr::from([127, 9, (number / 250) as u8, (number % 250) as u8 + 1])
}

#[test]
fn a_thousand_backends_half_of_them_silent_are_probed_every_second() {
    // All of 127/8 is here. One of them accepts, the other never reads, let alone answers.
    let accepting = TcpListener::bind("0.0.0.0:0").unwrap();
    let silent = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = accepting.local_addr().unwrap().port().try_into().unwrap();
    let well = Noted::new(TcpConnect::new(port));
    let port = silent.local_addr().unwrap().port().try_into().unwrap();
    let dead = Noted::new(UdpRequest::new(port, "are you there?").unwrap());
    std::thread::spawn(move || accepting.incoming().for_each(drop));

    let (sender, events) = mpsc::channel();
    let runner = Runner::start(Runner::MOST_THREADS, sender).unwrap();
    assert_eq!(runner.threads(), 0);
    let target = |number: usize| ProbeTarget {
        service: "10.0.0.100:80/tcp".to_owned(),
        id: format!("web-{number}"),
        address: address(number),
        monitor: if number.is_multiple_of(2) { well.clone() } else { dead.clone() },
        policy: HealthPolicy::default(),
    };
    runner.set_targets((0..BACKENDS).map(target).collect()).unwrap();
    let start = Instant::now();
    let mut threads = Vec::new();
    while start.elapsed() < SECOND * SECONDS as u32 {
        std::thread::sleep(SECOND / 10);
        threads.push(runner.threads());
    }
    let states = runner.states();
    runner.shut_down(SECOND * 5);

    let mut late: Vec<_> = Vec::new();
    for noted in [&well.begun, &dead.begun] {
        let begun = noted.lock().unwrap();
        assert_eq!(begun.len(), BACKENDS / 2);
        for (id, times) in begun.iter() {
            // One at once, and then one each second; the second may be up to 1.5 s after the first.
            assert!((SECONDS - 2..=SECONDS + 1).contains(&times.len()), "{id}: {}", times.len());
            late.extend(lateness(times));
        }
    }
    late.sort_unstable();
    let most = threads.iter().max().copied().unwrap_or_default();
    println!(
        "{BACKENDS} backends, half of them silent, for {SECONDS} s: {} probes began late by \
         min {:?}, median {:?}, 99th percentile {:?}, max {:?}; {most} threads at most, {} at the end; \
         {} changes of state",
        late.len(),
        late[0],
        late[late.len() / 2],
        late[late.len() * 99 / 100],
        late[late.len() - 1],
        threads[threads.len() - 1],
        events.iter().count(),
    );
    assert!(most <= Runner::MOST_THREADS, "{most}");
    for ((_, id), state) in &states {
        let number: usize = id.trim_start_matches("web-").parse().unwrap();
        let expected = if number.is_multiple_of(2) { HealthState::Up } else { HealthState::Down };
        assert_eq!(*state, expected, "{id}");
    }
    assert_eq!(states.len(), BACKENDS);
}
