//! Which service a packet belongs to, and which of its backends a new flow would go to, step by step.

use super::built::Service;
use super::service::{Echo, Scope, VipKey};
use super::table::{Lookup, ServiceTable};
use crate::flow::{FlowHash, HashInput, PacketInfo, PacketKind};
use crate::verdict::BackendIndex;

/// By what rule a packet is a service's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// It is an echo request, which this service of the VIP forwards.
    Echo,
    /// The service is for the packet's port and protocol.
    Port,
    /// The service is for all ports of the packet's protocol.
    Protocol,
    /// The service is for all protocols.
    Everything,
}

/// Where a service sends a flow that it does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Selection {
    /// The service: the most specific one that covers the packet.
    pub service: VipKey,
    /// By what rule the packet is its.
    pub rule: Rule,
    /// Whether flows of the service are remembered, if the balancer does that.
    pub is_remembered: bool,
    /// What of the flow is hashed.
    pub hash_input: HashInput,
    /// The bytes that are hashed.
    pub hashed: Vec<u8>,
    /// Their hash under the service's key.
    pub hash: FlowHash,
    /// The slot that the hash picks, and of how many; none if the selector has no slots.
    pub slot: Option<(usize, usize)>,
    /// The backend that the selector names; none if none takes new flows.
    pub owner: Option<BackendIndex>,
    /// How many backends take new flows.
    pub backends: usize,
}

impl ServiceTable {
    /// What the service of a packet says about a new flow with it; none if no service is found.
    pub fn selection(&self, packet: &PacketInfo) -> Option<Selection> {
        let Lookup::Service(service) = self.lookup(packet) else {
            return None;
        };
        let is_echo = packet.kind == PacketKind::EchoRequest
            && self.echo(packet.flow.destination) == Some(Echo::Forward);
        let rule = match service.key().scope() {
            _ if is_echo => Rule::Echo,
            Scope::Port(..) => Rule::Port,
            Scope::Protocol(_) => Rule::Protocol,
            Scope::All => Rule::Everything,
        };
        Some(service.selection(rule, packet))
    }
}

impl Service {
    fn selection(&self, rule: Rule, packet: &PacketInfo) -> Selection {
        let (hash, input) = (self.hash(packet), self.hash_input());
        let slots = self.slots().map(<[u16]>::len).filter(|slots| *slots > 0);
        Selection {
            service: self.key(),
            rule,
            is_remembered: self.lives().is_some(),
            hash_input: input,
            hashed: input.message(&packet.flow),
            hash,
            slot: slots.map(|slots| (hash.slot(slots), slots)),
            owner: self.select(hash),
            backends: self.members().len(),
        }
    }
}
