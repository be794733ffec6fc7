//! `[[service]]` and `[[service.backend]]`.

use super::leaves::{BackendId, names};
use super::probing::Monitor;
use super::quic::{self, Conflict, QuicLbConfig, ServerIds};
use super::table::{Examine, Keys, table};
use crate::balancer::{
    AdminState, Echo, FlowTimes, Maglev, Persistence, Policy, RealServer, Rendezvous, Scope,
    VipKey, VirtualService, WhenAllDown,
};
use crate::flow::{HashInput, HashKey, Protocol};
use crate::forwarding::Forwarding;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How new flows are shared out, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PolicyName {
    /// [`Maglev`].
    #[default]
    Maglev,
    /// [`Rendezvous`].
    Rendezvous,
}

named!(
    PolicyName,
    "policy",
    "maglev or rendezvous",
    ["maglev" => Maglev, "rendezvous" => Rendezvous]
);

/// [`WhenAllDown`], by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AllDown {
    /// [`WhenAllDown::Drop`].
    #[default]
    Drop,
    /// [`WhenAllDown::SendToAll`].
    SendToAll,
    /// [`WhenAllDown::KeepLast`].
    KeepLast,
    /// [`WhenAllDown::Fallback`], to the backend of that name.
    Fallback,
}

named!(
    AllDown,
    "rule for when all are down",
    "drop, send-to-all, keep-last or fallback",
    [
        "drop" => Drop,
        "send-to-all" => SendToAll,
        "keep-last" => KeepLast,
        "fallback" => Fallback,
    ]
);

names! {
    PolicyName: "maglev or rendezvous";
    AllDown: "drop, send-to-all, keep-last or fallback";
}

table! {
    /// A virtual service: what is balanced, among whom, and how.
    Service named by "vip" {
        /// The address or prefix, port and protocol: `10.0.0.100:80/tcp`, `10.0.0.100:any/udp`,
        /// `10.0.0.100` (all ports, all protocols), `[2001:db8::1]:53/udp`, `203.0.113.0/24:443/tcp`.
        "vip" vip: VipKey,
        /// What of a flow decides where it goes; `5-tuple` unless told.
        "hash" hash: Option<HashInput>,
        /// The key of the hash, 32 hexadecimal digits. Directors that share the VIP share it. The
        /// default is public.
        "hash-key" hash_key: Option<HashKey>,
        /// How new flows are shared out; `maglev` unless told.
        "policy" policy: Option<PolicyName>,
        /// Slots of the table of policy maglev, a prime; 65537 unless told.
        "table-size" table_size: Option<Maglev>,
        /// How servers encode their ID in connection IDs of QUIC. Their packets go by that; new flows, and
        /// what has the ID of no server, as the policy says.
        "quic-lb" quic_lb: Vec<QuicLbConfig>,
        /// What becomes of pings to the VIP; `answer` unless told.
        "echo" echo: Option<Echo>,
        /// What becomes of packets while no backend may take new flows; `drop` unless told.
        "when-all-down" when_all_down: Option<AllDown>,
        /// Whether every packet is decided by hashing alone, without a memory of flows.
        "sessionless" sessionless: Option<bool>,
        /// What becomes of the flows of a backend that its monitor finds ill: they go elsewhere (`never`),
        /// stay (`always`), or those of TCP and SCTP stay (`default`, unless told).
        "persistence" persistence: Option<Persistence>,
        /// How long flows are remembered.
        "times" times: Option<Times>,
        /// The backend for `when-all-down = "fallback"`; it is not probed.
        "fallback" fallback: Option<Backend>,
        /// How the backends are probed; not at all unless told, and then each counts as well.
        "monitor" monitor: Option<Monitor>,
        /// The servers.
        "backend" backends: Vec<Backend>,
    }
}

table! {
    /// How long flows are remembered after their last packet.
    Times {
        /// From the first SYN until the connection is proven; `60s` unless told.
        "syn" syn: Option<Duration>,
        /// A SYN this soon after another packet of its flow is a late copy; `3s` unless told.
        "copy" copy: Option<Duration>,
        /// TCP connections; `15m` unless told.
        "established" established: Option<Duration>,
        /// TCP connections after FIN or RST; `30s` unless told.
        "closing" closing: Option<Duration>,
        /// UDP; `60s` unless told.
        "udp" udp: Option<Duration>,
        /// UDP of services that route by QUIC connection ID; `120s` unless told.
        "quic" quic: Option<Duration>,
        /// SCTP; `120s` unless told.
        "sctp" sctp: Option<Duration>,
        /// Other protocols; `120s` unless told.
        "other" other: Option<Duration>,
    }
}

impl Examine for Times {}

impl Times {
    fn to_times(&self) -> FlowTimes {
        let usual = FlowTimes::default();
        FlowTimes {
            syn: self.syn.unwrap_or(usual.syn),
            copy: self.copy.unwrap_or(usual.copy),
            established: self.established.unwrap_or(usual.established),
            closing: self.closing.unwrap_or(usual.closing),
            udp: self.udp.unwrap_or(usual.udp),
            quic: self.quic.unwrap_or(usual.quic),
            sctp: self.sctp.unwrap_or(usual.sctp),
            other: self.other.unwrap_or(usual.other),
        }
    }
}

table! {
    /// A server that holds the VIP on a loopback interface.
    Backend named by "address" {
        /// A name that stays the same for as long as this is the same server; the address unless told.
        /// It decides which flows the server gets, so directors that share a VIP must agree on it.
        "id" id: Option<BackendId>,
        /// The server's own address.
        "address" address: IpAddr,
        /// Its share of new flows, relative to the others; 1 unless told, 0 for none.
        "weight" weight: Option<u16>,
        /// How packets reach it; `l2` unless told.
        "forward" forward: Option<Forwarding>,
        /// What the operator wants of it; `enabled` unless told.
        "admin" admin: Option<AdminState>,
        /// The ID that the server writes into connection IDs of QUIC, in hexadecimal digits, or an array
        /// of several; each counts for every `quic-lb` of the service that has IDs of its length.
        "quic-server-id" quic_server_id: Option<ServerIds>,
    }
}

impl Examine for Service {
    fn examine(&self, keys: &mut Keys<'_, '_, '_>) {
        if self.table_size.is_some() && self.policy == Some(PolicyName::Rendezvous) {
            keys.problem("table-size", "goes with policy maglev; leave it out");
        }
        match (self.when_all_down, &self.fallback) {
            (Some(AllDown::Fallback), None) => {
                keys.problem("fallback", "is required: [service.fallback] with an address");
            }
            (Some(AllDown::Fallback), Some(_)) | (_, None) => {}
            (_, Some(_)) => keys.problem("fallback", "goes with when-all-down = \"fallback\""),
        }
        let is_sessionless = self.sessionless == Some(true);
        if is_sessionless && (self.times.is_some() || self.persistence.is_some()) {
            keys.problem("sessionless", "remembers no flows; leave out `times` and `persistence`");
        }
        let monitor = self.monitor.as_ref().filter(|monitor| monitor.needs_port());
        if monitor.is_some_and(|monitor| monitor.port_for(&self.vip).is_none()) {
            keys.problem("monitor", "`port` is required, as the service has no port of its own");
        }
        self.examine_quic(keys);
    }
}

impl Examine for Backend {}

impl Service {
    fn examine_quic(&self, keys: &mut Keys<'_, '_, '_>) {
        let of = match self.vip.scope() {
            Scope::All => Protocol::UDP,
            Scope::Protocol(of) | Scope::Port(of, _) => of,
        };
        let has_ids = |backend: &Backend| backend.quic_server_id.is_some();
        if self.quic_lb.is_empty() && self.all_backends().any(has_ids) {
            keys.problem("quic-lb", "is required, as a backend has a quic-server-id");
        } else if !self.quic_lb.is_empty() && of != Protocol::UDP {
            keys.problem("quic-lb", format!("goes with udp, not {of}"));
        }
        match quic::policy(self.flow_policy(), &self.quic_lb, self.all_backends()) {
            Ok(_) => {}
            Err(Conflict::Configs(error)) => keys.problem("quic-lb", error.to_string()),
            Err(Conflict::Server(name, error)) => {
                keys.problem("backend", format!("backend {name}: quic-server-id: {error}"));
            }
        }
    }

    fn all_backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().chain(&self.fallback)
    }

    fn flow_policy(&self) -> Arc<dyn Policy> {
        match self.policy.unwrap_or_default() {
            PolicyName::Maglev => Arc::new(self.table_size.unwrap_or_default()),
            PolicyName::Rendezvous => Arc::new(Rendezvous),
        }
    }

    /// The service without its monitor.
    pub fn to_service(&self) -> VirtualService {
        let mut service = VirtualService::new(self.vip);
        service.hash_input = self.hash.unwrap_or(service.hash_input);
        service.hash_key = self.hash_key.unwrap_or(service.hash_key);
        service.echo = self.echo.unwrap_or(service.echo);
        service.sessionless = self.sessionless.unwrap_or_default();
        service.persistence = self.persistence.unwrap_or_default();
        service.times = self.times.as_ref().map(Times::to_times).unwrap_or_default();
        // What does not go together has been noted.
        service.policy = quic::policy(self.flow_policy(), &self.quic_lb, self.all_backends())
            .unwrap_or_else(|_| self.flow_policy());
        service.when_all_down = match (self.when_all_down.unwrap_or_default(), &self.fallback) {
            (AllDown::SendToAll, _) => WhenAllDown::SendToAll,
            (AllDown::KeepLast, _) => WhenAllDown::KeepLast,
            (AllDown::Fallback, Some(backend)) => {
                WhenAllDown::Fallback(Arc::new(backend.to_server()))
            }
            (AllDown::Drop | AllDown::Fallback, _) => WhenAllDown::Drop,
        };
        self.backends.iter().fold(service, |service, backend| service.backend(backend.to_server()))
    }
}

impl Backend {
    /// The server.
    pub fn to_server(&self) -> RealServer {
        let mut server = RealServer::new(self.address);
        if let Some(id) = &self.id {
            server = server.with_id(id.as_str());
        }
        if let Some(weight) = self.weight {
            server = server.with_weight(weight);
        }
        if let Some(forward) = self.forward {
            server = server.with_forwarding(forward);
        }
        server.with_admin(self.admin.unwrap_or_default())
    }
}
