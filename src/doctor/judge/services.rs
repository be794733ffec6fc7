//! What packets to the VIPs, by the way of a client's, told of the backends.

use super::{Notes, backends};
use crate::balancer::Backend;
use crate::dataplane::neighbour::NeighbourState;
use crate::doctor::Checkup;
use crate::doctor::catalogue::{
    BACKEND_SILENT, MSS, NOT_DECAPSULATED, SERVICE_DOWN, VIP_NOT_BOUND,
};
use crate::doctor::observed::{Observed, Served};
use crate::forwarding::{Encapsulation, Forwarding};
use crate::health::ProbeFailure;
use std::net::IpAddr;
use std::sync::Arc;

/// The headers of TCP and IP without options, in bytes (RFC 6691).
const HEADERS_IPV4: u32 = 20 + 20;
const HEADERS_IPV6: u32 = 40 + 20;

pub(super) fn judge(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    for served in &seen.services {
        let services = checkup.config.services.iter().map(|bound| &bound.service);
        let mut services = services.filter(|service| service.key == served.service);
        let backends = services.next().into_iter().flat_map(|service| service.all_backends());
        let Some(backend) = backends.into_iter().find(|backend| backend.id() == served.id) else {
            continue;
        };
        outcome(served, backend, notes);
        if let Some(mss) = served.mss {
            segments(seen, served, backend.as_ref(), mss, notes);
        }
    }
}

fn subject(served: &Served) -> String {
    format!("{} of {}", served.id, served.service)
}

fn outcome(served: &Served, backend: &Arc<dyn Backend>, notes: &mut Notes) {
    let subject = subject(served);
    let there = |failure: &ProbeFailure| format!("{failure}; on the backend:");
    match &served.result {
        Ok(()) => notes.ok(SERVICE_DOWN, subject, "takes packets for the VIP"),
        Err(failure @ ProbeFailure::VipNotBound(_)) => {
            let remedy = bind(served, backend.forwarding());
            notes.error(VIP_NOT_BOUND, subject, there(failure), remedy);
        }
        Err(failure @ ProbeFailure::NotDecapsulated(_)) => {
            let remedy = decapsulate(served, backend.as_ref());
            notes.error(NOT_DECAPSULATED, subject, there(failure), remedy);
        }
        Err(failure @ ProbeFailure::ApplicationDown(_)) => {
            notes.warn(SERVICE_DOWN, subject, there(failure), "ss -ltn");
        }
        Err(failure) => notes.warn(BACKEND_SILENT, subject, failure, ""),
    }
}

/// Has the backend take packets for the VIP, and tell nobody.
fn bind(served: &Served, forwarding: Forwarding) -> String {
    let prefix = served.service.prefix();
    if let Forwarding::L3Dsr(_) = forwarding {
        // Its map from DSCP values to VIPs is made of what that backend has: nftables, tc, or a module.
        return String::new();
    }
    let is_single = prefix.prefix_len() == prefix.max_prefix_len();
    match (is_single, served.vip) {
        (false, _) => format!("ip route add local {prefix} dev lo"),
        (true, IpAddr::V4(vip)) => format!(
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 && \
             ip addr add {vip}/32 dev lo"
        ),
        (true, IpAddr::V6(vip)) => format!("ip addr add {vip}/128 dev lo nodad preferred_lft 0"),
    }
}

/// Has the kernel of a Linux backend take out what its tunnel brings.
fn decapsulate(served: &Served, backend: &dyn Backend) -> String {
    let (vip, outer) = (served.vip, backend.address());
    let (module, device) = match (outer, vip) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ("ipip", "tunl0"),
        (IpAddr::V4(_), IpAddr::V6(_)) => ("sit", "sit0"),
        (IpAddr::V6(_), _) => ("ip6_tunnel", "ip6tnl0"),
    };
    let family = if outer.is_ipv4() { "" } else { "-6 " };
    let mut commands = vec![format!("modprobe {module}"), format!("ip link set dev {device} up")];
    if outer.is_ipv6() {
        // Else it takes only IPv6 inside.
        commands.push(format!("ip -6 tunnel change {device} mode any"));
    }
    if vip.is_ipv4() {
        commands.push(format!(
            "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{device}.rp_filter=0"
        ));
    }
    if let Forwarding::Tunnel(tunnel) = backend.forwarding()
        && let Encapsulation::Gue { port, .. } = tunnel.encapsulation
    {
        let fou = if outer.is_ipv4() { "fou" } else { "fou6" };
        commands.push(format!("modprobe {fou}"));
        commands.push(format!("ip {family}fou add port {port} gue"));
    }
    commands.join("\n")
}

fn segments(seen: &Observed, served: &Served, backend: &dyn Backend, mss: u16, notes: &mut Notes) {
    let Some(NeighbourState::Resolved(path)) = seen.backends.get(&backend.address()) else {
        return;
    };
    let (room, overhead) = backends::room(backend, path);
    let headers = if served.vip.is_ipv4() { HEADERS_IPV4 } else { HEADERS_IPV6 };
    let fits = room.saturating_sub(headers);
    let evidence = format!("asks for segments of up to {mss} bytes, {fits} fit the way to it");
    if u32::from(mss) <= fits {
        return notes.ok(MSS, subject(served), evidence);
    }
    let evidence = format!("{evidence} ({overhead} are put before each packet); on the backend:");
    let family = if served.vip.is_ipv4() { "-4" } else { "-6" };
    let remedy = format!(
        "ip {family} route show | sed 's/ linkdown//; s/ advmss [0-9]*//' | while read -r route; do \
         ip {family} route change $route advmss {fits}; done"
    );
    notes.warn(MSS, subject(served), evidence, remedy);
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::balancer::{RealServer, VirtualService};
    use crate::config::Config;
    use crate::dataplane::neighbour::Path;
    use crate::doctor::Severity;
    use crate::forwarding::{Dscp, GueVariant};
    use crate::packet::MacAddress;
    use std::time::Duration;

    fn found(
        id: &str,
        (vip, address): (&str, &str),
        forwarding: Forwarding,
        result: Result<(), ProbeFailure>,
        mss: Option<u16>,
    ) -> Option<(Severity, String)> {
        let address: IpAddr = address.parse().unwrap();
        let server = RealServer::new(address).with_forwarding(forwarding).with_id("b1");
        let service = VirtualService::new(vip.parse().unwrap()).backend(server);
        let key = service.key;
        let path = Path { mtu: 1500, ..Path::on_link(MacAddress([2, 0, 0, 0, 0, 9])) };
        let served =
            Served { service: key, vip: key.prefix().addr(), id: "b1".into(), result, mss };
        let seen = Observed {
            services: vec![served],
            backends: [(address, NeighbourState::Resolved(path))].into(),
            ..seen(link())
        };
        complaints(id, &Checkup::new("eth0").config(Config::from_iter([service])), &seen).pop()
    }

    const V4: (&str, &str) = ("10.0.0.100:80/tcp", "10.0.0.11");
    const V6: (&str, &str) = ("[fd00::100]:80/tcp", "fd00::11");
    const V6_IN_V4: (&str, &str) = ("[fd00::100]:80/tcp", "10.0.0.11");

    #[test]
    fn each_outcome_is_a_finding_of_its_own() {
        let text = || "x".to_owned();
        for (id, severity, failure) in [
            (VIP_NOT_BOUND, Severity::Error, ProbeFailure::VipNotBound(text())),
            (NOT_DECAPSULATED, Severity::Error, ProbeFailure::NotDecapsulated(text())),
            (SERVICE_DOWN, Severity::Warning, ProbeFailure::ApplicationDown(text())),
            (BACKEND_SILENT, Severity::Warning, ProbeFailure::Timeout(Duration::from_secs(1))),
        ] {
            let found = |result| found(id, V4, Forwarding::IPIP, result, None);
            assert_eq!(found(Err(failure)).unwrap().0, severity, "{id}");
            assert_eq!(found(Ok(())), None);
        }
    }

    #[test]
    fn what_to_type_is_for_the_family_and_the_mode() {
        let failure = ProbeFailure::VipNotBound(String::new());
        let bind = |of, forwarding| {
            found(VIP_NOT_BOUND, of, forwarding, Err(failure.clone()), None).unwrap().1
        };
        assert!(bind(V4, Forwarding::L2).ends_with("ip addr add 10.0.0.100/32 dev lo"));
        let expected = "ip addr add fd00::100/128 dev lo nodad preferred_lft 0";
        assert_eq!(bind(V6, Forwarding::L2), expected);
        let prefix = ("10.0.1.0/24", "10.0.0.11");
        assert_eq!(bind(prefix, Forwarding::L2), "ip route add local 10.0.1.0/24 dev lo");
        assert_eq!(bind(V4, Forwarding::L3Dsr(Dscp::new(1).unwrap())), "");

        let failure = ProbeFailure::NotDecapsulated(String::new());
        let take_out = |of, forwarding| {
            found(NOT_DECAPSULATED, of, forwarding, Err(failure.clone()), None).unwrap().1
        };
        let ipip = take_out(V4, Forwarding::IPIP);
        assert!(ipip.contains("tunl0 up") && ipip.contains("tunl0.rp_filter=0"), "{ipip}");
        assert!(take_out(V6_IN_V4, Forwarding::IPIP).contains("sit0 up"));
        let v6 = take_out(V6, Forwarding::gue(6080, GueVariant::One));
        assert!(v6.contains("mode any") && v6.contains("ip -6 fou add port 6080 gue"), "{v6}");
    }

    /// The table in section 2 of the rules.
    #[test]
    fn segments_leave_room_for_what_is_put_before_them() {
        let gue = Forwarding::gue(6080, GueVariant::Zero);
        for (of, forwarding, fits) in [
            (V4, Forwarding::L2, 1460),
            (V6, Forwarding::L2, 1440),
            (V4, Forwarding::IPIP, 1440),
            (V6_IN_V4, Forwarding::IPIP, 1420),
            (V6, Forwarding::IPIP, 1400),
            (V4, gue, 1428),
            (V6, gue, 1388),
        ] {
            let found = |mss| found(MSS, of, forwarding, Ok(()), Some(mss));
            assert_eq!(found(fits), None);
            let remedy = found(fits + 1).unwrap().1;
            assert!(remedy.contains(&format!("advmss {fits};")), "{remedy}");
        }
    }
}
