//! From services and what is known of their backends to the next snapshot. Pure.

use super::hop::next_hop;
use super::neighbour::{Path, Rejection};
use super::snapshot::{ErrorPolicy, Snapshot};
use crate::balancer::{
    AdminState, Backend, BackendNames, IndexRegistry, Keeping, Persistence, Service, ServiceTable,
    VipKey, VirtualService, WhenAllDown,
};
use crate::flow::Timestamp;
use crate::forwarding::{ProbeSources, TunnelSources};
use crate::packet::MacAddress;
use crate::verdict::BackendIndex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The director's own place, as far as a plan depends on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// MAC address and MTU of each interface, the one that packets come in by first.
    pub ports: Vec<(MacAddress, u32)>,
    /// Whether ARP and neighbour discovery for the VIPs are answered here.
    pub answers: bool,
    /// What tunnels send from.
    pub tunnel_sources: TunnelSources,
    /// What is done about packets that cannot be delivered as they are.
    pub errors: ErrorPolicy,
    /// What probes through the VIPs are sent from.
    pub probe_sources: ProbeSources,
}

impl Site {
    /// One interface with this MAC address that takes packets of any size.
    pub fn new(station: MacAddress) -> Self {
        Self {
            ports: vec![(station, u32::MAX)],
            answers: false,
            tunnel_sources: TunnelSources::default(),
            errors: ErrorPolicy::default(),
            probe_sources: ProbeSources::default(),
        }
    }
}

/// What is known of a backend from looking at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The way to it, or why there is none. One that would bring packets back is refused by the
    /// planner, whoever found it.
    pub path: Result<Path, Idle>,
    /// Whether its monitor finds it well, or why not.
    pub health: Result<(), String>,
    /// For how long it has been ill, if it is; as long as can be if it never was well.
    pub ill_for: Duration,
    /// How long its monitor may take to find out that it is ill: backends that fall together are
    /// found ill one after the other, within this time.
    pub detection: Duration,
    /// The VIP of the service that it tells the link to have, if it does: clients may then send to it
    /// directly.
    pub claims: Option<IpAddr>,
    /// What the operator wants of it.
    pub admin: AdminState,
}

impl Observed {
    /// A backend that is well, enabled, and reached this way.
    pub fn well(path: Path) -> Self {
        Self {
            path: Ok(path),
            health: Ok(()),
            ill_for: Duration::ZERO,
            detection: Duration::ZERO,
            claims: None,
            admin: AdminState::Enabled,
        }
    }
}

/// Why a backend takes no new flows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Idle {
    /// Its weight is zero.
    NoWeight,
    /// The operator has it drained.
    Draining,
    /// The operator has disabled it.
    Disabled,
    /// It is a fallback, and other backends take the traffic.
    Standby,
    /// Its monitor says so.
    Unhealthy(String),
    /// It answers ARP or neighbour solicitations for a VIP of the service, which is the director's to do.
    ClaimsVip {
        /// The VIP.
        vip: IpAddr,
    },
    /// Its MAC address is not known.
    Unresolved(String),
    /// Its forwarding mode needs it on the director's link, and it is behind this router.
    RoutedVia(IpAddr),
    /// Its forwarding mode cannot reach an address of its family. Configurations with such a backend
    /// are refused.
    WrongFamily,
    /// Its MAC address cannot be that of another station.
    BadMac {
        /// What it resolved to.
        mac: MacAddress,
        /// What is wrong with it.
        why: Rejection,
    },
}

impl Idle {
    /// The kind's stable name, as used in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoWeight => "no-weight",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Standby => "standby",
            Self::Unhealthy(_) => "unhealthy",
            Self::ClaimsVip { .. } => "claims-vip",
            Self::Unresolved(_) => "unresolved",
            Self::RoutedVia(_) => "routed-via",
            Self::WrongFamily => "wrong-family",
            Self::BadMac { .. } => "bad-mac",
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWeight => f.write_str("its weight is 0"),
            Self::Draining => f.write_str("draining"),
            Self::Disabled => f.write_str("disabled"),
            Self::Standby => f.write_str("a fallback that is not needed"),
            Self::Unhealthy(why) => write!(f, "unhealthy: {why}"),
            Self::ClaimsVip { vip: vip @ IpAddr::V4(_) } => write!(
                f,
                "answers ARP for the VIP {vip}: clients may bypass the director; set arp_ignore=1 and \
                 arp_announce=2 on it"
            ),
            Self::ClaimsVip { vip: vip @ IpAddr::V6(_) } => write!(
                f,
                "answers neighbour solicitations for the VIP {vip}: clients may bypass the director; \
                 have it hold the VIP on lo alone"
            ),
            Self::Unresolved(why) => write!(f, "neighbour unresolved: {why}"),
            Self::RoutedVia(router) => {
                write!(f, "not on link, as its forwarding mode needs, but behind router {router}")
            }
            Self::WrongFamily => f.write_str("its forwarding mode cannot reach its address"),
            Self::BadMac { mac, why } => write!(f, "neighbour {mac} refused: {why}"),
        }
    }
}

/// A backend as it was planned.
#[derive(Clone, Debug)]
pub struct Member {
    /// The service.
    pub service: VipKey,
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Its index, which counters are kept by.
    pub index: BackendIndex,
    /// Why it takes no new flows, if it takes none.
    pub idle: Option<Idle>,
    /// Whether it takes new flows all the same, because no backend of the service should
    /// ([`WhenAllDown`]).
    pub last_resort: bool,
}

/// A snapshot, and what it was made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For the workers.
    pub snapshot: Snapshot,
    /// Every backend of every service, in the order of the configuration.
    pub members: Vec<Member>,
}

/// Makes snapshots, one after the other, keeping what did not change.
///
/// A backend keeps its index, and a service whose eligible backends are the same keeps its
/// selector: one change among a thousand services builds one table.
#[derive(Clone, Debug)]
pub struct Planner {
    registry: IndexRegistry,
    built: HashMap<VipKey, Built>,
    names: Arc<BackendNames>,
    generation: u64,
    /// Set where services are to know what they chose before.
    now: Option<Timestamp>,
}

/// A service as it was last built, and what from.
#[derive(Clone, Debug)]
struct Built {
    from: VirtualService,
    eligible: Vec<(BackendIndex, u16)>,
    service: Arc<Service>,
}

impl Planner {
    /// A planner that has planned nothing yet, for at most so many backends, each counted once for
    /// every service it is in.
    pub fn new(max_backends: usize) -> Self {
        let registry = IndexRegistry::new(max_backends);
        let (built, names) = (HashMap::new(), Arc::default());
        Self { registry, built, names, generation: 0, now: None }
    }

    /// Has services know what they chose before they changed, for balancers that record
    /// [contested](crate::balancer::Record::Contested) flows alone. To be called before each plan with the
    /// time it is, by the clock that balancers get to see.
    pub fn at(&mut self, now: Timestamp) -> &mut Self {
        self.now = Some(now);
        self
    }

    /// When the first of the services may forget what it chose before: it takes a plan of that time.
    pub fn settles(&self) -> Option<Timestamp> {
        self.built.values().filter_map(|built| built.service.settles()).min()
    }

    /// Plans for these services, which have been [checked](crate::config::check). `observe` is asked
    /// once for each backend of each.
    ///
    /// A backend takes traffic if it is enabled, its weight is not zero, its monitor finds it well, it
    /// claims no VIP, and there is a way to it that does not come back here. One that takes no new flows keeps its
    /// next hop, for its probes and for the flows it has. If no backend of a service may take new
    /// flows, what it says [`WhenAllDown`] holds.
    pub fn plan<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a VirtualService, IntoIter: Clone>,
        site: &Site,
        mut observe: impl FnMut(VipKey, &dyn Backend) -> Observed,
    ) -> Plan {
        let services = services.into_iter();
        let backends = services
            .clone()
            .flat_map(|service| service.all_backends().map(|backend| (service.key, backend.id())));
        let mut indices = self.registry.indices(backends).into_iter();
        let keys: HashSet<VipKey> = services.clone().map(|service| service.key).collect();
        self.built.retain(|key, _| keys.contains(key));

        let mut members = Vec::new();
        let mut hops = Vec::new();
        let mut keeping = Vec::new();
        let mut table = Vec::new();
        for service in services {
            let first = members.len();
            let mut illness = Vec::new();
            for (number, backend) in service.all_backends().enumerate() {
                let Some(index) = indices.next().flatten() else {
                    continue; // beyond the limit, which the check has refused
                };
                let observed = observe(service.key, backend.as_ref());
                let hop = next_hop(site, backend.as_ref(), index, &observed);
                hops.extend(hop.as_ref().ok().copied());
                let is_fallback = number >= service.backends.len();
                illness.push((observed.ill_for, observed.detection));
                if hop.is_ok() {
                    keeping.push((index, kept(service.persistence, &observed), table.len()));
                }
                members.push(Member {
                    service: service.key,
                    backend: Arc::clone(backend),
                    index,
                    idle: idle(backend.as_ref(), is_fallback, hop.err(), observed),
                    last_resort: false,
                });
            }
            let of_service = members.get_mut(first..).unwrap_or_default();
            if of_service.iter().all(|member| member.idle.is_some()) {
                last_resort(&service.when_all_down, of_service, &illness);
            }
            let last = of_service.iter().filter(|member| member.last_resort);
            keeping.extend(last.map(|member| (member.index, Keeping::Everything, table.len())));
            table.push(self.build(service, of_service));
        }

        let mut next_hops = vec![None; self.registry.slots()];
        for hop in hops {
            if let Some(slot) = next_hops.get_mut(hop.index.slot()) {
                *slot = Some(hop);
            }
        }
        if !self.names.are_of(members.iter().map(|member| member.index)) {
            let named = members.iter().map(|m| (m.index, m.service, m.backend.id()));
            self.names = Arc::new(BackendNames::new(named));
        }
        self.generation += 1;
        let snapshot = Snapshot {
            generation: self.generation,
            station: site.ports.first().map_or(MacAddress::ZERO, |(station, _)| *station),
            station_mtu: site.ports.first().map_or(u32::MAX, |(_, mtu)| *mtu),
            answers: site.answers,
            errors: site.errors,
            probe_sources: site.probe_sources,
            leaving: leaving(&members),
            services: Arc::new(
                ServiceTable::new(table).keeping(&keeping).named(Arc::clone(&self.names)),
            ),
            next_hops: next_hops.into_iter().collect(),
        };
        Plan { snapshot, members }
    }

    /// Builds a service for those of its members that take new flows, by right or as a last resort,
    /// unless it has been built for just those.
    fn build(&mut self, service: &VirtualService, members: &[Member]) -> Arc<Service> {
        let takes = |member: &&Member| member.idle.is_none() || member.last_resort;
        let eligible = members.iter().filter(takes);
        let eligible: Vec<_> =
            eligible.map(|member| (Arc::clone(&member.backend), member.index)).collect();
        let weights = eligible.iter().map(|(backend, index)| (*index, backend.weight()));
        let weights: Vec<_> = weights.collect();
        if let Some(built) = self.built.get_mut(&service.key)
            && built.eligible == weights
            && same_method(&built.from, service)
            && built.service.routes_among(members.iter().map(|member| member.index))
        {
            if let Some(settled) = self.now.and_then(|now| built.service.settled(now)) {
                built.service = Arc::new(settled);
            }
            return Arc::clone(&built.service);
        }
        let all = members.iter().map(|member| (member.backend.id(), member.index));
        let mut new = Service::build(service, eligible).with_connections(service, all);
        if let (Some(now), Some(before)) = (self.now, self.built.get(&service.key)) {
            new = new.after(&before.service, now);
        }
        let built = Built { from: service.clone(), eligible: weights, service: Arc::new(new) };
        let service_built = Arc::clone(&built.service);
        self.built.insert(service.key, built);
        service_built
    }
}

/// Which of its flows a backend keeps that can be reached.
fn kept(persistence: Persistence, observed: &Observed) -> Keeping {
    match (observed.admin, &observed.health, persistence) {
        (AdminState::Disabled, ..) => Keeping::Nothing,
        (_, Ok(()), _) | (_, Err(_), Persistence::Always) => Keeping::Everything,
        (_, Err(_), Persistence::Default) => Keeping::Connections,
        (_, Err(_), Persistence::Never) => Keeping::Nothing,
    }
}

/// Those that are being emptied.
fn leaving(members: &[Member]) -> Box<[BackendIndex]> {
    let leaves = |m: &&Member| matches!(m.idle, Some(Idle::NoWeight | Idle::Draining));
    members.iter().filter(leaves).map(|member| member.index).collect()
}

/// Why a backend takes no new flows by right. That there is no way to it comes first: whatever its
/// monitor says, it can be sent nothing. A claimed VIP comes before what its monitor says: clients reach
/// it whether it is well or not.
fn idle(
    backend: &dyn Backend,
    is_fallback: bool,
    no_way: Option<Idle>,
    observed: Observed,
) -> Option<Idle> {
    let Observed { health, claims, admin, .. } = observed;
    match (admin, no_way, health) {
        (AdminState::Disabled, ..) => Some(Idle::Disabled),
        (_, Some(no_way), _) => Some(no_way),
        (AdminState::Draining, ..) => Some(Idle::Draining),
        _ if backend.weight() == 0 => Some(Idle::NoWeight),
        _ if is_fallback => Some(Idle::Standby),
        (_, _, health) => {
            let claims = claims.map(|vip| Idle::ClaimsVip { vip });
            claims.or_else(|| health.err().map(Idle::Unhealthy))
        }
    }
}

/// Says which backends that should take no new flows do so, because nobody else should either.
fn last_resort(what: &WhenAllDown, members: &mut [Member], illness: &[(Duration, Duration)]) {
    let is_ill =
        |member: &Member| matches!(member.idle, Some(Idle::Unhealthy(_) | Idle::ClaimsVip { .. }));
    let ill = members.iter().zip(illness).filter(|(member, _)| is_ill(member));
    let latest = ill.map(|(_, (ill_for, _))| *ill_for).min().unwrap_or_default();
    for (member, (ill_for, detection)) in members.iter_mut().zip(illness) {
        member.last_resort = match what {
            WhenAllDown::Drop => false,
            WhenAllDown::SendToAll => is_ill(member),
            // What fell with the last one. None of that is known to be worse than the rest.
            WhenAllDown::KeepLast => {
                is_ill(member)
                    && *ill_for < Duration::MAX
                    && *ill_for <= latest.saturating_add(*detection)
            }
            WhenAllDown::Fallback(_) => member.idle == Some(Idle::Standby),
        };
    }
}

/// Whether two configurations of a service choose by the same hash and policy, treat pings alike, and
/// remember flows for as long.
fn same_method(a: &VirtualService, b: &VirtualService) -> bool {
    let policies = || (a.policy.fingerprint(), b.policy.fingerprint());
    let same_policy =
        Arc::ptr_eq(&a.policy, &b.policy) || matches!(policies(), (Some(a), Some(b)) if a == b);
    let rest = |service: &VirtualService| {
        let remembers = (service.sessionless, service.times);
        (service.hash_input, service.hash_key, service.echo, remembers)
    };
    same_policy && rest(a) == rest(b)
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
