//! Two thousand connections through every kind of change, one by one and at random.

use crate::crowd::{Tally, Working};
use crate::pool::{Method, Pool};
use crate::random::Random;
use crate::{FIRST, build, check, crowd, seed, start, step};
use dsrlb::balancer::{AdminState, Record};
use dsrlb::flow::{HashInput, HashKey};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many connections more to each service, when all backends are there.
const LATER: usize = 200;
const CHANGES: usize = 1000;
/// So many are answered between one change and the next, at least.
const MESSAGES_A_CHANGE: u64 = 150;

/// Changes that cut nothing.
fn harmless_steps(pool: &mut Pool<'_>, clients: &Working) {
    let mut step = |what: &str, change: &dyn Fn(&mut Pool<'_>, usize)| {
        step(what, pool, clients, change);
    };
    step("four backends more", &|pool, service| (5..=8).for_each(|new| pool.add(service, new, 1)));
    for method in [Method::Rendezvous, Method::Maglev(65_537), Method::Maglev(251)] {
        step(&format!("{method:?}"), &|pool, service| {
            pool.apply(service, |next| next.method = method);
        });
    }
    step("b1 drained", &|pool, service| pool.drain(service, 1));
    step("b2 draining by the operator's word", &|pool, service| {
        pool.set_admin(service, 2, Some(AdminState::Draining));
    });
    step("weights 1 to 8", &|pool, service| {
        pool.apply(service, |next| next.weights = (1..=8).map(|n| (n, n.into())).collect());
    });
    step("b3 without weight", &|pool, service| {
        pool.apply(service, |next| next.weights.extend([(3, 0)]));
    });
    for input in [HashInput::SourceIp, HashInput::DestinationIp, HashInput::FiveTuple] {
        step(&format!("hash input {input}"), &|pool, service| {
            pool.apply(service, |next| next.input = input);
        });
    }
    step("another hash key", &|pool, service| {
        let key = HashKey::new(pool.random.bytes());
        pool.apply(service, |next| next.key = key);
    });
    step("b1 and b2 enabled again", &|pool, service| {
        [1, 2].into_iter().for_each(|back| pool.set_admin(service, back, None));
    });
}

#[test]
fn two_thousand_connections_live_through_every_change() {
    live_through("flows", Record::All, CHANGES);
}

#[test]
fn they_do_so_as_well_where_only_contested_flows_are_recorded() {
    live_through("contested", Record::Contested, CHANGES / 4);
}

fn live_through(tag: &'static str, record: Record, changes: usize) {
    let Some((lab, _servers, _turn)) = build(tag) else { return };
    let begun = Instant::now();
    let (director, services) = start(&lab, 1..=4, |builder| builder.record(record));
    let clients = crowd(&services).start(&lab);
    let (lab, random) = (&lab, Random(seed()));
    let mut pool = Pool { lab, director: &director, services, random };
    step("connected", &mut pool, &clients, |_, _| ());
    harmless_steps(&mut pool, &clients);
    clients.grow(LATER);
    step("more connections, to all", &mut pool, &clients, |_, _| ());
    step("b6 removed", &mut pool, &clients, |pool, service| pool.remove(service, 6));
    step("b6 added again", &mut pool, &clients, |pool, service| pool.add(service, 6, 2));
    step("b7 disabled", &mut pool, &clients, |pool, service| {
        pool.set_admin(service, 7, Some(AdminState::Disabled));
    });
    step("b7 enabled", &mut pool, &clients, |pool, service| pool.set_admin(service, 7, None));

    let (changing, before) = (Instant::now(), clients.messages());
    let mut kinds = BTreeMap::<_, usize>::new();
    for _ in 0..changes {
        let until = clients.messages() + MESSAGES_A_CHANGE;
        *kinds.entry(pool.change_at_random()).or_default() += 1;
        clients.wait_for(until, Duration::from_secs(15));
        check(&clients);
    }
    let (took, messages) = (changing.elapsed(), clients.messages() - before);
    println!("{changes} random changes in {took:.1?}, beside {messages} messages: {kinds:?}");
    step("after them", &mut pool, &clients, |_, _| ());
    drop(pool);
    let Tally { opened, short, messages, cut, survivors, wrong } = clients.stop();
    println!(
        "{opened} connections, {short} of them short, {messages} messages, {:.1?}: {survivors} of the first {FIRST} \
         lived through all, {cut} were broken as their backend was cut, {} without a reason",
        begun.elapsed(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The first went to b1 to b4, which are never cut; and what is broken would have been noticed.
    assert_eq!(survivors, FIRST as u64);
    assert!(cut > 0 && short > 0, "{cut} cut, {short} short");
    let counts = director.shutdown().counts;
    assert_eq!(counts.io.received, counts.verdicts(), "{counts:?}");
}
