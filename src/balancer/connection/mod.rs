//! Packets that say themselves which backend they are for: by their connection IDs.

mod config;
mod quic_lb;

pub use config::{LengthError, QuicConfig};
pub use quic_lb::{QuicLb, QuicLbError};

use super::policy::{Candidate, Policy, Selector};
use crate::flow::ConnectionId;
use crate::verdict::BackendIndex;
use std::fmt;

/// Says which backend has given out a connection ID. Immutable, and shared by all workers.
///
/// Closures from a `&ConnectionId` to an `Option<u16>` are routers; [`ByConnection`] takes them.
pub trait ConnectionRouter: Send + Sync {
    /// The position of that backend among the ids that the router was made for; none if it is none of
    /// them, and then the packet is placed by its flow.
    ///
    /// Runs for every UDP datagram of the service, whatever is in it: no I/O, no allocation, no panic.
    fn route(&self, id: &ConnectionId) -> Option<u16>;
}

impl<F: Fn(&ConnectionId) -> Option<u16> + Send + Sync> ConnectionRouter for F {
    #[inline]
    fn route(&self, id: &ConnectionId) -> Option<u16> {
        self(id)
    }
}

/// A policy that routes by connection ID with a function of the embedder's own, and shares out new
/// flows by another policy. For IDs by QUIC-LB there is [`QuicLb`].
///
/// # Example
///
/// Servers that write the last byte of their address into the first of their connection IDs:
///
/// ```
/// use dsrlb::balancer::{ByConnection, Maglev, RealServer, VirtualService};
/// use dsrlb::flow::{ConnectionId, QuicHeader};
///
/// let policy = ByConnection::new(Maglev::default(), |backends: &[&str]| {
///     let mut positions = [None; 256];
///     for (position, address) in (0u16..).zip(backends) {
///         let last = address.rsplit('.').next().and_then(|last| last.parse::<u8>().ok());
///         if let Some(last) = last {
///             positions[usize::from(last)] = Some(position);
///         }
///     }
///     move |id: &ConnectionId| match id.header() {
///         // Clients choose these themselves.
///         QuicHeader::First => None,
///         _ => positions[usize::from(*id.bytes().first()?)],
///     }
/// });
/// let service = VirtualService::new("10.0.0.100:443/udp".parse()?)
///     .policy(policy)
///     .backend(RealServer::new("10.0.0.11".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ByConnection<P, F> {
    flows: P,
    make: F,
}

impl<P: Policy, F, R> ByConnection<P, F>
where
    F: Fn(&[&str]) -> R + Send + Sync,
    R: ConnectionRouter + 'static,
{
    /// `flows` shares out what `make`'s routers do not route. `make` is called, off the packet path,
    /// with the ids of all backends of the service, sorted, whether or not they take new flows.
    pub fn new(flows: P, make: F) -> Self {
        Self { flows, make }
    }
}

impl<P: fmt::Debug, F> fmt::Debug for ByConnection<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByConnection").field("flows", &self.flows).finish_non_exhaustive()
    }
}

impl<P: Policy, F, R> Policy for ByConnection<P, F>
where
    F: Fn(&[&str]) -> R + Send + Sync,
    R: ConnectionRouter + 'static,
{
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        self.flows.build(candidates)
    }

    fn most_candidates(&self) -> usize {
        self.flows.most_candidates()
    }

    fn connections(&self, backends: &[&str]) -> Option<Box<dyn ConnectionRouter>> {
        Some(Box::new((self.make)(backends)))
    }
}

/// A service's router, and who is behind its positions.
pub(super) struct Connections {
    router: Box<dyn ConnectionRouter>,
    members: Box<[BackendIndex]>,
}

impl Connections {
    /// None if the policy does not route by connection ID.
    pub(super) fn build<'a>(
        policy: &dyn Policy,
        backends: impl IntoIterator<Item = (&'a str, BackendIndex)>,
    ) -> Option<Self> {
        let mut backends: Vec<_> = backends.into_iter().collect();
        backends.sort_unstable();
        backends.dedup_by_key(|(id, _)| *id);
        let (ids, members): (Vec<_>, Vec<_>) = backends.into_iter().unzip();
        let router = policy.connections(&ids)?;
        Some(Self { router, members: members.into() })
    }

    #[inline]
    pub(super) fn route(&self, id: &ConnectionId) -> Option<BackendIndex> {
        let position = self.router.route(id)?;
        self.members.get(usize::from(position)).copied()
    }

    /// Whether it leads to just these backends.
    pub(super) fn is_among(&self, backends: impl IntoIterator<Item = BackendIndex>) -> bool {
        let sorted = |mut all: Vec<BackendIndex>| {
            all.sort_unstable();
            all
        };
        sorted(self.members.to_vec()) == sorted(backends.into_iter().collect())
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("members", &self.members).finish_non_exhaustive()
    }
}
