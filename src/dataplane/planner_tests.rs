//! Tests of plans: who takes traffic, and what is built anew.

use super::*;
use crate::balancer::{
    Candidate, Echo, FlowTimes, Maglev, Policy, RealServer, Rendezvous, Selector,
};
use crate::flow::{HashInput, HashKey, Protocol};
use std::sync::atomic::{AtomicUsize, Ordering};

const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

fn services() -> Vec<VirtualService> {
    ["10.0.0.100:80/tcp", "10.0.0.101:80/tcp"]
        .map(|key| {
            VirtualService::new(key.parse().unwrap())
                .policy(Rendezvous)
                .backend(RealServer::new("10.0.0.11".parse().unwrap()))
                .backend(RealServer::new("10.0.0.12".parse().unwrap()).with_weight(0))
        })
        .to_vec()
}

fn site() -> Site {
    Site::new(STATION)
}

fn at(mac: MacAddress) -> Observed {
    Observed::well(Path::on_link(mac))
}

fn well(mac: u8) -> Observed {
    at(MacAddress([2, 0, 0, 0, 1, mac]))
}

/// A policy that says how often anything was built by it.
#[derive(Debug)]
struct Counted(Maglev, Arc<AtomicUsize>);

impl Policy for Counted {
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.build(candidates)
    }

    fn fingerprint(&self) -> Option<String> {
        self.0.fingerprint()
    }
}

/// All made anew each time, as when a file is read again.
#[test]
fn of_a_thousand_services_only_the_one_that_changed_is_built_again() {
    const COUNT: usize = 1000;
    const CHANGED: usize = 617;
    let built = Arc::new(AtomicUsize::new(0));
    let services = |last: u8| -> Vec<_> {
        let service = |number: usize| {
            let key = format!("10.1.{}.{}:80/tcp", number / 250, number % 250 + 1);
            let backend = |last: u8| RealServer::new([10, 0, 0, last].into());
            VirtualService::new(key.parse().unwrap())
                .policy(Counted(Maglev::with_table_size(251).unwrap(), Arc::clone(&built)))
                .backend(backend(11))
                .backend(backend(if number == CHANGED { last } else { 12 }))
        };
        (0..COUNT).map(service).collect()
    };
    let mut planner = Planner::new(2 * COUNT);
    let mut plan = |last, mac| {
        let before = built.load(Ordering::Relaxed);
        let plan = planner.plan(&services(last), &site(), |_, _| well(mac));
        (plan, built.load(Ordering::Relaxed) - before)
    };
    let (first, count) = plan(12, 1);
    assert_eq!(count, COUNT);
    let kept = |plan: &Plan| -> Vec<bool> {
        let services = |plan: &Plan| plan.snapshot.services.services().to_vec();
        services(&first).iter().zip(services(plan)).map(|(a, b)| Arc::ptr_eq(a, &b)).collect()
    };
    let (again, count) = plan(12, 2);
    assert_eq!((count, kept(&again)), (0, vec![true; COUNT]));
    assert_eq!(again.snapshot.generation, 2);

    let (changed, count) = plan(13, 2);
    let others: Vec<_> = (0..COUNT).map(|number| number != CHANGED).collect();
    assert_eq!((count, kept(&changed)), (1, others));
    assert_eq!(changed.members[2 * CHANGED].index, first.members[2 * CHANGED].index);
}

#[test]
fn another_hash_policy_or_weight_is_another_table() {
    let changes: [fn(VirtualService) -> VirtualService; 7] = [
        |service| service.hash_key(HashKey::new([7; 16])),
        |service| service.hash_input(HashInput::SourceIp),
        |service| service.policy(Maglev::default()),
        |service| service.echo(Echo::Drop),
        VirtualService::sessionless,
        |service| service.times(FlowTimes { udp: Duration::from_secs(1), ..FlowTimes::default() }),
        |mut service| {
            let heavier = RealServer::new("10.0.0.11".parse().unwrap()).with_weight(2);
            service.backends[0] = Arc::new(heavier);
            service
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut planner = Planner::new(16);
        let [before, _] = services().try_into().unwrap();
        let old = planner.plan(std::slice::from_ref(&before), &site(), |_, _| well(1));
        let new = planner.plan(&[change(before)], &site(), |_, _| well(1));
        let [old, new] = [old, new].map(|plan| Arc::clone(&plan.snapshot.services.services()[0]));
        assert!(!Arc::ptr_eq(&old, &new), "change {number}");
    }
}

#[test]
fn which_flows_the_ill_keep_is_what_the_service_says() {
    let [tcp, sctp, udp] = [Protocol::TCP, Protocol::SCTP, Protocol::UDP];
    for (persistence, of_the_ill) in [
        (Persistence::Default, [true, true, false]),
        (Persistence::Never, [false; 3]),
        (Persistence::Always, [true; 3]),
    ] {
        let [service, _] = services().try_into().unwrap();
        let service = service.persistence(persistence);
        let mut planner = Planner::new(16);
        let mut kept = |observed: Observed| {
            let services = std::slice::from_ref(&service);
            let plan = planner.plan(services, &site(), |_, _| observed.clone());
            let index = plan.members[0].index;
            [tcp, sctp, udp].map(|protocol| plan.snapshot.services.keeps(index, protocol))
        };
        let ill = Observed { health: Err("ill".into()), ..well(1) };
        assert_eq!(kept(well(1)), [true; 3]);
        assert_eq!(kept(ill.clone()), of_the_ill, "{persistence}");
        assert_eq!(kept(Observed { admin: AdminState::Draining, ..ill.clone() }), of_the_ill);
        assert_eq!(kept(Observed { admin: AdminState::Disabled, ..ill }), [false; 3]);
        assert_eq!(
            kept(Observed { path: Err(Idle::Unresolved("".into())), ..well(1) }),
            [false; 3]
        );
    }
}

/// As when a file is read again: new objects, nothing changed.
#[test]
fn the_same_policy_made_anew_is_the_same_table() {
    let policies: [fn() -> Arc<dyn Policy>; 2] =
        [|| Arc::new(Rendezvous), || Arc::new(Maglev::default())];
    for policy in policies {
        let mut planner = Planner::new(16);
        let [service, _] = services().try_into().unwrap();
        let mut plan = || {
            let service = service.clone().policy(policy());
            planner.plan(&[service], &site(), |_, _| well(1)).snapshot
        };
        let tables = [plan(), plan()].map(|plan| Arc::clone(&plan.services.services()[0]));
        assert!(Arc::ptr_eq(&tables[0], &tables[1]));
    }
}

/// Who takes new flows while some, and while all of a service's backends are down.
#[test]
fn when_all_are_down_what_the_service_says_holds() {
    let sorry = RealServer::new("10.0.0.99".parse().unwrap()).with_id("sorry");
    for (what, taken) in [
        (WhenAllDown::Drop, [&["b"][..], &[]]),
        (WhenAllDown::SendToAll, [&["b"], &["a", "b"]]),
        (WhenAllDown::KeepLast, [&["b"], &["b"]]),
        (WhenAllDown::Fallback(Arc::new(sorry)), [&["b"], &["sorry"]]),
    ] {
        let name = what.as_str();
        let server = |id: &str| RealServer::new("10.0.0.11".parse().unwrap()).with_id(id);
        let service = VirtualService::new("10.0.0.100".parse().unwrap())
            .when_all_down(what)
            .persistence(Persistence::Never)
            .backend(server("a"))
            .backend(server("b"))
            .backend(server("drained").with_admin(AdminState::Draining))
            .backend(server("off").with_admin(AdminState::Disabled))
            .backend(server("light").with_weight(0));
        let mut planner = Planner::new(16);
        let vip = IpAddr::from([10, 0, 0, 100]);
        // A backend that claims the VIP is as good a last resort as one that is ill.
        let mut taking = |down: &[&str]| {
            let is_down = |id: &str| down.contains(&id);
            let plan = planner.plan([&service], &site(), |_, backend| Observed {
                health: if is_down(backend.id()) { Err("ill".into()) } else { Ok(()) },
                // The one had fallen long before the other did.
                ill_for: Duration::from_secs(if backend.id() == "a" { 60 } else { 1 }),
                detection: Duration::from_secs(3),
                claims: (is_down(backend.id()) && backend.id() == "b").then_some(vip),
                admin: backend.admin(),
                ..well(1)
            });
            let takes = |m: &&Member| m.idle.is_none() || m.last_resort;
            let ids = plan.members.iter().filter(takes).map(|m| m.backend.id().to_owned());
            let ids: Vec<_> = ids.collect();
            for member in &plan.members {
                let id = member.backend.id();
                let keeps = takes(&member) || (!down.contains(&id) && id != "off");
                assert_eq!(plan.snapshot.services.keeps_any(member.index), keeps, "{name} {id}");
            }
            let built = plan.snapshot.services.services()[0].members().len();
            assert_eq!(built, ids.len(), "{name}");
            ids
        };
        assert_eq!(taking(&[]), ["a", "b"], "{name}");
        for (down, expected) in [&["a"][..], &["a", "b", "drained", "light"]].iter().zip(taken) {
            assert_eq!(taking(down), expected, "{name}");
        }
        assert_eq!(taking(&[]), ["a", "b"], "{name}");
    }
}

#[test]
fn what_is_removed_makes_room_and_leaves_nothing_behind() {
    let mut planner = Planner::new(4);
    let services = services();
    let old = planner.plan(&services, &site(), |_, _| well(1));
    let table = Arc::downgrade(&old.snapshot.services.services()[1]);
    let index = old.members[2].index;
    drop(old);
    let less = planner.plan(&services[..1], &site(), |_, _| well(1));
    assert!(table.upgrade().is_none() && less.snapshot.next_hop(index).is_none());
    // The same backends come back: to the same slots, but the old indices stay void.
    let again = planner.plan(&services, &site(), |_, _| well(1));
    assert_eq!(again.members[2].index.slot(), index.slot());
    assert!(again.snapshot.next_hop(again.members[2].index).is_some());
    assert!(again.snapshot.next_hop(index).is_none());
}

#[test]
fn who_takes_no_traffic_says_why() {
    let with = |observed: Observed| {
        let mut planner = Planner::new(16);
        let plan = planner.plan(&services(), &site(), |_, _| observed.clone());
        let index = plan.members[0].index;
        let why = plan.members[0].idle.as_ref().map(ToString::to_string);
        (why.unwrap_or_default(), plan.snapshot.next_hop(index).is_some())
    };
    assert_eq!(with(well(1)), (String::new(), true));
    let ill = Observed { health: Err("no reply".into()), ..well(1) };
    assert_eq!(with(ill), ("unhealthy: no reply".into(), true));
    for (vip, says) in [
        (
            "10.0.0.100",
            "ARP for the VIP 10.0.0.100: clients may bypass the director; set arp_ignore=1",
        ),
        (
            "fd00::1",
            "neighbour solicitations for the VIP fd00::1: clients may bypass the director; have",
        ),
    ] {
        let vip = Some(vip.parse().unwrap());
        let (why, hop) = with(Observed { health: Err("no reply".into()), claims: vip, ..well(1) });
        assert!(why.starts_with("answers ") && why.contains(says), "{why}");
        assert!(hop);
    }
    let unknown = Observed { path: Err(Idle::Unresolved("incomplete".into())), ..well(1) };
    assert_eq!(with(unknown), ("neighbour unresolved: incomplete".into(), false));
    for (mac, says) in [
        (STATION, "director's own"),
        (MacAddress::ZERO, "zero"),
        (MacAddress::BROADCAST, "multicast"),
    ] {
        let (why, hop) = with(at(mac));
        assert!(why.contains(says) && why.contains(&mac.to_string()), "{why}");
        assert!(!hop);
    }
}

#[test]
fn a_weightless_backend_keeps_its_next_hop() {
    let mut planner = Planner::new(16);
    let plan = planner.plan(&services(), &site(), |_, _| well(1));
    assert_eq!(plan.members[1].idle, Some(Idle::NoWeight));
    assert!(plan.snapshot.next_hop(plan.members[1].index).is_some());
    assert_eq!(plan.snapshot.services.services()[0].members(), [plan.members[0].index]);
}

#[test]
fn what_packets_read_by_backend_has_its_addresses() {
    let mut planner = Planner::new(16);
    let plan = planner.plan(&services(), &site(), |_, _: &dyn Backend| well(1));
    let lengths = |snapshot: &Snapshot| -> Vec<usize> {
        snapshot.memory().map(|memory| memory.len()).collect()
    };
    // A slot for each backend of each service: 20 bytes of its link, no tunnel, 8 of whether it keeps flows.
    assert_eq!(lengths(&plan.snapshot), [4 * 20, 0, 4 * 8]);
    assert_eq!(lengths(&Snapshot::default()), [0; 3]);
}
