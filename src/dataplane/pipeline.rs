//! One packet's journey, top to bottom: whose frame is it, what is in it, who takes it, off it goes.

use super::counters::WorkerCounters;
use super::explanation::{Explanation, FragmentTrace};
use super::fragments::{Decision, FragmentLimits};
use super::io::{Action, Frame, HEADROOM, MAX_BATCH, Port};
use super::minimal::{MixedFamilies, frame_of};
use super::probe::is_answer;
use super::reading::{Batch, Read, read};
use super::settling::{Settler, carry_out, lot, shared};
use super::snapshot::Snapshot;
use crate::balancer::{Assignment, Balancer};
use crate::flow::{FiveTuple, Timestamp};
use crate::packet::Parsed;
use crate::verdict::Verdict;
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
    settler: Settler,
    /// What the stages hand to each other.
    batch: Batch,
    assigned: [Assignment; MAX_BATCH],
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
        let settler = Settler::new(counters, balancer.remembers_flows(), options);
        let (batch, assigned) = (Batch::new(), [Assignment::NotVip; MAX_BATCH]);
        Self { balancer, settler, batch, assigned }
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
        self.settler.expire(now);
        let count = frames.len().min(MAX_BATCH);
        let frames = frames.get_mut(..count).unwrap_or_default();
        let Self { balancer, settler, batch, assigned } = self;
        batch.read(snapshot, frames, &mut settler.means.outbox);

        let assigned = assigned.get_mut(..batch.packets().len()).unwrap_or_default();
        balancer.assign_batch(&snapshot.services, batch.packets(), now, assigned);
        balancer.tend(&snapshot.services, now, false);

        settler.settle_batch(snapshot, now, frames, batch, assigned);
        settler.verdicts.get(..count).unwrap_or_default()
    }

    /// Decides one frame.
    pub fn process_one(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frame: &mut Frame<'_>,
    ) -> Verdict {
        self.settler.expire(now);
        let mut parsed = Parsed::EMPTY;
        let read = read(snapshot, frame, &mut parsed, &mut self.settler.means.outbox);
        let assignment = match read {
            Read::Assign => Some(self.balancer.assign(&snapshot.services, &parsed.info, now)),
            _ => None,
        };
        self.balancer.tend(&snapshot.services, now, false);
        self.settler.settle(snapshot, now, frame, &parsed, lot(read, assignment.as_ref()))
    }
}

impl<B: Balancer> Pipeline<B> {
    /// What [`Pipeline::process_one`] would do with a frame, and why: by the same code, on a copy, while
    /// nothing is remembered, renewed, counted or sent. To be asked between batches, when all that they
    /// called for has been [drained](Pipeline::drain).
    ///
    /// The frame is taken to have as much room around it as drivers leave.
    pub fn explain(&self, snapshot: &Snapshot, now: Timestamp, frame: &[u8]) -> Explanation {
        let mut means = self.settler.means.scratch();
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
                let fate = self.settler.fate(snapshot, now, frame, parsed);
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
        self.settler.expire(now);
        self.balancer.tend(&snapshot.services, now, true);
    }
}

impl<B> Pipeline<B> {
    /// Gives each frame of our own that was called for to `each`, with the port it is to be sent by,
    /// in order: answers that did not fit into the frame of the question, pieces of packets, and
    /// fragments that have waited. To be done after each batch.
    ///
    /// # Errors
    ///
    /// The first of `each`; the frames behind it are lost.
    pub fn drain<E>(&mut self, each: impl FnMut(Port, &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.settler.means.outbox.drain(each)
    }

    /// Its balancer.
    pub fn balancer(&self) -> &B {
        &self.balancer
    }

    /// What has been counted.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.settler.counters
    }
}
