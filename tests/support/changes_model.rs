//! Flows through changes of the pool and of the method, against an obvious oracle: a flow stays where it
//! is for as long as its backend keeps it and it is not silent for longer than it is remembered.

use dsrlb::balancer::{
    AdminState, Assignment, Balancer, FlowBalancer, Maglev, Persistence, RealServer, Record,
    VirtualService,
};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Observed, Plan, Planner, Site};
use dsrlb::flow::{
    FiveTuple, Fragment, HashInput, HashKey, PacketInfo, Protocol, TcpFlags, Timestamp,
};
use dsrlb::packet::MacAddress;
use dsrlb::verdict::BackendIndex;
use std::collections::HashMap;
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
const SERVERS: usize = 6;
const SLOTS: usize = 64;

/// What is configured and observed.
struct World {
    service: VirtualService,
    weights: [Option<u16>; SERVERS],
    admin: [AdminState; SERVERS],
    is_ill: [bool; SERVERS],
    planner: Planner,
    plan: Plan,
}

impl World {
    fn new() -> Self {
        let mut planner = Planner::new(SLOTS);
        let plan = planner.plan([], &Site::new(MacAddress::ZERO), |_, _| unreachable!());
        let service = VirtualService::new("10.0.0.100".parse().unwrap());
        let maglev = Maglev::with_table_size(251).unwrap();
        Self {
            service: service.policy(maglev),
            weights: [Some(1), Some(1), Some(1), None, None, None],
            admin: [AdminState::Enabled; SERVERS],
            is_ill: [false; SERVERS],
            planner,
            plan,
        }
    }

    fn replan(&mut self, now: u64) {
        let address = |number: usize| std::net::IpAddr::from([10, 0, 0, number as u8 + 11]);
        self.service.backends = (0..SERVERS)
            .filter_map(|number| {
                let server = RealServer::new(address(number)).with_weight(self.weights[number]?);
                Some(Arc::new(server.with_admin(self.admin[number])) as _)
            })
            .collect();
        let is_ill = |ip| (0..SERVERS).any(|number| address(number) == ip && self.is_ill[number]);
        let path = Path::on_link(MacAddress([2, 0, 0, 0, 0, 2]));
        let site = Site::new(MacAddress([2, 0, 0, 0, 0, 1]));
        let plan =
            self.planner.at(Timestamp(now)).plan([&self.service], &site, |_, backend| Observed {
                admin: backend.admin(),
                health: if is_ill(backend.address()) { Err("ill".to_owned()) } else { Ok(()) },
                ..Observed::well(path)
            });
        self.plan = plan;
    }

    fn takes(&self, index: BackendIndex) -> bool {
        let members = self.plan.members.iter();
        members.clone().any(|member| member.index == index && member.idle.is_none())
    }

    /// What the documentation of persistence and administrative states says.
    fn keeps(&self, index: BackendIndex, protocol: Protocol) -> bool {
        let Some(member) = self.plan.members.iter().find(|member| member.index == index) else {
            return false;
        };
        let number = (0..SERVERS)
            .find(|number| member.backend.id() == format!("10.0.0.{}", number + 11))
            .unwrap();
        let by_health = !self.is_ill[number]
            || match self.service.persistence {
                Persistence::Default => protocol == Protocol::TCP,
                Persistence::Never => false,
                Persistence::Always => true,
            };
        by_health && self.admin[number] != AdminState::Disabled
    }
}

/// That of a flow.
fn protocol(number: u16) -> Protocol {
    if number.is_multiple_of(4) { Protocol::UDP } else { Protocol::TCP }
}

/// A flow as the oracle knows it.
#[derive(Clone, Copy, Debug)]
struct Home {
    index: BackendIndex,
    /// In nanoseconds.
    heard: u64,
    is_proven: bool,
    /// Whether its backend was unable to serve it for a time: it may be back there, or elsewhere.
    is_cut: bool,
}

/// A balancer and what it has to do.
struct Subject {
    balancer: FlowBalancer,
    record: Record,
    homes: HashMap<u16, Home>,
}

impl Subject {
    fn new(record: Record) -> Self {
        // Much room: here nothing is to be refused.
        let balancer = FlowBalancer::new(1 << 14, SLOTS, HashKey::new([5; 16])).unwrap();
        Self { balancer: balancer.record(record), record, homes: HashMap::new() }
    }

    fn note_cuts(&mut self, world: &World) {
        for (number, home) in &mut self.homes {
            home.is_cut |= !world.keeps(home.index, protocol(*number));
        }
    }

    fn packet(&mut self, world: &World, number: u16, flags: u8, now: u64) {
        let protocol = protocol(number);
        let flow = FiveTuple {
            source: [192, 0, 2, (number % 50) as u8].into(),
            destination: [10, 0, 0, 100].into(),
            source_port: number,
            destination_port: 443,
            protocol,
        };
        let packet = PacketInfo::new(flow, Fragment::Whole, TcpFlags(flags));
        let services = &world.plan.snapshot.services;
        let assignment = self.balancer.assign(services, &packet, Timestamp(now));
        let is_syn = flags == TcpFlags::SYN && protocol == Protocol::TCP;
        let life = |home: &Home| match (protocol, home.is_proven) {
            (Protocol::UDP, _) | (_, false) => 60 * SECOND,
            _ => 15 * 60 * SECOND,
        };
        let old = self.homes.remove(&number);
        let kept = old.filter(|home| !home.is_cut && now < home.heard + life(home));
        if let Some(home) = kept {
            assert_eq!(
                assignment,
                Assignment::Backend(home.index),
                "flow {number} is broken at {} s; {:?} recorded: {home:?}",
                now / SECOND,
                self.record,
            );
        }
        let Assignment::Backend(index) = assignment else { return };
        match kept {
            Some(_) => {}
            // Without a SYN it may be an older one to the mode, as its documentation says.
            None if self.record == Record::All || is_syn => {
                // Forgotten a moment later than promised at the latest.
                let late = old.is_some_and(|home| home.index == index);
                assert!(world.keeps(index, protocol));
                assert!(world.takes(index) || late, "flow {number} went to one that takes none");
            }
            None => assert!(world.keeps(index, protocol)),
        }
        let home = Home { index, heard: now, is_proven: kept.is_some(), is_cut: false };
        self.homes.insert(number, home);
    }
}

/// Does as `data` says: four bytes for each step.
pub fn check_changes(data: &[u8]) {
    let mut world = World::new();
    let mut subjects = [Record::All, Record::Contested].map(Subject::new);
    let (mut now, mut opened) = (0, 0u16);
    world.replan(now);
    for step in data.chunks_exact(4).take(2048) {
        let &[operation, a, b, c] = step else { return };
        let server = usize::from(a) % SERVERS;
        match operation % 16 {
            0..3 => {
                opened = opened.wrapping_add(1);
                for subject in &mut subjects {
                    subject.packet(&world, opened, TcpFlags::SYN, now);
                    subject.packet(&world, opened, TcpFlags::ACK, now);
                }
            }
            3..10 => {
                let number = opened.saturating_sub(u16::from(a) % 64);
                if number > 0 {
                    for subject in &mut subjects {
                        subject.packet(&world, number, TcpFlags::ACK, now);
                    }
                }
            }
            10 => {
                now += u64::from(b) * SECOND * if c > 200 { 10 } else { 1 };
                for subject in &mut subjects {
                    subject.balancer.tend(
                        &world.plan.snapshot.services,
                        Timestamp(now),
                        c % 2 == 0,
                    );
                }
            }
            operation => {
                match operation {
                    11 => {
                        world.weights[server] = if b < 80 { None } else { Some(u16::from(b % 4)) }
                    }
                    12 => world.is_ill[server] = b % 2 == 0,
                    13 => {
                        let states =
                            [AdminState::Enabled, AdminState::Draining, AdminState::Disabled];
                        world.admin[server] = states[usize::from(b) % 3];
                    }
                    14 => {
                        let states =
                            [Persistence::Default, Persistence::Never, Persistence::Always];
                        world.service.persistence = states[usize::from(b) % 3];
                    }
                    _ => {
                        let inputs =
                            [HashInput::FiveTuple, HashInput::SourceIp, HashInput::TwoTuple];
                        let size = if c % 2 == 0 { 251 } else { 509 };
                        world.service.hash_input = inputs[usize::from(a) % 3];
                        world.service.hash_key = HashKey::new([b % 4; 16]);
                        world.service.policy = Arc::new(Maglev::with_table_size(size).unwrap());
                    }
                }
                world.replan(now);
                subjects.iter_mut().for_each(|subject| subject.note_cuts(&world));
            }
        }
    }
}
