//! The demonstration: Direct Server Return shown with real servers, clients and packets.
//!
//! Every claim printed is checked; the first one that does not hold ends it with an error.

use super::lab::{self, Lab, LabOptions, TunnelReceiver, http_download, http_get};
use super::{Options, start};
use clap::Parser;
use dsrlb::director::Director;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TIMEOUT: Duration = Duration::from_secs(3);
const GUE_PORT: u16 = 6080;
const REQUESTS: usize = 60;
const DOWNLOAD: u64 = 20_000_000;

const PICTURE: &str = "
            client 10.77.0.2
               |      ^
      requests |      | answers, straight from the backends
               v      |
  director ==[ switch ]== backends b1, b2, b3
  10.77.0.1               10.77.0.11 to .13, each holding the VIP 10.77.0.100
";

/// Builds the network, tells the story, and takes everything down again.
pub(crate) fn tell() -> std::result::Result<(), Box<dyn Error>> {
    lab::cleanup_on_signals()?;
    let lab = Lab::build(&LabOptions::named("demo"))?;
    println!("A network of namespaces, with real HTTP servers on the backends:\n{PICTURE}");
    let told = chapters(&lab);
    drop(lab);
    told.map_err(|error| error as Box<dyn Error>)?;
    println!("\nAll of it held. The network is gone again.");
    Ok(())
}

fn chapters(lab: &Lab) -> Result {
    let _servers = lab.start_http(80)?;
    let (vip4, vip6) = (lab.vip4_port(80), lab.vip6_port(80));
    let mut command = format!(
        "simple_vip --interface {} --vip {vip4}/tcp --vip {vip6}/tcp",
        lab.director.interface
    );
    command += &format!(" --tunnel-source {}", lab.director.v4);
    // One pool, and for each backend its own way there: rewritten MAC addresses and two tunnels.
    let mut tunnels = Vec::new();
    for (backend, mode) in lab.backends.iter().zip(["l2", "ipip", "gue:6080"]) {
        command += &format!(" --backend {},mode={mode}", backend.v4);
        if mode != "l2" {
            tunnels.push(TunnelReceiver::start(backend, GUE_PORT)?);
        }
    }
    println!("On the director:\n  {command}");
    let options = Options::parse_from(command.split(' '));
    let director = lab.director.enter(|| start(&options, &lab.director.interface))?;

    // On a slow machine one backend is found well long before the others.
    for backend in &lab.backends {
        wait_for(&director, &backend.v4.into(), true)?;
    }
    first(lab, vip4)?;
    spread(lab, vip4)?;
    spread(lab, vip6)?;
    return_path(lab, &director, vip4)?;
    failover(lab, &director, vip4)?;

    let carried = tunnels.iter().all(|tunnel| !tunnel.arrivals().is_empty());
    check(carried, "a tunnel carried nothing")?;
    println!("\nIn that pool b1 was reached by its MAC address, b2 by IP-in-IP and b3 by GUE.");

    let stats = director.shutdown();
    let counts = stats.counts;
    println!(
        "\nThe director received {} frames and forwarded {}; every one has its verdict.",
        counts.io.received, counts.forwarded
    );
    check(counts.io.received == counts.verdicts(), "verdicts do not add up to frames received")
}

/// By this line `cargo xtask newcomer` knows how long it took to get here.
fn first(lab: &Lab, vip: SocketAddr) -> Result {
    let answer = lab.client.enter(|| http_get(vip, "/", TIMEOUT))?;
    println!("\nThe first request is served, by {}.", answer.backend());
    Ok(())
}

/// Requests spread over the backends, and each server sees the client's own address.
fn spread(lab: &Lab, vip: SocketAddr) -> Result {
    let answers = requests(lab, vip)?;
    println!("\n{REQUESTS} requests to http://{vip}/ were answered by");
    let client = match vip.ip() {
        IpAddr::V4(_) => IpAddr::V4(lab.client.v4),
        IpAddr::V6(_) => IpAddr::V6(lab.client.v6),
    };
    for (backend, count) in &answers {
        println!("  {backend} {count:>3} {}", "#".repeat(*count));
    }
    check(answers.len() == lab.backends.len(), "not every backend was used")?;
    println!("each of which saw the client's own address, {client}");
    Ok(())
}

/// Asks many times; how often each backend answered. Checks the addresses both ends see.
fn requests(lab: &Lab, vip: SocketAddr) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for _ in 0..REQUESTS {
        let answer = lab.client.enter(|| http_get(vip, "/", TIMEOUT))?;
        check(answer.peer == vip, "an answer did not come from the VIP")?;
        let seen: SocketAddr = answer.client().parse()?;
        check(seen == answer.local, "a server did not see the client's own address and port")?;
        *answers.entry(answer.backend().to_owned()).or_default() += 1;
    }
    Ok(answers)
}

/// Answers do not pass the director: it sees the requests and acknowledgements only.
fn return_path(lab: &Lab, director: &Director, vip: SocketAddr) -> Result {
    let watch = lab.watch_vip(vip.ip())?;
    let before = director.stats().counts.forwarded_bytes;
    let bytes = lab.client.enter(|| http_download(vip, DOWNLOAD, TIMEOUT * 5))?;
    let through = director.stats().counts.forwarded_bytes - before;
    let seen = watch.take()?;
    println!(
        "\nA download of {bytes} bytes put {through} bytes through the director: the client's"
    );
    println!("acknowledgements. Frames from the VIP on the director's cable: {seen}");
    check(bytes == DOWNLOAD, "the download was cut short")?;
    check(seen == 0, "answers passed the director")?;
    check(through < DOWNLOAD / 10, "the director carried more than acknowledgements")
}

/// A backend that dies leaves the pool, and comes back when it lives again.
fn failover(lab: &Lab, director: &Director, vip: SocketAddr) -> Result {
    let victim = &lab.backends[1];
    println!("\nThe cable of {} is pulled.", victim.name);
    lab.set_link(victim, false)?;
    let took = wait_for(director, &victim.v4.into(), false)?;
    println!("Out of the pool after {:.1} s.", took.as_secs_f64());
    let answers = requests(lab, vip)?;
    println!("{REQUESTS} further requests: {answers:?}");
    check(!answers.contains_key(&victim.name), "a dead backend was sent requests")?;

    println!("It is plugged in again.");
    lab.set_link(victim, true)?;
    let took = wait_for(director, &victim.v4.into(), true)?;
    println!("Back in the pool after {:.1} s.", took.as_secs_f64());
    let answers = requests(lab, vip)?;
    println!("{REQUESTS} further requests: {answers:?}");
    check(answers.contains_key(&victim.name), "the backend that came back was sent nothing")
}

fn wait_for(director: &Director, address: &IpAddr, active: bool) -> Result<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let backends = director.stats().backends;
        let mut concerned = backends.iter().filter(|backend| backend.address == *address);
        if concerned.all(|backend| backend.idle.is_none() == active) {
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("after 20 s {address} was still {}", if active { "idle" } else { "used" }).into())
}

fn check(holds: bool, otherwise: &str) -> Result {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
