//! Answers about the VIPs, for a host that does not hold them itself: ARP and neighbour discovery.

use super::io::{Action, Frame, MAX_BATCH, Port};
use super::snapshot::Snapshot;
use crate::flow::Protocol;
use crate::packet::neighbor_discovery::{self, MAX_ANSWER};
use crate::packet::{EtherType, Parse, arp};
use arrayvec::ArrayVec;

/// Frames of our own that a batch called for, at most one for each of its frames.
pub(super) type Replies = ArrayVec<ArrayVec<u8, MAX_ANSWER>, MAX_BATCH>;

/// Answers the question for a VIP that `frame` may hold, if that is ours to do, and says whether it
/// has: by turning the frame into the answer, or by a reply where the frame is too short for it.
pub(super) fn answer(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    parsed: &Parse,
    replies: &mut Replies,
) -> bool {
    if !snapshot.answers {
        return false;
    }
    match *parsed {
        Parse::NotIp { ether_type: EtherType::ARP, payload } => {
            answer_arp(snapshot, frame, payload)
        }
        Parse::Ip(parsed) if parsed.info.flow.protocol == Protocol::ICMPV6 => {
            answer_solicitation(snapshot, frame, usize::from(parsed.network), replies)
        }
        _ => false,
    }
}

fn answer_arp(snapshot: &Snapshot, frame: &mut Frame<'_>, payload: usize) -> bool {
    let asked = arp::requested_address(frame.bytes(), payload);
    let answered = asked.is_some_and(|address| snapshot.services.is_vip(address.into()))
        && arp::answer_in_place(frame.bytes_mut(), payload, snapshot.station);
    if answered {
        frame.set_action(Action::Transmit(Port::INGRESS));
    }
    answered
}

fn answer_solicitation(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    network: usize,
    replies: &mut Replies,
) -> bool {
    let asked = neighbor_discovery::solicited_target(frame.bytes(), network);
    if !asked.is_some_and(|address| snapshot.services.is_vip(address.into())) {
        return false;
    }
    if neighbor_discovery::answer_in_place(frame.bytes_mut(), network, snapshot.station) {
        frame.set_action(Action::Transmit(Port::INGRESS));
        return true;
    }
    // Who probes for a duplicate address (RFC 4862 section 5.4) sends no option, so the question is
    // shorter than the answer, which has to carry our MAC address.
    let reply = neighbor_discovery::answer(frame.bytes(), network, snapshot.station);
    reply.is_some_and(|reply| replies.try_push(reply).is_ok())
}
