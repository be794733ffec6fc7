//! The VIPs: who holds them, who answers for them, and what else depends on the host's addresses.

use super::Notes;
use crate::dataplane::neighbour::NeighbourState;
use crate::doctor::catalogue::{
    CONFLICT, FORWARDING, TUNNEL_SOURCE, VIP_CLAIMED, VIP_SOURCE, VIP_UNANSWERED,
};
use crate::doctor::observed::Observed;
use crate::doctor::{Checkup, Severity};
use crate::packet::MacAddress;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(super) fn judge(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    let claims = &seen.vips.claims;
    for (vip, asked) in &seen.vips.asked {
        let mut others: BTreeMap<MacAddress, Vec<IpAddr>> = BTreeMap::new();
        for claim in claims.iter().filter(|claim| asked.contains(&claim.address)) {
            others.entry(claim.mac).or_default().push(claim.address);
        }
        for (mac, addresses) in &others {
            claimed(*vip, asked.len(), *mac, addresses, seen, notes);
        }
        if others.is_empty() {
            unclaimed(checkup, seen, *vip, asked.len(), notes);
        }
    }
    for address in seen.backends.keys() {
        let macs = claims.iter().filter(|claim| claim.address == *address);
        let macs: Vec<String> = macs.map(|claim| claim.mac.to_string()).collect();
        if macs.len() > 1 {
            let evidence =
                format!("{} answer for it; take it from all but one", macs.join(" and "));
            notes.warn(CONFLICT, address, evidence, "");
        }
    }
    sources(checkup, seen, notes);
    forwarding(checkup, seen, notes);
}

fn is_single(vip: &IpNet) -> bool {
    vip.prefix_len() == vip.max_prefix_len()
}

/// As it is written: the address alone if it is but one.
fn name(vip: &IpNet) -> String {
    if is_single(vip) { vip.addr().to_string() } else { vip.to_string() }
}

/// Of `asked` addresses of the VIP these are somebody else's.
fn claimed(
    vip: IpNet,
    asked: usize,
    mac: MacAddress,
    addresses: &[IpAddr],
    seen: &Observed,
    notes: &mut Notes,
) {
    let is_at = |state: &NeighbourState| matches!(state, NeighbourState::Resolved(path) if path.mac == mac && path.gateway.is_none());
    let mut backends = seen.backends.iter().filter(|(_, state)| is_at(state));
    let name = name(&vip);
    // Whatever holds the VIP on an interface with a link gives it up.
    let mut give_up = format!(
        "ip -o addr show to {name} | while read -r _ dev _ address _; do ip addr del $address dev $dev; \
         done"
    );
    let (hold, what) = if is_single(&vip) {
        (format!("ip addr add {vip} dev lo nodad preferred_lft 0"), "it".to_owned())
    } else {
        let ip = if vip.addr().is_ipv4() { "ip" } else { "ip -6" };
        give_up = format!("{give_up}; {ip} route flush table local type local root {vip}");
        let some = addresses.first().map_or(String::new(), ToString::to_string);
        let count = addresses.len();
        let what = format!("{count} of the {asked} addresses of it that were asked for, as {some}");
        (format!("ip route replace local {vip} dev lo"), what)
    };
    let (who, remedy) = match (backends.next(), vip) {
        (Some((address, _)), IpNet::V4(_)) => (
            format!("the backend {address} ({mac})"),
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".to_owned(),
        ),
        (Some((address, _)), IpNet::V6(_)) => {
            (format!("the backend {address} ({mac})"), format!("{give_up}; {hold}"))
        }
        (None, _) => (format!("a host that is no backend ({mac})"), give_up),
    };
    let evidence = format!("{who} answers for {what}, so clients may bypass the director; there:");
    notes.error(VIP_CLAIMED, name, evidence, remedy);
}

fn unclaimed(checkup: &Checkup, seen: &Observed, vip: IpNet, asked: usize, notes: &mut Notes) {
    let interface = &checkup.interface;
    if !is_single(&vip) {
        // Its packets are routed to the director, so nobody need answer for it.
        let is_free = |address: &IpAddr| !seen.vips.asked.contains_key(&(*address).into());
        return if vip.hosts().filter(is_free).nth(asked).is_none() {
            notes.ok(VIP_CLAIMED, vip, "no other host answers for any address of it");
        } else {
            let evidence = format!(
                "no other host answers for the {asked} addresses of it that were asked for, as one that has \
                 the whole prefix would; for another:"
            );
            let remedy = match vip {
                IpNet::V4(_) => format!("arping -D -I {interface} -c 2 ADDRESS"),
                IpNet::V6(_) => format!("ndisc6 ADDRESS {interface}"),
            };
            notes.say(VIP_CLAIMED, Severity::Info, vip, evidence, remedy);
        };
    }
    let vip = vip.addr();
    notes.ok(VIP_CLAIMED, vip, "no other host answers for it");
    let is_held = seen.vips.held.iter().any(|own| own.addr() == vip);
    if is_held || checkup.answers {
        let who = if is_held { "the host answers" } else { "the director will answer" };
        return notes.ok(VIP_UNANSWERED, vip, format!("{who} for it"));
    }
    let evidence = "nobody answers for it: a router has to have a route for it by this host, or the \
                    director to answer (answer-for-vips), or:";
    let (length, options) = if vip.is_ipv4() { (32, "") } else { (128, " nodad preferred_lft 0") };
    let remedy = format!("ip addr add {vip}/{length} dev {interface}{options}");
    notes.say(VIP_UNANSWERED, Severity::Info, vip, evidence, remedy);
}

fn sources(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    let name = &checkup.interface;
    let prefixes = checkup.config.services.iter().map(|bound| bound.service.key.prefix());
    let prefixes: BTreeSet<_> = prefixes.collect();
    for address in &seen.vips.preferred {
        let address = IpAddr::V6(*address);
        if prefixes.iter().any(|prefix| prefix.contains(&address)) {
            let evidence =
                "the host may send from it, and backends that hold it too keep the answers";
            let remedy = format!("ip address change {address}/128 dev {name} preferred_lft 0");
            notes.warn(VIP_SOURCE, address, evidence, remedy);
        }
    }
    let single = checkup.tunnel_sources.iter().filter(|s| s.prefix_len() == s.max_prefix_len());
    for source in single {
        if seen.vips.held.iter().any(|own| own.addr() == source.addr()) {
            notes.ok(TUNNEL_SOURCE, source.addr(), "the host holds it");
        } else {
            let evidence =
                "no interface of this host holds it: what routers say about tunnels is lost";
            let remedy = format!("ip addr add {source} dev lo");
            notes.warn(TUNNEL_SOURCE, source.addr(), evidence, remedy);
        }
    }
}

/// Until a director runs, and on queues without a socket, packets for the VIPs are the kernel's.
fn forwarding(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    let Some((link, there)) =
        seen.links.first().and_then(|link| Some((link, link.there.as_ref()?)))
    else {
        return;
    };
    let name = &link.name;
    let keys =
        [format!("net/ipv4/conf/{name}/forwarding"), "net/ipv6/conf/all/forwarding".to_owned()];
    for (is_ipv6, (key, forwards)) in [false, true].into_iter().zip(keys.iter().zip(there.forwards))
    {
        let Some(forwards) = forwards else {
            continue;
        };
        let prefixes = checkup.config.services.iter().map(|bound| bound.service.key.prefix());
        let is_held = |vip: &IpNet| seen.vips.held.iter().any(|own| own.addr() == vip.addr());
        let stray =
            prefixes.filter(|vip| vip.addr().is_ipv6() == is_ipv6).find(|vip| !is_held(vip));
        match (forwards, stray) {
            (true, Some(vip)) => {
                let evidence = format!(
                    "is on, and the host does not hold the VIP {vip}: what the director does not take is \
                     routed back, and may go in circles"
                );
                notes.warn(FORWARDING, name, evidence, format!("sysctl -w {key}=0"));
            }
            (on, _) => {
                let family = if is_ipv6 { "IPv6" } else { "IPv4" };
                let state = if on { "on, and the host holds all VIPs" } else { "off" };
                notes.ok(FORWARDING, name, format!("of {family} is {state}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::balancer::{RealServer, VirtualService};
    use crate::config::Config;
    use crate::doctor::observed::Vips;
    use crate::packet::Claim;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 8]);

    fn at(mac: MacAddress) -> NeighbourState {
        NeighbourState::Resolved(crate::dataplane::neighbour::Path::on_link(mac))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Of two VIPs and one backend, on a host that holds `held`.
    fn fixture(held: &[&str]) -> (Checkup, Observed) {
        let services = ["10.0.0.100", "fd00::100"].map(|vip| {
            let server = RealServer::new(address("10.0.0.11"));
            VirtualService::new(vip.parse().unwrap()).backend(server)
        });
        let checkup = Checkup::new("eth0").config(Config::from_iter(services));
        let held: Vec<IpNet> = held.iter().map(|held| held.parse().unwrap()).collect();
        let asked = ["10.0.0.100", "fd00::100"].map(address);
        let asked = asked.map(|vip| (IpNet::from(vip), [vip].into())).into();
        let seen = Observed {
            vips: Vips { held, asked, ..Vips::default() },
            backends: [(address("10.0.0.11"), at(MAC))].into(),
            ..seen(link())
        };
        (checkup, seen)
    }

    const OWN: &str = "10.0.0.1/24";
    const ALL: [&str; 3] = [OWN, "10.0.0.100/32", "fd00::100/128"];

    #[test]
    fn who_claims_a_vip_is_told_what_to_do_about_it() {
        for (vip, mac, expected) in [
            ("10.0.0.100", MAC, "arp_ignore=1"),
            ("fd00::100", MAC, "dev lo nodad"),
            ("10.0.0.100", OTHER, "ip addr del"),
        ] {
            let (checkup, mut seen) = fixture(&ALL);
            assert_eq!(complaints(VIP_CLAIMED, &checkup, &seen), []);
            seen.vips.claims = [Claim { address: address(vip), mac }].into();
            let [(severity, remedy)] = &complaints(VIP_CLAIMED, &checkup, &seen)[..] else {
                panic!()
            };
            assert_eq!(*severity, Severity::Error);
            assert!(remedy.contains(expected), "{remedy}");
        }
    }

    /// As one fault, whatever number of addresses is claimed.
    #[test]
    fn who_claims_a_prefix_is_told_once() {
        let of = |prefix: &str, some: &[&str], claims: &[(&str, MacAddress)]| {
            let (checkup, mut seen) = fixture(&ALL);
            let some = some.iter().map(|text| address(text)).collect();
            seen.vips.asked = [(prefix.parse().unwrap(), some)].into();
            let claims =
                claims.iter().map(|(text, mac)| Claim { address: address(text), mac: *mac });
            seen.vips.claims = claims.collect();
            assert_eq!(complaints(VIP_UNANSWERED, &checkup, &seen), []);
            complaints(VIP_CLAIMED, &checkup, &seen)
        };
        let small = ["10.0.1.1", "10.0.1.2"];
        assert_eq!(of("10.0.1.0/30", &small, &[]), []);
        assert_eq!(of("10.0.1.0/29", &small, &[])[0].0, Severity::Info);
        for (mac, expected) in [(MAC, "arp_ignore=1"), (OTHER, "root 10.0.1.0/30")] {
            let found = of("10.0.1.0/30", &small, &small.map(|text| (text, mac)));
            let [(severity, remedy)] = &found[..] else { panic!("{found:?}") };
            assert_eq!(*severity, Severity::Error);
            assert!(remedy.contains(expected), "{remedy}");
        }
        let both = of("10.0.1.0/30", &small, &[(small[0], MAC), (small[1], OTHER)]);
        assert_eq!(both.len(), 2);
        let v6 = of("fd00:1::/64", &["fd00:1::1"], &[("fd00:1::1", MAC)]);
        assert!(v6[0].1.ends_with("ip route replace local fd00:1::/64 dev lo"), "{v6:?}");
    }

    #[test]
    fn a_vip_that_nobody_answers_for_is_held_or_answered_for() {
        let (checkup, seen) = fixture(&[OWN]);
        let found = complaints(VIP_UNANSWERED, &checkup, &seen);
        let expected = [
            "ip addr add 10.0.0.100/32 dev eth0",
            "ip addr add fd00::100/128 dev eth0 nodad preferred_lft 0",
        ];
        assert_eq!(found, expected.map(|remedy| (Severity::Info, remedy.to_owned())));
        assert_eq!(complaints(VIP_UNANSWERED, &checkup.answer_for_vips(true), &seen), []);
        let (checkup, seen) = fixture(&ALL);
        assert_eq!(complaints(VIP_UNANSWERED, &checkup, &seen), []);
    }

    #[test]
    fn two_that_answer_for_a_backend_are_in_conflict() {
        let (checkup, mut seen) = fixture(&ALL);
        let claims = [MAC, OTHER].map(|mac| Claim { address: address("10.0.0.11"), mac });
        seen.vips.claims = [claims[0]].into();
        assert_eq!(complaints(CONFLICT, &checkup, &seen), []);
        seen.vips.claims = claims.into();
        assert_eq!(complaints(CONFLICT, &checkup, &seen).len(), 1);
    }

    #[test]
    fn addresses_to_send_from() {
        let (checkup, mut seen) = fixture(&ALL);
        seen.vips.preferred = vec!["fd00::100".parse().unwrap()];
        let remedy = "ip address change fd00::100/128 dev eth0 preferred_lft 0".to_owned();
        assert_eq!(complaints(VIP_SOURCE, &checkup, &seen), [(Severity::Warning, remedy)]);
        seen.vips.preferred = vec!["fd00::1".parse().unwrap()];
        assert_eq!(complaints(VIP_SOURCE, &checkup, &seen), []);
        for (source, expected) in
            [("10.0.0.1/32", None), ("10.9.0.0/16", None), ("10.9.0.1/32", Some("10.9.0.1/32"))]
        {
            let checkup = checkup.clone().tunnel_sources(
                crate::forwarding::TunnelSources::default().with(source.parse().unwrap()),
            );
            let found = complaints(TUNNEL_SOURCE, &checkup, &seen).pop();
            let remedy = expected.map(|source| format!("ip addr add {source} dev lo"));
            assert_eq!(found.map(|(_, remedy)| remedy), remedy);
        }
    }

    #[test]
    fn routing_matters_to_vips_that_the_host_does_not_hold() {
        for (held, forwards, expected) in [
            (&ALL[..], [true, true], &[][..]),
            (&[OWN], [false, false], &[]),
            (
                &[OWN],
                [true, true],
                &["net/ipv4/conf/eth0/forwarding=0", "net/ipv6/conf/all/forwarding=0"],
            ),
            (&ALL[..2], [true, true], &["net/ipv6/conf/all/forwarding=0"]),
        ] {
            let (checkup, mut seen) = fixture(held);
            let there = seen.links[0].there.as_mut().unwrap();
            there.forwards = forwards.map(Some);
            let found = complaints(FORWARDING, &checkup, &seen).into_iter().map(|(_, r)| r);
            let remedies: Vec<String> =
                expected.iter().map(|key| format!("sysctl -w {key}")).collect();
            assert_eq!(found.collect::<Vec<_>>(), remedies);
        }
    }
}
