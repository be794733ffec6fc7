//! One packet's journey, top to bottom: whose frame is it, what is in it, who takes it, off it goes.

use super::answer::answer_echo;
use super::counters::WorkerCounters;
use super::delivery::{Means, deliver};
use super::explanation::{Explanation, FragmentTrace};
use super::express;
use super::fragments::{Decision, Fate, FragmentKey, FragmentLimits, FragmentTracker};
use super::io::{Action, Frame, HEADROOM, MAX_BATCH, Port};
use super::minimal::{MixedFamilies, frame_of};
use super::outbox::Outbox;
use super::probe::is_answer;
use super::reading::{Batch, Read, next, read};
use super::snapshot::Snapshot;
use crate::balancer::{Assignment, Balancer};
use crate::flow::{FiveTuple, Fragment, HashKey, PacketInfo, PacketKind, Timestamp};
use crate::packet::icmp::{TokenBucket, claims_too_little};
use crate::packet::{self, Parse, Parsed, parse_into};
use crate::verdict::{DropReason, Verdict};
use std::fmt;
use std::sync::Arc;

/// How much a worker remembers, and how often it speaks for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PipelineOptions {
    /// What is remembered of fragmented datagrams.
    pub fragments: FragmentLimits,
    /// The most ICMP errors a second in the long run (RFC 4443 section 2.4 (f)).
    pub errors_per_second: u32,
    /// The most ICMP errors at once after a quiet time.
    pub errors_at_once: u32,
    /// Keys what is remembered, so that nobody can aim at it. Any secret value will do.
    pub secret: [u8; 16],
}

impl fmt::Debug for PipelineOptions {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineOptions")
            .field("fragments", &self.fragments)
            .field("errors_per_second", &self.errors_per_second)
            .field("errors_at_once", &self.errors_at_once)
            .finish_non_exhaustive()
    }
}

impl Default for PipelineOptions {
    /// The usual limits, a thousand errors a second, a hundred at once, and a secret that is none.
    fn default() -> Self {
        Self {
            fragments: FragmentLimits::default(),
            errors_per_second: 1000,
            errors_at_once: 100,
            secret: [0; 16],
        }
    }
}

/// Turns received frames into verdicts. Pure: no I/O, no clock, no allocation.
///
/// A batch goes through in three stages (read, assign, settle), so that the balancer sees all its
/// packets at once and can overlap their cache misses. [`Pipeline::process_one`] does the same
/// for a single frame and is the specification of it.
#[derive(Debug)]
pub struct Pipeline<B> {
    balancer: B,
    counters: Arc<WorkerCounters>,
    fragments: FragmentTracker,
    /// Whether later fragments follow the first one also where addresses decide.
    remembers_flows: bool,
    means: Means,
    verdicts: [Verdict; MAX_BATCH],
}

impl<B: Balancer> Pipeline<B> {
    /// A pipeline with this balancer, counting here. No other pipeline may count in the same place.
    pub fn new(balancer: B, counters: Arc<WorkerCounters>) -> Self {
        Self::with_options(balancer, counters, &PipelineOptions::default())
    }

    /// The same, with other limits than the usual ones.
    pub fn with_options(
        balancer: B,
        counters: Arc<WorkerCounters>,
        options: &PipelineOptions,
    ) -> Self {
        let [a, b, c, d, ..] = options.secret;
        let secret = [a, b, c, d];
        Self {
            remembers_flows: balancer.remembers_flows(),
            balancer,
            counters,
            fragments: FragmentTracker::new(options.fragments, HashKey::new(options.secret)),
            means: Means {
                outbox: Outbox::new(),
                errors: TokenBucket::new(options.errors_per_second, options.errors_at_once),
                // Not from zero in every worker: two must not soon use the same.
                identification: u32::from_ne_bytes(secret),
            },
            verdicts: [Verdict::Pass; MAX_BATCH],
        }
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
        self.expire(now);
        let count = frames.len().min(MAX_BATCH);
        let frames = frames.get_mut(..count).unwrap_or_default();
        let mut batch = Batch::new();
        batch.read(snapshot, frames, &mut self.means.outbox);

        let mut assigned = [Assignment::NotVip; MAX_BATCH];
        let assigned = &mut assigned[..batch.packets.len()];
        self.balancer.assign_batch(&snapshot.services, &batch.packets, now, assigned);
        self.balancer.tend(&snapshot.services, now, false);

        self.settle_batch(snapshot, now, frames, &batch, assigned);
        self.verdicts.get(..count).unwrap_or_default()
    }

    /// Decides one frame.
    pub fn process_one(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &mut Frame<'_>,
    ) -> Verdict {
        self.expire(now);
        let mut parsed = Parsed::EMPTY;
        let read = read(snapshot, frame, &mut parsed, &mut self.means.outbox);
        let assignment = match read {
            Read::Assign => Some(self.balancer.assign(&snapshot.services, &parsed.info, now)),
            _ => None,
        };
        self.balancer.tend(&snapshot.services, now, false);
        self.settle(snapshot, now, frame, &parsed, lot(read, assignment.as_ref()))
    }
}

impl<B: Balancer> Pipeline<B> {
    /// What [`Pipeline::process_one`] would do with a frame, and why: by the same code, on a copy, while
    /// nothing is remembered, renewed, counted or sent. To be asked between batches, when all that they
    /// called for has been [drained](Pipeline::drain).
    ///
    /// The frame is taken to have as much room around it as drivers leave.
    pub fn explain(&self, snapshot: &Snapshot, now: Timestamp, frame: &[u8]) -> Explanation {
        let mut means = self.means.scratch();
        let mut memory = [&[0; HEADROOM], frame].concat();
        let end = memory.len();
        let mut copy = Frame::in_memory(&mut memory, HEADROOM..end);
        let mut explanation = Explanation::of(snapshot, frame);
        let mut parsed = Parsed::EMPTY;
        let read = read(snapshot, &mut copy, &mut parsed, &mut means.outbox);
        let (parsed, info) = (&parsed, &parsed.info);
        if let Read::Assign | Read::Settled(_) = read {
            explanation.packet = Some(*info);
        }
        let mut assignment = None;
        if let Read::Assign = read {
            explanation.selection = snapshot.services.selection(info);
            explanation.placement = self.balancer.explain(&snapshot.services, info, now);
            let Some(placement) = explanation.placement else {
                return explanation;
            };
            assignment = Some(placement.assignment);
        }
        let verdict = match lot(read, assignment.as_ref()) {
            Ok(decision) => {
                let fate = self.fate(snapshot, now, frame, parsed);
                explanation.fragment = fate.map(FragmentTrace::from);
                match fate.map_or(Ok(decision), |fate| shared(fate, decision)) {
                    Ok(decision) => {
                        if let Decision::Backend(index) = decision {
                            explanation.next_hop = snapshot.next_hop(index).copied();
                        }
                        carry_out(snapshot, now, &mut means, &mut copy, parsed, decision)
                    }
                    Err(verdict) => verdict,
                }
            }
            Err(verdict) => verdict,
        };
        explanation.verdict = Some(match verdict {
            Verdict::Pass if is_answer(snapshot, frame) => Verdict::Probe,
            verdict => verdict,
        });
        explanation.frames = means.outbox.len() + usize::from(copy.action() != Action::Release);
        explanation
    }

    /// The same for the next packet of a flow that is on its way: without data, the shortest that its
    /// protocol allows; a segment with ACK alone for TCP, an echo request for ICMP.
    ///
    /// # Errors
    ///
    /// If the flow's addresses are of two families.
    pub fn explain_flow(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
        flow: &FiveTuple,
    ) -> Result<Explanation, MixedFamilies> {
        Ok(self.explain(snapshot, now, &frame_of(flow, snapshot.station)?))
    }

    /// To be called when no frames have come for a while: gives up on fragments that wait in vain, and
    /// has the balancer put in order what it remembers.
    pub fn idle(&mut self, snapshot: &Snapshot, now: Timestamp) {
        self.expire(now);
        self.balancer.tend(&snapshot.services, now, true);
    }
}

impl<B> Pipeline<B> {
    /// The last stage of a batch. Apart, so that it has all registers for itself, as has the first one.
    #[inline(never)]
    fn settle_batch(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frames: &mut [Frame<'_>],
        batch: &Batch,
        assigned: &[Assignment],
    ) {
        let mut verdicts = [Verdict::Pass; MAX_BATCH];
        let (mut reads, mut assigned) = (batch.reads.iter(), assigned.iter());
        let mut common = batch.common;
        let (mut sent, mut sent_bytes) = (0, 0);
        for (frame, verdict) in frames.iter_mut().zip(&mut verdicts) {
            let is_common = common & 1 != 0;
            common >>= 1;
            let read = if is_common { Read::Assign } else { next(&mut reads) };
            let assignment = match read {
                Read::Assign => assigned.next(),
                Read::Decided(_) | Read::Settled(_) => None,
            };
            if let Some(Assignment::Backend(index)) = assignment
                && is_common
                && let Some(length) = express::forward(snapshot, &mut self.means, frame, *index)
            {
                self.counters.record_sent(*index, length);
                sent += 1;
                sent_bytes += length;
                *verdict = Verdict::Forward(*index);
            } else {
                *verdict = self.settle_unread(snapshot, now, frame, read, assignment);
            }
        }
        self.counters.record_forwarded(sent, sent_bytes);
        self.verdicts = verdicts;
    }

    /// Carries out what was found and decided for a frame of which no more is at hand, and counts it.
    #[inline(never)]
    fn settle_unread(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &mut Frame<'_>,
        read: Read,
        assignment: Option<&Assignment>,
    ) -> Verdict {
        let lot = lot(read, assignment);
        let mut parsed = Parsed::EMPTY;
        if lot.is_ok() {
            parse_into(frame.bytes(), &mut parsed);
        }
        self.settle(snapshot, now, frame, &parsed, lot)
    }

    /// Carries out what was found and decided, and counts it.
    fn settle(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &mut Frame<'_>,
        parsed: &Parsed,
        lot: Result<Decision, Verdict>,
    ) -> Verdict {
        let length = frame.bytes().len();
        let verdict = match lot {
            Ok(decision) => {
                if parsed.info.kind == PacketKind::IcmpError {
                    self.doubt(frame.bytes(), parsed);
                }
                self.follow(snapshot, now, frame, parsed, decision)
            }
            Err(verdict) => verdict,
        };
        let verdict = match verdict {
            Verdict::Pass => self.hand_over(snapshot, frame),
            verdict => verdict,
        };
        self.counters.record(verdict, length);
        verdict
    }

    /// Keeps a copy of what a VIP answered to a probe of ours, for who sent that.
    fn hand_over(&mut self, snapshot: &Snapshot, frame: &Frame<'_>) -> Verdict {
        if !is_answer(snapshot, frame.bytes()) {
            return Verdict::Pass;
        }
        // If there is no room, it is lost as on a busy link, and asked for again.
        self.means.outbox.push_copy(Port::PROBER, frame.bytes());
        Verdict::Probe
    }

    /// Counts an ICMP error whose MTU cannot be; it is carried all the same.
    fn doubt(&self, frame: &[u8], parsed: &Parsed) {
        let message = parsed.packet(frame).get(parsed.header_length()..).unwrap_or_default();
        if claims_too_little(message, parsed.is_ipv6()) {
            self.counters.record_doubtful_mtu();
        }
    }

    /// Has later fragments share the lot of the first one of their datagram.
    #[inline]
    fn follow(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &mut Frame<'_>,
        parsed: &Parsed,
        decision: Decision,
    ) -> Verdict {
        let Some(fate) = self.fate(snapshot, now, frame.bytes(), parsed) else {
            return carry_out(snapshot, now, &mut self.means, frame, parsed, decision);
        };
        let key = FragmentKey::of(&parsed.info);
        let verdict = match shared(fate, decision) {
            Ok(decision) => carry_out(snapshot, now, &mut self.means, frame, parsed, decision),
            Err(verdict) => verdict,
        };
        match fate {
            Fate::Leads => {
                self.fragments.first(&key, decision, &parsed.info.flow, now);
                self.release(snapshot, now, &key, decision);
            }
            Fate::Waits if !self.fragments.hold(&key, frame.bytes(), now) => {
                return Verdict::Drop(DropReason::FragmentsFull);
            }
            Fate::Waits | Fate::Follows(_) | Fate::Full | Fate::Conflicts => {}
        }
        verdict
    }

    /// What becomes of a fragment, as far as that depends on others of its datagram; none if it
    /// does not.
    #[inline]
    fn fate(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &[u8],
        parsed: &Parsed,
    ) -> Option<Fate> {
        let info = &parsed.info;
        let is_fragment = parsed.fragment != Fragment::Whole && info.kind != PacketKind::IcmpError;
        if !is_fragment || !self.fragments.is_enabled() || !self.follows(snapshot, info) {
            return None;
        }
        Some(self.fragments.fate(&FragmentKey::of(info), info, frame.len(), now))
    }

    /// Whether a datagram's fragments have to share the lot of the first one.
    #[inline]
    fn follows(&self, snapshot: &Snapshot, info: &PacketInfo) -> bool {
        self.remembers_flows && info.flow.protocol.has_ports()
            || snapshot.services.follows_fragments(info)
    }

    /// Lets go of the fragments that were waiting for this first one.
    fn release(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        key: &FragmentKey,
        decision: Decision,
    ) {
        let Self { fragments, means, counters, .. } = self;
        fragments.release(key, |mut frame| {
            let length = frame.bytes().len();
            let verdict = match packet::parse(frame.bytes()) {
                Parse::Ip(parsed) => carry_out(snapshot, now, means, &mut frame, &parsed, decision),
                // It was parsed before it was kept.
                Parse::NotIp { .. } | Parse::Malformed(_) => Verdict::Pass,
            };
            let verdict = match frame.action() {
                Action::Transmit(port) if !means.outbox.push_copy(port, frame.bytes()) => {
                    Verdict::Drop(DropReason::NoRoom)
                }
                _ => verdict,
            };
            counters.release();
            counters.record(verdict, length);
        });
    }

    /// Gives up on fragments that have waited too long for the first of their datagram. Part of
    /// every batch.
    #[inline]
    fn expire(&mut self, now: Timestamp) {
        let counters = &self.counters;
        self.fragments.expire(now, |length| {
            counters.release();
            counters.record(Verdict::Drop(DropReason::FragmentTimeout), length);
        });
    }

    /// Gives each frame of our own that was called for to `each`, with the port it is to be sent by,
    /// in order: answers that did not fit into the frame of the question, pieces of packets, and
    /// fragments that have waited. To be done after each batch.
    ///
    /// # Errors
    ///
    /// The first of `each`; the frames behind it are lost.
    pub fn drain<E>(&mut self, each: impl FnMut(Port, &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.means.outbox.drain(each)
    }

    /// Its balancer.
    pub fn balancer(&self) -> &B {
        &self.balancer
    }

    /// What has been counted.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }
}

/// The lot of a packet by itself: what is to be done with it, or its verdict.
#[inline]
fn lot(read: Read, assignment: Option<&Assignment>) -> Result<Decision, Verdict> {
    match (read, assignment) {
        (Read::Decided(verdict), _) => Err(verdict),
        (Read::Settled(decision), _) => Ok(decision),
        (Read::Assign, Some(assignment)) => decision(*assignment).ok_or(Verdict::Pass),
        (Read::Assign, None) => Err(Verdict::Pass),
    }
}

/// What is to be done with a fragment whose lot by itself would be `own`, or its verdict.
fn shared(fate: Fate, own: Decision) -> Result<Decision, Verdict> {
    match fate {
        Fate::Leads => Ok(own),
        Fate::Follows(decision) => Ok(decision),
        Fate::Waits => Err(Verdict::Hold),
        Fate::Full => Err(Verdict::Drop(DropReason::FragmentsFull)),
        Fate::Conflicts => Err(Verdict::Drop(DropReason::FragmentConflict)),
    }
}

/// What the balancer decided, as something to remember; none if the packet is for no VIP.
#[inline]
fn decision(assignment: Assignment) -> Option<Decision> {
    match assignment {
        Assignment::Backend(index) => Some(Decision::Backend(index)),
        Assignment::Drop(reason) => Some(Decision::Drop(reason)),
        Assignment::NotVip => None,
    }
}

#[inline]
fn carry_out(
    snapshot: &Snapshot,
    now: Timestamp,
    means: &mut Means,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    decision: Decision,
) -> Verdict {
    match decision {
        Decision::Backend(index) => deliver(snapshot, now, means, frame, parsed, index),
        Decision::Answer => answer_echo(snapshot, frame, parsed),
        Decision::Drop(reason) => Verdict::Drop(reason),
    }
}
