//! What is known of backends by name: what monitors have found out, and what the operator wants.

use crate::balancer::{AdminState, Backend, VipKey};
use crate::config::Config;
use crate::health::HealthState;
use std::collections::HashMap;
use std::time::Instant;

/// What is known of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Observation {
    pub(super) state: HealthState,
    /// Why it is down, if it is.
    pub(super) reason: Option<String>,
    /// Since when it is not up, if it ever was.
    pub(super) fell: Option<Instant>,
}

impl Observation {
    pub(super) fn new(state: HealthState) -> Self {
        Self { state, reason: None, fell: None }
    }
}

/// Has an entry for every backend that is probed, and for no other.
#[derive(Clone, Debug, Default)]
pub(super) struct HealthBoard(HashMap<VipKey, HashMap<String, Observation>>);

impl HealthBoard {
    /// Follows a change of the configuration: backends that stay keep their state, those that come
    /// begin as their service says. What was known of one that left does not greet it when it comes
    /// back.
    pub(super) fn adopt(&mut self, config: &Config) {
        let mut known = std::mem::take(&mut self.0);
        for bound in &config.services {
            let Some(monitor) = &bound.monitor else {
                continue;
            };
            let initial = monitor.policy.initial;
            let mut of_service = known.remove(&bound.service.key).unwrap_or_default();
            let backends = bound.service.backends.iter().map(|backend| {
                let id = backend.id();
                let state = of_service.remove(id).unwrap_or(Observation::new(initial));
                (id.to_owned(), state)
            });
            self.0.insert(bound.service.key, backends.collect());
        }
    }

    /// Notes a state, and says whether that is news; one of a backend that is not probed any more is
    /// ignored.
    pub(super) fn set(
        &mut self,
        service: VipKey,
        id: &str,
        (state, reason): (HealthState, Option<String>),
        now: Instant,
    ) -> bool {
        let known = self.0.get_mut(&service).and_then(|of_service| of_service.get_mut(id));
        let Some(known) = known else {
            return false;
        };
        if (known.state, &known.reason) == (state, &reason) {
            return false;
        }
        let fell = if known.state == HealthState::Up { Some(now) } else { known.fell };
        *known = Observation { state, reason, fell };
        true
    }

    /// What is known of a backend; none if it is not probed.
    pub(super) fn of(&self, service: VipKey, id: &str) -> Option<&Observation> {
        self.0.get(&service)?.get(id)
    }

    /// Whether a backend waits for its first probe to decide about it.
    pub(super) fn awaits_probes(&self) -> bool {
        let mut all = self.0.values().flat_map(|of_service| of_service.values());
        all.any(|observed| observed.state == HealthState::Unknown)
    }
}

/// What the operator has said while the director runs. It goes before the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct AdminBoard(HashMap<VipKey, HashMap<String, AdminState>>);

impl AdminBoard {
    /// Forgets what was said of backends that are no more.
    pub(super) fn adopt(&mut self, config: &Config) {
        if self.0.is_empty() {
            return;
        }
        let mut said = std::mem::take(&mut self.0);
        for service in config.services.iter().map(|bound| &bound.service) {
            let mut of_service = said.remove(&service.key).unwrap_or_default();
            let stay = service.all_backends();
            let stay = stay.filter_map(|backend| of_service.remove_entry(backend.id()));
            let stay: HashMap<_, _> = stay.collect();
            if !stay.is_empty() {
                self.0.insert(service.key, stay);
            }
        }
    }

    /// Notes what is wanted of a backend; nothing: what its configuration says.
    pub(super) fn set(&mut self, service: VipKey, id: &str, admin: Option<AdminState>) {
        let of_service = self.0.entry(service).or_default();
        match admin {
            Some(admin) => of_service.insert(id.to_owned(), admin),
            None => of_service.remove(id),
        };
    }

    /// What is wanted of a backend.
    pub(super) fn of(&self, service: VipKey, backend: &dyn Backend) -> AdminState {
        let said = self.0.get(&service).and_then(|of_service| of_service.get(backend.id()));
        said.copied().unwrap_or_else(|| backend.admin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{RealServer, VirtualService};
    use crate::config::ServiceConfig;
    use crate::health::{IcmpEcho, MonitorBinding};
    use std::time::Duration;

    #[test]
    fn who_stays_is_remembered_and_who_left_is_not() {
        let key: VipKey = "10.0.0.100:80/tcp".parse().unwrap();
        let with = |backends: &[&str], probed: bool| {
            let add = |service: VirtualService, address: &&str| {
                service.backend(RealServer::new(address.parse().unwrap()))
            };
            let service = backends.iter().fold(VirtualService::new(key), add);
            let monitor = probed.then(|| MonitorBinding::new(IcmpEcho::new()));
            Config { services: vec![ServiceConfig { service, monitor }] }
        };
        let mut board = HealthBoard::default();
        board.adopt(&with(&["10.0.0.11", "10.0.0.12"], true));
        assert!(board.awaits_probes());
        let down = (HealthState::Down, Some("refused".to_owned()));
        let now = Instant::now();
        assert!(board.set(key, "10.0.0.11", down.clone(), now));
        assert!(board.set(key, "10.0.0.12", (HealthState::Up, None), now));
        assert!(!board.awaits_probes() && !board.set(key, "10.0.0.13", down.clone(), now));

        board.adopt(&with(&["10.0.0.11"], true));
        let known = board.of(key, "10.0.0.11").unwrap();
        assert_eq!((known.state, known.reason.clone(), known.fell), (down.0, down.1, None));
        assert!(board.set(key, "10.0.0.11", (HealthState::Up, None), now));
        assert!(board.set(key, "10.0.0.11", (HealthState::Down, None), now));
        let later = now + Duration::from_secs(1);
        assert!(!board.set(key, "10.0.0.11", (HealthState::Down, None), later), "no news");
        assert_eq!(board.of(key, "10.0.0.11").unwrap().fell, Some(now));
        board.adopt(&with(&["10.0.0.11", "10.0.0.12"], true));
        assert_eq!(board.of(key, "10.0.0.12"), Some(&Observation::new(HealthState::Unknown)));
        board.adopt(&with(&["10.0.0.11"], false));
        assert_eq!(board.of(key, "10.0.0.11"), None);
    }

    #[test]
    fn what_the_operator_says_goes_before_the_configuration_and_with_the_backend() {
        let key: VipKey = "10.0.0.100:80/tcp".parse().unwrap();
        let server = |address: &str| RealServer::new(address.parse().unwrap());
        let (one, other) = (server("10.0.0.11"), server("10.0.0.12"));
        let disabled = one.clone().with_admin(AdminState::Disabled);
        let with = |backends: [&RealServer; 2]| {
            let add =
                |service: VirtualService, server: &RealServer| service.backend(server.clone());
            Config::from_iter([backends.into_iter().fold(VirtualService::new(key), add)])
        };
        let mut board = AdminBoard::default();
        board.adopt(&with([&one, &other]));
        assert_eq!(board.of(key, &disabled), AdminState::Disabled);
        board.set(key, one.id(), Some(AdminState::Draining));
        board.adopt(&with([&disabled, &other]));
        assert_eq!(board.of(key, &disabled), AdminState::Draining);
        assert_eq!(board.of(key, &other), AdminState::Enabled);
        board.set(key, one.id(), None);
        assert_eq!(board.of(key, &disabled), AdminState::Disabled);
        board.set(key, one.id(), Some(AdminState::Draining));
        board.adopt(&with([&other, &server("10.0.0.13")]));
        board.adopt(&with([&one, &other]));
        assert_eq!(board.of(key, &one), AdminState::Enabled);
    }
}
