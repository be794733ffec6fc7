//! Real servers, as the embedder knows them.

use crate::forwarding::Forwarding;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

/// What the operator wants of a backend, whatever its monitor observes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum AdminState {
    /// It takes traffic if it can.
    #[default]
    Enabled,
    /// It takes no new flows and keeps those it has, as with a weight of zero.
    Draining,
    /// It takes nothing at all; the flows it has are cut.
    Disabled,
}

named!(
    AdminState,
    "administrative state",
    "enabled, draining or disabled",
    ["enabled" => Enabled, "draining" => Draining, "disabled" => Disabled]
);

/// A server that holds the VIP on a loopback interface and answers clients directly.
pub trait Backend: Debug + Send + Sync {
    /// A name that stays the same for as long as this is the same server. It seeds the hashing, so
    /// directors must agree on it, and it is unique within a service.
    fn id(&self) -> &str;

    /// The server's own address: at which its health is probed, to which tunnels go, and whose next
    /// hop's MAC address is resolved. Its family need not be the VIP's, but for L3DSR.
    fn address(&self) -> IpAddr;

    /// The share of new flows, relative to the other backends of the service. Zero: none.
    fn weight(&self) -> u16 {
        1
    }

    /// How packets reach the server.
    fn forwarding(&self) -> Forwarding {
        Forwarding::L2
    }

    /// What the operator wants of it.
    fn admin(&self) -> AdminState {
        AdminState::Enabled
    }
}

impl<T: Backend + ?Sized> Backend for Box<T> {
    fn id(&self) -> &str {
        (**self).id()
    }
    fn address(&self) -> IpAddr {
        (**self).address()
    }
    fn weight(&self) -> u16 {
        (**self).weight()
    }
    fn forwarding(&self) -> Forwarding {
        (**self).forwarding()
    }
    fn admin(&self) -> AdminState {
        (**self).admin()
    }
}

impl<T: Backend + ?Sized> Backend for Arc<T> {
    fn id(&self) -> &str {
        (**self).id()
    }
    fn address(&self) -> IpAddr {
        (**self).address()
    }
    fn weight(&self) -> u16 {
        (**self).weight()
    }
    fn forwarding(&self) -> Forwarding {
        (**self).forwarding()
    }
    fn admin(&self) -> AdminState {
        (**self).admin()
    }
}

/// The stock [`Backend`]: an address, with a weight of one unless told otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RealServer {
    id: String,
    address: IpAddr,
    weight: u16,
    forwarding: Forwarding,
    admin: AdminState,
}

impl RealServer {
    /// A backend on the director's link (see [`RealServer::with_forwarding`] for others), named by
    /// its address.
    pub fn new(address: IpAddr) -> Self {
        Self {
            id: address.to_string(),
            address,
            weight: 1,
            forwarding: Forwarding::L2,
            admin: AdminState::Enabled,
        }
    }

    /// Gives it another name than its address.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets its share of new flows.
    #[must_use]
    pub fn with_weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// Sets how packets reach it.
    #[must_use]
    pub fn with_forwarding(mut self, forwarding: Forwarding) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// Sets what the operator wants of it.
    #[must_use]
    pub fn with_admin(mut self, admin: AdminState) -> Self {
        self.admin = admin;
        self
    }
}

impl Backend for RealServer {
    fn id(&self) -> &str {
        &self.id
    }
    fn address(&self) -> IpAddr {
        self.address
    }
    fn weight(&self) -> u16 {
        self.weight
    }
    fn forwarding(&self) -> Forwarding {
        self.forwarding
    }
    fn admin(&self) -> AdminState {
        self.admin
    }
}
