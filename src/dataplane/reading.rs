//! The first stage: whose frame is it, and what is in it?

use super::answer::answer;
use super::fragments::Decision;
use super::io::{Frame, MAX_BATCH};
use super::outbox::Outbox;
use super::snapshot::Snapshot;
use crate::balancer::Echo;
use crate::flow::{Brief, PacketInfo, PacketKind};
use crate::packet::{Content, MacAddress, Parsed, glance, parse_into};
use crate::verdict::{AnswerKind, BackendIndex, DropReason, Verdict};
use arrayvec::ArrayVec;

/// What was found in the frames of a batch.
pub(super) struct Batch {
    /// Those for the balancer, in order.
    pub(super) packets: ArrayVec<Brief, MAX_BATCH>,
    /// A bit for each frame that a glance told enough of: it is for the balancer.
    pub(super) common: u64,
    /// What reading each of the others came to, in order.
    pub(super) reads: ArrayVec<Read, MAX_BATCH>,
}

const _: () = assert!(MAX_BATCH <= u64::BITS as usize);

impl Batch {
    /// An empty one.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { packets: ArrayVec::new(), common: 0, reads: ArrayVec::new() }
    }

    /// Reads frames into an empty batch.
    #[inline(never)]
    pub(super) fn read(
        &mut self,
        snapshot: &Snapshot,
        frames: &mut [Frame<'_>],
        outbox: &mut Outbox,
    ) {
        let glances = !snapshot.services.routes();
        // Another core has written them, the kernel or the NIC: they are fetched together, and not one after the other.
        let first = |frame: &Frame<'_>| frame.bytes().first().copied().unwrap_or_default();
        std::hint::black_box(frames.iter().fold(0, |all, frame| all | first(frame)));
        let mut bit = 1;
        for frame in frames {
            let bytes = frame.bytes();
            if glances
                && comes_for(snapshot.station, bytes)
                && glance(bytes, |packet| self.packets.push(packet))
            {
                self.common |= bit;
            } else {
                let mut parsed = Parsed::EMPTY;
                let read = read(snapshot, frame, &mut parsed, outbox);
                if let Read::Assign = read {
                    self.packets.push(parsed.info.into());
                }
                self.reads.push(read);
            }
            bit <<= 1;
        }
    }
}

/// What reading the next frame came to.
#[inline]
pub(super) fn next(reads: &mut std::slice::Iter<'_, Read>) -> Read {
    reads.next().copied().unwrap_or(Read::Decided(Verdict::Pass))
}

/// What reading a frame came to.
#[derive(Clone, Copy)]
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

/// Whether a frame is for this station, and from another one.
#[inline(always)]
fn comes_for(station: MacAddress, frame: &[u8]) -> bool {
    let Some(addresses) = frame.first_chunk::<14>() else { return false };
    let MacAddress([a, b, c, d, e, f]) = station;
    let station = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) << 16;
    // Both are read as words of eight bytes, of which the last two are others.
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes) << 16);
    word(addresses.first_chunk()) == station && word(addresses.last_chunk()) != station
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
