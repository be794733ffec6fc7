//! What differs between two configurations.

use super::{Config, ServiceConfig};
use crate::balancer::{Backend, VipKey};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A backend of a service, by name.
pub type BackendName = (VipKey, String);

/// What a new configuration adds to, takes from and changes in the one before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Services that have come.
    pub services_added: Vec<VipKey>,
    /// Services that have gone.
    pub services_removed: Vec<VipKey>,
    /// Services that are balanced in another way, or probed another way or at other times. Monitors
    /// themselves cannot be compared.
    pub services_changed: Vec<VipKey>,
    /// Backends that have come, those of services that have come included.
    pub backends_added: Vec<BackendName>,
    /// Backends that have gone, those of services that have gone included.
    pub backends_removed: Vec<BackendName>,
    /// Backends that have another address, weight, forwarding mode or administrative state.
    pub backends_changed: Vec<BackendName>,
}

impl Changes {
    /// Compares two configurations; of services with one key the last counts.
    pub fn between(old: &Config, new: &Config) -> Self {
        let was: BTreeMap<VipKey, &ServiceConfig> =
            old.services.iter().map(|bound| (bound.service.key, bound)).collect();
        let changed = new.services.iter().filter(|bound| {
            was.get(&bound.service.key).is_some_and(|was| is_other_way(was, bound))
        });
        let mut changes = Self::default();
        changes.services_changed.extend(changed.map(|bound| bound.service.key));
        let (old, new) = (services(old), services(new));
        let none = BTreeMap::new();
        for (key, backends) in &new {
            if !old.contains_key(key) {
                changes.services_added.push(*key);
            }
            let before = old.get(key).unwrap_or(&none);
            for (id, backend) in backends {
                let name = (*key, (*id).to_owned());
                match before.get(id) {
                    None => changes.backends_added.push(name),
                    Some(was) if differs(was.as_ref(), backend.as_ref()) => {
                        changes.backends_changed.push(name);
                    }
                    Some(_) => {}
                }
            }
        }
        for (key, backends) in &old {
            if !new.contains_key(key) {
                changes.services_removed.push(*key);
            }
            let after = new.get(key).unwrap_or(&none);
            let gone = backends.keys().filter(|id| !after.contains_key(*id));
            changes.backends_removed.extend(gone.map(|id| (*key, (*id).to_owned())));
        }
        changes
    }
}

fn is_other_way(a: &ServiceConfig, b: &ServiceConfig) -> bool {
    let method = |bound: &ServiceConfig| {
        let service = &bound.service;
        let monitor = bound.monitor.as_ref().map(|monitor| (monitor.policy, monitor.through));
        let resort = service.when_all_down.as_str();
        let flows = (service.sessionless, service.persistence, service.times);
        (service.hash_input, service.hash_key, service.echo, resort, flows, monitor)
    };
    let (a_policy, b_policy) = (&a.service.policy, &b.service.policy);
    let same_policy = Arc::ptr_eq(a_policy, b_policy)
        || a_policy.fingerprint().is_some() && a_policy.fingerprint() == b_policy.fingerprint();
    !same_policy || method(a) != method(b)
}

type Backends<'a> = BTreeMap<&'a str, &'a Arc<dyn Backend>>;

fn services(config: &Config) -> BTreeMap<VipKey, Backends<'_>> {
    let of_service = |service: &'_ super::ServiceConfig| service.service.key;
    config
        .services
        .iter()
        .map(|bound| {
            let backends = bound.service.all_backends().map(|backend| (backend.id(), backend));
            (of_service(bound), backends.collect())
        })
        .collect()
}

fn differs(a: &dyn Backend, b: &dyn Backend) -> bool {
    (a.address(), a.weight(), a.forwarding(), a.admin())
        != (b.address(), b.weight(), b.forwarding(), b.admin())
}

impl fmt::Display for Changes {
    /// As in `services: 1 added, 0 removed, 0 changed; backends: 2 added, 0 removed, 1 changed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "services: {} added, {} removed, {} changed; \
             backends: {} added, {} removed, {} changed",
            self.services_added.len(),
            self.services_removed.len(),
            self.services_changed.len(),
            self.backends_added.len(),
            self.backends_removed.len(),
            self.backends_changed.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{RealServer, VirtualService, WhenAllDown};

    fn config(services: &[(&str, &[(&str, u16)])]) -> Config {
        let service = |(key, backends): &(&str, &[(&str, u16)])| {
            let service = VirtualService::new(key.parse().unwrap());
            backends.iter().fold(service, |service, (address, weight)| {
                service.backend(RealServer::new(address.parse().unwrap()).with_weight(*weight))
            })
        };
        services.iter().map(service).collect()
    }

    #[test]
    fn what_comes_goes_and_changes_is_told() {
        let old = config(&[
            ("10.0.0.100:80/tcp", &[("10.0.0.11", 1), ("10.0.0.12", 1), ("10.0.0.13", 1)]),
            ("10.0.0.101", &[("10.0.0.11", 1)]),
        ]);
        let mut new = config(&[
            ("10.0.0.102", &[("10.0.0.11", 1)]),
            ("10.0.0.100:80/tcp", &[("10.0.0.14", 1), ("10.0.0.12", 2), ("10.0.0.11", 1)]),
        ]);
        let sorry = RealServer::new("10.0.0.99".parse().unwrap());
        new.services[1].service.when_all_down = WhenAllDown::Fallback(Arc::new(sorry));
        let changes = Changes::between(&old, &new);
        let names = |names: &[BackendName]| -> Vec<String> {
            names.iter().map(|(key, id)| format!("{key} {id}")).collect()
        };
        assert_eq!(changes.services_added, ["10.0.0.102".parse().unwrap()]);
        assert_eq!(changes.services_removed, ["10.0.0.101".parse().unwrap()]);
        assert_eq!(changes.services_changed, ["10.0.0.100:80/tcp".parse().unwrap()]);
        assert_eq!(
            names(&changes.backends_added),
            ["10.0.0.100:80/tcp 10.0.0.14", "10.0.0.100:80/tcp 10.0.0.99", "10.0.0.102 10.0.0.11"]
        );
        assert_eq!(
            names(&changes.backends_removed),
            ["10.0.0.100:80/tcp 10.0.0.13", "10.0.0.101 10.0.0.11"]
        );
        assert_eq!(names(&changes.backends_changed), ["10.0.0.100:80/tcp 10.0.0.12"]);
        assert_eq!(
            changes.to_string(),
            "services: 1 added, 1 removed, 1 changed; backends: 3 added, 2 removed, 1 changed"
        );
        assert_eq!(Changes::between(&new, &new), Changes::default());
    }
}
