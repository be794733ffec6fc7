//! Tests of the neighbour table, in virtual time.

use super::*;
use proptest::prelude::*;

const ETH: u32 = 2;
const VLAN: u32 = 7;
const VLAN_ID: u16 = 20;
const MTU: u32 = 1500;
const OTHER: u32 = 9;
const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const VLAN_OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn link(index: u32, vlan_of: Option<u32>, mac: MacAddress, up: bool) -> Link {
    let mac = Some(mac);
    let vlan_of = vlan_of.map(|lower| (lower, VLAN_ID));
    Link { index, vlan_of, state: LinkState { mac, up, mtu: MTU } }
}

/// A table with the interface, a VLAN of it, an unrelated one, and one wanted address.
fn table(now: Instant) -> NeighbourTable {
    let mut table = NeighbourTable::new(&[ETH]);
    let links = [
        link(ETH, None, OWN, true),
        link(VLAN, Some(ETH), VLAN_OWN, true),
        link(OTHER, None, MacAddress([2, 0, 0, 0, 0, 3]), true),
    ];
    table.replace_links(links, now);
    assert!(table.want(&BTreeSet::from([address(11)]), now));
    table.take_events();
    table
}

/// The way to a neighbour on link.
fn at(mac: MacAddress) -> NeighbourState {
    NeighbourState::Resolved(Path { mtu: MTU, ..Path::on_link(mac) })
}

fn entry(interface: u32, entry: Entry) -> Observation {
    let address = address(11);
    Observation::Entry { interface, address, entry: Some(entry) }
}

fn route(route: Route) -> Observation {
    let address = address(11);
    Observation::Route { address, route }
}

fn usable(mac: MacAddress) -> Entry {
    Entry::Usable(mac, Freshness::Confirmed)
}

fn unresolved(why: Unresolved) -> Option<NeighbourState> {
    Some(NeighbourState::Unresolved { why })
}

#[test]
fn an_entry_on_the_routes_interface_resolves_and_each_change_is_told_once() {
    let now = Instant::now();
    let mut table = table(now);
    assert!(table.apply(route(Route::on_link(ETH)), now));
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
    assert!(table.apply(entry(ETH, usable(PEER)), now));
    assert!(!table.apply(entry(ETH, usable(PEER)), now));
    // Being asked again is no news.
    assert!(!table.apply(entry(ETH, Entry::Usable(PEER, Freshness::Stale)), now));
    let resolved = at(PEER);
    assert_eq!(table.state(address(11)), Some(resolved));
    assert_eq!(table.take_events().len(), 2);
    assert!(table.apply(entry(ETH, Entry::Failed), now));
    assert_eq!(table.state(address(11)), unresolved(Unresolved::NoAnswer));
    let deleted = Observation::Entry { interface: ETH, address: address(11), entry: None };
    assert!(table.apply(deleted, now));
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
}

#[test]
fn an_entry_on_another_interface_does_not_count() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(Route::on_link(ETH)), now);
    table.apply(entry(OTHER, usable(PEER)), now);
    table.apply(entry(VLAN, usable(PEER)), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
    table.apply(route(Route::on_link(OTHER)), now);
    let elsewhere = Unresolved::OtherInterface(OTHER);
    assert_eq!(table.state(address(11)), unresolved(elsewhere));
    table.apply(route(Route::on_link(VLAN)), now);
    let Some(NeighbourState::Resolved(path)) = table.state(address(11)) else { panic!() };
    assert_eq!((path.mac, path.port, path.vlan), (PEER, 0, Some(VLAN_ID)));
}

#[test]
fn addresses_that_would_loop_or_flood_are_rejected() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(Route::on_link(ETH)), now);
    for (mac, why) in [
        (OWN, Rejection::Own),
        (VLAN_OWN, Rejection::Own),
        (MacAddress::ZERO, Rejection::Zero),
        (MacAddress::BROADCAST, Rejection::Multicast),
        (MacAddress([1, 0, 0x5e, 0, 0, 1]), Rejection::Multicast),
    ] {
        table.apply(entry(ETH, usable(mac)), now);
        let rejected = NeighbourState::Rejected { mac, why };
        assert_eq!(table.state(address(11)), Some(rejected));
    }
    // Our own address changes to the neighbour's while it is known.
    table.apply(entry(ETH, usable(PEER)), now);
    assert!(table.apply(Observation::Link(link(ETH, None, PEER, true)), now));
    let why = Rejection::Own;
    let rejected = NeighbourState::Rejected { mac: PEER, why };
    assert_eq!(table.state(address(11)), Some(rejected));
}

#[test]
fn what_is_not_on_the_link_says_why_and_is_never_asked() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(entry(ETH, usable(PEER)), now);
    for (to, why) in [
        (Route::on_link(OTHER), Unresolved::OtherInterface(OTHER)),
        (Route::Local, Unresolved::OwnAddress),
        (Route::Unreachable, Unresolved::NoRoute),
    ] {
        table.apply(route(to), now);
        assert_eq!(table.state(address(11)), unresolved(why));
        assert_eq!(table.ask_on(address(11)), None);
    }
    let text = Unresolved::OtherInterface(OTHER).to_string();
    assert!(text.contains("interface 9") && text.contains("added"), "{text}");
}

fn via(gateway: u8) -> Route {
    let (source, mtu) = (Some(address(2)), Some(1400));
    Route::Unicast { interface: ETH, gateway: Some(address(gateway)), source, mtu }
}

fn gateway_entry(gateway: u8, mac: MacAddress) -> Observation {
    let entry = Some(usable(mac));
    Observation::Entry { interface: ETH, address: address(gateway), entry }
}

#[test]
fn behind_a_router_it_is_the_routers_address_that_counts() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(via(1)), now);
    table.apply(entry(ETH, usable(PEER)), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
    assert_eq!(table.ask_on(address(11)), Some((ETH, address(1))));
    assert!(table.apply(gateway_entry(1, PEER), now));
    let expected = Path {
        mac: PEER,
        port: 0,
        vlan: None,
        gateway: Some(address(1)),
        source: Some(address(2)),
        mtu: 1400,
    };
    assert_eq!(table.state(address(11)), Some(NeighbourState::Resolved(expected)));
    let other = MacAddress([2, 0, 0, 0, 0, 8]);
    assert!(table.apply(gateway_entry(1, other), now), "the router has another address");
}

/// Nothing was noted of the old router meanwhile.
#[test]
fn a_router_that_comes_back_is_asked_for_anew() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(via(1)), now);
    table.apply(gateway_entry(1, PEER), now);
    table.apply(route(via(3)), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
    table.apply(gateway_entry(1, OWN), now);
    table.apply(route(via(1)), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
    assert_eq!(table.ask_on(address(11)), Some((ETH, address(1))));
}

#[test]
fn all_behind_a_router_follow_it() {
    let now = Instant::now();
    let mut table = table(now);
    table.want(&BTreeSet::from([address(11), address(12)]), now);
    for last in [11, 12] {
        table.apply(Observation::Route { address: address(last), route: via(1) }, now);
    }
    table.take_events();
    table.apply(gateway_entry(1, PEER), now);
    assert_eq!(table.take_events().len(), 2);
}

#[test]
fn routes_are_looked_up_when_they_may_have_changed_and_not_otherwise() {
    let start = Instant::now();
    let mut table = table(start);
    assert!(table.needs_route(address(11)));
    table.apply(route(via(1)), start);
    table.apply(gateway_entry(1, PEER), start);
    table.attended(address(11), start);
    for seconds in 0..60 {
        let now = start + Duration::from_secs(seconds);
        table.due(now).into_iter().for_each(|address| table.attended(address, now));
        assert!(!table.needs_route(address(11)), "no change, no look-up");
    }
    let changed = |table: &mut NeighbourTable, prefix: Option<&str>, now| {
        table.apply(Observation::RoutesChanged(prefix.map(|text| text.parse().unwrap())), now);
        table.needs_route(address(11))
    };
    let now = start + Duration::from_secs(100);
    assert!(!changed(&mut table, Some("10.0.1.0/24"), now), "for others");
    assert!(!changed(&mut table, Some("fd00::/8"), now), "of the other family");
    for prefix in [None, Some("0.0.0.0/0"), Some("10.0.0.11/32"), Some("10.0.0.1/32")] {
        assert!(changed(&mut table, prefix, now), "{prefix:?}");
        assert_eq!(table.due(now), [address(11)]);
        table.apply(route(via(1)), now - Duration::from_secs(1));
        table.attended(address(11), now);
    }
}

#[test]
fn a_flood_of_route_changes_costs_ten_look_ups_a_second() {
    let start = Instant::now();
    let mut table = table(start);
    let mut looked_up = 0;
    for milliseconds in 0..1000 {
        let now = start + Duration::from_millis(milliseconds);
        table.apply(Observation::RoutesChanged(None), now);
        for due in table.due(now) {
            if table.needs_route(due) {
                looked_up += 1;
                table.apply(route(via(1)), now);
            }
            table.attended(due, now);
        }
    }
    assert_eq!(looked_up, 10);
}

#[test]
fn every_port_counts_and_says_which_it_is() {
    let now = Instant::now();
    let mut table = NeighbourTable::new(&[ETH, OTHER]);
    let links = [link(ETH, None, OWN, true), link(OTHER, None, VLAN_OWN, true)];
    table.replace_links(links, now);
    table.want(&BTreeSet::from([address(11)]), now);
    table.apply(route(Route::on_link(OTHER)), now);
    table.apply(entry(OTHER, usable(PEER)), now);
    let Some(NeighbourState::Resolved(path)) = table.state(address(11)) else { panic!() };
    assert_eq!((path.port, path.vlan), (1, None));
    // The other port's own address would come back as well.
    table.apply(entry(OTHER, usable(OWN)), now);
    assert!(matches!(table.state(address(11)), Some(NeighbourState::Rejected { .. })));
    table.take_events();
    table.apply(Observation::Link(link(OTHER, None, VLAN_OWN, false)), now);
    let down = LinkState { mac: Some(VLAN_OWN), up: false, mtu: MTU };
    assert!(table.take_events().contains(&NeighbourEvent::LinkChanged { port: 1, link: down }));
    assert_eq!(table.state(address(11)), unresolved(Unresolved::LinkDown));
}

#[test]
fn a_vlan_within_a_vlan_is_refused_with_the_reason() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(Observation::Link(link(OTHER, Some(VLAN), OWN, true)), now);
    table.apply(route(Route::on_link(OTHER)), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::StackedVlan(OTHER)));
}

#[test]
fn a_link_that_goes_down_takes_its_neighbours_along() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(Route::on_link(ETH)), now);
    table.apply(entry(ETH, usable(PEER)), now);
    table.attended(address(11), now);
    table.take_events();
    table.apply(Observation::Link(link(ETH, None, OWN, false)), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::LinkDown));
    assert_eq!(table.take_events().len(), 2);
    assert!(table.due(now).is_empty());
    table.apply(Observation::Link(link(ETH, None, OWN, true)), now);
    assert_eq!(table.due(now), [address(11)]);
    table.apply(Observation::LinkGone(ETH), now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::LinkGone));
    assert_eq!(table.link(0), LinkState::default());
}

#[test]
fn unresolved_neighbours_are_asked_with_back_off() {
    let start = Instant::now();
    let mut table = table(start);
    table.apply(route(Route::on_link(ETH)), start);
    let mut now = start;
    let mut asked = Vec::new();
    while now <= start + Duration::from_secs(40) {
        for address in table.due(now) {
            assert_eq!(table.ask_on(address), Some((ETH, address)));
            asked.push((now - start).as_secs());
            table.attended(address, now);
            table.apply(entry(ETH, Entry::Failed), now);
        }
        now += Duration::from_millis(250);
    }
    assert_eq!(asked, [0, 1, 3, 7, 15, 23, 31, 39]);
}

#[test]
fn stale_and_lost_neighbours_are_asked_at_once_but_not_at_any_rate() {
    let start = Instant::now();
    let mut table = table(start);
    table.apply(route(Route::on_link(ETH)), start);
    table.apply(entry(ETH, usable(PEER)), start);
    table.attended(address(11), start);
    assert_eq!(table.ask_on(address(11)), None);
    assert_eq!(table.next_due(), Some(start + CHECK_INTERVAL));

    let soon = start + Duration::from_millis(100);
    table.apply(entry(ETH, Entry::Usable(PEER, Freshness::Stale)), soon);
    assert_eq!(table.ask_on(address(11)), Some((ETH, address(11))));
    assert_eq!(table.next_due(), Some(start + FIRST_PAUSE));

    let later = start + Duration::from_secs(3);
    table.attended(address(11), start + FIRST_PAUSE);
    table.apply(entry(ETH, Entry::Failed), later);
    assert_eq!(table.due(later), [address(11)]);
}

#[test]
fn fixed_entries_are_taken_as_they_are() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(Route::on_link(ETH)), now);
    table.apply(entry(ETH, Entry::Usable(PEER, Freshness::Fixed)), now);
    assert_eq!(table.state(address(11)), Some(at(PEER)));
    assert_eq!(table.ask_on(address(11)), None);
}

#[test]
fn a_dump_forgets_what_it_does_not_hold() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(Route::on_link(ETH)), now);
    table.apply(entry(ETH, usable(PEER)), now);
    table.take_events();
    // The same again: nothing to tell, although it was forgotten in between.
    table.replace_entries([(ETH, address(11), usable(PEER))], now);
    assert_eq!(table.take_events(), []);
    table.replace_entries([], now);
    assert_eq!(table.state(address(11)), unresolved(Unresolved::Pending));
}

#[test]
fn wanting_another_set_keeps_what_stays() {
    let now = Instant::now();
    let mut table = table(now);
    table.apply(route(Route::on_link(ETH)), now);
    table.apply(entry(ETH, usable(PEER)), now);
    let both = BTreeSet::from([address(11), address(12)]);
    assert!(table.want(&both, now));
    assert!(!table.want(&both, now));
    assert_eq!(table.state(address(11)), Some(at(PEER)));
    assert!(!table.want(&BTreeSet::from([address(12)]), now));
    assert_eq!(table.state(address(11)), None);
}

fn any_entry() -> impl Strategy<Value = Option<Entry>> {
    let freshness =
        prop_oneof![Just(Freshness::Confirmed), Just(Freshness::Stale), Just(Freshness::Fixed)];
    let usable =
        (0u8..4, freshness).prop_map(|(n, f)| Entry::Usable(MacAddress([2, 0, 0, 0, 0, n]), f));
    prop_oneof![
        Just(None),
        Just(Some(Entry::Incomplete)),
        Just(Some(Entry::Failed)),
        usable.prop_map(Some)
    ]
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let index = prop_oneof![Just(ETH), Just(VLAN), Just(OTHER)];
    let route = prop_oneof![
        prop_oneof![Just(ETH), Just(VLAN), Just(OTHER)].prop_map(Route::on_link),
        Just(via(1)),
        Just(via(10)),
        Just(Route::Local),
        Just(Route::Unreachable),
    ];
    prop_oneof![
        (index.clone(), 10u8..13, any_entry()).prop_map(|(interface, last, entry)| {
            Observation::Entry { interface, address: address(last), entry }
        }),
        (10u8..13, route)
            .prop_map(|(last, route)| Observation::Route { address: address(last), route }),
        (index.clone(), 0u8..4, any::<bool>(), any::<bool>()).prop_map(|(i, n, up, stacked)| {
            let lower = if stacked { Some(ETH) } else { None };
            Observation::Link(link(i, lower, MacAddress([2, 0, 0, 0, 0, n]), up))
        }),
        index.prop_map(Observation::LinkGone),
    ]
}

proptest! {
    /// Whoever only listens to the events knows the same as who looks; nothing that is resolved
    /// is our own address; every wanted address is due again within the longest pause.
    #[test]
    fn events_tell_all(observations in proptest::collection::vec(any_observation(), 0..60)) {
        let start = Instant::now();
        let mut table = NeighbourTable::new(&[ETH]);
        let all = BTreeSet::from([address(10), address(11), address(12)]);
        table.want(&all, start);
        let mut heard = BTreeMap::new();
        let mut now = start;
        for observation in observations {
            let changed = table.apply(observation, now);
            let events = table.take_events();
            prop_assert_eq!(changed, !events.is_empty());
            for event in events {
                if let NeighbourEvent::Neighbour { address, state } = event {
                    prop_assert_ne!(heard.insert(address, state), Some(state));
                }
            }
            for (&address, &state) in &heard {
                prop_assert_eq!(table.state(address), Some(state));
                if let NeighbourState::Resolved(path) = state {
                    prop_assert_ne!(Some(path.mac), table.link(0).mac);
                    prop_assert!(table.link(0).up);
                }
            }
            for address in table.due(now) {
                table.attended(address, now);
            }
            prop_assert!(table.next_due().unwrap() <= now + LONGEST_PAUSE);
            now += Duration::from_millis(700);
        }
    }
}
