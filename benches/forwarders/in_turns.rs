//! The director's worker, and a handler that only swaps MAC addresses, in turns behind the same sockets: whatever the machine
//! does from one second to the next, it does to both.

use crate::contender::{Kind, Place};
use crate::figures::{Spread, table};
use crate::forwarder::{open, services, swap_addresses};
use crate::plan::{self, DIRECTOR_MAC, Frames, Pace};
use crate::rates::{FLOWS, MANY_FLOWS};
use crate::run::{Bench, Case, Sample};
use crate::traffic::Traffic;
use dsrlb::balancer::{Backend, FlowBalancer};
use dsrlb::dataplane::af_xdp::prefer_huge_pages;
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Handler, IoStats, Mailbox, Observed, PacketIo, Pipeline, Planner, Port, Site, Worker,
    WorkerCounters,
};
use dsrlb::flow::HashKey;
use dsrlb::packet::MacAddress;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long one of the two has the sockets, where rates are compared. What is measured is a multiple of both, so each has
/// half of it.
pub const TURN: Duration = Duration::from_millis(10);
const SLOTS: usize = 64;

/// Gives every other turn to the handler, and swaps MAC addresses in the others.
struct InTurns<I> {
    io: I,
    turn: Duration,
}

/// Whether MAC addresses are swapped in the turn with this number, as counted by the clock that frames are stamped by.
pub fn is_swapping(number: u64) -> bool {
    number % 2 == 1
}

impl<I> InTurns<I> {
    fn is_swapping(&self) -> io::Result<bool> {
        Ok(is_swapping(Traffic::now()? / self.turn.as_nanos() as u64))
    }
}

impl<I: PacketIo> PacketIo for InTurns<I> {
    /// What a worker does between batches is not done while addresses are swapped.
    fn poll(&mut self, wait: Duration, handler: &mut Handler<'_>) -> io::Result<usize> {
        // Nobody waits beyond the end of a turn by much.
        let wait = wait.min(TURN);
        while self.is_swapping()? {
            self.io.poll(wait, &mut |frames| frames.iter_mut().for_each(swap_addresses))?;
        }
        self.io.poll(wait, handler)
    }

    fn send(&mut self, port: Port, frame: &[u8]) -> io::Result<bool> {
        self.io.send(port, frame)
    }

    fn stats(&self) -> IoStats {
        self.io.stats()
    }
}

/// Forwards until told to stop.
pub fn forward(
    interface: &str,
    entries: usize,
    turn: Duration,
    stop: &AtomicBool,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let secret = HashKey::new(*b"in turns, a test");
    let balancer = FlowBalancer::new_in(entries, SLOTS, secret, prefer_huge_pages)?;
    let counters = Arc::new(WorkerCounters::new(SLOTS));
    let observe = |_, backend: &dyn Backend| {
        let number = match backend.address() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        Observed::well(Path::on_link(MacAddress(plan::mac(number))))
    };
    let services = services("l2").map_err(|error| error.to_string())?;
    let snapshot =
        Planner::new(SLOTS).plan(&services, &Site::new(MacAddress(DIRECTOR_MAC)), observe);
    snapshot.snapshot.memory().chain([counters.memory()]).for_each(prefer_huge_pages);
    let (_interface, queue) = open(interface)?;
    let pipeline = Pipeline::new(balancer, counters);
    let io = InTurns { io: queue, turn };
    let snapshots = Arc::new(Arc::new(snapshot.snapshot).into());
    Ok(Worker::new(io, pipeline, snapshots, Mailbox::empty()).run(stop)?)
}

/// Compares, prints, and returns what the worker forwards of the smallest frames.
pub fn compare(bench: &Bench) -> Result<f64, Box<dyn Error>> {
    let mut rows: Vec<_> = bench.times.sizes.iter().map(|size| (*size, false, FLOWS)).collect();
    rows.extend([(64, true, FLOWS), (64, false, MANY_FLOWS)]);
    let mut rounds: Vec<Vec<Sample>> = Vec::new();
    for round in 0..bench.times.rounds {
        eprintln!("in turns, round {} of {}", round + 1, bench.times.rounds);
        let measure = |(size, ipv6, flows): &(usize, bool, u64)| {
            let frames = Frames { size: *size, ipv6: *ipv6, flows: *flows };
            let (kind, place, pace) = (Kind::InTurns, Place::Apart, Pace::default());
            bench.measure(&Case { kind, place, frames, pace })
        };
        rounds.push(rows.iter().map(measure).collect::<Result<_, _>>()?);
    }
    let (mut lines, mut capacity) = (Vec::new(), None);
    for (number, (size, ipv6, flows)) in rows.iter().enumerate() {
        let of = |get: fn(&Sample) -> f64| {
            let figures = rounds.iter().filter_map(|round| round.get(number)).map(get);
            Spread::of(figures).ok_or("not one round")
        };
        let forwarded = of(|it| 2.0 * (it.forwarded - it.returned))?;
        capacity = capacity.or(Some(forwarded.median));
        lines.push(vec![
            size.to_string(),
            if *ipv6 { "IPv6" } else { "IPv4" }.to_owned(),
            flows.to_string(),
            forwarded.text(1e6, 3),
            of(|it| 2.0 * it.returned)?.text(1e6, 3),
            of(|it| (it.forwarded - it.returned) / it.returned)?.text(1.0, 3),
        ]);
    }
    println!("### The director's worker and a handler that swaps MAC addresses, in turns\n");
    println!(
        "One process, the same sockets; each of the two has them for {} ms at a time, and what is done between batches is \
         only done for the worker. All the frames that the generator can send, {} rounds; millions a second while its turn \
         was, by destination MAC address; median (least to most), the ratio within each round.\n",
        TURN.as_millis(),
        bench.times.rounds
    );
    let head = ["bytes", "family", "flows", "director's worker", "swapping", "to swapping"];
    println!("{}", table(&head, &lines));
    Ok(capacity.ok_or("no size to measure")?)
}
