//! No connection is broken by a change that leaves its backend alive: thousands of real TCP connections between network
//! namespaces, through every kind of change, alone and beside a flood of SYNs. Needs root; skips without.
//!
//! Printed at the end: how many connections there were and how many messages were answered, how many changes were made,
//! and how many connections were broken, with their backends and without a reason.
//!
//! `DSRLB_SEED=n` brings back the changes of a run that printed this seed.

mod beside_a_flood;
mod changes;
mod clients;
mod connection;
mod crowd;
mod echo;
mod flood;
mod history;
#[path = "../../examples/lab/mod.rs"]
mod lab;
mod pool;
mod random;
mod through_changes;

use crowd::{Crowd, Working};
use dsrlb::director::{Director, DirectorBuilder};
use echo::EchoServer;
use history::History;
use lab::{Lab, LabOptions};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pool::{Pool, Wanted};
use random::Random;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

const BACKENDS: u8 = 8;
const IPV4: usize = 1600;
const IPV6: usize = 400;
const FIRST: usize = IPV4 + IPV6;
const SEED: &str = "DSRLB_SEED";

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a seed is a number"));
    let seed = given.unwrap_or_else(|| {
        SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_nanos().into())
    });
    println!("{SEED}={seed}");
    seed
}

/// A network with a server on each backend, and files enough for both ends of all connections.
fn build(tag: &'static str) -> Option<(Lab, Vec<EchoServer>, MutexGuard<'static, ()>)> {
    // One test has enough to do for the whole machine.
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let options = LabOptions { backends: BACKENDS, ..LabOptions::named(tag) };
    let lab = Lab::build_or_skip(&options)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(most >= 2 * FIRST as u64 + 1000, "`ulimit -Hn` is {most}, which is too few");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let servers = (1..).zip(&lab.backends).map(|(n, host)| EchoServer::start(host, 80, n).unwrap());
    let servers = servers.collect();
    Some((lab, servers, turn))
}

/// A director with these backends for both VIPs, and what its pools are.
fn start(
    lab: &Lab,
    backends: std::ops::RangeInclusive<u8>,
    set: impl FnOnce(DirectorBuilder) -> DirectorBuilder + Send,
) -> (Director, Vec<(Wanted, Arc<History>)>) {
    let vips = [lab.vip4_port(80), lab.vip6_port(80)];
    let services = vips.map(|vip| Wanted::new(vip, backends.clone()));
    let director = lab.director.enter(|| {
        let builder = Director::builder(&lab.director.interface);
        let add = |builder: DirectorBuilder, wanted: &Wanted| {
            builder.service(wanted.service(lab, &mut Random(0)))
        };
        set(services.iter().fold(builder, add)).start().unwrap()
    });
    let with_history = |wanted: Wanted| {
        let history = Arc::new(History::new(&wanted.taking()));
        (wanted, history)
    };
    (director, services.map(with_history).into())
}

fn crowd(services: &[(Wanted, Arc<History>)]) -> Crowd {
    let service = |((wanted, history), count): (&(Wanted, Arc<History>), _)| {
        (wanted.vip, count, Arc::clone(history))
    };
    Crowd {
        services: services.iter().zip([IPV4, IPV6]).map(service).collect(),
        short: 8,
        window: 256,
        timeout: Duration::from_secs(15),
    }
}

/// Applies the same change to each service, and has every connection say something.
fn step(what: &str, pool: &mut Pool<'_>, clients: &Working, change: impl Fn(&mut Pool<'_>, usize)) {
    let (begun, before) = (Instant::now(), clients.messages());
    for service in 0..pool.services.len() {
        change(pool, service);
    }
    let applied = begun.elapsed();
    clients.round(Duration::from_secs(30));
    let messages = clients.messages() - before;
    println!(
        "{what}: {applied:.0?}, then {messages} messages in {:.0?}",
        begun.elapsed() - applied
    );
    check(clients);
}

fn check(clients: &Working) {
    let wrong = clients.wrong();
    assert!(
        wrong.is_empty(),
        "{} broken, such as {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
}
