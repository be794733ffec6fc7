//! The last leg: a packet whose backend is known becomes a frame for the next hop.

use super::io::{Action, Frame};
use super::outbox::Outbox;
use super::oversized;
use super::refusal::refuse;
use super::snapshot::{Delivery, NextHop, Snapshot};
use crate::flow::{Fragment, Timestamp};
use crate::packet::icmp::{ErrorKind, TokenBucket};
use crate::packet::{
    EthernetHeader, OuterFragmentation, Parsed, Tags, TunnelPath, decrement_hop_limit, encapsulate,
    hop_limit, rewrite_l3dsr, rewrite_mac,
};
use crate::verdict::{BackendIndex, DropReason, Verdict};

/// What a worker delivers with, besides the frame.
#[derive(Debug)]
pub(super) struct Means {
    /// For frames beside the one that was received.
    pub(super) outbox: Outbox,
    /// Limits the ICMP errors that are sent.
    pub(super) errors: TokenBucket,
    /// Of the last outer header that may be fragmented on its way, which has to be told from others
    /// like it (RFC 6864 section 4.3).
    pub(super) identification: u32,
}

impl Means {
    /// Others that are as these are, for deliveries that are only tried.
    pub(super) fn scratch(&self) -> Self {
        let (errors, identification) = (self.errors.clone(), self.identification);
        Self { outbox: Outbox::new(), errors, identification }
    }

    /// Those of one who never answers.
    pub(super) fn silent() -> Self {
        Self { outbox: Outbox::new(), errors: TokenBucket::new(0, 0), identification: 0 }
    }
}

/// Sends the packet in `frame` to a backend, answers it, or finds out why neither can be.
#[inline]
pub(super) fn deliver(
    snapshot: &Snapshot,
    now: Timestamp,
    means: &mut Means,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    index: BackendIndex,
) -> Verdict {
    let Some(hop) = snapshot.next_hop(index) else {
        return Verdict::Drop(DropReason::NextHopUnresolved);
    };
    // The hop comes before the size (RFC 1812 section 5.2.1.1), and both before anything is
    // changed: an answer quotes the packet as it came.
    if hop.delivery.is_routed() && hop_limit(parsed.packet(frame.bytes())) <= 1 {
        return refuse(snapshot, now, means, frame, parsed, ErrorKind::TimeExceeded);
    }
    if parsed.length() + hop.delivery.overhead() > usize::from(hop.mtu) {
        return oversized::deliver(snapshot, now, means, frame, parsed, hop);
    }
    match send(&mut means.identification, frame, parsed, hop, OuterFragmentation::Inherit) {
        Ok(()) => Verdict::Forward(index),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Makes of the packet the frame that goes to `hop`, and marks it to be transmitted.
#[inline]
pub(super) fn send(
    identification: &mut u32,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    hop: &NextHop,
    fragmentation: OuterFragmentation,
) -> Result<(), DropReason> {
    match &hop.delivery {
        Delivery::L2 => {}
        Delivery::L3Dsr(backend, dscp) => {
            let (transport, protocol) = (parsed.header_length(), parsed.protocol);
            let packet = parsed.packet_mut(frame.bytes_mut());
            rewrite_l3dsr(packet, transport, protocol, parsed.fragment, *backend, *dscp)?;
            decrement_hop_limit(packet)?;
        }
        Delivery::Tunnel(path) => {
            *identification = identification.wrapping_add(1);
            wrap(*identification as u16, frame, parsed, hop, path, fragmentation)?;
            frame.set_action(Action::Transmit(hop.port));
            return Ok(());
        }
    }
    if hop.tags == Tags::Keep {
        if !rewrite_mac(frame.bytes_mut(), hop.destination, hop.source) {
            return Err(DropReason::EthernetTruncated);
        }
    } else {
        retag(frame, parsed, hop)?;
    }
    frame.set_action(Action::Transmit(hop.port));
    Ok(())
}

/// Puts outer headers in the place of the Ethernet header, and an Ethernet header before them. What
/// is behind the packet, padding of short frames, stays behind.
#[inline]
fn wrap(
    identification: u16,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    hop: &NextHop,
    path: &TunnelPath,
    fragmentation: OuterFragmentation,
) -> Result<(), DropReason> {
    let network = usize::from(parsed.network);
    let old = frame.bytes().get(..network).unwrap_or_default();
    let header = EthernetHeader::new(old, hop.destination, hop.source, hop.tags, path.ether_type());
    frame.truncate(parsed.end as usize);
    frame.trim_front(network);
    decrement_hop_limit(frame.bytes_mut())?;
    if !frame.grow_front(path.overhead()) {
        return Err(DropReason::NoRoom);
    }
    let entropy = match path.uses_entropy() {
        true => parsed.info.flow.entropy(parsed.info.fragment == Fragment::Whole),
        false => 0,
    };
    encapsulate(frame.bytes_mut(), path, fragmentation, entropy, identification)?;
    put_before(frame, &header)
}

/// Gives the frame an Ethernet header with other VLAN tags.
fn retag(frame: &mut Frame<'_>, parsed: &Parsed, hop: &NextHop) -> Result<(), DropReason> {
    let network = usize::from(parsed.network);
    let old = frame.bytes().get(..network).unwrap_or_default();
    let ether_type = parsed.ether_type();
    let header = EthernetHeader::new(old, hop.destination, hop.source, hop.tags, ether_type);
    frame.trim_front(network);
    put_before(frame, &header)
}

#[inline]
pub(super) fn put_before(frame: &mut Frame<'_>, header: &EthernetHeader) -> Result<(), DropReason> {
    if !frame.grow_front(header.bytes().len()) {
        return Err(DropReason::NoRoom);
    }
    header.write(frame.bytes_mut());
    Ok(())
}
