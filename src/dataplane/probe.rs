//! Probes that take the way of clients' packets: out as the pipeline sends, back as it receives.

use super::delivery::{Means, deliver};
use super::io::{Action, Frame, HEADROOM, Port};
use super::snapshot::Snapshot;
use crate::flow::Timestamp;
use crate::forwarding::ProbeSources;
use crate::packet::{self, EtherType, Ipv4Header, Ipv6Header, Parse, Parsed};
use crate::verdict::{BackendIndex, DropReason, Verdict};
use std::net::IpAddr;

/// Bytes of the Ethernet header that a probe gets for a start; delivery puts another in its place.
const ETHERNET: usize = 14;
/// Of that the EtherType is the last two bytes.
const ETHER_TYPE: usize = 12;
/// The longest probe, in bytes of IP packet.
const LONGEST: usize = 2048;

/// Makes of probes the frames that the pipeline would make of a client's packets.
#[derive(Debug)]
pub struct ProbeFramer {
    means: Means,
    memory: Box<[u8]>,
}

impl ProbeFramer {
    /// A framer; what it remembers are identifications of outer headers.
    pub fn new() -> Self {
        let memory = vec![0; HEADROOM + ETHERNET + LONGEST].into_boxed_slice();
        Self { means: Means::silent(), memory }
    }

    /// Makes the frame that takes this IP packet to a backend and gives it to `send`, with the port to
    /// send it by; in pieces, if it is too large for the way.
    ///
    /// # Errors
    ///
    /// Why there is no such frame.
    pub fn frame(
        &mut self,
        snapshot: &Snapshot,
        index: BackendIndex,
        packet: &[u8],
        mut send: impl FnMut(Port, &[u8]),
    ) -> Result<(), DropReason> {
        let end = HEADROOM + ETHERNET + packet.len();
        let space = self.memory.get_mut(HEADROOM..end).ok_or(DropReason::PacketTooBig)?;
        let ether_type = match packet.first().map_or(0, |first| first >> 4) {
            4 => EtherType::IPV4,
            6 => EtherType::IPV6,
            _ => return Err(DropReason::IpVersionMismatch),
        };
        let (ethernet, ip) = space.split_at_mut(ETHERNET);
        ethernet.fill(0);
        if let Some(field) = ethernet.get_mut(ETHER_TYPE..) {
            field.copy_from_slice(&ether_type.0.to_be_bytes());
        }
        ip.copy_from_slice(packet);
        let mut frame = Frame::in_memory(&mut self.memory, HEADROOM..end);
        let parsed = match packet::parse(frame.bytes()) {
            Parse::Ip(parsed) => parsed,
            Parse::Malformed(reason) => return Err(reason),
            Parse::NotIp { .. } => return Err(DropReason::IpVersionMismatch),
        };
        // Time matters to nothing but answers, and none is made here.
        let now = Timestamp::default();
        match deliver(snapshot, now, &mut self.means, &mut frame, &parsed, index) {
            Verdict::Drop(reason) => return Err(reason),
            _ => {
                if let Action::Transmit(port) = frame.action() {
                    send(port, frame.bytes());
                }
            }
        }
        let drained: Result<(), std::convert::Infallible> =
            self.means.outbox.drain(|port, bytes| {
                send(port, bytes);
                Ok(())
            });
        drained.map_err(|never| match never {})
    }
}

impl Default for ProbeFramer {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a frame that is for no VIP is what a VIP answers to a probe. Such frames are redirected
/// to us, and the host's own stack would not know what to do with them: the VIP may be one of its own
/// addresses.
pub(super) fn is_answer(snapshot: &Snapshot, frame: &[u8]) -> bool {
    if snapshot.probe_sources == ProbeSources::default() || !frame.starts_with(&snapshot.station.0)
    {
        return false;
    }
    let Parse::Ip(parsed) = packet::parse(frame) else {
        return false;
    };
    addresses(frame, &parsed).is_some_and(|(from, to)| {
        snapshot.probe_sources.includes(to) && snapshot.services.is_vip(from)
    })
}

/// Those of the packet itself; of an ICMP error, the parser gives those of what it quotes.
fn addresses(frame: &[u8], parsed: &Parsed) -> Option<(IpAddr, IpAddr)> {
    let packet = parsed.packet(frame);
    match packet.first()? >> 4 {
        4 => {
            let header = Ipv4Header::read(packet).ok()?;
            Some((header.source.into(), header.destination.into()))
        }
        _ => {
            let header = Ipv6Header::read(packet).ok()?;
            Some((header.source.into(), header.destination.into()))
        }
    }
}
