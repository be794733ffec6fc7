//! What makes a configuration unusable. Every problem is found in one pass.

use super::{Config, Host, Limits};
use crate::balancer::{Scope, VipKey, VirtualService, WhenAllDown};
use crate::error::{ConfigError, ConfigProblem};
use crate::health::Through;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// The most backends one service can have, if its policy takes as many: a selector answers in 16 bits.
const MAX_BACKENDS_PER_SERVICE: usize = u16::MAX as usize;

/// Checks services against each other, the host and the limits.
///
/// # Errors
///
/// Every problem found: duplicate services or backends, addresses that cannot be a VIP or a
/// backend, backends that are a VIP or the director itself, tunnels and DSCP values that cannot work,
/// intervals and timeouts that cannot be kept, flows that are remembered for no time, more than the limits allow.
pub fn check(config: &Config, host: &Host, limits: &Limits) -> Result<(), ConfigError> {
    match problems(config, Some(host), limits) {
        problems if problems.is_empty() => Ok(()),
        problems => Err(ConfigError::new(problems)),
    }
}

/// What is wrong on every host, however much there can be.
#[cfg(feature = "file")]
pub(super) fn without_host(config: &Config) -> Vec<ConfigProblem> {
    let limits = Limits { services: usize::MAX, backends: Limits::MAX_BACKENDS };
    problems(config, None, &limits)
}

fn problems(config: &Config, host: Option<&Host>, limits: &Limits) -> Vec<ConfigProblem> {
    let services: Vec<&VirtualService> = config.services.iter().map(|s| &s.service).collect();
    let mut check = Check { vips: Vips::of(&services), host, problems: Vec::new() };
    check.limits(&services, limits);
    check.tunnel_sources();
    let mut seen = HashSet::new();
    for (service, bound) in services.iter().zip(&config.services) {
        if !seen.insert(service.key) {
            let expected = "configured twice; each VIP, port and protocol may be listed once";
            check.problem(path(&service.key), service.key, expected);
        }
        check.vip(&service.key);
        check.backends(service);
        check.forwarding(service);
        let times = service.times.problems(&format!("{}: times: ", path(&service.key)));
        check.problems.extend(times);
        if let Some(monitor) = &bound.monitor {
            let prefix = format!("{}: monitor: ", path(&service.key));
            check.problems.extend(monitor.policy.problems(&prefix));
            check.through(&service.key, monitor.through);
        }
    }
    check.dscp_values(&services);
    check.echo(&services);
    check.problems
}

pub(super) fn path(key: &VipKey) -> String {
    format!("service {key}")
}

/// The VIPs by length of prefix, so that asking whether one covers an address does not take longer
/// the more services there are.
pub(super) struct Vips(BTreeMap<u8, HashMap<IpNet, VipKey>>);

impl Vips {
    fn of(services: &[&VirtualService]) -> Self {
        let mut by_length = BTreeMap::<u8, HashMap<IpNet, VipKey>>::new();
        for key in services.iter().map(|service| service.key) {
            let vips = by_length.entry(key.prefix().prefix_len()).or_default();
            vips.entry(key.prefix()).or_insert(key);
        }
        Self(by_length)
    }

    /// The most specific VIP that covers `address`; of several services on it the first.
    pub(super) fn covering(&self, address: IpAddr) -> Option<VipKey> {
        self.0.iter().rev().find_map(|(length, vips)| {
            // A length that only IPv6 has is an error for an IPv4 address.
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            vips.get(&prefix).copied()
        })
    }

    /// A VIP that shares addresses with `prefix`.
    pub(super) fn overlapping(&self, prefix: IpNet) -> Option<VipKey> {
        let all = self.0.values().flat_map(HashMap::values).copied();
        let inside = all.filter(|vip| prefix.contains(&vip.prefix()));
        self.covering(prefix.addr()).or_else(|| inside.min_by_key(VipKey::prefix))
    }
}

pub(super) struct Check<'a> {
    pub(super) vips: Vips,
    /// None if it is not known yet on which host this is to be.
    pub(super) host: Option<&'a Host>,
    problems: Vec<ConfigProblem>,
}

impl<'a> Check<'a> {
    pub(super) fn problem(
        &mut self,
        path: String,
        value: impl ToString,
        expected: impl Into<String>,
    ) {
        self.problems.push(ConfigProblem {
            path,
            value: value.to_string(),
            expected: expected.into(),
        });
    }

    fn own_addresses(&self) -> impl Iterator<Item = &'a IpNet> + use<'a> {
        self.host.into_iter().flat_map(|host| &host.addresses)
    }

    fn limits(&mut self, services: &[&VirtualService], limits: &Limits) {
        let backends: usize = services.iter().map(|s| s.all_backends().count()).sum();
        for (what, count, limit, most) in [
            ("services", services.len(), limits.services, usize::MAX),
            ("backends", backends, limits.backends, Limits::MAX_BACKENDS),
        ] {
            if limit == 0 || limit > most {
                self.problem(format!("limit of {what}"), limit, format!("1 to {most}"));
            } else if count > limit {
                let remedy = if limit < most { "; raise the limit at start" } else { "" };
                self.problem(what.to_owned(), count, format!("at most {limit} {what}{remedy}"));
            }
        }
    }

    fn vip(&mut self, key: &VipKey) {
        let prefix = key.prefix();
        if let Some(why) = not_unicast(prefix.addr()) {
            let expected = format!("{why}; a VIP is a unicast address that clients can reach");
            self.problem(path(key), prefix, expected);
        }
        if let Scope::Port(protocol, port) = key.scope()
            && (!protocol.has_ports() || port == 0)
        {
            let expected = "ports go with tcp, udp and sctp, and are 1 to 65535";
            self.problem(path(key), format!("port {port} of {protocol}"), expected);
        }
        // An address with a real subnet is how the host is reached; one without was added for a
        // purpose, such as answering ARP for the VIP.
        let own = self.own_addresses();
        let main = |own: &&IpNet| own.prefix_len() < own.max_prefix_len();
        if let Some(own) = own.filter(main).find(|own| prefix.contains(&own.addr())) {
            let expected = format!(
                "covers the director's own address {own}: its SSH, ARP-resolved and health traffic \
                 would be taken; give the VIP an address of its own, which the host may hold as /{}",
                own.max_prefix_len()
            );
            self.problem(path(key), prefix, expected);
        }
    }

    /// Probes through the VIP come from an address of its family, which is this host's.
    fn through(&mut self, key: &VipKey, through: Through) {
        let vip = key.prefix().addr();
        let source = self.host.map(|host| host.probe_sources.towards(vip));
        if through == Through::Vip && source == Some(None) {
            let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
            let expected = format!(
                "needs an {family} address of the director's interface, with a subnet, that answers \
                 to probes come to; give it one, set the probe source, or probe through `backend`"
            );
            self.problem(format!("{}: monitor: through", path(key)), "vip", expected);
        }
    }

    fn backends(&mut self, service: &VirtualService) {
        let (count, most) = (service.backends.len(), service.policy.most_candidates());
        if count > MAX_BACKENDS_PER_SERVICE {
            let expected = format!("at most {MAX_BACKENDS_PER_SERVICE} backends in one service");
            self.problem(path(&service.key), count, expected);
        } else if count > most {
            let expected = format!(
                "at most {most} backends in one service with its policy, which would take too long to build; Maglev takes more"
            );
            self.problem(
                format!("{}: policy", path(&service.key)),
                format!("{count} backends"),
                expected,
            );
        }
        let mut ids = HashSet::new();
        if let WhenAllDown::Fallback(fallback) = &service.when_all_down
            && fallback.weight() == 0
        {
            let path = format!("{}: fallback {}: weight", path(&service.key), fallback.id());
            self.problem(path, 0, "1 to 65535; the fallback would take no traffic");
        }
        for backend in service.all_backends() {
            let (id, address) = (backend.id(), backend.address());
            let path = || format!("{}: backend {id}", path(&service.key));
            if id.is_empty() || !ids.insert(id) {
                let expected = "every backend of a service has an id of its own, not empty";
                self.problem(path(), format!("id {id:?}"), expected);
            }
            if let Some(why) = not_unicast(address) {
                let expected = format!("{why}; a backend has a unicast address");
                self.problem(path(), address, expected);
            }
            if let Some(own) = self.own_addresses().find(|own| own.addr() == address) {
                let expected = format!("is the director's own address {own}; packets would loop");
                self.problem(path(), address, expected);
            }
            if let Some(vip) = self.vips.covering(address) {
                let expected = format!(
                    "is covered by the VIP {vip}; name the backend by its own address, not the VIP's"
                );
                self.problem(path(), address, expected);
            }
        }
    }
}

/// Why an address is no unicast address of a host, if it is none.
pub(super) fn not_unicast(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    Some(match address {
        ip if ip.is_unspecified() => "is the unspecified address",
        ip if ip.is_multicast() => "is a multicast address",
        ip if ip.is_loopback() => "is a loopback address",
        _ if broadcast => "is the broadcast address",
        _ if mapped => "is an IPv4-mapped IPv6 address, which is never on the wire",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{ByConnection, FlowTimes, Policy, RealServer, Rendezvous};
    use crate::flow::{ConnectionId, Protocol};
    use std::sync::Arc;
    use std::time::Duration;

    fn service(key: &str, backends: &[&str]) -> VirtualService {
        let service = VirtualService::new(key.parse().unwrap());
        backends.iter().fold(service, |service, address| {
            service.backend(RealServer::new(address.parse().unwrap()))
        })
    }

    fn host() -> Host {
        Host {
            addresses: vec![
                "10.0.0.1/24".parse().unwrap(),
                "10.0.0.100/32".parse().unwrap(),
                "fd00::1/64".parse().unwrap(),
            ],
            ..Host::default()
        }
    }

    fn problems(services: &[VirtualService]) -> Vec<String> {
        match check(&services.iter().cloned().collect(), &host(), &Limits::default()) {
            Ok(()) => Vec::new(),
            Err(error) => error.problems().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_sound_configuration_passes() {
        let services = [
            service("10.0.0.100:80/tcp", &["10.0.0.11", "10.0.0.12"]),
            service("10.0.0.100", &["10.0.0.11"]),
            service("[fd00::100]:80/tcp", &["fd00::11", "10.0.0.12"]),
            service("10.0.0.101:80/tcp", &[]),
        ];
        assert_eq!(problems(&services), [""; 0]);
    }

    #[test]
    fn each_problem_names_place_value_and_remedy() {
        for (key, backends, place, says) in [
            (
                "10.0.0.1:80/tcp",
                &["10.0.0.11"][..],
                "service 10.0.0.1:80/tcp",
                "own address 10.0.0.1/24",
            ),
            ("10.0.0.0/24", &["10.0.1.11"], "service 10.0.0.0/24", "own address 10.0.0.1/24"),
            ("0.0.0.0:80/tcp", &[], "service 0.0.0.0:80/tcp", "unspecified"),
            ("224.0.0.5", &[], "service 224.0.0.5", "multicast"),
            ("::ffff:10.0.0.9", &[], "service ::ffff:10.0.0.9", "IPv4-mapped"),
            ("10.0.0.200", &["10.0.0.200"], "backend 10.0.0.200", "covered by the VIP"),
            ("10.0.0.200", &["10.0.0.1"], "backend 10.0.0.1", "director's own address"),
            ("10.0.0.200", &["10.0.0.11", "10.0.0.11"], "backend 10.0.0.11", "id of its own"),
            ("10.0.0.200", &["127.0.0.1"], "backend 127.0.0.1", "loopback"),
            ("10.0.0.200", &["255.255.255.255"], "backend 255.255.255.255", "broadcast"),
        ] {
            let problems = problems(&[service(key, backends)]);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(place) && problems[0].contains(says), "{problems:?}");
        }
    }

    #[test]
    fn all_problems_are_found_in_one_pass() {
        let services = [
            service("10.0.0.200:80/tcp", &["10.0.0.1", "0.0.0.0"]),
            service("10.0.0.200:80/tcp", &["10.0.0.200"]),
        ];
        assert_eq!(problems(&services).len(), 4, "{:?}", problems(&services));
    }

    #[test]
    fn limits_hold() {
        let config = Config::from_iter([service("10.0.0.200", &["10.0.0.11", "10.0.0.12"])]);
        let limits = Limits { services: 1, backends: 1 };
        let error = check(&config, &host(), &limits).unwrap_err().to_string();
        assert_eq!(error, "backends: 2: at most 1 backends; raise the limit at start");
    }

    #[test]
    fn limits_that_cannot_be_are_refused_before_there_is_anything() {
        let problems = |services, backends| {
            let checked = check(&Config::default(), &host(), &Limits { services, backends });
            checked.map_err(|error| error.problems().iter().map(ToString::to_string).collect())
        };
        let refused = |text: &str| Err(vec![text.to_owned()]);
        assert_eq!(problems(1, 1), Ok(()));
        assert_eq!(problems(usize::MAX, 1 << 21), Ok(()));
        assert_eq!(problems(1, 0), refused("limit of backends: 0: 1 to 2097152"));
        assert_eq!(problems(1, (1 << 21) + 1), refused("limit of backends: 2097153: 1 to 2097152"));
        assert_eq!(problems(1, usize::MAX).unwrap_err().len(), 1);
        assert!(problems(0, 1).unwrap_err()[0].starts_with("limit of services: 0: 1 to "));
    }

    #[test]
    fn limits_may_be_reached_but_not_raised_beyond_what_can_be_told_apart() {
        let config = Config::from_iter([service("10.0.0.200", &["10.0.0.11", "10.0.0.12"])]);
        let limits = Limits { services: 1, backends: 2 };
        assert!(check(&config, &host(), &limits).is_ok());

        let backend: Arc<dyn crate::balancer::Backend> =
            Arc::new(RealServer::new("10.0.0.11".parse().unwrap()));
        let crowd = |count| {
            let mut service = service("10.0.0.200", &[]);
            service.backends = vec![Arc::clone(&backend); count];
            service
        };
        let says = |service: VirtualService, text: &str| {
            let limits = Limits { services: usize::MAX, backends: Limits::MAX_BACKENDS };
            let error = check(&Config::from_iter([service]), &host(), &limits).unwrap_err();
            error.problems().iter().any(|problem| problem.expected.contains(text))
        };
        assert!(!says(crowd(65_535), "backends in one service"));
        assert!(says(crowd(65_536), "at most 65535 backends in one service"));

        // Also where it shares out what another policy leaves.
        let quic = ByConnection::new(Rendezvous, |_: &[&str]| |_: &ConnectionId| None);
        let by_rendezvous: [Arc<dyn Policy>; 2] = [Arc::new(Rendezvous), Arc::new(Box::new(quic))];
        for policy in by_rendezvous {
            assert!(!says(crowd(1024).policy(Arc::clone(&policy)), "backends in one service"));
            let says_most = "at most 1024 backends in one service with its policy";
            assert!(says(crowd(1025).policy(policy), says_most));
        }

        let crowd = crowd(65_535);
        let all = vec![&crowd; Limits::MAX_BACKENDS / 65_535 + 1];
        let host = host();
        let mut check = Check { vips: Vips::of(&all), host: Some(&host), problems: Vec::new() };
        check.limits(&all, &Limits { services: usize::MAX, backends: Limits::MAX_BACKENDS });
        assert_eq!(check.problems[0].expected, "at most 2097152 backends");
    }

    #[test]
    fn a_fallback_takes_traffic() {
        for (weight, refused) in [(0, true), (1, false)] {
            let sorry = RealServer::new("10.0.0.99".parse().unwrap()).with_weight(weight);
            let mut service = service("10.0.0.200", &["10.0.0.11"]);
            service.when_all_down = WhenAllDown::Fallback(Arc::new(sorry));
            let problems = problems(&[service]);
            assert_eq!(!problems.is_empty(), refused, "{problems:?}");
            assert!(problems.iter().all(|says| says.contains("fallback 10.0.0.99: weight: 0")));
        }
    }

    #[cfg(feature = "file")]
    #[test]
    fn without_a_host_only_what_depends_on_it_is_left_out() {
        let with = |mode: &str| {
            let server = RealServer::new("10.0.0.1".parse().unwrap());
            let server = server.with_forwarding(mode.parse().unwrap());
            service("10.0.0.200", &[]).backend(server)
        };
        assert_eq!(problems(&[with("ipip")]).len(), 2);
        assert_eq!(without_host(&Config::from_iter([with("ipip")])), []);
        let twice = [with("l2"), with("l2")];
        assert_eq!(without_host(&twice.into_iter().collect()).len(), 1);
    }

    #[test]
    fn flows_are_remembered_for_some_time_and_not_for_ever() {
        let times = FlowTimes {
            copy: Duration::ZERO,
            udp: Duration::ZERO,
            established: Duration::MAX,
            ..FlowTimes::default()
        };
        let problems = problems(&[service("10.0.0.200", &["10.0.0.11"]).times(times)]);
        let [established, udp] = &problems[..] else { panic!("{problems:?}") };
        assert!(established.starts_with("service 10.0.0.200: times: established: "));
        assert!(established.ends_with("and at most 17280000s"), "{established}");
        assert!(udp.contains("times: udp: 0ns: must be more than nothing"), "{udp}");
    }

    #[test]
    fn keys_and_ids_that_text_cannot_make_are_refused_too() {
        let vip = "10.0.0.200".parse().unwrap();
        for (protocol, port, refused) in
            [(Protocol::TCP, 1, false), (Protocol::TCP, 0, true), (Protocol::GRE, 1, true)]
        {
            let service = VirtualService::new(VipKey::new(vip, Scope::Port(protocol, port)));
            assert_eq!(problems(&[service]).len(), usize::from(refused), "{protocol} {port}");
        }
        let nameless = RealServer::new("10.0.0.11".parse().unwrap()).with_id("");
        let service = service("10.0.0.200", &[]).backend(nameless);
        assert!(problems(&[service])[0].contains("not empty"));
    }

    #[test]
    fn the_most_specific_vip_that_covers_a_backend_is_named() {
        let services = [
            service("10.1.0.0/16", &["10.1.2.3"]),
            service("10.1.2.0/24:80/tcp", &[]),
            service("10.1.2.0/24", &[]),
            service("fd00:1::/32", &["10.1.9.9", "fd00:1::9"]),
        ];
        let problems = problems(&services);
        assert_eq!(problems.len(), 3, "{problems:?}");
        for (problem, vip) in
            problems.iter().zip(["10.1.2.0/24:80/tcp;", "10.1.0.0/16;", "fd00:1::/32;"])
        {
            assert!(problem.contains(vip), "{problem}");
        }
    }
}
