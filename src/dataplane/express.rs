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

/// A packet of which a [glance](crate::packet::glance) told that, and how long it is.
pub(super) struct Packet<'a, 'f> {
    pub(super) frame: &'a mut Frame<'f>,
    pub(super) length: u16,
    /// The backend that it goes to.
    pub(super) index: BackendIndex,
}

impl Packet<'_, '_> {
    /// Sends it by the link, or a plain tunnel, as far as backends are behind such, if it can go this way; the length of the
    /// frame that it came in.
    #[inline(always)]
    pub(super) fn send<const LINKS: bool, const TUNNELS: bool>(
        &mut self,
        snapshot: &Snapshot,
        means: &mut Means,
    ) -> Option<u64> {
        if LINKS && let Some(received) = self.by_link(snapshot) {
            return Some(received);
        }
        match (LINKS, TUNNELS) {
            (_, false) => None,
            (false, true) => self.by_tunnel(snapshot, means),
            (true, true) => self.by_tunnel_apart(snapshot, means),
        }
    }

    #[inline(always)]
    fn by_link(&mut self, snapshot: &Snapshot) -> Option<u64> {
        let bytes = self.frame.bytes_mut();
        let received = bytes.len() as u64;
        let link = snapshot.next_hops.link(self.index, self.length.into())?;
        *bytes.first_chunk_mut()? = link.addresses;
        self.frame.set_action(Action::Transmit(link.port));
        Some(received)
    }

    #[inline(always)]
    fn by_tunnel(&mut self, snapshot: &Snapshot, means: &mut Means) -> Option<u64> {
        let (received, length) = (self.frame.bytes().len() as u64, usize::from(self.length));
        let tunnel = snapshot.next_hops.tunnel(self.index, length + IPV4)?;
        wrap(&mut means.identification, self.frame, length, tunnel)?;
        self.frame.set_action(Action::Transmit(tunnel.link.port));
        Some(received)
    }

    /// The same with all registers for itself, so that what goes by the link has them too.
    #[inline(never)]
    fn by_tunnel_apart(&mut self, snapshot: &Snapshot, means: &mut Means) -> Option<u64> {
        self.by_tunnel(snapshot, means)
    }
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
