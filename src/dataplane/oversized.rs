//! Packets that are larger than the way to their backend takes.

use super::delivery::{Means, send};
use super::io::{Action, Frame, Port};
use super::refusal::refuse;
use super::snapshot::{Delivery, NextHop, Snapshot};
use crate::flow::{Fragment, Timestamp};
use crate::packet::icmp::ErrorKind;
use crate::packet::{Cut, OuterFragmentation, Parsed};
use crate::verdict::{DropReason, Verdict};

/// What every IPv6 link takes (RFC 8200 section 5), so no sender can be told to send less.
const IPV6_MINIMUM: usize = 1280;

/// Tells the sender how much fits, or sends the packet in pieces.
///
/// - IPv4 that must not be fragmented, and IPv6: the sender is told (RFC 1191, RFC 8201).
/// - Other IPv4: it is cut up before it is wrapped, so that the backend\'s host puts it together by
///   the client\'s own identification, and not the tunnel\'s end by one of 65,536 of ours (RFC 2003
///   section 3.1 allows both; RFC 4963 tells what goes wrong with the latter).
/// - IPv6 of at most 1,280 bytes, of which the sender cannot be told to send less: the outer packet
///   is cut up (RFC 2473 section 7.1, RFC 4213 section 3.2).
pub(super) fn deliver(
    snapshot: &Snapshot,
    now: Timestamp,
    means: &mut Means,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    hop: &NextHop,
) -> Verdict {
    // What is larger than the link it came by was several packets there; no sender of any of
    // them could make sense of an answer.
    if parsed.length() as u64 > u64::from(snapshot.station_mtu) {
        return Verdict::Drop(DropReason::Aggregated);
    }
    let fits = usize::from(hop.mtu).saturating_sub(hop.delivery.overhead());
    let packet = parsed.packet(frame.bytes());
    if parsed.is_ipv6() {
        if parsed.length() <= IPV6_MINIMUM && matches!(hop.delivery, Delivery::Tunnel(_)) {
            return cut_outer(means, frame, parsed, hop);
        }
        let mtu = fits.max(IPV6_MINIMUM) as u32;
        return refuse(snapshot, now, means, frame, parsed, ErrorKind::PacketTooBig { mtu });
    }
    match Cut::new(packet, fits, 0) {
        Some(_) if !snapshot.errors.fragment => Verdict::Drop(DropReason::FragmentationRefused),
        Some(cut) => cut_inner(means, frame, parsed, hop, &cut),
        None => {
            let mtu = fits as u32;
            refuse(snapshot, now, means, frame, parsed, ErrorKind::PacketTooBig { mtu })
        }
    }
}

/// Cuts an IPv4 packet up and sends the pieces, each as a packet of its own.
fn cut_inner(
    means: &mut Means,
    frame: &Frame<'_>,
    parsed: &Parsed,
    hop: &NextHop,
    cut: &Cut,
) -> Verdict {
    let network = usize::from(parsed.network);
    let header = frame.bytes().get(..network).unwrap_or_default();
    let packet = parsed.packet(frame.bytes());
    let Means { outbox, identification, .. } = means;
    let made = outbox.push_all(cut.count(), |number, piece| {
        let end = network + cut.length(number);
        piece.truncate(end);
        let (link, ip) = piece.bytes_mut().split_at_mut_checked(network)?;
        link.copy_from_slice(header);
        if !cut.write(packet, number, ip) {
            return None;
        }
        let mut of_piece = Parsed { end: end as u32, ..*parsed };
        of_piece.fragment = match (number, parsed.fragment) {
            (0, Fragment::Whole | Fragment::First) => Fragment::First,
            _ => Fragment::Later,
        };
        of_piece.info.fragment = of_piece.fragment;
        send(identification, piece, &of_piece, hop, OuterFragmentation::Inherit).ok()?;
        transmit_port(piece)
    });
    if made { Verdict::Forward(hop.index) } else { Verdict::Drop(DropReason::NoRoom) }
}

/// Wraps a packet and cuts up what comes of it.
fn cut_outer(means: &mut Means, frame: &mut Frame<'_>, parsed: &Parsed, hop: &NextHop) -> Verdict {
    let Means { outbox, identification, .. } = means;
    if let Err(reason) = send(identification, frame, parsed, hop, OuterFragmentation::Allow) {
        return Verdict::Drop(reason);
    }
    frame.set_action(Action::Release);
    let whole = parsed.length() + hop.delivery.overhead();
    let network = frame.bytes().len().saturating_sub(whole);
    let Some((header, packet)) = frame.bytes().split_at_checked(network) else {
        return Verdict::Drop(DropReason::NoRoom);
    };
    let Some(cut) = Cut::new(packet, usize::from(hop.mtu), *identification) else {
        return Verdict::Drop(DropReason::PacketTooBig);
    };
    let made = outbox.push_all(cut.count(), |number, piece| {
        piece.truncate(network + cut.length(number));
        let (link, ip) = piece.bytes_mut().split_at_mut_checked(network)?;
        link.copy_from_slice(header);
        cut.write(packet, number, ip).then_some(hop.port)
    });
    if made { Verdict::Forward(hop.index) } else { Verdict::Drop(DropReason::NoRoom) }
}

fn transmit_port(frame: &Frame<'_>) -> Option<Port> {
    match frame.action() {
        Action::Transmit(port) => Some(port),
        Action::Release => None,
    }
}
