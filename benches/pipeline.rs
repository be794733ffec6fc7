//! What a packet costs from the frame that a driver lends to the frame that it sends, in memory.
//!
//! `cargo bench --bench pipeline` prints nanoseconds a packet: the median of nine runs, interleaved with all
//! others, less what it takes to lay out the frames, and the spread. `--count CASE ROUNDS` runs one case and
//! measures nothing: that is for `cargo xtask instructions`, which counts its instructions.

mod memory;

use arrayvec::ArrayVec;
use dsrlb::balancer::{Backend, FlowBalancer, RealServer, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Frame, HEADROOM, MAX_BATCH, Observed, Pipeline, Planner, Site, Snapshot, WorkerCounters,
};
use dsrlb::flow::{HashKey, Timestamp};
use dsrlb::forwarding::TunnelSources;
use dsrlb::packet::MacAddress;
use dsrlb::verdict::Verdict;
use etherparse::PacketBuilder;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIRECTOR: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];
/// As in a UMEM.
const CHUNK: usize = 2048;
/// How many batches are laid out before they are given to the pipeline, one after the other.
const AHEAD: usize = 1;
const RUNS: usize = 9;
/// What a batch takes at 32 million packets a second: by so much the pipeline's time goes on with each.
const PERIOD: u64 = 2000;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packets {
    /// Of the live flows, in scattered order.
    Known,
    /// Of flows that come once.
    New,
    /// Two of each live flow, at once: then it is proven.
    Proof,
}

struct Case {
    name: &'static str,
    ipv6: bool,
    forwarding: &'static str,
    /// How many flows are live.
    flows: usize,
    packets: Packets,
    services: usize,
}

const fn case(name: &'static str, flows: usize) -> Case {
    Case { name, ipv6: false, forwarding: "l2", flows, packets: Packets::Known, services: 1 }
}

impl Case {
    /// How many backends there can be: each service has a hundred of its own.
    fn slots(&self) -> usize {
        self.services * 100
    }
}

const FEW: usize = 1000;
const MANY: usize = 512 * 1024;
const CASES: [Case; 10] = [
    case("known-1k", FEW),
    case("known-512k", MANY),
    Case { packets: Packets::New, ..case("new-512k", MANY) },
    Case { forwarding: "ipip", ..case("ipip-known-1k", FEW) },
    Case { forwarding: "ipip", ..case("ipip-known-512k", MANY) },
    Case { forwarding: "ipip", packets: Packets::New, ..case("ipip-new-512k", MANY) },
    Case { ipv6: true, ..case("ipv6-known-1k", FEW) },
    Case { ipv6: true, ..case("ipv6-known-512k", MANY) },
    Case { ipv6: true, packets: Packets::New, ..case("ipv6-new-512k", MANY) },
    Case { services: 10_000, ..case("10k-services", FEW) },
];

/// One case, ready to be run again and again.
struct Bench {
    case: Case,
    snapshot: Snapshot,
    pipeline: Pipeline<FlowBalancer>,
    template: Vec<u8>,
    memory: Vec<u8>,
    /// The flows in the order in which their packets come: scattered, each once a round.
    order: Vec<u32>,
    at: usize,
    fresh: u32,
    now: Timestamp,
}

impl Bench {
    fn new(case: Case) -> Self {
        let balancer = FlowBalancer::new_in(
            2 * case.flows,
            case.slots(),
            HashKey::new([9; 16]),
            memory::prepare,
        )
        .unwrap();
        let mut order: Vec<u32> = (0..case.flows as u32).collect();
        let mut state = 7u64;
        for place in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(place, (state >> 33) as usize % (place + 1));
        }
        let (snapshot, counters) = (snapshot(&case), WorkerCounters::new(case.slots()));
        // As a director does.
        snapshot.memory().chain([counters.memory()]).for_each(memory::prepare);
        let mut bench = Self {
            snapshot,
            pipeline: Pipeline::new(balancer, Arc::new(counters)),
            template: template(case.ipv6),
            memory: vec![0; AHEAD * MAX_BATCH * CHUNK],
            order,
            at: 0,
            fresh: 1 << 24,
            now: Timestamp(0),
            case,
        };
        for _ in 0..(2 * bench.case.flows).div_ceil(AHEAD * MAX_BATCH) {
            bench.lay_out(Packets::Proof);
            bench.process();
        }
        let proven = bench.pipeline.balancer().counts().proven as usize;
        assert!(proven > bench.case.flows - bench.case.flows / 1000, "{proven}");
        bench
    }

    /// Puts the next packets where a driver would have them.
    fn lay_out(&mut self, packets: Packets) {
        // Which service's port, and which client it comes from.
        let (address, port) =
            if self.case.ipv6 { (14 + 8 + 12, 14 + 40) } else { (14 + 12, 14 + 20) };
        for (number, chunk) in self.memory.chunks_exact_mut(CHUNK).enumerate() {
            let frame = &mut chunk[HEADROOM..HEADROOM + self.template.len()];
            frame.copy_from_slice(&self.template);
            let flow = if packets == Packets::New {
                self.fresh += 1;
                self.fresh
            } else {
                if packets == Packets::Known || number % 2 == 0 {
                    self.at = (self.at + 1) % self.order.len();
                }
                self.order[self.at]
            };
            let client = (100 << 24) + flow;
            frame[address..address + 4].copy_from_slice(&client.to_be_bytes());
            let service = flow as usize % self.case.services;
            frame[port + 2..port + 4].copy_from_slice(&(1000 + service as u16).to_be_bytes());
            frame[port + 13] = if packets == Packets::New { SYN } else { ACK };
        }
    }

    fn process(&mut self) -> Duration {
        let length = self.template.len();
        let mut sum = Duration::ZERO;
        for batch in self.memory.chunks_exact_mut(MAX_BATCH * CHUNK) {
            let chunks = batch.chunks_exact_mut(CHUNK);
            let mut lent: ArrayVec<Frame<'_>, MAX_BATCH> =
                chunks.map(|chunk| Frame::in_memory(chunk, HEADROOM..HEADROOM + length)).collect();
            self.now.0 += PERIOD;
            let start = Instant::now();
            let verdicts = self.pipeline.process(&self.snapshot, self.now, &mut lent);
            sum += start.elapsed();
            assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Forward(_))));
            black_box(lent);
        }
        sum
    }

    /// The time for [`AHEAD`] batches.
    fn round(&mut self) -> Duration {
        self.lay_out(self.case.packets);
        self.process()
    }
}

fn snapshot(case: &Case) -> Snapshot {
    let vip = if case.ipv6 { "[2001:db8::100]" } else { "10.0.0.100" };
    let forwarding = case.forwarding.parse().unwrap();
    let services: Vec<_> = (0..case.services)
        .map(|number| {
            let key = format!("{vip}:{}/tcp", 1000 + number).parse().unwrap();
            (0..100).fold(VirtualService::new(key), |service, last| {
                let address = IpAddr::from(Ipv4Addr::new(10, 0, 1, last));
                service.backend(RealServer::new(address).with_forwarding(forwarding))
            })
        })
        .collect();
    let mut site = Site::new(DIRECTOR);
    site.tunnel_sources = TunnelSources::default().with("10.0.0.1/32".parse().unwrap());
    let observe =
        |_, _: &dyn Backend| Observed::well(Path::on_link(MacAddress([2, 0, 0, 0, 1, 9])));
    Planner::new(case.slots()).plan(&services, &site, observe).snapshot
}

fn template(ipv6: bool) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT, DIRECTOR.0);
    let packet = match ipv6 {
        true => {
            let vip: std::net::Ipv6Addr = "2001:db8::100".parse().unwrap();
            ethernet.ipv6(
                "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
                vip.octets(),
                64,
            )
        }
        false => ethernet.ipv4([192, 0, 2, 1], [10, 0, 0, 100], 64),
    };
    let mut frame = Vec::new();
    packet.tcp(40_000, 80, 1, 64).ack(1).write(&mut frame, &[0; 6]).unwrap();
    frame
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, name, rounds] = arguments.as_slice()
        && flag == "--count"
    {
        let case = CASES.into_iter().find(|case| case.name == name).expect("the name of a case");
        let mut bench = Bench::new(case);
        bench.lay_out(bench.case.packets);
        for _ in 0..rounds.parse::<usize>().expect("a number of rounds") {
            bench.process();
            bench.lay_out(bench.case.packets);
        }
        return;
    }
    // Each by itself: what others have in memory takes room in caches.
    let wanted =
        |case: &Case| arguments.is_empty() || arguments.iter().any(|name| name == case.name);
    let mut benches: Vec<_> = CASES.into_iter().filter(wanted).map(Bench::new).collect();
    let mut times = vec![Vec::new(); benches.len()];
    for run in 0..=RUNS {
        for (bench, times) in benches.iter_mut().zip(&mut times) {
            const ROUNDS: usize = 200;
            let time: Duration = (0..ROUNDS).map(|_| bench.round()).sum();
            // The first one warms up.
            if run > 0 {
                times.push(time.as_nanos() as f64 / (ROUNDS * AHEAD * MAX_BATCH) as f64);
            }
        }
    }
    println!("{:<18} {:>8} {:>8} {:>8}", "ns a packet", "median", "least", "most");
    for (bench, times) in benches.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let [least, .., most] = times.as_slice() else { continue };
        println!("{:<18} {:>8.1} {least:>8.1} {most:>8.1}", bench.case.name, times[RUNS / 2]);
    }
}
