//! What the pure core costs. Each result is asserted before it is timed.
//!
//! ```text
//! cargo bench --no-default-features
//! ```
//!
//! The pipeline is measured a batch of 64 frames at a time, over more frames than the first-level
//! cache holds, as they would come from a ring. Divide by 64 for the time of a packet.

mod memory;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dsrlb::balancer::{
    Backend, Balancer, Candidate, FlowBalancer, FlowKey, FlowSync, FlowTable, FlowTimes, Found,
    HashBalancer, Inserted, Lifetimes, Maglev, QuicConfig, QuicLb, RealServer, Rendezvous,
    Selector, SharedFlow, Signal, Spot, State, VirtualService,
};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Frame, HEADROOM, MAX_BATCH, Observed, Pipeline, Planner, Site, Snapshot, WorkerCounters,
};
use dsrlb::flow::{FlowHash, HashInput, HashKey, Timestamp};
use dsrlb::forwarding::TunnelSources;
use dsrlb::packet::{MacAddress, Parse, Parsed, parse};
use dsrlb::verdict::{BackendIndex, Verdict};
use etherparse::PacketBuilder;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const DIRECTOR: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const BATCHES: usize = 64;
const CHUNK: usize = 2048;

/// One SYN for each of `count` flows, to a VIP of the family of `ipv6`.
fn frames(count: usize, ipv6: bool) -> Vec<Vec<u8>> {
    let frame = |flow: usize| {
        let [_, a, b, c] = (flow as u32).to_be_bytes();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xcc], DIRECTOR.0);
        let builder = if ipv6 {
            let mut source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            source[13..].copy_from_slice(&[a, b, c]);
            builder.ipv6(source, "fd00::100".parse::<std::net::Ipv6Addr>().unwrap().octets(), 64)
        } else {
            builder.ipv4([100, a, b, c], [10, 0, 0, 100], 64)
        };
        let mut frame = Vec::new();
        builder.tcp(40_000, 80, 0, 64).ack(1).write(&mut frame, &[]).unwrap();
        frame
    };
    (0..count).map(frame).collect()
}

/// One QUIC packet with a short header for each of `count` connections, from addresses of their own.
fn datagrams(count: usize) -> Vec<Vec<u8>> {
    let datagram = |flow: usize| {
        let [_, a, b, c] = (flow as u32).to_be_bytes();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xcc], DIRECTOR.0);
        let builder = builder.ipv4([100, a, b, c], [10, 0, 0, 100], 64).udp(40_000, 443);
        // First octet, then the ID: configuration 0, server ID 0 to 99, and the nonce.
        let mut payload =
            [0x40, 7, (flow % 100) as u8, 1, 2, a, b, c, 9, 9, 9, 9, 9, 9, 9, 9].to_vec();
        payload.resize(40, 5);
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).unwrap();
        frame
    };
    (0..count).map(datagram).collect()
}

fn snapshot() -> Snapshot {
    let service = |vip: &str| {
        (1..=100).fold(VirtualService::new(vip.parse().unwrap()), |service, last| {
            service.backend(RealServer::new(Ipv4Addr::new(10, 0, 1, last).into()))
        })
    };
    let services = ["10.0.0.100:80/tcp", "[fd00::100]:80/tcp", "10.0.0.100:443/udp"].map(service);
    let observe = |_, backend: &dyn Backend| {
        let std::net::IpAddr::V4(ip) = backend.address() else { unreachable!("all are IPv4") };
        let path = Path::on_link(MacAddress([2, 0, 0, 0, 1, ip.octets()[3]]));
        Observed::well(path)
    };
    Planner::new(1024).plan(&services, &Site::new(DIRECTOR), observe).snapshot
}

fn parsing(c: &mut Criterion) {
    for (name, frames) in [
        ("ipv4", frames(MAX_BATCH, false)),
        ("ipv6", frames(MAX_BATCH, true)),
        ("ipv4 udp", datagrams(MAX_BATCH)),
    ] {
        assert!(frames.iter().all(|frame| matches!(parse(frame), Parse::Ip(_))));
        let mut group = c.benchmark_group("parse");
        group.throughput(Throughput::Elements(MAX_BATCH as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for frame in &frames {
                    black_box(parse(black_box(frame)));
                }
            });
        });
    }
}

fn hashing(c: &mut Criterion) {
    let key = HashKey::default();
    for (family, ipv6) in [("ipv4", false), ("ipv6", true)] {
        let frames = frames(MAX_BATCH, ipv6);
        let flows: Vec<_> = frames
            .iter()
            .map(|frame| match parse(frame) {
                Parse::Ip(Parsed { info, .. }) => info.flow,
                other => panic!("{other:?}"),
            })
            .collect();
        let mut distinct: Vec<_> =
            flows.iter().map(|flow| key.hash_flow(HashInput::FiveTuple, flow)).collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), MAX_BATCH);
        let mut group = c.benchmark_group("hash");
        group.throughput(Throughput::Elements(MAX_BATCH as u64));
        for (name, input) in HashInput::NAMES {
            group.bench_function(format!("{family} {name}"), |b| {
                b.iter(|| {
                    for flow in &flows {
                        black_box(key.hash_flow(input, black_box(flow)));
                    }
                });
            });
        }
    }
}

fn selecting(c: &mut Criterion) {
    let ids: Vec<String> = (0..1000).map(|i| format!("10.0.{}.{}", i / 250, i % 250)).collect();
    let candidates: Vec<_> = ids.iter().map(|id| Candidate { id, weight: 1 }).collect();
    let table = Maglev::default().table(&candidates);
    let hashes: Vec<FlowHash> =
        (0..4096u64).map(|i| FlowHash(HashKey::default().hash_bytes(&i.to_le_bytes()))).collect();
    assert!(hashes.iter().all(|hash| table.select(*hash).is_some_and(|at| at < 1000)));
    let mut group = c.benchmark_group("select");
    group.throughput(Throughput::Elements(hashes.len() as u64));
    group.bench_function("lookup table", |b| {
        b.iter(|| {
            for hash in &hashes {
                black_box(table.select(*hash));
            }
        });
    });
    drop(group);

    let mut group = c.benchmark_group("build");
    group.sample_size(20);
    for count in [10, 100, 1000] {
        let candidates = &candidates[..count];
        let shares = Maglev::default().table(candidates);
        let most = (0..count as u16)
            .map(|at| shares.slots().iter().filter(|slot| **slot == at).count())
            .max();
        assert_eq!(most, Some(65_537usize.div_ceil(count)));
        group.bench_function(format!("maglev 65537 slots, {count} backends"), |b| {
            b.iter(|| black_box(Maglev::default().table(black_box(candidates))));
        });
        if count <= 100 {
            group.bench_function(format!("rendezvous, {count} backends"), |b| {
                b.iter(|| black_box(Rendezvous.table(black_box(candidates))));
            });
        }
    }
}

fn pipeline(c: &mut Criterion) {
    let snapshot = snapshot();
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements((BATCHES * MAX_BATCH) as u64));
    for (name, frames) in [
        ("ipv4 tcp", frames(BATCHES * MAX_BATCH, false)),
        ("ipv6 tcp", frames(BATCHES * MAX_BATCH, true)),
        ("ipv4 udp", datagrams(BATCHES * MAX_BATCH)),
    ] {
        let mut pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(1024)));

        let mut checked = frames.clone();
        let mut lent: Vec<_> = checked.iter_mut().take(MAX_BATCH).map(|f| Frame::new(f)).collect();
        let verdicts = pipeline.process(&snapshot, Timestamp(0), &mut lent);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Forward(_))));

        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || frames.clone(),
                |frames| {
                    for batch in frames.chunks_mut(MAX_BATCH) {
                        let mut lent: arrayvec::ArrayVec<Frame<'_>, MAX_BATCH> =
                            batch.iter_mut().map(|frame| Frame::new(frame)).collect();
                        black_box(pipeline.process(&snapshot, Timestamp(0), &mut lent));
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
}

/// The whole pipeline by forwarding mode and size of the packet, frames lent with room in front as
/// drivers do.
fn forwarding(c: &mut Criterion) {
    for (length, label) in [(64, "64 bytes"), (1450, "1450 bytes")] {
        let mut group = c.benchmark_group(format!("forwarding, {label}"));
        group.throughput(Throughput::Elements((BATCHES * MAX_BATCH) as u64));
        for (mode, address) in [
            ("l2", "10.0.1.1"),
            ("ipip", "10.0.1.1"),
            ("ipip", "fd01::1"),
            ("gue:6080", "10.0.1.1"),
            ("gue1:6080", "fd01::1"),
            ("l3dsr:10", "10.0.1.1"),
        ] {
            let snapshot = snapshot_of(mode, address.parse().unwrap());
            // Chunks as in a UMEM, so that frames of all sizes lie equally far apart.
            let mut memory = vec![0; BATCHES * MAX_BATCH * CHUNK];
            let headers = frames(BATCHES * MAX_BATCH, false);
            let mut pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(1024)));
            let mut run = |memory: &mut [u8]| {
                for (chunk, header) in memory.chunks_mut(CHUNK).zip(&headers) {
                    let frame = &mut chunk[HEADROOM..];
                    frame[..header.len()].copy_from_slice(header);
                    frame[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
                }
                let start = Instant::now();
                for batch in memory.chunks_mut(MAX_BATCH * CHUNK) {
                    let mut lent: arrayvec::ArrayVec<Frame<'_>, MAX_BATCH> = batch
                        .chunks_mut(CHUNK)
                        .map(|chunk| Frame::in_memory(chunk, HEADROOM..HEADROOM + length))
                        .collect();
                    let verdicts = pipeline.process(&snapshot, Timestamp(0), &mut lent);
                    assert!(matches!(verdicts.first(), Some(Verdict::Forward(_))));
                    black_box(verdicts);
                }
                start.elapsed()
            };
            let family = if address.contains(':') { " over IPv6" } else { "" };
            group.bench_function(format!("{mode}{family}"), |b| {
                b.iter_custom(|times| (0..times).map(|_| run(&mut memory)).sum());
            });
        }
    }
}

fn snapshot_of(mode: &str, first: IpAddr) -> Snapshot {
    let address = |number: u8| match first {
        IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from_bits(ip.to_bits() + u32::from(number))),
        IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from_bits(ip.to_bits() + u128::from(number))),
    };
    let service = (0..100).fold(
        VirtualService::new("10.0.0.100:80/tcp".parse().unwrap()),
        |service, number| {
            let server = RealServer::new(address(number));
            service.backend(server.with_forwarding(mode.parse().unwrap()))
        },
    );
    let path = Path::on_link(MacAddress([2, 0, 0, 0, 1, 9]));
    let mut site = Site::new(DIRECTOR);
    site.tunnel_sources = ["10.0.0.1/32", "fd00::1/128"]
        .into_iter()
        .fold(TunnelSources::default(), |all, source| all.with(source.parse().unwrap()));
    let observe = |_, _: &dyn Backend| Observed::well(path);
    Planner::new(1024).plan(&[service], &site, observe).snapshot
}

/// A flow table half full of proven flows, which packets come for in scattered order, in batches that are located as
/// a whole or one by one. What is inserted are SYNs of flows that come
/// once, which soon displace each other, after each was looked for in vain.
fn flows(c: &mut Criterion) {
    let lives = Lifetimes::from(&FlowTimes::default());
    let generations = [0; 1024];
    let usable = |index: BackendIndex| generations.get(index.slot()) == Some(&index.generation());
    let now = Timestamp(0);
    // Keys are hashes: SplitMix64 makes some that cost next to nothing.
    let key = |number: u64| {
        let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        FlowKey(z ^ z >> 31)
    };
    for (count, label) in [(1000, "1 k"), (65_536, "64 k"), (524_288, "512 k"), (1 << 20, "1 M")] {
        let new = || {
            FlowTable::new_in(
                2 * count,
                generations.len(),
                HashKey::default(),
                now,
                memory::prepare,
            )
            .unwrap()
        };
        let mut table = new();
        let mut is_known = |number| {
            let key = key(number);
            let backend = BackendIndex::new(key.0 as usize % generations.len(), 0);
            let tick = table.tick(now);
            table.insert(key, Spot::UNKNOWN, backend, lives.first(Signal::Syn), tick, usable);
            let found = table.lookup(key, Signal::Data, &lives, now, usable);
            found == Found::Known(backend, State::Established)
        };
        let refused: Vec<u64> = (0..count as u64).filter(|number| !is_known(*number)).collect();
        let proven = (count - refused.len()) as u64;
        assert_eq!(table.counts().proven, proven);
        assert!(refused.len() <= count / 10_000, "at half load next to none is refused");
        println!("{label}: {} bytes for each of {proven} flows", table.bytes() / count);

        let mut group = c.benchmark_group(format!("flow table, {label} flows"));
        group.throughput(Throughput::Elements(MAX_BATCH as u64));
        // Keys are worked out when they are needed, as those of packets are, and not read from memory.
        let batch = |first: u64| -> [FlowKey; MAX_BATCH] {
            std::array::from_fn(|further| key(first + further as u64))
        };
        let is_whole = |first: &u64| {
            !refused.iter().any(|number| (*first..first + MAX_BATCH as u64).contains(number))
        };
        let whole = (0..count as u64 - MAX_BATCH as u64).step_by(MAX_BATCH).filter(is_whole);
        let known: Vec<u64> = whole.collect();
        // None comes twice, or it would be proven.
        let mut fresh = (1 << 32..).step_by(MAX_BATCH).map(batch);
        let (steady, tick) = (lives.steady(|_| true), table.tick(now));
        for (ahead, how) in [(true, ""), (false, ", one by one")] {
            let renew = |table: &mut FlowTable, key, spot, signal| {
                table.renew(key, spot, tick, |index| {
                    assert!(usable(index));
                    steady.of(signal)
                })
            };
            let mut batches = known.iter().cycle();
            group.bench_function(format!("hit{how}"), |b| {
                b.iter(|| {
                    let batch = batch(batches.next().copied().unwrap_or_default());
                    each_located(&mut table, ahead, batch, |table, key, spot| {
                        let renewed = renew(table, key, spot, Signal::Data);
                        assert!(black_box(renewed).is_some());
                    });
                });
            });
            let mut next = || fresh.next().unwrap_or([FlowKey(0); MAX_BATCH]);
            group.bench_function(format!("miss{how}"), |b| {
                b.iter(|| {
                    each_located(&mut table, ahead, next(), |table, key, spot| {
                        black_box(renew(table, key, spot, Signal::Data));
                        black_box(table.lookup(key, Signal::Data, &lives, now, usable));
                    });
                });
            });
            group.bench_function(format!("insert{how}"), |b| {
                b.iter(|| {
                    each_located(&mut table, ahead, next(), |table, key, spot| {
                        black_box(renew(table, key, spot, Signal::Syn));
                        assert!(spot.is_missing());
                        let to = BackendIndex::new(key.0 as usize % 1024, 0);
                        let inserted =
                            table.insert(key, spot, to, lives.first(Signal::Syn), tick, usable);
                        assert_ne!(inserted, Inserted::NotKept);
                    });
                });
            });
        }
        group.bench_function("sweep of 4 sets a batch", |b| {
            b.iter(|| table.sweep(now, 4, usable));
        });
        assert_eq!(table.counts().proven, proven);
    }
}

/// Does something with each of these flows and where it is: all are located first, or each when it is its turn.
#[inline(always)]
fn each_located(
    table: &mut FlowTable,
    ahead: bool,
    batch: [FlowKey; MAX_BATCH],
    mut each: impl FnMut(&mut FlowTable, FlowKey, Spot),
) {
    if ahead {
        let located = table.locate(batch);
        located.flows().iter().for_each(|(key, spot)| each(table, *key, *spot));
    } else {
        for key in batch {
            let spot = table.locate_one(key);
            each(table, key, spot);
        }
    }
}

/// The whole pipeline for datagrams with connection IDs, by how those are encoded; `flow` is without
/// routing by them.
fn quic(c: &mut Criterion) {
    let config = |nonce| QuicConfig::new(1, nonce).unwrap();
    #[cfg(not(feature = "quic"))]
    let encodings = [("flow", None), ("plain", Some(config(4)))];
    #[cfg(feature = "quic")]
    let encodings = [
        ("flow", None),
        ("plain", Some(config(4))),
        ("single pass", Some(config(15).encrypted(&[7; 16]))),
        ("four passes", Some(config(7).encrypted(&[7; 16]))),
    ];
    let frames = datagrams(BATCHES * MAX_BATCH);
    let mut group = c.benchmark_group("quic");
    group.throughput(Throughput::Elements((BATCHES * MAX_BATCH) as u64));
    for (name, config) in encodings {
        let is_plain = name == "plain";
        let server = |number: u8| RealServer::new(Ipv4Addr::new(10, 0, 1, number + 1).into());
        let service = VirtualService::new("10.0.0.100:443/udp".parse().unwrap());
        let service = (0..100).fold(service, |service, number| service.backend(server(number)));
        let service = match config {
            None => service,
            Some(config) => {
                let policy = QuicLb::new(Maglev::default()).config(0, config).unwrap();
                service.policy((0..100).fold(policy, |policy, number| {
                    policy.server(server(number).id(), &[number]).unwrap()
                }))
            }
        };
        let path = Path::on_link(MacAddress([2, 0, 0, 0, 1, 9]));
        let observe = |_, _: &dyn Backend| Observed::well(path);
        let plan = Planner::new(1024).plan(&[service], &Site::new(DIRECTOR), observe);
        let mut pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(1024)));
        let mut checked = frames.clone();
        for (number, frame) in checked.iter_mut().enumerate() {
            let verdict =
                pipeline.process_one(&plan.snapshot, Timestamp(0), &mut Frame::new(frame));
            let Verdict::Forward(index) = verdict else { panic!("{verdict:?}") };
            assert!(!is_plain || index == plan.members[number % 100].index);
        }
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || frames.clone(),
                |frames| {
                    for batch in frames.chunks_mut(MAX_BATCH) {
                        let mut lent: arrayvec::ArrayVec<Frame<'_>, MAX_BATCH> =
                            batch.iter_mut().map(|frame| Frame::new(frame)).collect();
                        black_box(pipeline.process(&plan.snapshot, Timestamp(0), &mut lent));
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
}

/// Notes what is sent, or repeats it without end.
#[derive(Default)]
struct Tape {
    flows: Arc<Mutex<Vec<SharedFlow>>>,
    next: usize,
    repeats: bool,
}

impl FlowSync for Tape {
    fn send(&mut self, flows: &[SharedFlow]) -> usize {
        if !self.repeats {
            self.flows.lock().unwrap().extend_from_slice(flows);
        }
        0
    }

    fn receive(&mut self) -> Option<SharedFlow> {
        let flows = self.flows.lock().unwrap();
        let flow = if self.repeats { flows.get(self.next % flows.len()).copied() } else { None };
        self.next += 1;
        flow
    }
}

/// A round through a table with 100,000 flows, with a thousand batches in it: looked after alone, and with
/// each flow told to others; and as many flows taken in that are known. Divide by 100,000.
fn sync(c: &mut Criterion) {
    const FLOWS: usize = 100_000;
    const SECOND: u64 = 1_000_000_000;
    // As long as any benchmark runs.
    let times = FlowTimes { established: FlowTimes::LONGEST, ..FlowTimes::default() };
    let service = VirtualService::new("10.0.0.100:80/tcp".parse().unwrap()).times(times);
    let service = (1..=100).fold(service, |service, last| {
        service.backend(RealServer::new(Ipv4Addr::new(10, 0, 1, last).into()))
    });
    let path = Path::on_link(MacAddress([2, 0, 0, 0, 1, 9]));
    let observe = |_, _: &dyn Backend| Observed::well(path);
    let snapshot = Planner::new(1024).plan(&[service], &Site::new(DIRECTOR), observe).snapshot;
    let services = &snapshot.services;
    let packets: Vec<_> = frames(FLOWS, false)
        .iter()
        .map(|frame| match parse(frame) {
            Parse::Ip(parsed) => parsed.info,
            other => panic!("{other:?}"),
        })
        .collect();
    let new = || FlowBalancer::new(1 << 18, 1024, HashKey::new([7; 16])).unwrap();
    let round = |balancer: &mut FlowBalancer, from: u64| {
        (0..1024).for_each(|n| balancer.tend(services, Timestamp(from + n * SECOND / 1024), false));
    };
    let known = |mut balancer: FlowBalancer| {
        for packet in &packets {
            // The second one proves it.
            for _ in 0..2 {
                balancer.assign(services, packet, Timestamp(0));
            }
        }
        balancer
    };
    let mut group = c.benchmark_group("sync, 100 k flows");
    group.sample_size(20);
    let mut alone = known(new());
    group.bench_function("nothing shared", |b| b.iter(|| round(&mut alone, 0)));

    let tape = Tape::default();
    let flows = Arc::clone(&tape.flows);
    let (mut telling, mut now) = (known(new().sync(tape)), 0);
    group.bench_function("told", |b| {
        b.iter(|| {
            flows.lock().unwrap().clear();
            round(&mut telling, now);
            now += SECOND;
        });
    });
    let told = flows.lock().unwrap().len();
    if told == 0 {
        // Left out by a filter on the command line.
        return;
    }
    assert!((FLOWS * 9 / 10..FLOWS * 11 / 10).contains(&told), "{told}");

    let repeats = Tape { flows, next: 0, repeats: true };
    let (mut hearing, mut now) = (new().sync(repeats), 1);
    group.bench_function("heard", |b| {
        b.iter(|| {
            for _ in 0..FLOWS / 250 {
                now += 250_000;
                hearing.tend(services, Timestamp(now), false);
            }
        });
    });
    let counts = hearing.sync_counts();
    println!("{counts:?}");
    assert!(counts.new as usize >= FLOWS * 9 / 10 && counts.unknown == 0, "{counts:?}");
}

criterion_group!(benches, parsing, hashing, selecting, flows, pipeline, quic, sync, forwarding);
criterion_main!(benches);
