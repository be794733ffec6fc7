//! One packet's journey, top to bottom: whose frame is it, what is in it, who takes it, off it goes.

use super::counters::WorkerCounters;
use super::io::{Action, Frame, MAX_BATCH};
use super::snapshot::Snapshot;
use crate::balancer::{Assignment, Balancer};
use crate::flow::{PacketInfo, Protocol, Timestamp};
use crate::packet::{self, EtherType, Parse, arp, neighbor_discovery, rewrite_mac};
use crate::verdict::{DropReason, Verdict};
use arrayvec::ArrayVec;
use std::net::{Ipv4Addr, Ipv6Addr};
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
}

impl<B: Balancer> Pipeline<B> {
    /// A pipeline with this balancer, counting here. No other pipeline may count in the same place.
    pub fn new(balancer: B, counters: Arc<WorkerCounters>) -> Self {
        Self { balancer, counters, verdicts: ArrayVec::new() }
    }

    /// What has been counted.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Decides a batch of at most [`MAX_BATCH`] frames, rewrites those that go somewhere, sets
    /// each one's action and returns the verdicts, one a frame. Frames beyond that many are
    /// released without a verdict: no driver lends more.
    pub fn process(
        &mut self,
        snapshot: &Snapshot,
        now: Timestamp,
        frames: &mut [Frame<'_>],
    ) -> &[Verdict] {
        let mut reads: ArrayVec<Read, MAX_BATCH> = ArrayVec::new();
        let mut packets: ArrayVec<PacketInfo, MAX_BATCH> = ArrayVec::new();
        for frame in frames.iter_mut().take(MAX_BATCH) {
            let read = read(snapshot, frame);
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
            self.finish(frame, verdict);
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
        let verdict = match read(snapshot, frame) {
            Read::Decided(verdict) => verdict,
            Read::Assign(packet) => {
                let assignment = self.balancer.assign(&snapshot.services, &packet, now);
                deliver(snapshot, frame, assignment)
            }
        };
        self.finish(frame, verdict);
        verdict
    }

    #[inline]
    fn finish(&self, frame: &mut Frame<'_>, verdict: Verdict) {
        frame.set_action(match verdict {
            Verdict::Forward(_) | Verdict::Answer => Action::Transmit,
            Verdict::Pass | Verdict::Drop(_) => Action::Release,
        });
        self.counters.record(verdict, frame.bytes().len());
    }
}

/// What reading a frame came to.
enum Read {
    Decided(Verdict),
    Assign(PacketInfo),
}

/// Whose frame is it, and what is in it?
#[inline]
fn read(snapshot: &Snapshot, frame: &mut Frame<'_>) -> Read {
    let Some(&addresses) = frame.bytes().first_chunk::<12>() else {
        return Read::Decided(Verdict::Drop(DropReason::EthernetTruncated));
    };
    let (to, from) = addresses.split_at(6);
    if from == snapshot.station.0 {
        return Read::Decided(Verdict::Drop(DropReason::Looped));
    }
    // A bridge floods frames to stations it does not know yet, so XDP sees those of others:
    // forwarding them would send every packet twice.
    if to != snapshot.station.0 && !(snapshot.answers && is_multicast(to)) {
        return Read::Decided(Verdict::Pass);
    }
    let is_ours = to == snapshot.station.0;
    let verdict = match packet::parse(frame.bytes()) {
        Parse::Malformed(reason) => Verdict::Drop(reason),
        Parse::NotIp { ether_type, payload } => answer_arp(snapshot, frame, ether_type, payload),
        Parse::Ip(parsed) if parsed.info.flow.protocol == Protocol::ICMPV6 => {
            match answer_solicitation(snapshot, frame, usize::from(parsed.network)) {
                Verdict::Pass if is_ours => return Read::Assign(parsed.info),
                verdict => verdict,
            }
        }
        Parse::Ip(parsed) if is_ours => return Read::Assign(parsed.info),
        Parse::Ip(_) => Verdict::Pass,
    };
    Read::Decided(verdict)
}

/// Answers an ARP request for a VIP, if that is ours to do.
fn answer_arp(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    ether_type: EtherType,
    payload: usize,
) -> Verdict {
    let is_vip = |address: Ipv4Addr| snapshot.services.is_vip(address.into());
    let answered = snapshot.answers
        && ether_type == EtherType::ARP
        && arp::requested_address(frame.bytes(), payload).is_some_and(is_vip)
        && arp::answer_in_place(frame.bytes_mut(), payload, snapshot.station);
    if answered { Verdict::Answer } else { Verdict::Pass }
}

/// Answers a neighbour solicitation for a VIP, if that is ours to do.
fn answer_solicitation(snapshot: &Snapshot, frame: &mut Frame<'_>, network: usize) -> Verdict {
    let is_vip = |address: Ipv6Addr| snapshot.services.is_vip(address.into());
    let answered = snapshot.answers
        && neighbor_discovery::solicited_target(frame.bytes(), network).is_some_and(is_vip)
        && neighbor_discovery::answer_in_place(frame.bytes_mut(), network, snapshot.station);
    if answered { Verdict::Answer } else { Verdict::Pass }
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
            Verdict::Forward(index)
        }
        _ => Verdict::Drop(DropReason::NextHopUnresolved),
    }
}
