//! Saying that a packet goes no further.

use super::delivery::{Means, put_before};
use super::io::{Action, Frame, Port};
use super::snapshot::Snapshot;
use crate::flow::Timestamp;
use crate::packet::icmp::{ErrorKind, longest_quote, may_be_answered, room_for_error, write_error};
use crate::packet::{EthernetHeader, MacAddress, Parsed, Tags};
use crate::verdict::{AnswerKind, DropReason, Verdict};
use std::net::IpAddr;

/// Turns the frame into an ICMP error about its packet, if that may be answered and there have not
/// been too many; back to whoever it came from. The packet must be as it was received.
pub(super) fn refuse(
    snapshot: &Snapshot,
    now: Timestamp,
    means: &mut Means,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    kind: ErrorKind,
) -> Verdict {
    let (answer, unanswered) = match kind {
        ErrorKind::PacketTooBig { .. } => (AnswerKind::PacketTooBig, DropReason::PacketTooBig),
        ErrorKind::TimeExceeded => (AnswerKind::TimeExceeded, DropReason::HopLimitExceeded),
    };
    let packet = parsed.packet(frame.bytes());
    let message = packet.get(parsed.header_length()..).unwrap_or_default();
    if !may_be_answered(&parsed.info, message) {
        return Verdict::Drop(unanswered);
    }
    if !means.errors.take(now) {
        return Verdict::Drop(DropReason::IcmpRateLimited);
    }
    // Neither errors nor what they quote get here, so this is whom the packet was for.
    let vip = parsed.info.flow.destination;
    let source = match vip {
        IpAddr::V4(_) => snapshot.errors.source_ipv4.map_or(vip, IpAddr::V4),
        IpAddr::V6(_) => snapshot.errors.source_ipv6.map_or(vip, IpAddr::V6),
    };
    match turn(snapshot, frame, parsed, kind, source) {
        Ok(true) => Verdict::Answer(answer),
        Ok(false) => Verdict::Drop(unanswered),
        Err(reason) => Verdict::Drop(reason),
    }
}

fn turn(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    kind: ErrorKind,
    source: IpAddr,
) -> Result<bool, DropReason> {
    let is_ipv6 = source.is_ipv6();
    let network = usize::from(parsed.network);
    let old = frame.bytes().get(..network).unwrap_or_default();
    let sender = old.get(6..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    let ether_type = parsed.ether_type();
    let header =
        EthernetHeader::new(old, MacAddress(sender), snapshot.station, Tags::Keep, ether_type);
    frame.truncate(network + parsed.length().min(longest_quote(is_ipv6)));
    frame.trim_front(network);
    if !frame.grow_front(room_for_error(is_ipv6)) {
        return Err(DropReason::NoRoom);
    }
    if !write_error(frame.bytes_mut(), kind, source) {
        return Ok(false);
    }
    put_before(frame, &header)?;
    frame.set_action(Action::Transmit(Port::INGRESS));
    Ok(true)
}
