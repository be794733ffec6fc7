//! The way of nearly every packet: a whole segment or datagram, no larger than the way takes, and to a backend on the
//! link or behind a plain tunnel.
//!
//! Nothing has to be remembered, answered or cut then. What is done here is what the rest of the pipeline
//! does with such a packet in more steps; of others nothing is said, and nothing done.

use super::delivery::Means;
use super::io::{Action, Frame};
use super::snapshot::{Delivery, NextHop, Snapshot};
use crate::packet::{
    EtherType, Tags, TunnelPath, decrement_ttl, encapsulate_plain, ip_length, rewrite_mac,
};
use crate::verdict::BackendIndex;

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// Sends what is in `frame`, of which a [glance](crate::packet::glance) told enough, to a backend, if it can go this
/// way; the length of the frame that it came in.
#[inline(always)]
pub(super) fn forward(
    snapshot: &Snapshot,
    means: &mut Means,
    frame: &mut Frame<'_>,
    index: BackendIndex,
) -> Option<u64> {
    let bytes = frame.bytes_mut();
    let (received, length) = (bytes.len() as u64, ip_length(bytes)?);
    let Some(link) = snapshot.next_hops.link(index, length) else {
        let hop = snapshot.next_hop(index)?;
        let Delivery::Tunnel(path) = &hop.delivery else { return None };
        wrap(&mut means.identification, frame, length, hop, path)?;
        return Some(received);
    };
    *bytes.first_chunk_mut()? = link.addresses;
    frame.set_action(Action::Transmit(link.port));
    Some(received)
}

/// An IPv4 packet of `inner_length` bytes without options, in a frame without tags, into IP-in-IP.
#[inline(always)]
fn wrap(
    identification: &mut u32,
    frame: &mut Frame<'_>,
    inner_length: usize,
    hop: &NextHop,
    path: &TunnelPath,
) -> Option<()> {
    let length = inner_length + IPV4;
    if matches!(hop.tags, Tags::Set(_))
        || length > usize::from(hop.mtu)
        || frame.range().start < IPV4
    {
        return None;
    }
    let (old, inner) = frame.bytes_mut().split_first_chunk_mut::<ETHERNET>()?;
    let ether_type = EtherType::IPV4.0.to_be_bytes();
    if !old.ends_with(&ether_type) {
        return None;
    }
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
    *ethernet.last_chunk_mut()? = ether_type;
    frame.truncate(ETHERNET + inner_length);
    if frame.grow_front(IPV4) {
        *frame.bytes_mut().first_chunk_mut()? = headers;
    }
    frame.set_action(Action::Transmit(hop.port));
    Some(())
}
