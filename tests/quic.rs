//! Routing by connection ID, through the whole pure pipeline: clients that move, pools that change.

mod support;

use dsrlb::balancer::{
    Backend, Balancer, ByConnection, FlowBalancer, HashBalancer, QuicConfig, QuicLb, RealServer,
    Rendezvous, VirtualService,
};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Frame, Observed, Pipeline, Plan, Planner, Site, WorkerCounters};
use dsrlb::flow::{ConnectionId, HashInput, HashKey, Timestamp};
use dsrlb::packet::MacAddress;
use dsrlb::verdict::{BackendIndex, DropReason, Verdict};
use etherparse::PacketBuilder;
use std::sync::Arc;
use support::frames::{CLIENT_MAC, DIRECTOR_MAC, Protocol, fragment, ipv4};

const VIP: [u8; 4] = [10, 0, 0, 100];
const SERVERS: u8 = 8;
const SECOND: u64 = 1_000_000_000;

/// A pool of eight servers, of which number n has the ID n, in configuration 2.
fn service() -> VirtualService {
    let policy = QuicLb::new(Rendezvous).config(2, QuicConfig::new(1, 6).unwrap()).unwrap();
    let policy = (0..SERVERS)
        .fold(policy, |policy, number| policy.server(address(number), &[number]).unwrap());
    with_servers(VirtualService::new("10.0.0.100:443/udp".parse().unwrap()).policy(policy))
}

fn with_servers(service: VirtualService) -> VirtualService {
    (0..SERVERS).fold(service, |service, number| {
        service.backend(RealServer::new(address(number).parse().unwrap()))
    })
}

fn address(number: u8) -> String {
    format!("10.0.1.{number}")
}

/// The ID that server `number` gives out, behind it what may follow in a short header.
fn server_id(number: u8, nonce: u8) -> [u8; 8] {
    [0x40 | nonce & 0x1f, number, nonce, 1, 2, 3, 4, 5]
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41], id, &[0xaa; 24]].concat()
}

/// By type: 0 Initial, 1 0-RTT, 2 Handshake, of version 1.
fn long(kind: u8, id: &[u8]) -> Vec<u8> {
    [&[0xc0 | kind << 4, 0, 0, 0, 1, id.len() as u8], id, &[4; 40]].concat()
}

/// What the planner is to see of server `number`.
type State<'a> = &'a dyn Fn(u8, &mut Observed);

fn plan_with(planner: &mut Planner, service: &VirtualService, state: State<'_>) -> Plan {
    let site = Site::new(MacAddress(DIRECTOR_MAC));
    planner.plan([service], &site, |_, backend: &dyn Backend| {
        let std::net::IpAddr::V4(ip) = backend.address() else { unreachable!("all are IPv4") };
        let number = ip.octets()[3];
        let mut observed = Observed::well(Path::on_link(MacAddress([2, 0, 0, 0, 1, number])));
        state(number, &mut observed);
        observed
    })
}

fn plan(service: &VirtualService) -> Plan {
    plan_with(&mut Planner::new(64), service, &|_, _| {})
}

fn index(plan: &Plan, number: u8) -> BackendIndex {
    let id = address(number);
    plan.members.iter().find(|member| member.backend.id() == id).unwrap().index
}

fn pipeline<B: Balancer>(balancer: B) -> Pipeline<B> {
    Pipeline::new(balancer, Arc::new(WorkerCounters::new(64)))
}

fn remembering() -> FlowBalancer {
    FlowBalancer::new(1 << 12, 64, HashKey::new([7; 16])).unwrap()
}

/// The backend that a payload from port `port` of client `client` reaches.
#[track_caller]
fn reached<B: Balancer>(
    pipeline: &mut Pipeline<B>,
    plan: &Plan,
    client: u8,
    port: u16,
    payload: &[u8],
    seconds: u64,
) -> BackendIndex {
    let mut bytes = ipv4([192, 0, 2, client], VIP, Protocol::Udp(port, 443), payload);
    let now = Timestamp(seconds * SECOND);
    match pipeline.process_one(&plan.snapshot, now, &mut Frame::new(&mut bytes)) {
        Verdict::Forward(index) => index,
        other => panic!("{other:?}"),
    }
}

fn a_moving_client_keeps_its_server<B: Balancer>(balancer: B) {
    let plan = plan(&service());
    let mut pipeline = pipeline(balancer);
    for client in 0..100 {
        // The client's own ID happens to be one of server 3.
        let hello = long(0, &server_id(3, client));
        let first = reached(&mut pipeline, &plan, client, 4000, &hello, 0);
        let number = (0..SERVERS).find(|number| index(&plan, *number) == first).unwrap();
        let early = long(1, &server_id(3, client));
        assert_eq!(reached(&mut pipeline, &plan, client, 4000, &early, 0), first);
        let handshake = long(2, &server_id(number, client));
        assert_eq!(reached(&mut pipeline, &plan, client, 4000, &handshake, 0), first);
        // Another port, as after a NAT forgot; another address; each with an ID that is new.
        for (step, (at, port)) in
            [(client, 4000), (client, 4001), (200, 77), (201, 78)].into_iter().enumerate()
        {
            let id = server_id(number, client.wrapping_add(step as u8));
            let there = reached(&mut pipeline, &plan, at, port, &short(&id), 1);
            assert_eq!(there, first, "client {client}, step {step}");
        }
    }
}

#[test]
fn a_moving_client_keeps_its_server_with_and_without_memory() {
    a_moving_client_keeps_its_server(HashBalancer);
    a_moving_client_keeps_its_server(remembering());
}

/// A policy that did not route would pass no test above by luck: clients at two addresses are seldom at
/// one server.
#[test]
fn without_such_a_policy_they_do_not() {
    let plan = plan(&service().policy(Rendezvous));
    assert!(!plan.snapshot.services.routes());
    let mut pipeline = pipeline(HashBalancer);
    let at =
        |pipeline: &mut _, port| reached(pipeline, &plan, 1, port, &short(&server_id(1, 1)), 0);
    let moved =
        (1..100u16).filter(|port| at(&mut pipeline, *port) != at(&mut pipeline, port + 100));
    assert!(moved.count() > 50);
}

#[test]
fn initials_and_unknown_ids_go_by_their_flow_as_if_there_were_no_ids() {
    let (plan, hashed) = (plan(&service()), plan(&service().policy(Rendezvous)));
    let (mut routing, mut hashing) = (pipeline(HashBalancer), pipeline(HashBalancer));
    for port in 1..200 {
        for payload in [
            long(0, &server_id(3, 1)),
            long(1, &server_id(3, 1)),
            short(&server_id(SERVERS, 1)),
            short(&[0xe1, 3, 0, 0, 0, 0, 0, 0]),
            short(&[0x01, 3, 0, 0, 0, 0, 0, 0]),
            long(2, &server_id(3, 1)[..7]),
            vec![0x41, 0x40, 3],
            vec![],
        ] {
            let by_flow = reached(&mut hashing, &hashed, 9, port, &payload, 0);
            assert_eq!(reached(&mut routing, &plan, 9, port, &payload, 0), by_flow, "{payload:?}");
        }
    }
}

#[test]
fn a_draining_server_keeps_its_connections_and_an_ill_one_does_not() {
    use dsrlb::balancer::AdminState::{Disabled, Draining};
    let mut planner = Planner::new(64);
    let service = service();
    let drained = plan_with(&mut planner, &service, &|number, observed| {
        observed.admin = if number == 3 { Draining } else { observed.admin };
    });
    let [ill, disabled] = [Err("down".to_owned()), Ok(())].map(|health| {
        plan_with(&mut planner, &service, &|number, observed| {
            if number == 3 {
                observed.admin = if health.is_ok() { Disabled } else { observed.admin };
                observed.health.clone_from(&health);
            }
        })
    });
    let three = index(&drained, 3);
    for port in 1..100 {
        let known = short(&server_id(3, 1));
        let new = long(0, &server_id(3, 1));
        let mut pipeline = pipeline(HashBalancer);
        assert_eq!(reached(&mut pipeline, &drained, 1, port, &known, 0), three);
        assert_ne!(reached(&mut pipeline, &drained, 1, port, &new, 0), three);
        for plan in [&ill, &disabled] {
            assert_ne!(reached(&mut pipeline, plan, 1, port, &known, 0), three);
        }
    }
}

/// The router follows the pool also where those who take new flows stay the same.
#[test]
fn a_server_that_comes_without_a_weight_is_routed_to_at_once() {
    let mut planner = Planner::new(64);
    let before = plan_with(&mut planner, &service(), &|_, _| {});
    let late = RealServer::new("10.0.1.77".parse().unwrap()).with_weight(0);
    let quic = QuicLb::new(Rendezvous).config(2, QuicConfig::new(1, 6).unwrap()).unwrap();
    let quic: Arc<dyn dsrlb::balancer::Policy> = Arc::new(quic.server("10.0.1.77", &[77]).unwrap());
    let mut service = service();
    service.policy = Arc::clone(&quic);
    let early = plan_with(&mut planner, &service, &|_, _| {});
    service = service.backend(late);
    let after = plan_with(&mut planner, &service, &|_, _| {});
    let again = plan_with(&mut planner, &service, &|_, _| {});
    let built = |plan: &Plan| Arc::clone(&plan.snapshot.services.services()[0]);
    assert!(Arc::ptr_eq(&built(&after), &built(&again)), "nothing changed");
    let payload = short(&server_id(77, 1));
    let mut pipeline = pipeline(HashBalancer);
    for plan in [&before, &early] {
        assert!(reached(&mut pipeline, plan, 1, 1, &payload, 0).slot() < SERVERS.into());
    }
    assert_eq!(reached(&mut pipeline, &after, 1, 1, &payload, 0), index(&after, 77));
}

/// An ICMP error quotes no ID of the server's: it follows the flow that IDs have led.
#[test]
fn an_error_about_a_packet_reaches_the_server_that_sent_it() {
    let plan = plan(&service());
    for (port, number) in (1000..1040).zip((0..SERVERS).cycle()) {
        let mut pipeline = pipeline(remembering());
        let there = reached(&mut pipeline, &plan, 5, port, &short(&server_id(number, 1)), 0);
        let quoted = ipv4(VIP, [192, 0, 2, 5], Protocol::Udp(443, port), &[0; 40]);
        let mut error = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
            .ipv4([203, 0, 113, 1], VIP, 64)
            .icmpv4_raw(3, 4, [0, 0, 5, 0])
            .write(&mut error, &quoted[14..])
            .unwrap();
        let verdict =
            pipeline.process_one(&plan.snapshot, Timestamp(1), &mut Frame::new(&mut error));
        assert_eq!((verdict, there), (Verdict::Forward(there), index(&plan, number)));
    }
}

/// Somebody forges a client's address, with an ID of a connection of his own. The flow's server drains, so
/// that none but the table knows where it is.
#[test]
fn nobody_leads_the_flow_of_another_elsewhere() {
    let (mut planner, service) = (Planner::new(64), service());
    let plan = plan_with(&mut planner, &service, &|_, _| {});
    let mut pipeline = pipeline(remembering());
    let unknown = short(&[0xe0; 8]);
    let home = reached(&mut pipeline, &plan, 6, 4000, &unknown, 0);
    let plan = plan_with(&mut planner, &service, &|number, observed| {
        if index(&plan, number) == home {
            observed.admin = dsrlb::balancer::AdminState::Draining;
        }
    });
    let by_hash = reached(&mut self::pipeline(HashBalancer), &plan, 6, 4000, &unknown, 0);
    let mut others =
        (0..SERVERS).filter(|number| ![home, by_hash].contains(&index(&plan, *number)));
    let other = others.next().unwrap();
    let forged = short(&server_id(other, 1));
    for second in 1..20 {
        assert_eq!(reached(&mut pipeline, &plan, 6, 4000, &forged, second), index(&plan, other));
        assert_eq!(reached(&mut pipeline, &plan, 6, 4000, &unknown, second), home);
    }
    // What comes by its ID does not keep the old flow alive, and is remembered when that is over.
    for second in (20..2000).step_by(10) {
        reached(&mut pipeline, &plan, 6, 4000, &forged, second);
    }
    assert_eq!(reached(&mut pipeline, &plan, 6, 4000, &unknown, 2000), index(&plan, other));
}

/// QUIC is not to be fragmented (RFC 9000 section 14); what is, goes where its first fragment goes, also
/// where addresses alone decide of flows, and no service asks for a port.
#[test]
fn later_fragments_go_where_the_first_one_goes() {
    let mut service = service().hash_input(HashInput::SourceIp);
    service.key = "10.0.0.100:any/udp".parse().unwrap();
    let plan = plan(&service);
    let whole = ipv4([192, 0, 2, 1], VIP, Protocol::Udp(4000, 443), &short(&server_id(3, 1)));
    for number in 0..SERVERS {
        let mut first = whole.clone();
        first[44] = number;
        let first = fragment(first, 0, true);
        let later = ipv4([192, 0, 2, 1], VIP, Protocol::Other(17), &[0; 32]);
        let later = fragment(later, 512, false);
        let mut pipeline = pipeline(HashBalancer);
        let verdicts = [first, later].map(|mut bytes| {
            pipeline.process_one(&plan.snapshot, Timestamp(0), &mut Frame::new(&mut bytes))
        });
        assert_eq!(verdicts, [Verdict::Forward(index(&plan, number)); 2]);
    }
}

#[test]
fn a_function_of_ones_own_sees_all_backends_and_decides() {
    let policy = ByConnection::new(Rendezvous, |backends: &[&str]| {
        assert_eq!(backends.len(), usize::from(SERVERS));
        let last = backends.len() as u16 - 1;
        move |id: &ConnectionId| (id.bytes().first() == Some(&0xab)).then_some(last)
    });
    let plan = plan(&service().policy(policy));
    let mut pipeline = pipeline(HashBalancer);
    for port in 1..50 {
        for payload in [short(&[0xab]), long(0, &[0xab])] {
            let there = reached(&mut pipeline, &plan, 1, port, &payload, 0);
            assert_eq!(there, index(&plan, SERVERS - 1));
        }
    }
    let others = (1..50).filter(|port| {
        reached(&mut pipeline, &plan, 1, *port, &short(&[0xac]), 0) == index(&plan, SERVERS - 1)
    });
    assert!(others.count() < 25);
    // A position of nobody is none.
    let stray = ByConnection::new(Rendezvous, |_: &[&str]| |_: &ConnectionId| Some(u16::MAX));
    let stray = self::plan(&service().policy(stray));
    reached(&mut pipeline, &stray, 1, 1, &short(&[0xab]), 0);
}

#[test]
fn only_udp_has_connection_ids_and_rules_about_sources_come_first() {
    let mut service = service();
    service.key = "10.0.0.100".parse().unwrap();
    let plan = plan(&service);
    let mut pipeline = pipeline(HashBalancer);
    let mut decide = |mut bytes: Vec<u8>| {
        pipeline.process_one(&plan.snapshot, Timestamp(0), &mut Frame::new(&mut bytes))
    };
    let of_three = Verdict::Forward(index(&plan, 3));
    let payload = short(&server_id(3, 1));
    let other = |port| ipv4([192, 0, 2, 1], VIP, Protocol::Tcp(port, 443), &payload);
    assert!((1..50).any(|port| decide(other(port)) != of_three));
    assert_eq!(decide(ipv4([192, 0, 2, 1], VIP, Protocol::Udp(1, 443), &payload)), of_three);
    let martian = ipv4([127, 0, 0, 1], VIP, Protocol::Udp(1, 443), &payload);
    assert_eq!(decide(martian), Verdict::Drop(DropReason::MartianSource));
}
