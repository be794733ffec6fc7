//! The last stage: a frame's lot is carried out and counted.

use super::answer::answer_echo;
use super::counters::WorkerCounters;
use super::delivery::{Means, deliver};
use super::express::Packet;
use super::fragments::{Decision, Fate, FragmentKey, FragmentTracker};
use super::io::{Action, Frame, MAX_BATCH, Port};
use super::next_hops::Ways;
use super::outbox::Outbox;
use super::pipeline::PipelineOptions;
use super::probe::is_answer;
use super::reading::{Batch, Read};
use super::snapshot::Snapshot;
use crate::balancer::Assignment;
use crate::flow::{Fragment, HashKey, PacketInfo, PacketKind, Timestamp};
use crate::packet::icmp::{TokenBucket, claims_too_little};
use crate::packet::{self, Parse, Parsed, parse_into};
use crate::verdict::{DropReason, Verdict};
use std::ops::RangeTo;
use std::sync::Arc;

/// What it takes to carry out what was decided, and what was.
#[derive(Debug)]
pub(super) struct Settler {
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) means: Means,
    fragments: FragmentTracker,
    /// Whether later fragments follow the first one also where addresses decide.
    remembers_flows: bool,
    /// Those of the last batch.
    pub(super) verdicts: [Verdict; MAX_BATCH],
}

impl Settler {
    pub(super) fn new(
        counters: Arc<WorkerCounters>,
        remembers_flows: bool,
        options: &PipelineOptions,
    ) -> Self {
        let [a, b, c, d, ..] = options.secret;
        let secret = [a, b, c, d];
        Self {
            counters,
            means: Means {
                outbox: Outbox::new(),
                errors: TokenBucket::new(options.errors_per_second, options.errors_at_once),
                // Not from zero in every worker: two must not soon use the same.
                identification: u32::from_ne_bytes(secret),
            },
            fragments: FragmentTracker::new(options.fragments, HashKey::new(options.secret)),
            remembers_flows,
            verdicts: [Verdict::Pass; MAX_BATCH],
        }
    }

    /// A whole batch, in which the balancer has assigned these packets.
    pub(super) fn settle_batch(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frames: &mut [Frame<'_>],
        batch: &Batch,
        assigned: &[Assignment],
    ) {
        let backends = || assigned.iter().filter_map(|assignment| assignment.backend());
        if snapshot.next_hops.fetch(backends()) {
            let sent = self.counters.sent();
            backends().for_each(|index| sent.fetch(index));
        }
        let settle = match snapshot.next_hops.ways() {
            Ways::Links => Self::settle_by::<true, false>,
            Ways::Tunnels => Self::settle_by::<false, true>,
            Ways::Both => Self::settle_by::<true, true>,
        };
        settle(self, snapshot, now, frames, batch, assigned);
    }

    /// The same where nearly all packets go by these ways. Apart, so that it has all registers for itself, as has the first stage.
    #[inline(never)]
    fn settle_by<const LINKS: bool, const TUNNELS: bool>(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        mut frames: &mut [Frame<'_>],
        batch: &Batch,
        mut assigned: &[Assignment],
    ) {
        let mut counted = (0, 0);
        // Out of `self` meanwhile, so that nothing that is called can be thought to change them.
        let mut verdicts = [Verdict::Pass; MAX_BATCH];
        let mut unsaid = verdicts.as_mut_slice();
        let (mut lengths, mut next) = (batch.lengths(), 0);
        // Runs of common frames, each with what comes behind it; nothing behind the last one.
        let reads = batch.reads.iter().map(|(place, read)| (*place, Some(*read)));
        for (place, read) in reads.chain([(frames.len(), None)]) {
            let run = ..place.saturating_sub(next);
            next = place + 1;
            let (Some(common), Some(said)) = (frames.split_off_mut(run), unsaid.split_off_mut(run))
            else {
                break;
            };
            let assignments = take(&mut assigned, run).iter().zip(take(&mut lengths, run));
            let mut rest = common.iter_mut().zip(said).zip(assignments);
            loop {
                let (sent, means) = (self.counters.sent(), &mut self.means);
                let Some((frame, verdict, assignment)) =
                    rest.by_ref().find_map(|((frame, verdict), (assignment, length))| {
                        if let Assignment::Backend(index) = *assignment {
                            let mut packet = Packet { frame: &mut *frame, length: *length, index };
                            if let Some(received) = packet.send::<LINKS, TUNNELS>(snapshot, means) {
                                sent.record(index, received);
                                counted = (counted.0 + 1, counted.1 + received);
                                *verdict = Verdict::Forward(index);
                                return None;
                            }
                        }
                        Some((frame, verdict, assignment))
                    })
                else {
                    break;
                };
                *verdict = self.settle_unread(snapshot, now, frame, Read::Assign, Some(assignment));
            }
            if let Some(read) = read
                && let (Some(frame), Some(verdict)) =
                    (frames.split_off_first_mut(), unsaid.split_off_first_mut())
            {
                let assignment = match read {
                    Read::Assign => lengths.split_off_first().and(assigned.split_off_first()),
                    Read::Decided(_) | Read::Settled(_) => None,
                };
                *verdict = self.settle_unread(snapshot, now, frame, read, assignment);
            }
        }
        let (packets, bytes) = counted;
        self.counters.record_forwarded(packets, bytes);
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
    pub(super) fn settle(
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
    pub(super) fn fate(
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
    pub(super) fn expire(&mut self, now: Timestamp) {
        let counters = &self.counters;
        self.fragments.expire(now, |length| {
            counters.release();
            counters.record(Verdict::Drop(DropReason::FragmentTimeout), length);
        });
    }
}

/// Takes so many off the front.
#[inline]
fn take<'a, T>(rest: &mut &'a [T], range: RangeTo<usize>) -> &'a [T] {
    rest.split_off(range).unwrap_or_default()
}

/// The lot of a packet by itself: what is to be done with it, or its verdict.
#[inline]
pub(super) fn lot(read: Read, assignment: Option<&Assignment>) -> Result<Decision, Verdict> {
    match (read, assignment) {
        (Read::Decided(verdict), _) => Err(verdict),
        (Read::Settled(decision), _) => Ok(decision),
        (Read::Assign, Some(assignment)) => decision(*assignment).ok_or(Verdict::Pass),
        (Read::Assign, None) => Err(Verdict::Pass),
    }
}

/// What is to be done with a fragment whose lot by itself would be `own`, or its verdict.
pub(super) fn shared(fate: Fate, own: Decision) -> Result<Decision, Verdict> {
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

/// Does with a packet what was decided.
#[inline]
pub(super) fn carry_out(
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
