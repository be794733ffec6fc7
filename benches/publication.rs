//! What a change costs the control plane with one service and with ten thousand, of 100 backends each.
//!
//! ```text
//! cargo bench --no-default-features --bench publication
//! ```
//!
//! Prints milliseconds from what is known to the next snapshot, the median of the rounds (least to most), and the
//! memory that the process has more after each step, as Linux counts it. Each change is taken back in the next round.

use arc_swap::ArcSwap;
use dsrlb::balancer::{Backend, RealServer, VipKey, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Member, Observed, Plan, Planner, Site, Snapshot};
use dsrlb::packet::MacAddress;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BACKENDS: usize = 100;
const ROUNDS: usize = 5;
const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 1, 9]), MacAddress([2, 0, 0, 0, 1, 10])];

#[derive(Clone, Copy)]
enum Change {
    /// News that decide nothing.
    Nothing,
    /// One backend has another MAC address.
    Neighbour,
    /// One backend is ill.
    Illness,
    /// The last service has gone, and its backends with it.
    Service,
}

const CHANGES: [(&str, Change); 4] = [
    ("nothing", Change::Nothing),
    ("a backend's MAC address", Change::Neighbour),
    ("a backend's health", Change::Illness),
    ("a service comes or goes", Change::Service),
];

struct Bench {
    services: Vec<VirtualService>,
    planner: Planner,
    published: ArcSwap<Snapshot>,
    members: Vec<Member>,
}

impl Bench {
    fn plan(planner: &mut Planner, services: &[VirtualService], changed: Option<Change>) -> Plan {
        // One in the middle.
        let chosen = (services[services.len() / 2].key, format!("10.0.1.{}", BACKENDS / 2));
        let observe = |service: VipKey, backend: &dyn Backend| {
            let is_chosen = service == chosen.0 && backend.id() == chosen.1;
            let mut observed = Observed::well(Path::on_link(MACS[0]));
            match changed.filter(|_| is_chosen) {
                Some(Change::Neighbour) => observed.path = Ok(Path::on_link(MACS[1])),
                Some(Change::Illness) => observed.health = Err("refused".into()),
                _ => (),
            }
            observed
        };
        planner.plan(services, &Site::new(STATION), observe)
    }

    /// How long it takes to plan, and to let go of the snapshot before.
    fn round(&mut self, change: Change, is_changed: bool) -> [Duration; 2] {
        let removed = usize::from(is_changed && matches!(change, Change::Service));
        let services = &self.services[..self.services.len() - removed];
        let changed = is_changed.then_some(change);
        let start = Instant::now();
        let plan = Self::plan(&mut self.planner, services, changed);
        let planned = start.elapsed();
        assert_eq!(plan.members.len(), services.len() * BACKENDS);
        let ill = plan.members.iter().filter(|member| member.idle.is_some()).count();
        assert_eq!(ill, usize::from(matches!(changed, Some(Change::Illness))));
        self.members = plan.members;
        // As a worker that still has the one before, when it looks for the next.
        let before = self.published.swap(Arc::new(plan.snapshot));
        let start = Instant::now();
        drop(before);
        [planned, start.elapsed()]
    }
}

fn service(number: usize) -> VirtualService {
    let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + (number / 1000) as u32);
    let key = format!("{vip}:{}/tcp", 1000 + number % 1000).parse().unwrap();
    (0..BACKENDS).fold(VirtualService::new(key), |service, last| {
        service.backend(RealServer::new(Ipv4Addr::new(10, 0, 1, last as u8).into()))
    })
}

/// Of this process, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// `1.50 (1.20 to 2.00)`, in milliseconds.
fn text(mut times: Vec<Duration>) -> String {
    times.sort();
    let [least, .., most] = times.as_slice() else { return String::new() };
    let [median, least, most] =
        [times[times.len() / 2], *least, *most].map(|time| time.as_secs_f64() * 1e3);
    format!("{median:.3} ({least:.3} to {most:.3})")
}

fn main() {
    println!("| services | what changes | plan, ms | letting go of the last snapshot, ms |");
    println!("|---:|---|---|---|");
    let mut memory = Vec::new();
    // The large one last: what it leaves to the allocator would hide what comes after it.
    for count in [1, 10_000] {
        let empty = resident();
        let services: Vec<_> = (0..count).map(service).collect();
        let configured = resident();
        let mut planner = Planner::new(count * BACKENDS);
        let start = Instant::now();
        let plan = Bench::plan(&mut planner, &services, None);
        let first = text(vec![start.elapsed(); 2]);
        let planned = resident();
        println!("| {count} | everything, at first | {first} | |");
        let Plan { snapshot, members } = plan;
        let mut bench =
            Bench { services, planner, published: ArcSwap::from_pointee(snapshot), members };
        for (name, change) in CHANGES {
            if count == 1 && matches!(change, Change::Service) {
                continue;
            }
            // An even number, so that the last takes the change back.
            let times: Vec<_> =
                (0..=ROUNDS).map(|round| bench.round(change, round % 2 == 0)).collect();
            let [plan, drop] = [0, 1].map(|at| text(times.iter().map(|it| it[at]).collect()));
            println!("| {count} | {name} | {plan} | {drop} |");
        }
        let [configuration, plan, changes] =
            [configured - empty, planned - configured, resident() - planned];
        memory.push(format!("| {count} | {configuration:.1} | {plan:.1} | {changes:.1} |"));
    }
    println!("\n| services | configuration, MiB | first plan, MiB | after all changes, MiB |");
    println!("|---:|---:|---:|---:|");
    memory.iter().for_each(|line| println!("{line}"));
}
