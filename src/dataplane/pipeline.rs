//! One packet's journey, top to bottom: whose frame is it, what is in it, who takes it, off it goes.

use super::answer::{Replies, answer};
use super::counters::WorkerCounters;
use super::io::{Action, Frame, MAX_BATCH, Port};
use super::snapshot::Snapshot;
use crate::balancer::{Assignment, Balancer};
use crate::flow::{PacketInfo, Timestamp};
use crate::packet::neighbor_discovery::MAX_ANSWER;
use crate::packet::{self, Parse, rewrite_mac};
use crate::verdict::{AnswerKind, DropReason, Verdict};
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Turns received frames into verdicts. Pure: no I/O, no clock, no allocation.
///
/// A batch goes through in three stages (read, assign, deliver), so that the balancer sees all its
/// packets at once and can overlap their cache misses. [`Pipeline::process_one`] does the same
/// for a single frame and is the specification of it.
#[derive(Debug)]
pub struct Pipeline<B> {
    balancer: B,
    counters: Arc<WorkerCounters>,
    verdicts: ArrayVec<Verdict, MAX_BATCH>,
    replies: Replies,
}

impl<B: Balancer> Pipeline<B> {
    /// A pipeline with this balancer, counting here. No other pipeline may count in the same place.
    pub fn new(balancer: B, counters: Arc<WorkerCounters>) -> Self {
        Self { balancer, counters, verdicts: ArrayVec::new(), replies: ArrayVec::new() }
    }

    /// Decides a batch of at most [`MAX_BATCH`] frames, rewrites those that go somewhere, marks them
    /// to be transmitted and returns the verdicts, one a frame. Frames beyond that many are left
    /// alone, without a verdict: no driver lends more.
    pub fn process(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frames: &mut [Frame<'_>],
    ) -> &[Verdict] {
        let mut reads: ArrayVec<Read, MAX_BATCH> = ArrayVec::new();
        let mut packets: ArrayVec<PacketInfo, MAX_BATCH> = ArrayVec::new();
        for frame in frames.iter_mut().take(MAX_BATCH) {
            let read = read(snapshot, frame, &mut self.replies);
            if let Read::Assign(packet) = read {
                packets.push(packet);
            }
            reads.push(read);
        }

        let mut assigned = [Assignment::NotVip; MAX_BATCH];
        let assigned = &mut assigned[..packets.len()];
        self.balancer.assign_batch(&snapshot.services, &packets, now, assigned);

        self.verdicts.clear();
        let mut assigned = assigned.iter();
        for (read, frame) in reads.iter().zip(frames) {
            let verdict = match read {
                Read::Decided(verdict) => *verdict,
                Read::Assign(_) => assigned
                    .next()
                    .map_or(Verdict::Pass, |assignment| deliver(snapshot, frame, *assignment)),
            };
            self.count(frame, verdict);
            self.verdicts.push(verdict);
        }
        &self.verdicts
    }

    /// Decides one frame.
    pub fn process_one(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &mut Frame<'_>,
    ) -> Verdict {
        let verdict = match read(snapshot, frame, &mut self.replies) {
            Read::Decided(verdict) => verdict,
            Read::Assign(packet) => {
                let assignment = self.balancer.assign(&snapshot.services, &packet, now);
                deliver(snapshot, frame, assignment)
            }
        };
        self.count(frame, verdict);
        verdict
    }

    /// Takes the frames of our own that were called for since the last time: answers that did not
    /// fit into the frame of the question. They are to be sent as they are.
    pub fn take_replies(&mut self) -> impl Iterator<Item = ArrayVec<u8, MAX_ANSWER>> {
        std::mem::take(&mut self.replies).into_iter()
    }

    #[inline]
    fn count(&self, frame: &Frame<'_>, verdict: Verdict) {
        self.counters.record(verdict, frame.bytes().len());
    }
}

impl<B> Pipeline<B> {
    /// What has been counted.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }
}

/// What reading a frame came to.
enum Read {
    Decided(Verdict),
    Assign(PacketInfo),
}

/// Whose frame is it, and what is in it?
#[inline]
fn read(snapshot: &Snapshot, frame: &mut Frame<'_>, replies: &mut Replies) -> Read {
    let Some(&addresses) = frame.bytes().first_chunk::<12>() else {
        return Read::Decided(Verdict::Drop(DropReason::EthernetTruncated));
    };
    let (to, from) = addresses.split_at(6);
    if from == snapshot.station.0 {
        return Read::Decided(Verdict::Drop(DropReason::Looped));
    }
    // A bridge floods frames to stations it does not know yet, so XDP sees those of others:
    // forwarding them would send every packet twice.
    let is_ours = to == snapshot.station.0;
    let is_question = snapshot.answers && is_multicast(to);
    if !is_ours && !is_question {
        return Read::Decided(Verdict::Pass);
    }
    let parsed = packet::parse(frame.bytes());
    if answer(snapshot, frame, &parsed, replies) {
        return Read::Decided(Verdict::Answer(AnswerKind::Neighbour));
    }
    match parsed {
        Parse::Malformed(reason) => Read::Decided(Verdict::Drop(reason)),
        Parse::Ip(parsed) if is_ours => Read::Assign(parsed.info),
        Parse::Ip(_) | Parse::NotIp { .. } => Read::Decided(Verdict::Pass),
    }
}

#[inline]
fn is_multicast(address: &[u8]) -> bool {
    address.first().is_some_and(|first| first & 1 != 0)
}

/// Sends the packet to whom it was assigned.
#[inline]
fn deliver(snapshot: &Snapshot, frame: &mut Frame<'_>, assignment: Assignment) -> Verdict {
    let index = match assignment {
        Assignment::Backend(index) => index,
        Assignment::NotVip => return Verdict::Pass,
        Assignment::Drop(reason) => return Verdict::Drop(reason),
    };
    match snapshot.next_hop(index) {
        Some(hop) if rewrite_mac(frame.bytes_mut(), hop.destination, hop.source) => {
            frame.set_action(Action::Transmit(Port::INGRESS));
            Verdict::Forward(index)
        }
        _ => Verdict::Drop(DropReason::NextHopUnresolved),
    }
}
