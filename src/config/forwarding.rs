//! What makes a forwarding mode unusable.

use super::check::{Check, not_unicast, path};
use crate::balancer::{Backend, Echo, VipKey, VirtualService};
use crate::forwarding::{Dscp, Encapsulation, Forwarding, Tunnel, TunnelSources};
use std::collections::HashMap;
use std::net::IpAddr;

/// What every IPv4 host accepts (RFC 791 section 3.1); less on the way would leave next to nothing
/// for what is inside.
const MINIMUM_MTU_IPV4: u16 = 576;
/// What every IPv6 link takes (RFC 8200 section 5).
const MINIMUM_MTU_IPV6: u16 = 1280;

impl Check<'_> {
    pub(super) fn tunnel_sources(&mut self) {
        let sources = self.host.map(|host| host.tunnel_sources);
        for source in sources.iter().flat_map(TunnelSources::iter) {
            if let Some(why) = not_unicast(source.addr()) {
                let expected = format!("{why}; tunnels send from a unicast address of this host");
                self.problem("tunnel source".to_owned(), source, expected);
            }
            if let Some(vip) = self.vips.overlapping(source) {
                let expected = format!(
                    "overlaps with the VIP {vip}: what routers say about the tunnels would be taken \
                     for that; give them an address of their own"
                );
                self.problem("tunnel source".to_owned(), source, expected);
            }
        }
    }

    pub(super) fn forwarding(&mut self, service: &VirtualService) {
        for backend in service.all_backends() {
            let forwarding = backend.forwarding();
            let path = format!("{}: backend {}: forwarding", path(&service.key), backend.id());
            match forwarding {
                Forwarding::L2 => {}
                Forwarding::Tunnel(tunnel) => self.tunnel(&path, backend.address(), &tunnel),
                Forwarding::L3Dsr(dscp) => self.l3dsr(&path, &service.key, backend, dscp),
            }
        }
    }

    fn tunnel(&mut self, path: &str, backend: IpAddr, tunnel: &Tunnel) {
        let forwarding = Forwarding::Tunnel(*tunnel);
        let family = if backend.is_ipv4() { "IPv4" } else { "IPv6" };
        match self.host.map(|host| host.tunnel_sources.towards(backend)) {
            Some(None) => {
                let expected = format!(
                    "{backend} needs a tunnel source of its family: set an {family} address of \
                     this host"
                );
                self.problem(path.to_owned(), forwarding, expected);
            }
            Some(Some(source)) if source.contains(&backend) => {
                let expected = format!(
                    "{backend} is in the tunnel source {source}: packets would loop; send from \
                     addresses that no backend has"
                );
                self.problem(path.to_owned(), forwarding, expected);
            }
            Some(Some(_)) | None => {}
        }
        if let Encapsulation::Gue { port: 0, .. } = tunnel.encapsulation {
            self.problem(format!("{path}: port"), 0, "the backend's GUE port, 1 to 65535");
        }
        if tunnel.hop_limit == 0 {
            self.problem(format!("{path}: hop limit"), 0, "1 to 255; 64 is usual");
        }
        let minimum = if backend.is_ipv4() { MINIMUM_MTU_IPV4 } else { MINIMUM_MTU_IPV6 };
        if let Some(mtu) = tunnel.path_mtu.filter(|mtu| *mtu < minimum) {
            let expected = format!("at least {minimum} bytes, which every {family} path takes");
            self.problem(format!("{path}: path MTU"), mtu, expected);
        }
    }

    fn l3dsr(&mut self, path: &str, vip: &VipKey, backend: &dyn Backend, dscp: Dscp) {
        let forwarding = Forwarding::L3Dsr(dscp);
        if dscp == Dscp::ZERO {
            let expected = "1 to 63; zero is what packets have that name no VIP";
            self.problem(format!("{path}: DSCP"), dscp, expected);
        }
        let prefix = vip.prefix();
        if prefix.addr().is_ipv4() != backend.address().is_ipv4() {
            let expected = format!(
                "puts {} in the place of the VIP, so both must be of one family; use a tunnel",
                backend.address()
            );
            self.problem(path.to_owned(), forwarding, expected);
        }
        if prefix.prefix_len() != prefix.max_prefix_len() {
            let expected = format!(
                "one DSCP value names one VIP, and {prefix} is many; use a tunnel, or a service for \
                 each address"
            );
            self.problem(path.to_owned(), forwarding, expected);
        }
    }

    /// A backend knows the VIP by the DSCP value alone, whatever the service.
    pub(super) fn dscp_values(&mut self, services: &[&VirtualService]) {
        let mut vips: HashMap<(IpAddr, Dscp), IpAddr> = HashMap::new();
        for service in services {
            let vip = service.key.prefix().addr();
            for backend in service.all_backends() {
                let Forwarding::L3Dsr(dscp) = backend.forwarding() else {
                    continue;
                };
                let other = *vips.entry((backend.address(), dscp)).or_insert(vip);
                if other != vip {
                    let path = path(&service.key);
                    let expected = format!(
                        "names the VIP {other} on backend {} already; each VIP of a backend has a \
                         value of its own",
                        backend.address()
                    );
                    self.problem(format!("{path}: backend {}: DSCP", backend.id()), dscp, expected);
                }
            }
        }
    }

    /// A ping has no port that would tell two services apart.
    pub(super) fn echo(&mut self, services: &[&VirtualService]) {
        let mut forwards: HashMap<_, VipKey> = HashMap::new();
        for service in services.iter().filter(|service| service.echo == Echo::Forward) {
            let key = service.key;
            let first = *forwards.entry(key.prefix()).or_insert(key);
            if first != key {
                let expected = format!("echo requests to the VIP go to service {first} already");
                self.problem(format!("{}: echo", path(&key)), "forward", expected);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::balancer::{Echo, RealServer, VirtualService};
    use crate::config::{Host, Limits, check};
    use crate::forwarding::{Dscp, Encapsulation, Forwarding, GueVariant, Tunnel, TunnelSources};

    fn service(vip: &str, backends: &[(&str, Forwarding)]) -> VirtualService {
        let service = VirtualService::new(vip.parse().unwrap());
        backends.iter().fold(service, |service, (address, forwarding)| {
            let server = RealServer::new(address.parse().unwrap());
            service.backend(server.with_forwarding(*forwarding))
        })
    }

    fn problems(sources: &[&str], services: &[VirtualService]) -> Vec<String> {
        let sources = sources.iter().map(|source| source.parse().unwrap());
        let tunnel_sources = sources.fold(TunnelSources::default(), TunnelSources::with);
        let host = Host { tunnel_sources, ..Host::default() };
        match check(&services.iter().cloned().collect(), &host, &Limits::default()) {
            Ok(()) => Vec::new(),
            Err(error) => error.problems().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_mode_passes_beside_the_others_and_across_families() {
        let l3dsr = |value| Forwarding::L3Dsr(Dscp::new(value).unwrap());
        let services = [
            service(
                "10.0.0.100:80/tcp",
                &[
                    ("10.0.0.11", Forwarding::L2),
                    ("10.0.1.11", Forwarding::IPIP),
                    ("fd00:1::11", Forwarding::gue(6080, GueVariant::One)),
                    ("10.0.1.12", l3dsr(1)),
                ],
            ),
            service("10.0.0.100:443/tcp", &[("10.0.1.12", l3dsr(1))]).echo(Echo::Forward),
            service("10.0.0.101:80/tcp", &[("10.0.1.12", l3dsr(2)), ("10.0.1.13", l3dsr(1))])
                .echo(Echo::Forward),
            service("[fd00::100]:80/tcp", &[("10.0.1.11", Forwarding::IPIP)]),
        ];
        assert_eq!(problems(&["10.0.0.1/32", "fd00:9::/64"], &services), [""; 0]);
    }

    #[test]
    fn what_cannot_work_names_the_field_the_value_and_what_is_allowed() {
        let l3dsr = |value| Forwarding::L3Dsr(Dscp::new(value).unwrap());
        let tunnel = |change: fn(&mut Tunnel)| {
            let mut tunnel = Tunnel::new(Encapsulation::IpIp);
            change(&mut tunnel);
            Forwarding::Tunnel(tunnel)
        };
        for (sources, vip, backend, mode, expected) in [
            (
                &["fd00::1/128"][..],
                "10.0.0.100",
                "10.0.1.11",
                Forwarding::IPIP,
                &["10.0.1.11: forwarding: ipip", "IPv4 address"][..],
            ),
            (
                &[],
                "10.0.0.100",
                "fd00::2",
                Forwarding::IPIP,
                &["fd00::2: forwarding", "IPv6 address"],
            ),
            (
                &["10.0.1.0/24"],
                "10.0.0.100",
                "10.0.1.11",
                Forwarding::IPIP,
                &["loop", "10.0.1.0/24"],
            ),
            (
                &["10.0.0.9/32"],
                "10.0.0.0/24",
                "10.0.1.1",
                Forwarding::IPIP,
                &["tunnel source: 10.0.0.9", "VIP 10.0.0.0/24"],
            ),
            (
                &["fd00::/64"],
                "fd00::100",
                "fd00:1::1",
                Forwarding::IPIP,
                &["tunnel source: fd00::/64", "VIP fd00::100"],
            ),
            (
                &["224.0.0.1/32"],
                "10.0.0.100",
                "10.0.1.1",
                Forwarding::IPIP,
                &["tunnel source", "multicast"],
            ),
            (
                &["10.0.0.1/32"],
                "10.0.0.100",
                "10.0.1.1",
                tunnel(|tunnel| tunnel.path_mtu = Some(575)),
                &["path MTU: 575", "576"],
            ),
            (
                &["fd00::1/128"],
                "10.0.0.100",
                "fd00::2",
                tunnel(|tunnel| tunnel.path_mtu = Some(1279)),
                &["path MTU: 1279", "1280"],
            ),
            (
                &["10.0.0.1/32"],
                "10.0.0.100",
                "10.0.1.1",
                tunnel(|tunnel| tunnel.hop_limit = 0),
                &["hop limit: 0", "1 to 255"],
            ),
            (
                &["10.0.0.1/32"],
                "10.0.0.100",
                "10.0.1.1",
                Forwarding::gue(0, GueVariant::Zero),
                &["port: 0", "1 to 65535"],
            ),
            (&[], "10.0.0.100", "10.0.1.1", l3dsr(0), &["DSCP: 0", "1 to 63"]),
            (&[], "10.0.0.100", "fd00::2", l3dsr(1), &["l3dsr:1", "family"]),
            (&[], "10.0.0.0/24", "10.0.1.1", l3dsr(1), &["l3dsr:1", "one VIP"]),
        ] {
            let found = problems(sources, &[service(vip, &[(backend, mode)])]);
            let [problem] = found.as_slice() else { panic!("{vip} {backend}: {found:?}") };
            for part in expected {
                assert!(problem.contains(part), "{problem} lacks {part}");
            }
        }
    }

    #[test]
    fn the_smallest_mtu_that_is_allowed_is() {
        let tunnel = |mtu| {
            let tunnel = Tunnel { path_mtu: Some(mtu), ..Tunnel::new(Encapsulation::IpIp) };
            Forwarding::Tunnel(tunnel)
        };
        let backends = [("10.0.1.1", tunnel(576)), ("fd00::2", tunnel(1280))];
        let sources = ["10.0.0.1/32", "fd00::1/128"];
        assert_eq!(problems(&sources, &[service("10.0.0.100", &backends)]), [""; 0]);
    }

    #[test]
    fn a_dscp_value_names_one_vip_of_a_backend() {
        let l3dsr = Forwarding::L3Dsr(Dscp::new(7).unwrap());
        let services = [
            service("10.0.0.100", &[("10.0.1.1", l3dsr)]),
            service("10.0.0.101", &[("10.0.1.1", l3dsr)]),
        ];
        let found = problems(&[], &services);
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        let place = "service 10.0.0.101: backend 10.0.1.1: DSCP: 7: names the VIP 10.0.0.100";
        assert!(problem.starts_with(place), "{problem}");
    }

    #[test]
    fn echo_requests_to_a_vip_go_to_one_service() {
        let services = [
            service("10.0.0.100:80/tcp", &[]).echo(Echo::Forward),
            service("10.0.0.100:81/tcp", &[]).echo(Echo::Forward),
        ];
        let found = problems(&[], &services);
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        assert!(
            problem.contains("10.0.0.100:81/tcp: echo: forward") && problem.contains(":80/tcp")
        );
    }
}
