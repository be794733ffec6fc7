//! The way of nearly every packet: whole, to a backend on the link, and no larger than the link takes.
//!
//! Nothing has to be remembered, answered or cut then. What is done here is what the rest of the pipeline
//! does with such a packet in more steps; of others nothing is said, and nothing done.

use super::io::{Action, Frame};
use super::snapshot::{Delivery, Snapshot};
use crate::flow::{Fragment, PacketKind};
use crate::packet::{Parsed, Tags, rewrite_mac};
use crate::verdict::BackendIndex;

/// Sends the packet in `frame` to a backend, if it is such a packet; the length of the frame.
#[inline(always)]
pub(super) fn forward(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    index: BackendIndex,
) -> Option<u64> {
    if parsed.fragment != Fragment::Whole || parsed.info.kind == PacketKind::IcmpError {
        return None;
    }
    let hop = snapshot.next_hop(index)?;
    if hop.delivery != Delivery::L2
        || hop.tags != Tags::Keep
        || parsed.length() > usize::from(hop.mtu)
    {
        return None;
    }
    let bytes = frame.bytes_mut();
    let length = bytes.len() as u64;
    if !rewrite_mac(bytes, hop.destination, hop.source) {
        return None;
    }
    frame.set_action(Action::Transmit(hop.port));
    Some(length)
}
