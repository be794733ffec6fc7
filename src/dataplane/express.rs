//! The way of nearly every packet: a whole segment or datagram, no larger than the way takes, and to a backend on the
//! link or behind a plain tunnel.
//!
//! Nothing has to be remembered, answered or cut then. What is done here is what the rest of the pipeline
//! does with such a packet in more steps; of others nothing is said, and nothing done.

use super::delivery::Means;
use super::io::{Action, Frame};
use super::next_hops::PlainTunnel;
use super::snapshot::Snapshot;
use crate::packet::{EtherType, decrement_ttl};
use crate::verdict::BackendIndex;

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// Sends the packet of `length` bytes in `frame`, of which a [glance](crate::packet::glance) told that, to a backend, if it
/// can go this way; the length of the frame that it came in.
pub(super) trait Way {
    fn forward(
        snapshot: &Snapshot,
        means: &mut Means,
        frame: &mut Frame<'_>,
        length: u16,
        index: BackendIndex,
    ) -> Option<u64>;
}

/// By the link.
pub(super) struct Link;
/// By a plain tunnel.
pub(super) struct Tunnel;
/// By either: for where there are backends of both kinds.
pub(super) struct Either;

impl Way for Link {
    #[inline(always)]
    fn forward(
        snapshot: &Snapshot,
        _: &mut Means,
        frame: &mut Frame<'_>,
        length: u16,
        index: BackendIndex,
    ) -> Option<u64> {
        let bytes = frame.bytes_mut();
        let received = bytes.len() as u64;
        let link = snapshot.next_hops.link(index, length.into())?;
        *bytes.first_chunk_mut()? = link.addresses;
        frame.set_action(Action::Transmit(link.port));
        Some(received)
    }
}

impl Way for Tunnel {
    #[inline(always)]
    fn forward(
        snapshot: &Snapshot,
        means: &mut Means,
        frame: &mut Frame<'_>,
        length: u16,
        index: BackendIndex,
    ) -> Option<u64> {
        let length = usize::from(length);
        let received = frame.bytes().len() as u64;
        let tunnel = snapshot.next_hops.tunnel(index, length + IPV4)?;
        wrap(&mut means.identification, frame, length, tunnel)?;
        frame.set_action(Action::Transmit(tunnel.link.port));
        Some(received)
    }
}

impl Way for Either {
    #[inline(always)]
    fn forward(
        snapshot: &Snapshot,
        means: &mut Means,
        frame: &mut Frame<'_>,
        length: u16,
        index: BackendIndex,
    ) -> Option<u64> {
        Link::forward(snapshot, means, frame, length, index)
            .or_else(|| by_tunnel(snapshot, means, frame, length, index))
    }
}

/// Apart, so that it has all registers for itself, and what goes by the link too.
#[inline(never)]
fn by_tunnel(
    snapshot: &Snapshot,
    means: &mut Means,
    frame: &mut Frame<'_>,
    length: u16,
    index: BackendIndex,
) -> Option<u64> {
    Tunnel::forward(snapshot, means, frame, length, index)
}

/// An IPv4 packet of so many bytes into a tunnel.
#[inline(always)]
fn wrap(
    identification: &mut u32,
    frame: &mut Frame<'_>,
    length: usize,
    tunnel: &PlainTunnel,
) -> Option<()> {
    const TYPE: [u8; 2] = EtherType::IPV4.0.to_be_bytes();
    let whole: &mut [u8; ETHERNET + IPV4 + IPV4] = frame.with_room(IPV4)?.first_chunk_mut()?;
    let (headers, inner) = whole.split_first_chunk_mut::<{ ETHERNET + IPV4 }>()?;
    let inner = inner.first_chunk_mut::<IPV4>()?;
    let (_, ttl) = inner.split_first_chunk_mut::<8>()?;
    // The old header ends where the new ones do.
    if !headers.ends_with(&TYPE) || !decrement_ttl(ttl.first_chunk_mut()?) {
        return None;
    }
    *identification = identification.wrapping_add(1);
    let (ethernet, outer) = headers.split_first_chunk_mut::<ETHERNET>()?;
    *ethernet.first_chunk_mut()? = tunnel.link.addresses;
    *ethernet.last_chunk_mut()? = TYPE;
    let outer = outer.first_chunk_mut()?;
    tunnel.outer.put_before(inner, (length + IPV4) as u16, *identification as u16, outer);
    frame.truncate(ETHERNET + length);
    frame.grow_front(IPV4).then_some(())
}
