//! Answers for the VIPs: to ARP and neighbour discovery, for a host that does not hold them itself,
//! and to pings.

use super::io::{Action, Frame, Port};
use super::outbox::Outbox;
use super::snapshot::Snapshot;
use crate::flow::Protocol;
use crate::packet::{
    Content, EtherType, MacAddress, Parsed, arp, icmp, neighbor_discovery, rewrite_mac,
};
use crate::verdict::{AnswerKind, Verdict};

/// Answers the question for a VIP that `frame` may hold, if that is ours to do, and says whether it
/// has: by turning the frame into the answer, or by a reply where the frame is too short for it.
#[inline]
pub(super) fn answer(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    content: Content,
    parsed: &Parsed,
    outbox: &mut Outbox,
) -> bool {
    if !snapshot.answers {
        return false;
    }
    match content {
        Content::NotIp { ether_type: EtherType::ARP, payload } => {
            answer_arp(snapshot, frame, payload)
        }
        Content::Ip if parsed.info.flow.protocol == Protocol::ICMPV6 => {
            answer_solicitation(snapshot, frame, usize::from(parsed.network), outbox)
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
    outbox: &mut Outbox,
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
    reply.is_some_and(|reply| outbox.push_copy(Port::INGRESS, &reply))
}

/// Turns an echo request to a VIP, or a fragment of one, into the reply, back to where it came from.
pub(super) fn answer_echo(snapshot: &Snapshot, frame: &mut Frame<'_>, parsed: &Parsed) -> Verdict {
    let sender = frame.bytes().get(6..).and_then(|rest| rest.first_chunk());
    let sender = MacAddress(sender.copied().unwrap_or_default());
    let packet = parsed.packet_mut(frame.bytes_mut());
    match icmp::answer_echo(packet, parsed.header_length(), parsed.fragment) {
        Ok(()) => {
            rewrite_mac(frame.bytes_mut(), sender, snapshot.station);
            frame.set_action(Action::Transmit(Port::INGRESS));
            Verdict::Answer(AnswerKind::Echo)
        }
        Err(reason) => Verdict::Drop(reason),
    }
}
