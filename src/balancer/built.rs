//! A service as the packet path sees it.

use super::connection::Connections;
use super::elder::{Elder, Former};
use super::flow_table::Lifetimes;
use super::policy::{Candidate, Selector};
use super::service::{Echo, VipKey, VirtualService};
use crate::flow::{ConnectionId, FlowHash, HashInput, HashKey, PacketInfo, Timestamp};
use crate::verdict::BackendIndex;
use std::sync::Arc;

/// How new flows are shared out: a hash, and who takes what.
#[derive(Debug)]
pub(super) struct Method {
    hash_input: HashInput,
    hash_key: HashKey,
    selector: Box<dyn Selector>,
    /// The backend behind each position that the selector can answer with.
    members: Box<[BackendIndex]>,
}

impl Method {
    #[inline(always)]
    pub(super) fn hash(&self, packet: &PacketInfo) -> FlowHash {
        self.hash_key.hash_flow(self.hash_input, &packet.flow)
    }

    #[inline]
    pub(super) fn select(&self, hash: FlowHash) -> Option<BackendIndex> {
        let position = self.selector.select(hash)?;
        self.members.get(usize::from(position)).copied()
    }

    /// Whether a flow has the same hash in both.
    #[inline]
    pub(super) fn hashes_alike(&self, other: &Self) -> bool {
        (self.hash_input, self.hash_key) == (other.hash_input, other.hash_key)
    }
}

/// A virtual service as the packet path sees it: immutable, shared by all workers.
#[derive(Clone, Debug)]
pub struct Service {
    key: VipKey,
    echo: Echo,
    /// None where flows are not remembered.
    lives: Option<Lifetimes>,
    method: Arc<Method>,
    /// What was chosen before the last changes.
    elder: Option<Elder>,
    /// What goes before the selector, if the policy routes by connection ID.
    connections: Option<Arc<Connections>>,
}

impl Service {
    /// Builds a service from those of its backends that may take traffic now, each with its
    /// index. Backends of weight zero take no new flows; the order does not matter.
    pub fn build(
        service: &VirtualService,
        eligible: impl IntoIterator<Item = (Arc<dyn super::Backend>, BackendIndex)>,
    ) -> Self {
        let mut eligible: Vec<_> =
            eligible.into_iter().filter(|(backend, _)| backend.weight() > 0).collect();
        eligible.sort_by(|(a, _), (b, _)| a.id().cmp(b.id()));
        eligible.dedup_by(|(a, _), (b, _)| a.id() == b.id());
        let candidates: Vec<Candidate<'_>> = eligible
            .iter()
            .map(|(backend, _)| Candidate { id: backend.id(), weight: backend.weight() })
            .collect();
        let method = Method {
            hash_input: service.hash_input,
            hash_key: service.hash_key,
            selector: service.policy.build(&candidates),
            members: eligible.iter().map(|(_, index)| *index).collect(),
        };
        Self {
            key: service.key,
            echo: service.echo,
            lives: (!service.sessionless).then(|| Lifetimes::from(&service.times)),
            method: Arc::new(method),
            elder: None,
            connections: None,
        }
    }

    /// Has packets routed by connection ID among these, which are all backends of the service, whether
    /// or not they take new flows; if its policy does that.
    #[must_use]
    pub fn with_connections<'a>(
        mut self,
        service: &VirtualService,
        backends: impl IntoIterator<Item = (&'a str, BackendIndex)>,
    ) -> Self {
        self.connections = Connections::build(&service.policy, backends).map(Arc::new);
        if self.connections.is_some() {
            self.lives = self.lives.map(|lives| lives.of_quic(&service.times));
        }
        self
    }

    /// Has the service know what this one chose, in whose place it comes now: for balancers that record
    /// [contested](super::Record::Contested) flows alone.
    #[must_use]
    pub fn after(mut self, before: &Self, now: Timestamp) -> Self {
        self.elder = self.lives.as_ref().map(|lives| {
            let known = before.elder.as_ref().filter(|elder| !elder.is_over(lives, now));
            Elder::new(known.map_or(&before.method, Elder::method), now)
        });
        self
    }

    /// When what was chosen before is of no more interest; none if it is of none.
    pub fn settles(&self) -> Option<Timestamp> {
        Some(self.elder.as_ref()?.end(self.lives.as_ref()?))
    }

    /// The service without what it chose before, if that is of no more interest.
    pub fn settled(&self, now: Timestamp) -> Option<Self> {
        let is_over = self.settles().is_some_and(|end| now >= end);
        is_over.then(|| Self { elder: None, ..self.clone() })
    }

    /// Whether connection IDs lead to just these backends; also if they lead nowhere by the policy.
    pub fn routes_among(&self, backends: impl IntoIterator<Item = BackendIndex>) -> bool {
        self.connections.as_ref().is_none_or(|connections| connections.is_among(backends))
    }

    /// Whether packets are routed by connection ID.
    pub(super) fn routes(&self) -> bool {
        self.connections.is_some()
    }

    /// What names the service.
    pub fn key(&self) -> VipKey {
        self.key
    }

    /// What becomes of echo requests, as far as it has a say in that.
    pub(super) fn echo(&self) -> Echo {
        self.echo
    }

    /// How long its flows are remembered; none where they are not.
    #[inline]
    pub(super) fn lives(&self) -> Option<&Lifetimes> {
        self.lives.as_ref()
    }

    /// The backends that may take new flows, sorted by their ids.
    pub fn members(&self) -> &[BackendIndex] {
        &self.method.members
    }

    /// The slots of the selector, each the position of one of the [members](Self::members); none if
    /// it has none.
    pub fn slots(&self) -> Option<&[u16]> {
        self.method.selector.slots()
    }

    /// Whether a flow has the same hash in both services.
    pub fn hashes_alike(&self, other: &Self) -> bool {
        self.method.hashes_alike(&other.method)
    }

    /// What of a flow is hashed.
    pub fn hash_input(&self) -> HashInput {
        self.method.hash_input
    }

    /// Whether a packet can be placed without its ports and what is behind them.
    pub fn needs_ports(&self) -> bool {
        self.method.hash_input.uses_ports() || self.connections.is_some()
    }

    /// The backend that gave out this connection ID; none if the policy knows of none. Whether that
    /// backend keeps its flows is another question.
    #[inline]
    pub fn route(&self, id: &ConnectionId) -> Option<BackendIndex> {
        self.connections.as_ref()?.route(id)
    }

    /// The packet's hash under this service's key.
    #[inline(always)]
    pub fn hash(&self, packet: &PacketInfo) -> FlowHash {
        self.method.hash(packet)
    }

    /// The backend for a new flow with this hash; none if none may take traffic.
    #[inline]
    pub fn select(&self, hash: FlowHash) -> Option<BackendIndex> {
        self.method.select(hash)
    }

    /// What was chosen for a flow of this packet before the last changes; none if that is of no more interest.
    #[inline(never)]
    pub(super) fn elder(
        &self,
        packet: PacketInfo,
        hash: FlowHash,
        now: Timestamp,
    ) -> Option<Former> {
        self.elder.as_ref()?.select(&self.method, self.lives.as_ref()?, &packet, hash, now)
    }

    /// Whether there is anything that was chosen before.
    #[inline]
    pub(super) fn has_elder(&self) -> bool {
        self.elder.is_some()
    }
}
