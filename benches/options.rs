//! What the options of AF_XDP are worth on this machine, on veth in copy mode, in namespaces. For a minute or two, as root:
//!
//! ```text
//! cargo bench --bench options
//! ```
//!
//! The variants of a table take turns, round by round. The least of the rounds is what is left when others had the machine
//! least; ratios are to the first variant.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[allow(dead_code, unreachable_pub)] // Shared with the tests, which use all of it.
#[path = "../tests/netns_af_xdp/wire.rs"]
mod wire;

use dsrlb::dataplane::af_xdp::{XdpOptions, pin_thread};
use dsrlb::dataplane::{MAX_BATCH, PacketIo, Polling, Port};
use nix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use wire::*;

type Measured = Result<f64, Box<dyn Error>>;

const ROUNDS: usize = 9;

/// Prints one table: least and median of each variant.
fn table<V>(
    what: &str,
    variants: &[(String, V)],
    mut measure: impl FnMut(&V) -> Measured,
) -> TestResult {
    let mut figures = vec![Vec::new(); variants.len()];
    for _ in 0..ROUNDS {
        for ((_, variant), figures) in variants.iter().zip(&mut figures) {
            figures.push(measure(variant)?);
        }
    }
    println!("{what}");
    figures.iter_mut().for_each(|figures| figures.sort_by(f64::total_cmp));
    let first = (figures[0][0], figures[0][ROUNDS / 2]);
    for ((name, _), figures) in variants.iter().zip(&figures) {
        let (least, median) = (figures[0], figures[ROUNDS / 2]);
        let (of_least, of_median) = (least / first.0, median / first.1);
        println!(
            "  {name:<34} least {least:>9.1} ({of_least:.2}), median {median:>9.1} ({of_median:.2})"
        );
    }
    Ok(())
}

/// Nanoseconds on a core that a frame takes in the director's poll, sending included, over batches of 64 that are
/// there already.
fn a_frame(wire: &Wire, options: &XdpOptions) -> Measured {
    const BATCHES: usize = 400;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), options)?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    let mut spent = Duration::ZERO;
    for _ in 0..BATCHES {
        for _ in 0..MAX_BATCH {
            assert!(peer.send(Port::INGRESS, &frame)?);
        }
        let mut handled = 0;
        while handled < MAX_BATCH {
            let start = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
            let count = queue.poll(WAIT, &mut |frames| frames.iter_mut().for_each(reflect))?;
            spent += Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)? - start);
            assert!(count > 0, "a frame is missing");
            handled += count;
        }
        while peer.poll(Duration::ZERO, &mut |_| ())? > 0 {}
    }
    Ok(spent.as_nanos() as f64 / (BATCHES * MAX_BATCH) as f64)
}

/// Microseconds from sending one frame to having it back, after a pause; the median of 300.
fn after_a_pause(wire: &Wire, options: &XdpOptions) -> Measured {
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), options)?;
    let peer = &mut client.queues[0];
    let stop = AtomicBool::new(false);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    std::thread::scope(|scope| {
        let queue = &mut director.queues[0];
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                queue.poll(SILENCE, &mut |frames| frames.iter_mut().for_each(reflect)).unwrap();
            }
        });
        let mut times = Vec::new();
        for _ in 0..300 {
            std::thread::sleep(Duration::from_micros(300));
            let start = Instant::now();
            let sent = peer.send(Port::INGRESS, &frame)?;
            while peer.poll(Duration::ZERO, &mut |_| ())? == 0 {
                assert!(sent && start.elapsed() < WAIT, "it does not come back");
            }
            times.push(start.elapsed().as_nanos() as f64 / 1000.0);
        }
        stop.store(true, Relaxed);
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    })
}

/// Nanoseconds a frame at full load: one thread sends, and takes back, one forwards, each on a core if one is
/// named.
fn at_full_load(wire: &Wire, options: &XdpOptions, cores: Option<(u32, u32)>) -> Measured {
    const TIME: Duration = Duration::from_millis(300);
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), options)?;
    let peer = &mut client.queues[0];
    let stop = AtomicBool::new(false);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    std::thread::scope(|scope| {
        let queue = &mut director.queues[0];
        let sending = scope.spawn(|| {
            cores.map_or(Ok(()), |(sender, _)| pin_thread(sender)).unwrap();
            while !stop.load(Relaxed) {
                for _ in 0..MAX_BATCH {
                    peer.send(Port::INGRESS, &frame).unwrap();
                }
                while peer.poll(Duration::ZERO, &mut |_| ()).unwrap() > 0 {}
            }
        });
        let forwarding = scope.spawn(|| -> std::io::Result<f64> {
            cores.map_or(Ok(()), |(_, director)| pin_thread(director))?;
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < TIME {
                count += queue.poll(SILENCE, &mut |frames| frames.iter_mut().for_each(reflect))?;
            }
            Ok(start.elapsed().as_nanos() as f64 / count as f64)
        });
        let forwarded = forwarding.join().unwrap();
        stop.store(true, Relaxed);
        sending.join().unwrap();
        Ok(forwarded?)
    })
}

fn main() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpoptions", 1)?;
    let usual = XdpOptions::default;
    let named = |name: &str, options: XdpOptions| (name.to_owned(), options);

    let budgets = [32, 64, 256].map(|budget| {
        named(
            &format!("transmit_budget {budget}"),
            XdpOptions { transmit_budget: budget, ..usual() },
        )
    });
    table("ns on a core a frame, batches of 64 that are there", &budgets, |options| {
        a_frame(&wire, options)
    })?;

    let pollings = [Polling::Sleep, Polling::Busy, Polling::Spin]
        .map(|polling| named(&polling.to_string(), XdpOptions { polling, ..usual() }));
    table("ns on a core a frame, batches of 64 that are there", &pollings, |options| {
        a_frame(&wire, options)
    })?;
    table("µs there and back, after a pause of 300 µs", &pollings, |options| {
        after_a_pause(&wire, options)
    })?;
    table("ns a frame at full load, no cores named", &pollings, |options| {
        at_full_load(&wire, options, None)
    })?;
    table("ns a frame at full load, both on core 0", &pollings, |options| {
        at_full_load(&wire, options, Some((0, 0)))
    })?;

    let cores = [
        ("no cores named", None),
        ("one core each", Some((0, 1))),
        ("both on core 0", Some((0, 0))),
    ];
    let cores = cores.map(|(name, cores)| (name.to_owned(), cores));
    table("ns a frame at full load, polling sleep", &cores, |cores| {
        at_full_load(&wire, &usual(), *cores)
    })?;

    let overcommit = "/proc/sys/vm/nr_overcommit_hugepages";
    let before = fs::read_to_string(overcommit)?;
    fs::write(overcommit, "128")?;
    let sizes = [4096, 16384].map(|frames| {
        [false, true].map(|huge_pages| {
            let options = XdpOptions { frames_per_queue: frames, huge_pages, ..usual() };
            named(&format!("{frames} frames, huge_pages {huge_pages}"), options)
        })
    });
    let measured = sizes.iter().try_for_each(|sizes| {
        table("ns on a core a frame, batches of 64 that are there", sizes, |options| {
            a_frame(&wire, options)
        })
    });
    fs::write(overcommit, before)?;
    measured
}
