use super::*;
use crate::flow::{Fragment, TcpFlags};
use proptest::prelude::*;
use std::collections::HashMap;

const MILLISECOND: u64 = 1_000_000;

fn limits(datagrams: usize, waiting: usize) -> FragmentLimits {
    FragmentLimits { datagrams, waiting, ..FragmentLimits::default() }
}

fn tracker(datagrams: usize, waiting: usize) -> FragmentTracker {
    FragmentTracker::new(limits(datagrams, waiting), HashKey::new([7; 16]))
}

fn flow(client: u8, port: u16, protocol: Protocol) -> FiveTuple {
    FiveTuple {
        source: [192, 0, 2, client].into(),
        destination: [10, 0, 0, 100].into(),
        source_port: port,
        destination_port: 80,
        protocol,
    }
}

fn key(client: u8, identification: u32) -> FragmentKey {
    let mut info =
        PacketInfo::new(flow(client, 0, Protocol::UDP), Fragment::Later, TcpFlags::default());
    info.identification = identification;
    FragmentKey::of(&info)
}

fn backend(slot: usize) -> Decision {
    Decision::Backend(BackendIndex::new(slot, 0))
}

/// Remembers a first fragment, as the pipeline does.
fn first(
    tracker: &mut FragmentTracker,
    key: &FragmentKey,
    decision: Decision,
    flow: &FiveTuple,
    now: Timestamp,
) -> Fate {
    let info = PacketInfo::new(*flow, Fragment::First, TcpFlags::default());
    let fate = tracker.fate(key, &info, 60, now);
    if fate == Fate::Leads {
        tracker.first(key, decision, flow, now);
    }
    fate
}

/// What a later fragment shares.
fn later(tracker: &FragmentTracker, key: &FragmentKey, now: Timestamp) -> Option<Decision> {
    let flow = flow(1, 0, Protocol::UDP);
    let info = PacketInfo::new(flow, Fragment::Later, TcpFlags::default());
    match tracker.fate(key, &info, 60, now) {
        Fate::Follows(decision) => Some(decision),
        Fate::Waits | Fate::Full => None,
        other => panic!("{other:?} of a later fragment"),
    }
}

fn released(tracker: &mut FragmentTracker, key: &FragmentKey) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    tracker.release(key, |mut frame| {
        assert!(frame.grow_front(HEADROOM_NEEDED), "a tunnel has room in front");
        frame.trim_front(HEADROOM_NEEDED);
        frames.push(frame.bytes().to_vec());
    });
    frames
}

const HEADROOM_NEEDED: usize = 80;

#[test]
fn later_fragments_follow_the_first_for_a_while() {
    let mut tracker = tracker(64, 4);
    let flow = flow(1, 4000, Protocol::UDP);
    assert_eq!(later(&tracker, &key(1, 5), Timestamp(0)), None);
    for decision in [backend(3), Decision::Answer, Decision::Drop(DropReason::NoBackend)] {
        let key = key(1, decision_number(decision));
        assert_eq!(first(&mut tracker, &key, decision, &flow, Timestamp(0)), Fate::Leads);
        assert_eq!(later(&tracker, &key, Timestamp(1999 * MILLISECOND)), Some(decision));
        assert_eq!(later(&tracker, &key, Timestamp(2000 * MILLISECOND)), None);
    }
}

fn decision_number(decision: Decision) -> u32 {
    match decision {
        Decision::Backend(_) => 1,
        Decision::Answer => 2,
        Decision::Drop(_) => 3,
    }
}

#[test]
fn datagrams_are_told_apart_by_all_that_identifies_them() {
    let mut tracker = tracker(64, 4);
    let udp = flow(1, 4000, Protocol::UDP);
    first(&mut tracker, &key(1, 5), backend(3), &udp, Timestamp(0));
    assert_eq!(later(&tracker, &key(2, 5), Timestamp(0)), None, "another client");
    assert_eq!(later(&tracker, &key(1, 6), Timestamp(0)), None, "another identification");
    assert_eq!(later(&tracker, &key(1, 5 << 16), Timestamp(0)), None, "the other half of it");
    let info = |flow| PacketInfo::new(flow, Fragment::Later, TcpFlags::default());
    let mut tcp = info(FiveTuple { protocol: Protocol::TCP, ..udp });
    tcp.identification = 5;
    assert_eq!(later(&tracker, &FragmentKey::of(&tcp), Timestamp(0)), None, "another protocol");
}

/// RFC 8200 section 4.5: the fragment header of later ones may name an extension header that is in
/// the first.
#[test]
fn the_protocol_is_no_part_of_what_identifies_ipv6_packets() {
    let info = |protocol| {
        let flow = FiveTuple {
            source: "2001:db8::7".parse().unwrap(),
            destination: "fd00::100".parse().unwrap(),
            ..flow(1, 0, protocol)
        };
        PacketInfo::new(flow, Fragment::Later, TcpFlags::default())
    };
    assert_eq!(FragmentKey::of(&info(Protocol::UDP)), FragmentKey::of(&info(Protocol(60))));
}

/// Whoever sends two first fragments cannot have the rest of the datagram go elsewhere.
#[test]
fn another_first_fragment_with_other_ports_is_a_conflict_until_the_first_is_forgotten() {
    let mut tracker = tracker(64, 4);
    let (one, other) = (flow(1, 4000, Protocol::UDP), flow(1, 4001, Protocol::UDP));
    let key = key(1, 5);
    assert_eq!(first(&mut tracker, &key, backend(3), &one, Timestamp(0)), Fate::Leads);
    assert_eq!(first(&mut tracker, &key, backend(4), &other, Timestamp(1)), Fate::Conflicts);
    assert_eq!(first(&mut tracker, &key, backend(4), &one, Timestamp(1)), Fate::Leads);
    assert_eq!(later(&tracker, &key, Timestamp(2)), Some(backend(3)));
    let end = Timestamp(2000 * MILLISECOND);
    assert_eq!(first(&mut tracker, &key, backend(4), &other, end), Fate::Leads);
    assert_eq!(later(&tracker, &key, end), Some(backend(4)));
}

#[test]
fn waiting_fragments_come_out_in_order_once_and_only_theirs() {
    let mut tracker = tracker(64, 4);
    for (number, client) in [1, 2, 1, 1].into_iter().enumerate() {
        assert!(tracker.hold(&key(client, 5), &[number as u8; 60], Timestamp(0)));
    }
    assert!(!tracker.hold(&key(3, 5), &[9; 60], Timestamp(0)), "no place left");
    assert_eq!(released(&mut tracker, &key(1, 5)), [[0; 60], [2; 60], [3; 60]]);
    assert!(released(&mut tracker, &key(1, 5)).is_empty());
    assert!(tracker.hold(&key(3, 5), &[9; 60], Timestamp(0)));
    assert_eq!(released(&mut tracker, &key(2, 5)), [[1; 60]]);
}

#[test]
fn waiting_has_an_end_and_limits() {
    let mut tracker = tracker(64, 16);
    let expired = |tracker: &mut FragmentTracker, now| {
        let mut lengths = Vec::new();
        tracker.expire(Timestamp(now), |length| lengths.push(length));
        lengths
    };
    assert!(tracker.hold(&key(1, 5), &[1; 60], Timestamp(0)));
    assert!(tracker.hold(&key(1, 6), &[1; 70], Timestamp(MILLISECOND)));
    assert!(expired(&mut tracker, 499 * MILLISECOND).is_empty());
    assert_eq!(expired(&mut tracker, 500 * MILLISECOND), [60]);
    assert_eq!(expired(&mut tracker, 600 * MILLISECOND), [70]);
    assert!(!tracker.hold(&key(1, 5), &[1; LONGEST_HELD + 1], Timestamp(0)));
    for number in 0..9 {
        let room = tracker.hold(&key(1, 5), &[1; LONGEST_HELD], Timestamp(0));
        assert_eq!(room, number < 8, "one datagram takes no more than its share");
    }
    assert!(tracker.hold(&key(2, 5), &[1; 60], Timestamp(0)));
}

const LONGEST_HELD: usize = 2048;

#[test]
fn a_flood_takes_no_more_memory_and_leaves_the_newest() {
    let mut tracker = tracker(64, 0);
    for number in 0..10_000 {
        let now = Timestamp(u64::from(number));
        let key = key(1, number);
        first(&mut tracker, &key, backend(1), &flow(1, 4000, Protocol::UDP), now);
        assert_eq!(later(&tracker, &key, now), Some(backend(1)));
    }
    let now = Timestamp(10_000);
    let left =
        (0..10_000).filter(|number| later(&tracker, &key(1, *number), now).is_some()).count();
    assert_eq!(left, 64);
    assert!(!tracker.hold(&key(1, 1), &[1; 60], now));
}

#[test]
fn without_room_for_datagrams_nothing_is_remembered() {
    let mut tracker = tracker(0, 0);
    assert!(!tracker.is_enabled());
    let flow = flow(1, 1, Protocol::UDP);
    assert_eq!(first(&mut tracker, &key(1, 1), backend(1), &flow, Timestamp(0)), Fate::Leads);
    assert_eq!(later(&tracker, &key(1, 1), Timestamp(0)), None);
}

#[derive(Clone, Debug)]
enum Step {
    First { id: u32, port: u16, slot: usize },
    Later { id: u32 },
    Hold { id: u32 },
    Release { id: u32 },
    Wait { milliseconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u32..12;
    prop_oneof![
        (id.clone(), 0u16..3, 0usize..3).prop_map(|(id, port, slot)| Step::First {
            id,
            port,
            slot
        }),
        id.clone().prop_map(|id| Step::Later { id }),
        id.clone().prop_map(|id| Step::Hold { id }),
        id.prop_map(|id| Step::Release { id }),
        (0u64..800).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

proptest! {
    /// Against a map without limits: what the tracker knows is what the map knows, though it may
    /// forget; and each frame that was taken comes out once, released or expired.
    #[test]
    fn never_answers_otherwise_than_a_map_and_loses_no_frame(
        steps in prop::collection::vec(step(), 0..200), capacity in 1usize..16,
    ) {
        let mut tracker = tracker(capacity, 6);
        let mut known: HashMap<u32, (Decision, u16, u64)> = HashMap::new();
        let (mut now, mut taken, mut out) = (0, 0, Vec::new());
        for step in steps {
            let time = Timestamp(now);
            known.retain(|_, (_, _, until)| *until > now);
            match step {
                Step::First { id, port, slot } => {
                    let (key, decision) = (key(1, id), backend(slot));
                    let forgotten = later(&tracker, &key, time).is_none();
                    let flow = flow(1, port, Protocol::UDP);
                    let expected = match known.get(&id) {
                        Some((_, before, _)) if !forgotten && *before != port => Fate::Conflicts,
                        _ => Fate::Leads,
                    };
                    prop_assert_eq!(first(&mut tracker, &key, decision, &flow, time), expected);
                    if forgotten {
                        known.insert(id, (decision, port, now + 2000 * MILLISECOND));
                    }
                }
                Step::Later { id } => {
                    if let Some(decision) = later(&tracker, &key(1, id), time) {
                        prop_assert_eq!(Some(decision), known.get(&id).map(|known| known.0));
                    }
                }
                Step::Hold { id } => {
                    let frame = (taken as u64).to_be_bytes();
                    taken += usize::from(tracker.hold(&key(1, id), &frame, time));
                }
                Step::Release { id } => out.extend(released(&mut tracker, &key(1, id))),
                Step::Wait { milliseconds } => {
                    now += milliseconds * MILLISECOND;
                    tracker.expire(Timestamp(now), |_| out.push(Vec::new()));
                }
            }
        }
        for id in 0..12 {
            out.extend(released(&mut tracker, &key(1, id)));
        }
        prop_assert_eq!(out.len(), taken);
        let mut contents: Vec<_> = out.iter().filter(|frame| !frame.is_empty()).collect();
        let all = contents.len();
        contents.sort();
        contents.dedup();
        prop_assert_eq!(contents.len(), all, "no frame comes out twice");
    }
}
