//! Directors that share flows: what one knows the other knows soon, by whatever order and through loss, and
//! nothing is kept alive by being told.

use dsrlb::balancer::{
    Assignment, Balancer, FlowBalancer, FlowSync, FlowTimes, Maglev, RealServer, SharedFlow,
    SyncCounts, VirtualService,
};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Hub, Observed, Plan, Planner, Site};
use dsrlb::flow::{FiveTuple, Fragment, HashKey, PacketInfo, Protocol, TcpFlags, Timestamp};
use dsrlb::packet::MacAddress;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const TICK: u64 = SECOND / 100;
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN | TcpFlags::ACK;
const VIPS: [&str; 2] = ["10.0.0.100:80/tcp", "10.0.0.101"];

/// Two services with these backends each, the second one with lives of 20 seconds.
fn services(backends: &[u8]) -> Vec<VirtualService> {
    let times = FlowTimes { established: Duration::from_secs(20), ..FlowTimes::default() };
    let service = |(number, vip): (u8, &str)| {
        let service =
            VirtualService::new(vip.parse().unwrap()).policy(Maglev::with_table_size(251).unwrap());
        let service = if number == 1 { service.times(times) } else { service };
        backends
            .iter()
            .fold(service, |s, last| s.backend(RealServer::new([10, 1, number, *last].into())))
    };
    (0..).zip(VIPS).map(service).collect()
}

struct Director {
    planner: Planner,
    plan: Plan,
    balancer: FlowBalancer,
}

impl Director {
    fn new(services: &[VirtualService], transport: impl FlowSync + 'static) -> Self {
        let balancer = FlowBalancer::new(1 << 12, 64, HashKey::new([9; 16])).unwrap();
        let mut planner = Planner::new(64);
        let plan = plan(&mut planner, services);
        Self { planner, plan, balancer: balancer.sync(transport) }
    }

    fn change(&mut self, services: &[VirtualService]) {
        self.plan = plan(&mut self.planner, services);
    }

    /// Which backend a packet of this flow goes to, by address.
    fn packet(&mut self, flow: u16, flags: u8, now: u64) -> String {
        let vip = 100 + (flow % 2) as u8;
        let flow = FiveTuple {
            source: [192, 0, 2, 7].into(),
            destination: [10, 0, 0, vip].into(),
            source_port: 1000 + flow,
            destination_port: 80,
            protocol: Protocol::TCP,
        };
        let packet = PacketInfo::new(flow, Fragment::Whole, TcpFlags(flags));
        let services = &self.plan.snapshot.services;
        match self.balancer.assign(services, &packet, Timestamp(now)) {
            Assignment::Backend(index) => {
                let member = self.plan.members.iter().find(|m| m.index == index).unwrap();
                format!("{} {}", member.service, member.backend.id())
            }
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, flow: u16, now: u64) -> String {
        self.packet(flow, SYN, now);
        self.packet(flow, ACK, now)
    }

    fn tend(&mut self, now: u64) {
        self.balancer.tend(&self.plan.snapshot.services, Timestamp(now), true);
    }

    fn counts(&self) -> SyncCounts {
        self.balancer.sync_counts()
    }

    fn flows(&self) -> u64 {
        self.balancer.counts().proven
    }
}

fn plan(planner: &mut Planner, services: &[VirtualService]) -> Plan {
    planner.plan(services, &Site::new(MacAddress([2, 0, 0, 0, 0, 1])), |_, _| {
        Observed::well(Path::on_link(MacAddress([2, 0, 0, 0, 0, 2])))
    })
}

/// Lets time pass for both; returns what time it is then.
fn pass(directors: [&mut Director; 2], from: u64, time: u64) -> u64 {
    let [one, other] = directors;
    for now in (from..from + time).step_by(TICK as usize) {
        one.tend(now);
        other.tend(now);
    }
    from + time
}

fn pair(backends: &[u8]) -> [Director; 2] {
    let hub = Hub::new(Hub::ROOM);
    [hub.side(), hub.side()].map(|side| Director::new(&services(backends), side.member()))
}

/// A line to another that loses, repeats and overtakes, as told by what was drawn.
struct BadLine {
    out: Arc<Mutex<VecDeque<SharedFlow>>>,
    inbox: Arc<Mutex<VecDeque<SharedFlow>>>,
    luck: u64,
}

impl BadLine {
    fn pair(luck: u64) -> [Self; 2] {
        let [a, b] = [(); 2].map(|()| Arc::<Mutex<VecDeque<SharedFlow>>>::default());
        [(&a, &b), (&b, &a)].map(|(out, inbox)| Self {
            out: Arc::clone(out),
            inbox: Arc::clone(inbox),
            luck,
        })
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.luck = self.luck.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.luck >> 33) % below
    }
}

impl FlowSync for BadLine {
    fn send(&mut self, flows: &[SharedFlow]) -> usize {
        assert!(!flows.is_empty() && flows.len() <= 56);
        for flow in flows {
            for _ in 0..self.draw(3) {
                let waiting = self.out.lock().unwrap().len() as u64;
                let place = self.draw(waiting + 1) as usize;
                self.out.lock().unwrap().insert(place, *flow);
            }
        }
        0
    }

    fn receive(&mut self) -> Option<SharedFlow> {
        self.inbox.lock().unwrap().pop_front()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_bad_line_and_other_indices_make_no_difference(
        luck: u64, flows in prop::collection::btree_set(0u16..5000, 1..200),
    ) {
        let [here, there] = BadLine::pair(luck);
        let mut one = Director::new(&services(&[1, 2, 3]), here);
        // Another order, and another past: no index is the same but by chance.
        let mut other = Director::new(&services(&[9, 8]), there);
        let was: Vec<_> = flows.iter().map(|flow| one.open(*flow, SECOND)).collect();
        one.change(&services(&[1, 2, 3, 4, 5]));
        let mut reversed = services(&[5, 4, 3, 2, 1]);
        reversed.reverse();
        other.change(&reversed);
        let now = pass([&mut one, &mut other], SECOND, 15 * SECOND);
        let is: Vec<_> = flows.iter().map(|flow| other.packet(*flow, ACK, now)).collect();
        prop_assert_eq!(is, was);
        prop_assert_eq!(other.counts().unknown, 0);
    }
}

#[test]
fn without_sharing_the_same_change_moves_flows() {
    let line = BadLine::pair(0).map(|line| BadLine { out: Arc::default(), ..line });
    let [mut one, mut other] = line.map(|line| Director::new(&services(&[1, 2, 3, 4, 5]), line));
    one.change(&services(&[1, 2, 3]));
    let was: Vec<_> = (0..200).map(|flow| one.open(flow, SECOND)).collect();
    one.change(&services(&[1, 2, 3, 4, 5]));
    let now = pass([&mut one, &mut other], SECOND, 5 * SECOND);
    let moved = (0..200).zip(was).filter(|(flow, was)| other.packet(*flow, ACK, now) != *was);
    let moved = moved.count();
    assert!((60..120).contains(&moved), "of 200, about two of five: {moved}");
}

#[test]
fn within_one_interval_and_a_moment_the_other_knows() {
    let [mut one, mut other] = pair(&[1, 2, 3]);
    let now = pass([&mut one, &mut other], 0, 5 * SECOND + SECOND / 3);
    (0..300).for_each(|flow| drop(one.open(flow, now)));
    // Not proven: nobody is told.
    (300..600).for_each(|flow| drop(one.packet(flow, SYN, now)));
    let now = pass([&mut one, &mut other], now, SECOND + 5 * TICK);
    assert_eq!((one.flows(), other.flows()), (300, 300));
    // What is heard of did not begin here.
    assert_eq!((one.balancer.counts().begun, other.balancer.counts().begun), (600, 0));
    let counts = other.counts();
    assert_eq!((counts.new, counts.received - counts.known - counts.updated), (300, 300));
    pass([&mut one, &mut other], now, 10 * SECOND);
    let sent = one.counts().sent;
    // Since a moment before the end of an interval, and for eleven more.
    assert!((11 * 300..=12 * 300).contains(&sent), "once in each interval: {sent}");
}

#[test]
fn what_is_only_told_is_told_to_nobody_and_ends_in_time() {
    let [mut one, mut other] = pair(&[1, 2, 3]);
    // The second service's flows live for 20 s.
    let flows: Vec<u16> = (1..200).step_by(2).collect();
    let now = pass([&mut one, &mut other], 0, SECOND);
    flows.iter().for_each(|flow| drop(one.open(*flow, now)));
    let now = pass([&mut one, &mut other], now, 19 * SECOND);
    assert_eq!((one.flows(), other.flows()), (100, 100));
    assert_eq!((other.counts().sent, one.counts().received), (0, 0));
    // A life is at most two ticks of 134 ms longer than was said, and the record took a moment.
    pass([&mut one, &mut other], now, 2 * SECOND);
    assert_eq!((one.flows(), other.flows()), (0, 0));

    // Not even what both have heard of is kept alive by both.
    let now = 100 * SECOND;
    for flow in &flows {
        assert_eq!(one.open(*flow, now), other.open(*flow, now));
    }
    let now = pass([&mut one, &mut other], now, 10 * SECOND);
    assert_eq!((one.flows(), other.flows()), (100, 100));
    pass([&mut one, &mut other], now, 11 * SECOND);
    assert_eq!((one.flows(), other.flows()), (0, 0));

    // A packet makes a told flow one's own.
    let now = 200 * SECOND;
    flows.iter().for_each(|flow| drop(one.open(*flow, now)));
    let now = pass([&mut one, &mut other], now, 2 * SECOND);
    let sent = other.counts().sent;
    other.packet(flows[0], ACK, now);
    pass([&mut one, &mut other], now, 10 * SECOND);
    let more = other.counts().sent - sent;
    assert!((9..=11).contains(&more), "{more}");
}

#[test]
fn the_newer_news_wins_and_ones_own_goes_before_it() {
    let [mut one, mut other] = pair(&[1, 2]);
    let all = 0..100u16;
    let now = pass([&mut one, &mut other], 0, SECOND);
    let first: Vec<_> = all.clone().map(|flow| one.open(flow, now)).collect();
    let now = pass([&mut one, &mut other], now, 2 * SECOND);
    // The connections end, and others begin with the same ports, at other backends.
    all.clone().for_each(|flow| drop(one.packet(flow, FIN, now)));
    let now = pass([&mut one, &mut other], now, 2 * SECOND);
    for director in [&mut one, &mut other] {
        let services = services(&[3, 4, 1, 2]).into_iter().map(|mut service| {
            for backend in &mut service.backends[2..] {
                *backend = Arc::new(RealServer::new(backend.address()).with_weight(0));
            }
            service
        });
        director.change(&services.collect::<Vec<_>>());
    }
    let second: Vec<_> = all.clone().map(|flow| one.open(flow, now)).collect();
    assert!(first.iter().zip(&second).all(|(first, second)| first != second));
    let now = pass([&mut one, &mut other], now, 2 * SECOND);
    for (flow, second) in all.clone().zip(&second) {
        assert_eq!(other.packet(flow, ACK, now), *second);
    }

    // Where packets came here, what is told of another backend changes nothing.
    let [a, b] = BadLine::pair(1);
    let mut left = Director::new(&services(&[1, 2]), a);
    let mut right = Director::new(&services(&[2, 1]), b);
    let theirs: Vec<_> = all.clone().map(|flow| left.open(flow, now)).collect();
    right.change(&services(&[1]));
    let ours: Vec<_> = all.clone().map(|flow| right.open(flow, now)).collect();
    right.change(&services(&[1, 2]));
    assert_ne!(theirs, ours);
    let now = pass([&mut left, &mut right], now, 10 * SECOND);
    let kept: Vec<_> = all.clone().map(|flow| right.packet(flow, ACK, now)).collect();
    let theirs_kept: Vec<_> = all.map(|flow| left.packet(flow, ACK, now)).collect();
    assert_eq!((kept, theirs_kept), (ours, theirs));
}

#[test]
fn backends_that_are_unknown_or_keep_nothing_are_counted() {
    let [mut one, mut other] = pair(&[1, 2, 3]);
    other.change(&services(&[1, 2]));
    let chosen: Vec<_> = (0..300).map(|flow| one.open(flow, 0)).collect();
    let of_the_third = chosen.iter().filter(|backend| backend.ends_with(".3")).count() as u64;
    assert!(of_the_third > 50);
    pass([&mut one, &mut other], 0, SECOND + 5 * TICK);
    let counts = other.counts();
    assert_eq!(counts.new, 300 - of_the_third);
    // Some are told for the second time.
    assert!((of_the_third..2 * of_the_third).contains(&counts.unknown), "{counts:?}");
    assert_eq!(counts.received, counts.unknown + counts.new + counts.known + counts.updated);
}

/// Nothing waits for a queue that is full: what does not fit comes again.
#[test]
fn what_does_not_fit_is_counted_and_comes_again() {
    let hub = Hub::new(10);
    let [mut one, mut other] =
        [hub.side(), hub.side()].map(|side| Director::new(&services(&[1, 2]), side.member()));
    (0..2000).for_each(|flow| drop(one.open(flow, 0)));
    let mut now = 0;
    for _ in 0..100 {
        // The other looks but now and then.
        for _ in 0..10 {
            one.tend(now);
            now += TICK;
        }
        other.tend(now);
    }
    let (sent, received) = (one.counts(), other.counts());
    assert!(received.received <= 100 * 10 && sent.lost > 0, "{received:?}");
    assert_eq!(sent.sent, sent.lost + received.received);
    // Now it looks often enough, by turns with the sender.
    pass([&mut one, &mut other], now, SECOND);
    let known = other.flows();
    assert!(known > 100, "{known}");
}

/// A table without room for what it is told keeps what it has.
#[test]
fn what_is_told_displaces_nothing_that_is_proven() {
    let [mut one, mut other] = pair(&[1, 2]);
    let small = FlowBalancer::new(64, 64, HashKey::new([9; 16])).unwrap();
    let hub = Hub::new(Hub::ROOM);
    one.balancer =
        FlowBalancer::new(1 << 12, 64, HashKey::new([9; 16])).unwrap().sync(hub.side().member());
    other.balancer = small.sync(hub.side().member());
    let ours: Vec<_> = (3000..3032).map(|flow| other.open(flow, 0)).collect();
    (0..2000).for_each(|flow| drop(one.open(flow, 0)));
    let now = pass([&mut one, &mut other], 0, 3 * SECOND);
    let counts = other.counts();
    assert!(counts.refused > 1900 && other.flows() <= 64, "{counts:?}");
    for director in [&mut one, &mut other] {
        director.change(&services(&[1, 2, 3, 4, 5, 6]));
    }
    let kept: BTreeSet<_> = (3000..3032)
        .zip(ours)
        .filter(|(flow, was)| other.packet(*flow, ACK, now) == *was)
        .collect();
    assert_eq!(kept.len(), 32);
}
