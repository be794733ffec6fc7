//! The first stage: whose frame is it, and what is in it?

use super::answer::answer;
use super::fragments::Decision;
use super::io::{Frame, MAX_BATCH};
use super::outbox::Outbox;
use super::snapshot::Snapshot;
use crate::balancer::Echo;
use crate::flow::{Brief, PacketInfo, PacketKind};
use crate::packet::{Content, LEAST, MacAddress, Parsed, glance, parse_into};
use crate::verdict::{AnswerKind, BackendIndex, DropReason, Verdict};
use arrayvec::ArrayVec;

/// What was found in the frames of a batch. Memory that is used again and again: to make one anew for each batch would be
/// to write all of it.
#[derive(Debug)]
pub(super) struct Batch {
    /// Those for the balancer, in order, and behind them those of earlier batches.
    packets: [Brief; MAX_BATCH],
    count: usize,
    /// Of each of these, how long the IP packet is, in bytes; known only where a glance told.
    lengths: [u16; MAX_BATCH],
    /// Of the frames that a glance did not tell enough of, which they are and what reading them came to, in order. All
    /// others are for the balancer.
    pub(super) reads: ArrayVec<(usize, Read), MAX_BATCH>,
}

impl Batch {
    /// An empty one.
    pub(super) const fn new() -> Self {
        let nothing = Brief::Other(Parsed::EMPTY.info);
        Self {
            packets: [nothing; MAX_BATCH],
            count: 0,
            lengths: [0; MAX_BATCH],
            reads: ArrayVec::new_const(),
        }
    }

    /// Those for the balancer, in order.
    #[inline]
    pub(super) fn packets(&self) -> &[Brief] {
        self.packets.get(..self.count).unwrap_or_default()
    }

    /// The lengths of the IP packets of these, where a glance told.
    #[inline]
    pub(super) fn lengths(&self) -> &[u16] {
        self.lengths.get(..self.count).unwrap_or_default()
    }

    /// Reads at most [`MAX_BATCH`] frames, instead of those that were read before.
    #[inline(never)]
    pub(super) fn read(
        &mut self,
        snapshot: &Snapshot,
        frames: &mut [Frame<'_>],
        outbox: &mut Outbox,
    ) {
        self.reads.clear();
        // Connection IDs take more than a glance.
        match snapshot.services.routes() {
            false => self.read_each::<true>(snapshot, frames, outbox),
            true => self.read_each::<false>(snapshot, frames, outbox),
        }
    }

    #[inline(always)]
    fn read_each<const GLANCES: bool>(
        &mut self,
        snapshot: &Snapshot,
        frames: &mut [Frame<'_>],
        outbox: &mut Outbox,
    ) {
        let mut places = self.packets.iter_mut().zip(&mut self.lengths);
        let mut put = |packet, length| {
            if let Some(place) = places.next() {
                (*place.0, *place.1) = (packet, length);
            }
        };
        for (place, frame) in frames.iter_mut().enumerate() {
            let bytes = frame.bytes();
            if !(GLANCES && comes_for(snapshot.station, bytes) && glance(bytes, &mut put)) {
                let mut parsed = Parsed::EMPTY;
                let read = read(snapshot, frame, &mut parsed, outbox);
                if let Read::Assign = read {
                    put(parsed.info.into(), 0);
                }
                self.reads.push((place, read));
            }
        }
        self.count = MAX_BATCH - places.len();
    }
}

/// What reading a frame came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// It is for the balancer to say where it goes.
    Assign,
    /// Its verdict is known.
    Decided(Verdict),
    /// It is known without the balancer what becomes of it, and of fragments that belong to it.
    Settled(Decision),
}

/// Whose frame is it, and what is in it? `parsed` tells what, unless its verdict is known.
#[inline(never)]
pub(super) fn read(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    parsed: &mut Parsed,
    outbox: &mut Outbox,
) -> Read {
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
    let content = parse_into(frame.bytes(), parsed);
    if answer(snapshot, frame, content, parsed, outbox) {
        return Read::Decided(Verdict::Answer(AnswerKind::Neighbour));
    }
    match content {
        Content::Malformed(reason) => Read::Decided(Verdict::Drop(reason)),
        Content::Ip if is_ours => {
            if snapshot.services.routes() {
                parsed.info.routed = route(snapshot, frame.bytes(), parsed).into();
            }
            place(snapshot, &parsed.info)
        }
        Content::Ip | Content::NotIp { .. } => Read::Decided(Verdict::Pass),
    }
}

/// Whether a frame is for this station, and from another one. Of those that are too short for a [`glance`] it says no.
#[inline(always)]
fn comes_for(station: MacAddress, frame: &[u8]) -> bool {
    let Some(head) = frame.first_chunk::<LEAST>() else { return false };
    // Both are read as words of eight bytes, of which the last two are others.
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) << 16;
    let (Some(to), Some(from)) = (
        head.first_chunk().map(word),
        head.first_chunk::<14>().and_then(|addresses| addresses.last_chunk()).map(word),
    ) else {
        return false;
    };
    let MacAddress([a, b, c, d, e, f]) = station;
    let station = word(&[a, b, c, d, e, f, 0, 0]);
    to == station && from != station
}

#[inline]
fn is_multicast(address: &[u8]) -> bool {
    address.first().is_some_and(|first| first & 1 != 0)
}

/// The backend whose connection ID the packet has. Apart, as few snapshots have a service that asks.
#[inline(never)]
fn route(snapshot: &Snapshot, frame: &[u8], parsed: &Parsed) -> Option<BackendIndex> {
    snapshot.services.route(&parsed.info, &parsed.connection_id(frame)?)
}

/// Whether the balancer is to be asked about the packet.
#[inline]
fn place(snapshot: &Snapshot, info: &PacketInfo) -> Read {
    let flow = &info.flow;
    let stray = |reason| match snapshot.services.is_vip(flow.destination) {
        true => Read::Decided(Verdict::Drop(reason)),
        false => Read::Decided(Verdict::Pass),
    };
    match info.kind {
        PacketKind::Ordinary | PacketKind::IcmpError => Read::Assign,
        PacketKind::TruncatedError => stray(DropReason::IcmpQuoteTruncated),
        PacketKind::StrayError => stray(DropReason::IcmpQuoteStray),
        PacketKind::EchoRequest => match snapshot.services.echo(flow.destination) {
            None | Some(Echo::Forward) => Read::Assign,
            Some(Echo::Drop) => Read::Settled(Decision::Drop(DropReason::EchoRefused)),
            Some(Echo::Answer) if flow.has_martian_source() => {
                Read::Settled(Decision::Drop(DropReason::MartianSource))
            }
            Some(Echo::Answer) if flow.source == flow.destination => {
                Read::Settled(Decision::Drop(DropReason::SourceIsVip))
            }
            Some(Echo::Answer) => Read::Settled(Decision::Answer),
        },
    }
}
