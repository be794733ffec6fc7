//! The ways to the backends: their neighbours, and whether packets of full size fit.

use super::Notes;
use crate::balancer::Backend;
use crate::dataplane::neighbour::{NeighbourState, Path, Unresolved};
use crate::doctor::Checkup;
use crate::doctor::Severity;
use crate::doctor::catalogue::{BACKEND_MTU, NEIGHBOUR};
use crate::doctor::observed::Observed;
use crate::forwarding::Forwarding;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What clients' packets have at most, in bytes: what nearly all links take.
const USUAL_MTU: u32 = 1500;

pub(super) fn judge(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    let services = checkup.config.services.iter();
    let mut told = BTreeSet::new();
    for backend in services.flat_map(|bound| bound.service.all_backends()) {
        let (address, forwarding) = (backend.address(), backend.forwarding());
        let Some(state) = seen.backends.get(&address) else {
            continue;
        };
        // In several services it is one host all the same.
        if told.insert((address, forwarding.to_string())) {
            neighbour(checkup, seen, address, forwarding, state, notes);
            if let NeighbourState::Resolved(path) = state {
                mtu(checkup, seen, backend.as_ref(), path, notes);
            }
        }
    }
}

fn neighbour(
    checkup: &Checkup,
    seen: &Observed,
    address: IpAddr,
    forwarding: Forwarding,
    state: &NeighbourState,
    notes: &mut Notes,
) {
    let name = &checkup.interface;
    match state {
        NeighbourState::Resolved(Path { gateway: Some(router), .. }) if forwarding.needs_link() => {
            let evidence = format!(
                "is behind the router {router}, and its forwarding mode needs it on the director's own \
                 link; use a tunnel or L3DSR"
            );
            notes.error(NEIGHBOUR, address, evidence, "");
        }
        NeighbourState::Resolved(_) => notes.ok(NEIGHBOUR, address, state),
        NeighbourState::Rejected { .. } => {
            let remedy = format!("ip neigh flush to {address}");
            notes.error(NEIGHBOUR, address, state, remedy);
        }
        NeighbourState::Unresolved { why } => {
            let (severity, remedy) = match why {
                Unresolved::NoRoute => {
                    (Severity::Error, format!("ip route add {address} dev {name}"))
                }
                Unresolved::OwnAddress => {
                    let own = seen.vips.held.iter().find(|own| own.addr() == address);
                    let own = own.map_or(address.to_string(), ToString::to_string);
                    let remedy = format!(
                        "ip -o addr show to {address} | while read -r _ dev _; do ip addr del {own} dev \
                         $dev; done"
                    );
                    (Severity::Error, remedy)
                }
                Unresolved::OtherInterface(_) | Unresolved::StackedVlan(_) => {
                    (Severity::Error, String::new())
                }
                // The backend may be off, which is nobody's mistake.
                _ => (Severity::Warning, String::new()),
            };
            notes.say(NEIGHBOUR, severity, address, state, remedy);
        }
    }
}

/// How large a client's packet to this backend may be, in bytes, and what is put before it.
pub(super) fn room(backend: &dyn Backend, path: &Path) -> (u32, u32) {
    let (overhead, configured) = match backend.forwarding() {
        Forwarding::Tunnel(tunnel) => {
            (tunnel.overhead(backend.address().is_ipv6()) as u32, tunnel.path_mtu)
        }
        Forwarding::L2 | Forwarding::L3Dsr(_) => (0, None),
    };
    let way = configured.map_or(path.mtu, |configured| path.mtu.min(configured.into()));
    (way.saturating_sub(overhead), overhead)
}

fn mtu(checkup: &Checkup, seen: &Observed, backend: &dyn Backend, path: &Path, notes: &mut Notes) {
    let (room, overhead) = room(backend, path);
    let there = |number: usize| seen.links.get(number).and_then(|link| link.there.as_ref());
    let wanted = there(0).map_or(USUAL_MTU, |ingress| ingress.mtu.min(USUAL_MTU));
    let subject = format!("{} ({})", backend.id(), backend.address());
    if room >= wanted {
        let evidence = format!("packets of up to {room} bytes fit the way to it");
        return notes.ok(BACKEND_MTU, subject, evidence);
    }
    let needed = wanted + overhead;
    let evidence = format!(
        "packets of up to {room} bytes fit the way to it ({overhead} more are put before them), clients' \
         have up to {wanted}: larger ones are answered or cut up. Have backends ask for smaller segments \
         (see `mss`)"
    );
    let port = usize::from(path.port);
    let is_links = there(port).is_some_and(|there| there.mtu == path.mtu && path.mtu < needed);
    match checkup.interfaces().nth(port) {
        Some(name) if is_links => {
            let evidence = format!("{evidence}, or raise the MTU of all links on the way; here:");
            notes.warn(
                BACKEND_MTU,
                subject,
                evidence,
                format!("ip link set dev {name} mtu {needed}"),
            );
        }
        // The limit is that of a route, or of the configuration.
        _ => {
            let evidence = format!("{evidence}, or raise the MTU of the route, or path-mtu");
            notes.warn(
                BACKEND_MTU,
                subject,
                evidence,
                format!("ip route get {}", backend.address()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::balancer::{RealServer, VirtualService};
    use crate::config::Config;
    use crate::dataplane::neighbour::Rejection;
    use crate::forwarding::{Encapsulation, GueVariant, Tunnel};
    use crate::packet::MacAddress;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn found(
        id: &str,
        address: &str,
        forwarding: Forwarding,
        state: NeighbourState,
    ) -> Option<(Severity, String)> {
        let address: IpAddr = address.parse().unwrap();
        let server = RealServer::new(address).with_forwarding(forwarding);
        let service = VirtualService::new("10.0.0.100".parse().unwrap()).backend(server);
        let checkup = Checkup::new("eth0").config(Config::from_iter([service]));
        let seen = Observed { backends: [(address, state)].into(), ..seen(link()) };
        complaints(id, &checkup, &seen).pop()
    }

    fn path(mtu: u32, gateway: Option<&str>) -> NeighbourState {
        let gateway = gateway.map(|router| router.parse().unwrap());
        NeighbourState::Resolved(Path { mtu, gateway, ..Path::on_link(MAC) })
    }

    #[test]
    fn neighbours_that_are_not_there_are_worse_if_it_is_a_mistake() {
        let of = |state| found(NEIGHBOUR, "10.0.0.11", Forwarding::L2, state);
        assert_eq!(of(path(1500, None)), None);
        let severity = |why| of(NeighbourState::Unresolved { why }).unwrap().0;
        assert_eq!(severity(Unresolved::NoAnswer), Severity::Warning);
        assert_eq!(severity(Unresolved::OwnAddress), Severity::Error);
        assert_eq!(severity(Unresolved::OtherInterface(7)), Severity::Error);
        let no_route = of(NeighbourState::Unresolved { why: Unresolved::NoRoute }).unwrap();
        assert_eq!(no_route.1, "ip route add 10.0.0.11 dev eth0");
        let rejected = of(NeighbourState::Rejected { mac: MAC, why: Rejection::Own }).unwrap();
        assert_eq!(rejected.0, Severity::Error);
        let router = path(1500, Some("10.0.0.254"));
        assert_eq!(of(router).unwrap().0, Severity::Error);
        assert_eq!(found(NEIGHBOUR, "10.0.0.11", Forwarding::IPIP, router), None);
    }

    #[test]
    fn the_way_has_room_for_what_is_put_before_packets() {
        let of = |address, forwarding, mtu| {
            found(BACKEND_MTU, address, forwarding, path(mtu, None)).map(|(_, remedy)| remedy)
        };
        let gue = Forwarding::gue(6080, GueVariant::Zero);
        assert_eq!(of("10.0.0.11", Forwarding::L2, 1500), None);
        assert_eq!(of("10.0.0.11", Forwarding::IPIP, 1520), None);
        assert_eq!(of("fd00::11", gue, 1552), None);
        let expected = Some("ip link set dev eth0 mtu 1520".to_owned());
        assert_eq!(of("10.0.0.11", Forwarding::IPIP, 1500), expected);
        let expected = Some("ip link set dev eth0 mtu 1552".to_owned());
        assert_eq!(of("fd00::11", gue, 1500), expected);
        // Not the link's own limit.
        let route = Some("ip route get 10.0.0.11".to_owned());
        assert_eq!(of("10.0.0.11", Forwarding::L2, 1400), route);
        let tunnel = Tunnel { path_mtu: Some(1500), ..Tunnel::new(Encapsulation::IpIp) };
        assert_eq!(of("10.0.0.11", Forwarding::Tunnel(tunnel), 9000), route);
    }
}
