//! Directors agree: whatever the order of services and backends in their configurations, and whatever
//! happened before, a flow goes to the same backend.

use dsrlb::balancer::{
    Assignment, Backend, Balancer, HashBalancer, Maglev, RealServer, Rendezvous, VirtualService,
};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Observed, Plan, Planner, Site};
use dsrlb::flow::{FiveTuple, Fragment, HashInput, PacketInfo, Protocol, TcpFlags, Timestamp};
use dsrlb::packet::MacAddress;
use proptest::prelude::*;
use std::net::IpAddr;

/// Services that overlap, with policies and hash inputs of all kinds, and backends of many weights.
fn services() -> Vec<VirtualService> {
    let keys = [
        "10.0.0.100:80/tcp",
        "10.0.0.100",
        "10.0.0.0/24:80/tcp",
        "10.0.0.0/16",
        "[fd00::100]:53/udp",
        "fd00::/64",
    ];
    let service = |(number, key): (usize, &str)| {
        let (_, input) = HashInput::NAMES[number % HashInput::NAMES.len()];
        let service = VirtualService::new(key.parse().unwrap()).hash_input(input);
        let small = Maglev::with_table_size(251).unwrap();
        let service =
            if number % 3 == 2 { service.policy(Rendezvous) } else { service.policy(small) };
        (0..10u8).fold(service, |service, last| {
            let server = RealServer::new([10, 1, number as u8, last].into());
            service.backend(server.with_weight(u16::from(last) % 4 * 3))
        })
    };
    keys.into_iter().enumerate().map(service).collect()
}

fn plan(planner: &mut Planner, services: &[VirtualService], ill: Option<IpAddr>) -> Plan {
    planner.plan(services, &Site::new(MacAddress([2, 0, 0, 0, 0, 1])), |_, backend| Observed {
        health: if ill == Some(backend.address()) { Err("ill".to_owned()) } else { Ok(()) },
        ..Observed::well(Path::on_link(MacAddress([2, 0, 0, 0, 0, 2])))
    })
}

/// To which backend of which service each of many packets goes.
fn decisions(plan: &Plan) -> Vec<String> {
    let decide = |number: u16| {
        let ipv6 = number.is_multiple_of(3);
        let [high, low] = number.to_be_bytes();
        let (source, destination): (IpAddr, IpAddr) = match ipv6 {
            true => ([0xfd01, 0, 0, 0, 0, 0, 0, number].into(), "fd00::100".parse().unwrap()),
            false => ([192, 0, high, low].into(), [10, 0, low % 2, 99 + low % 3].into()),
        };
        let flow = FiveTuple {
            source,
            destination,
            source_port: 1000 + number,
            destination_port: [80, 53, 443][usize::from(number % 7 % 3)],
            protocol: if number % 5 < 3 { Protocol::TCP } else { Protocol::UDP },
        };
        let packet = PacketInfo::new(flow, Fragment::Whole, TcpFlags::default());
        match HashBalancer.assign(&plan.snapshot.services, &packet, Timestamp(0)) {
            Assignment::Backend(index) => {
                let member = plan.members.iter().find(|member| member.index == index).unwrap();
                format!("{} {}", member.service, member.backend.id())
            }
            other => format!("{other:?}"),
        }
    };
    (0..2000).map(decide).collect()
}

fn shuffled() -> impl Strategy<Value = Vec<VirtualService>> {
    let each = services().into_iter().map(|service| {
        Just(service.backends.clone()).prop_shuffle().prop_map(move |backends| {
            let mut service = service.clone();
            service.backends = backends;
            service
        })
    });
    each.collect::<Vec<_>>().prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_order_of_the_configuration_and_the_past_do_not_matter(
        services in shuffled(), other in shuffled(), past in any::<prop::sample::Index>(),
    ) {
        let one = plan(&mut Planner::new(100), &services, None);
        let decided = decisions(&one);
        let mut distinct = decided.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert!(distinct.len() > 30, "{:?}", distinct);

        // The other director has had a backend fall ill, and a service less, before.
        let mut planner = Planner::new(100);
        let ill = other[0].backends[past.index(10)].address();
        plan(&mut planner, &other[..5], Some(ill));
        prop_assert_eq!(decided, decisions(&plan(&mut planner, &other, None)));
    }
}
