//! FreeBSD: VIPs on lo0, tunnels by gif.

use super::needs::Needs;
use super::{Check, Part, Plan};
use crate::forwarding::TunnelSources;
use ipnet::IpNet;
use std::net::IpAddr;

const WHY_HOLD: &str = "The VIPs are this host's, on lo0, where no neighbour can ask for them: FreeBSD answers ARP and neighbour \
    solicitations only for addresses of the interface asked. IPv6 addresses are deprecated, or the host would use them as \
    the source of connections of its own.";
const WHY_MSS: &str = "TCP announces segments that fit into the tunnel together with its headers: FreeBSD takes them from the \
    MTU of the route. The director never sees the answer that has the MSS, so only the backend can say it.";
const WHY_TUNNEL: &str =
    "The end of the tunnel. gif takes both families over either, from this one sender.";

pub(super) fn plan(needs: &Needs, sources: &TunnelSources) -> Result<Plan, String> {
    if let Some(prefix) = needs.prefixes().next() {
        return Err(format!(
            "FreeBSD cannot hold {prefix} as a whole; make it services of single addresses"
        ));
    }
    if !needs.gue_ports.is_empty() || !needs.by_dscp.is_empty() {
        return Err("its kernel neither takes GUE off nor gives DSCP values VIPs without a state of its own; use l2 or ipip".into());
    }
    let mut parts = vec![hold(needs)];
    let mut notes = vec![
        "It holds until the next boot; rc.conf(5) has the same for good (ifconfig_lo0_alias0, cloned_interfaces).".to_owned(),
        "The answers' way is the routing table's: the default route is the router, not the director.".to_owned(),
    ];
    if needs.tunnels() {
        let source = match sources.towards(needs.address) {
            Some(source) if source.prefix_len() == source.max_prefix_len() => source.addr(),
            Some(source) => {
                return Err(format!(
                    "gif takes one sender, and the tunnel source {source} is many; use a single address"
                ));
            }
            None => {
                return Err(
                    "gif has to know its sender: set the tunnel source of the backend's family"
                        .into(),
                );
            }
        };
        parts.extend([largest_packet(needs), tunnel(needs, source)]);
        notes.push(
            "Another director with a tunnel source of its own needs a gif of its own.".into(),
        );
    }
    Ok(Plan { parts, checks: checks(needs), notes })
}

fn family(vip: IpNet) -> &'static str {
    if vip.addr().is_ipv4() { "inet" } else { "inet6" }
}

fn alias(vip: IpNet) -> String {
    let options = if vip.addr().is_ipv6() { " deprecated" } else { "" };
    format!("ifconfig lo0 {} {vip} alias{options}", family(vip))
}

fn hold(needs: &Needs) -> Part {
    let vips = || needs.addresses();
    Part {
        why: WHY_HOLD,
        commands: vips().map(alias).collect(),
        undo_why: "The VIPs are no longer this host's.",
        undo: vips()
            .map(|vip| format!("ifconfig lo0 {} {} -alias", family(vip), vip.addr()))
            .collect(),
    }
}

/// The smallest of what the VIPs of each family need, headers of IP and TCP included.
fn route_mtus(needs: &Needs) -> Vec<(&'static str, u16)> {
    let of = |name, headers, is_ipv4| {
        let fit = needs.mss.iter().filter(move |(vip, _)| vip.addr().is_ipv4() == is_ipv4);
        fit.map(|(_, mss)| *mss).min().map(|mss| (name, mss.saturating_add(headers)))
    };
    [of("-inet", 40, true), of("-inet6", 60, false)].into_iter().flatten().collect()
}

fn largest_packet(needs: &Needs) -> Part {
    let routes = route_mtus(needs);
    let change = |family: &str, mtu: u16| format!("route change {family} default -mtu {mtu}");
    Part {
        why: WHY_MSS,
        commands: routes.iter().map(|(family, mtu)| change(family, *mtu)).collect(),
        undo_why: "The MTU of the default routes: that of the interface.",
        undo: routes.iter().map(|(family, _)| change(family, 0)).collect(),
    }
}

fn tunnel(needs: &Needs, source: IpAddr) -> Part {
    let (own, outer) = (needs.address, if needs.address.is_ipv4() { "inet" } else { "inet6" });
    Part {
        why: WHY_TUNNEL,
        commands: vec![
            "ifconfig dsrlb0 > /dev/null 2>&1 ||\n\tifconfig gif create name dsrlb0".into(),
            format!("ifconfig dsrlb0 {outer} tunnel {own} {source}"),
            // Without it an interface takes no IPv6.
            "ifconfig dsrlb0 inet6 -ifdisabled".into(),
            "ifconfig dsrlb0 up".into(),
        ],
        undo_why: "The end of the tunnel.",
        undo: vec!["ifconfig dsrlb0 destroy".into()],
    }
}

fn checks(needs: &Needs) -> Vec<Check> {
    let mut checks: Vec<_> = needs
        .addresses()
        .map(|vip| {
            let address = vip.addr();
            Check::new(
                format!("VIP {address} is on lo0"),
                format!("ifconfig lo0 | grep -qw '{} {address}'", family(vip)),
                alias(vip),
            )
        })
        .collect();
    // It had another name before FreeBSD 14.
    checks.push(Check::new(
        "packets may come for addresses of another interface",
        "[ \"$(sysctl -n net.inet.ip.rfc1122_strong_es 2> /dev/null || sysctl -n net.inet.ip.check_interface)\" = 0 ]",
        "sysctl net.inet.ip.rfc1122_strong_es=0 (check_interface before FreeBSD 14)",
    ));
    if needs.tunnels() {
        checks.push(Check::new(
            "the tunnel dsrlb0 is up",
            "ifconfig dsrlb0 2> /dev/null | grep -q '<UP'",
            "run the setup; it makes dsrlb0",
        ));
    }
    for (family, mtu) in route_mtus(needs) {
        checks.push(Check::new(
            format!("TCP announces what fits into {mtu} bytes ({family})"),
            format!("route -n get {family} default | grep -qw {mtu}"),
            format!("route change {family} default -mtu {mtu}"),
        ));
    }
    checks
}
