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
#[inline(always)]
pub(super) fn forward(
    snapshot: &Snapshot,
    means: &mut Means,
    frame: &mut Frame<'_>,
    length: u16,
    index: BackendIndex,
) -> Option<u64> {
    let (bytes, length) = (frame.bytes_mut(), usize::from(length));
    let received = bytes.len() as u64;
    if let Some(link) = snapshot.next_hops.link(index, length) {
        *bytes.first_chunk_mut()? = link.addresses;
        frame.set_action(Action::Transmit(link.port));
    } else {
        let tunnel = snapshot.next_hops.tunnel(index, length + IPV4)?;
        wrap(&mut means.identification, frame, length, tunnel)?;
        frame.set_action(Action::Transmit(tunnel.link.port));
    }
    Some(received)
}

/// An IPv4 packet of so many bytes into a tunnel. Apart, so that it has all registers for itself.
#[inline(never)]
fn wrap(
    identification: &mut u32,
    frame: &mut Frame<'_>,
    length: usize,
    tunnel: &PlainTunnel,
) -> Option<()> {
    const TYPE: [u8; 2] = EtherType::IPV4.0.to_be_bytes();
    let has_room = frame.range().start >= IPV4;
    let inner: &mut [u8; ETHERNET + IPV4] = frame.bytes_mut().first_chunk_mut()?;
    let (old, inner) = inner.split_first_chunk_mut::<ETHERNET>()?;
    let inner = inner.first_chunk_mut::<IPV4>()?;
    let (_, ttl) = inner.split_first_chunk_mut::<8>()?;
    if !has_room || !old.ends_with(&TYPE) || !decrement_ttl(ttl.first_chunk_mut()?) {
        return None;
    }
    *identification = identification.wrapping_add(1);
    let mut headers = [0; ETHERNET + IPV4];
    let (ethernet, outer) = headers.split_first_chunk_mut::<ETHERNET>()?;
    *ethernet.first_chunk_mut()? = tunnel.link.addresses;
    *ethernet.last_chunk_mut()? = TYPE;
    let whole = (length + IPV4) as u16;
    tunnel.outer.put_before(inner, whole, *identification as u16, outer.first_chunk_mut()?);
    frame.truncate(ETHERNET + length);
    if frame.grow_front(IPV4) {
        *frame.bytes_mut().first_chunk_mut()? = headers;
    }
    Some(())
}
