//! What the golden table cannot show: snapshots that changed in between, and the counters.

mod support;

use dsrlb::balancer::{Assignment, Balancer, ServiceTable};
use dsrlb::dataplane::{Counts, Frame, Pipeline, Snapshot, WorkerCounters};
use dsrlb::flow::{PacketInfo, Timestamp};
use dsrlb::verdict::{BackendIndex, DropReason, Verdict};
use std::sync::Arc;
use support::frames::{CLIENT_MAC, DIRECTOR_MAC, Protocol, ipv4, ipv6};
use support::pool;

fn tcp() -> Vec<u8> {
    ipv4([192, 0, 2, 7], [10, 0, 0, 100], Protocol::Tcp(40_000, 80), b"")
}

fn decide<B: Balancer>(
    pipeline: &mut Pipeline<B>,
    snapshot: &Snapshot,
    mut bytes: Vec<u8>,
) -> Verdict {
    pipeline.process(snapshot, Timestamp(0), &mut [Frame::new(&mut bytes)])[0]
}

/// Answers with an index it kept, as a flow table could.
#[derive(Debug)]
struct Kept(BackendIndex);

impl Balancer for Kept {
    fn assign(&mut self, _: &ServiceTable, _: &PacketInfo, _: Timestamp) -> Assignment {
        Assignment::Backend(self.0)
    }
}

#[test]
fn an_index_of_another_generation_reaches_nobody() {
    let plan = pool::plan();
    let index = plan.members[0].index;
    for (kept, expected) in [
        (index, Verdict::Forward(index)),
        (
            BackendIndex::new(index.slot(), index.generation() + 1),
            Verdict::Drop(DropReason::NextHopUnresolved),
        ),
        (BackendIndex::new(1_000_000, 0), Verdict::Drop(DropReason::NextHopUnresolved)),
    ] {
        let mut pipeline = Pipeline::new(Kept(kept), Arc::new(WorkerCounters::new(4)));
        assert_eq!(decide(&mut pipeline, &plan.snapshot, tcp()), expected);
    }
}

#[test]
fn our_own_frame_has_looped_whomever_it_is_for() {
    let plan = pool::plan();
    for to in [DIRECTOR_MAC, CLIENT_MAC, [0xff; 6]] {
        let mut frame = tcp();
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&DIRECTOR_MAC);
        let verdict = decide(&mut pool::pipeline(), &plan.snapshot, frame);
        assert_eq!(verdict, Verdict::Drop(DropReason::Looped));
    }
}

/// RFC 1122 section 3.3.6: what was a broadcast of the link layer is not forwarded.
#[test]
fn a_packet_to_a_group_is_not_forwarded_even_where_solicitations_are_answered() {
    let mut snapshot = pool::plan().snapshot;
    let mut to = [0; 16];
    (to[0], to[14], to[15]) = (0xfd, 1, 1);
    let echo = ipv6([0x20; 16], to, Protocol::Echo6, b"");
    let other = ipv6([0x20; 16], to, Protocol::Other(50), &[9; 16]);
    for answers in [false, true] {
        snapshot.answers = answers;
        for frame in [tcp(), echo.clone(), other.clone()] {
            let direct = decide(&mut pool::pipeline(), &snapshot, frame.clone());
            let taken = matches!(direct, Verdict::Forward(_) | Verdict::Answer(_));
            assert!(taken, "{direct:?}");
            for group in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
                let mut frame = frame.clone();
                frame[..6].copy_from_slice(&group);
                assert_eq!(decide(&mut pool::pipeline(), &snapshot, frame), Verdict::Pass);
            }
        }
    }
}

#[test]
fn packets_and_bytes_are_counted_for_the_backend_and_in_sum() {
    let plan = pool::plan();
    let counters = [(); 2].map(|()| Arc::new(WorkerCounters::new(64)));
    let mut sum = Counts::default();
    for counters in &counters {
        let mut pipeline = Pipeline::new(dsrlb::balancer::HashBalancer, Arc::clone(counters));
        let Verdict::Forward(index) = decide(&mut pipeline, &plan.snapshot, tcp()) else {
            panic!()
        };
        assert_eq!(decide(&mut pipeline, &plan.snapshot, tcp()), Verdict::Forward(index));
        decide(&mut pipeline, &plan.snapshot, vec![0; 3]);
        let mut other = tcp();
        other[0] ^= 4;
        decide(&mut pipeline, &plan.snapshot, other);
        assert_eq!(counters.backend(index), (2, 2 * 54));
        let backends = plan.members.iter().map(|member| counters.backend(member.index).0);
        assert_eq!(backends.sum::<u64>(), 2);
        counters.add_to(&mut sum);
    }
    assert_eq!((sum.forwarded, sum.forwarded_bytes, sum.passed), (4, 4 * 54, 2));
    assert_eq!(sum.drops().collect::<Vec<_>>(), [(DropReason::EthernetTruncated, 2)]);
    assert_eq!(sum.verdicts(), 8);
}
