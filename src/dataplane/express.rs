//! The way of nearly every packet: whole, no larger than the way takes, and to a backend on the link or behind a
//! plain tunnel.
//!
//! Nothing has to be remembered, answered or cut then. What is done here is what the rest of the pipeline
//! does with such a packet in more steps; of others nothing is said, and nothing done.

use super::delivery::Means;
use super::io::{Action, Frame};
use super::snapshot::{Delivery, NextHop, Snapshot};
use crate::flow::{Fragment, PacketKind};
use crate::packet::{
    EtherType, Parsed, Tags, TunnelPath, decrement_ttl, encapsulate_plain, rewrite_mac,
};
use crate::verdict::BackendIndex;

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// Sends the packet in `frame` to a backend, if it is such a packet; the length of the frame that it came in.
#[inline(always)]
pub(super) fn forward(
    snapshot: &Snapshot,
    means: &mut Means,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    index: BackendIndex,
) -> Option<u64> {
    if parsed.fragment != Fragment::Whole || parsed.info.kind == PacketKind::IcmpError {
        return None;
    }
    let hop = snapshot.next_hop(index)?;
    match &hop.delivery {
        Delivery::L2 => readdress(frame, parsed, hop),
        Delivery::Tunnel(path) => wrap(&mut means.identification, frame, parsed, hop, path),
        Delivery::L3Dsr(..) => None,
    }
}

#[inline(always)]
fn readdress(frame: &mut Frame<'_>, parsed: &Parsed, hop: &NextHop) -> Option<u64> {
    let room = u32::from(hop.mtu) + u32::from(parsed.network);
    if hop.tags != Tags::Keep || parsed.end > room {
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

/// An IPv4 packet without options in a frame without tags, into IP-in-IP.
#[inline(always)]
fn wrap(
    identification: &mut u32,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    hop: &NextHop,
    path: &TunnelPath,
) -> Option<u64> {
    let length = parsed.length() + IPV4;
    let is_plain = usize::from(parsed.network) == ETHERNET
        && usize::from(parsed.transport) == ETHERNET + IPV4
        && !matches!(hop.tags, Tags::Set(_))
        && length <= usize::from(hop.mtu);
    if !is_plain || frame.range().start < IPV4 {
        return None;
    }
    let bytes = frame.bytes_mut();
    let received = bytes.len() as u64;
    let (_, inner) = bytes.split_first_chunk_mut::<ETHERNET>()?;
    let inner = inner.first_chunk_mut::<IPV4>()?;
    let mut headers = [0; ETHERNET + IPV4];
    let (ethernet, outer) = headers.split_first_chunk_mut::<ETHERNET>()?;
    let next = identification.wrapping_add(1);
    let outer = outer.first_chunk_mut()?;
    if !encapsulate_plain(outer, inner, path, length as u16, next as u16) {
        return None;
    }
    let (_, ttl) = inner.split_first_chunk_mut::<8>()?;
    if !decrement_ttl(ttl.first_chunk_mut()?) {
        return None;
    }
    *identification = next;
    rewrite_mac(ethernet, hop.destination, hop.source);
    *ethernet.last_chunk_mut()? = EtherType::IPV4.0.to_be_bytes();
    frame.truncate(parsed.end as usize);
    if frame.grow_front(IPV4) {
        *frame.bytes_mut().first_chunk_mut()? = headers;
    }
    frame.set_action(Action::Transmit(hop.port));
    Some(received)
}
