//! What is asked of a director: counters and states.

use crate::balancer::{AdminState, VipKey};
use crate::dataplane::af_xdp::{DeviceStats, RedirectStats};
use crate::dataplane::neighbour::NeighbourState;
use crate::dataplane::{Counts, Idle};
use crate::health::{HealthState, ProbeCounts};
use crate::verdict::BackendIndex;
use std::collections::HashMap;
use std::net::IpAddr;

/// Counters and states at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The number of snapshots published so far.
    pub generation: u64,
    /// Frames by verdict, and what the drivers counted, over all workers.
    pub counts: Counts,
    /// The same of each worker alone, in the order of the queues; they add up to `counts`.
    pub workers: Vec<Counts>,
    /// What the XDP program redirected and left to the kernel, if it could be read.
    pub redirect: Option<RedirectStats>,
    /// What the interfaces have counted themselves, the one that packets come in by first; none if they
    /// could not be asked.
    pub devices: Vec<DeviceStats>,
    /// Every service, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// Every backend of every service, in the order of the configuration.
    pub backends: Vec<BackendStatus>,
    /// Why packets are no longer taken, if a worker has failed: the XDP program is detached then.
    pub failure: Option<String>,
}

/// How one service is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// What it is called.
    pub service: VipKey,
    /// What becomes of its new flows.
    pub state: ServiceState,
    /// How many backends it has, fallbacks included.
    pub backends: usize,
    /// How many of them take new flows by right.
    pub active: usize,
}

/// What becomes of a service's new flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum ServiceState {
    /// They go to backends that take them by right.
    Serving,
    /// They go to backends that take them because none should
    /// ([`WhenAllDown`](crate::balancer::WhenAllDown)).
    LastResort,
    /// They are dropped: no backend takes any.
    AllDown,
    /// They are dropped: it has no backends.
    Empty,
}

impl ServiceState {
    /// The state's stable name, as used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::LastResort => "last-resort",
            Self::AllDown => "all-down",
            Self::Empty => "empty",
        }
    }
}

/// How services are, by how their backends are.
pub(super) fn services(
    keys: impl Iterator<Item = VipKey>,
    backends: &[BackendStatus],
) -> Vec<ServiceStatus> {
    // By service: all, those active, those that are the last resort.
    let mut counts: HashMap<VipKey, [usize; 3]> = HashMap::new();
    for backend in backends {
        let [all, active, last_resort] = counts.entry(backend.service).or_default();
        *all += 1;
        *active += usize::from(backend.idle.is_none());
        *last_resort += usize::from(backend.last_resort);
    }
    let status = |service| {
        let [backends, active, last_resort] = counts.get(&service).copied().unwrap_or_default();
        let state = match (backends, active, last_resort) {
            (0, ..) => ServiceState::Empty,
            (_, 0, 0) => ServiceState::AllDown,
            (_, 0, _) => ServiceState::LastResort,
            _ => ServiceState::Serving,
        };
        ServiceStatus { service, state, backends, active }
    };
    keys.map(status).collect()
}

/// How one backend of one service is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackendStatus {
    /// The service.
    pub service: VipKey,
    /// The backend's name.
    pub id: String,
    /// What verdicts call it, as long as it stays.
    pub index: BackendIndex,
    /// The backend's own address.
    pub address: IpAddr,
    /// Its configured share of new flows.
    pub weight: u16,
    /// What the operator wants of it.
    pub admin: AdminState,
    /// What its monitor observes; none if it has no monitor.
    pub health: Option<HealthState>,
    /// What its monitor said last of why it is down; none if it is not, or nothing was said.
    pub health_reason: Option<String>,
    /// How its probes went; none if it has no monitor.
    pub probes: Option<ProbeCounts>,
    /// The way to it, or why there is none; none while nobody has looked yet.
    pub neighbour: Option<NeighbourState>,
    /// Why it takes no new flows; none if it does.
    pub idle: Option<Idle>,
    /// Whether it takes new flows all the same, because no backend of its service should
    /// ([`WhenAllDown`](crate::balancer::WhenAllDown)).
    pub last_resort: bool,
    /// How many flows all workers remember of it. Each counts 1,024 backends every tenth of a second, so
    /// this is as old as that takes. Flows that are over count until their place is swept or needed, and
    /// so do, for as long, those of who had its place in the table before; none are remembered of
    /// backends that cannot be reached.
    pub flows: u64,
    /// How many flows of it all workers have begun to remember, by a packet of their own; as old.
    pub flows_begun: u64,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Bytes forwarded to it, Ethernet headers included.
    pub bytes: u64,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A backend that is well and has been sent nothing.
    pub(in crate::director) fn backend(service: VipKey, id: &str) -> BackendStatus {
        BackendStatus {
            service,
            id: id.to_owned(),
            index: BackendIndex::new(0, 0),
            address: IpAddr::from([10, 0, 0, 11]),
            weight: 1,
            admin: AdminState::Enabled,
            health: None,
            health_reason: None,
            probes: None,
            neighbour: None,
            idle: None,
            last_resort: false,
            flows: 0,
            flows_begun: 0,
            packets: 0,
            bytes: 0,
        }
    }

    #[test]
    fn a_service_is_as_its_best_backend() {
        let keys = ["10.0.0.1:80/tcp", "10.0.0.2:80/tcp", "10.0.0.3:80/tcp", "10.0.0.4:80/tcp"];
        let keys: Vec<VipKey> = keys.iter().map(|key| key.parse().unwrap()).collect();
        let down = |key, last_resort| {
            let idle = Some(Idle::Unhealthy("refused".to_owned()));
            BackendStatus { idle, last_resort, ..backend(key, "down") }
        };
        let backends = [
            down(keys[0], false),
            backend(keys[0], "up"),
            down(keys[1], true),
            down(keys[2], false),
        ];
        let states = services(keys.iter().copied(), &backends);
        let states: Vec<_> =
            states.iter().map(|s| (s.state.as_str(), s.backends, s.active)).collect();
        let expected =
            [("serving", 2, 1), ("last-resort", 1, 0), ("all-down", 1, 0), ("empty", 0, 0)];
        assert_eq!(states, expected);
    }
}
