//! Linux by `ip`, `sysctl` and `nft`, and what the other ways of telling Linux have in common with it.

use super::needs::Needs;
use super::{Part, Plan, linux_checks, nft};
use ipnet::IpNet;
use std::net::IpAddr;

pub(super) const WHY_SILENT: &str = "First of all, so that nobody hears of the VIPs: arp_ignore=1 answers ARP only for \
    addresses of the interface that was asked, arp_announce=2 never asks with a VIP as the sender. IPv6 needs neither: \
    Linux answers neighbour solicitations only for addresses of the interface asked. The old values are noted for the \
    undoing.";
pub(super) const WHY_HOLD: &str = "The VIPs are this host's, on lo, where no neighbour can ask for them. A prefix is local \
    as a whole; servers then listen on the wildcard address. IPv6 addresses are deprecated from the start \
    (preferred_lft 0), or the host would use them as the source of connections of its own.";
pub(super) const WHY_RULES: &str = "TCP announces segments that fit into the tunnel together with its headers: the director \
    never sees the answer that has the MSS, so only the backend can say it. And what is addressed to this host with a \
    certain DSCP value is for the VIP that the value stands for (L3DSR).";
pub(super) const WHY_TUNNELS: &str = "The ends of the tunnels, open to any sender. What comes out has clients' addresses, to \
    which the way is another: rp_filter=2 (loose) lets it in, whatever is set for all interfaces, since of the two \
    values the larger one holds. But loose is as strict as 1 on a device that has no address, so it gets one that means \
    nothing (192.0.0.8, the dummy of RFC 7600).";
/// What lets packets into a device by `rp_filter`; see [`WHY_TUNNELS`].
pub(super) const DUMMY: &str = "192.0.0.8/32";
const WHY_GUE: &str = "GUE is taken off by fou, which hands what is inside to the ends of the tunnels above. It \
    takes UDP checksums of zero over IPv6 too.";
const PROGRAMS: &str = "It takes root, iproute2 (the `ip` of busybox is not enough), sysctl, and nft for tunnels and L3DSR.";
const RETURN: &str =
    "The answers' way is the routing table's: the default route is the router, not the director.";
pub(super) const OTHERS: &str = "Firewalls must let in what comes for the VIPs, and the outer packets: protocols 4 and 41 for \
    IP-in-IP, the UDP port for GUE. Linux takes them from anybody: let in only the director's.";
pub(super) const WITHOUT_NFT: &str = "Without nft the same is said by `advmss` in the default routes (`ip route change \
    default … advmss MSS`), for all TCP of the host; renewed leases and router advertisements drop it.";
pub(super) const OLD_KERNELS: &str = "Kernels without nftables need a module of x_tables for L3DSR (xt_DADDR of Yahoo's \
    l3dsr), which is not in the kernel; it is not covered here.";

pub(super) fn plan(needs: &Needs) -> Plan {
    let parts = [silence(needs), hold(needs), rules(needs), tunnels(needs), gue(needs)];
    let mut notes =
        vec!["It holds until the next boot; `networkd` has the same for good.".to_owned()];
    notes.extend(notes_for(needs));
    Plan { parts: parts.into_iter().flatten().collect(), checks: linux_checks::of(needs), notes }
}

/// What is true however Linux is told.
pub(super) fn notes_for(needs: &Needs) -> Vec<String> {
    let mut notes = vec![PROGRAMS, RETURN];
    if needs.tunnels() {
        notes.extend([OTHERS, WITHOUT_NFT]);
    }
    if !needs.by_dscp.is_empty() {
        notes.push(OLD_KERNELS);
    }
    notes.into_iter().map(str::to_owned).collect()
}

/// Where the settings that were there before are noted.
pub(super) fn noted(needs: &Needs) -> String {
    format!("/run/dsrlb-{}.sysctl", needs.address)
}

/// Notes what was set, unless that was done before.
pub(super) fn note_settings(needs: &Needs) -> String {
    let file = noted(needs);
    format!(
        "[ -e {file} ] ||\n\tsysctl net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce > {file}"
    )
}

pub(super) fn restore_settings(needs: &Needs) -> String {
    let file = noted(needs);
    format!("[ ! -e {file} ] || {{ sysctl -q -p {file} && rm {file}; }}")
}

fn silence(needs: &Needs) -> Option<Part> {
    needs.ipv4_vips().then(|| Part {
        why: WHY_SILENT,
        commands: vec![
            note_settings(needs),
            "sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".into(),
        ],
        undo_why: "ARP as it was before.",
        undo: vec![restore_settings(needs)],
    })
}

fn hold(needs: &Needs) -> Option<Part> {
    let addresses = needs.addresses().map(|vip| {
        let options = if vip.addr().is_ipv6() { " nodad preferred_lft 0" } else { "" };
        format!("ip address replace {vip} dev lo{options}")
    });
    let prefixes = needs.prefixes().map(|vip| format!("ip route replace local {vip} dev lo"));
    Some(Part {
        why: WHY_HOLD,
        commands: addresses.chain(prefixes).collect(),
        undo_why: "The VIPs are no longer this host's.",
        undo: release(needs),
    })
}

/// Takes the VIPs away.
pub(super) fn release(needs: &Needs) -> Vec<String> {
    let addresses = needs.addresses().map(|vip| format!("ip address del {vip} dev lo"));
    addresses
        .chain(needs.prefixes().map(|vip| format!("ip route del local {vip} dev lo")))
        .collect()
}

fn rules(needs: &Needs) -> Option<Part> {
    nft::rules(needs).map(|rules| Part {
        why: WHY_RULES,
        commands: vec![format!("nft -f - << 'EOF'\n{rules}EOF")],
        undo_why: "The rules.",
        undo: vec![format!("nft delete table inet {}", nft::table(needs))],
    })
}

/// A device that takes the outer headers off.
pub(super) struct Device {
    pub(super) name: &'static str,
    /// As `ip link` and networkd have it.
    pub(super) kind: &'static str,
    /// Whether IPv4 comes out of it, which rp_filter would stop.
    pub(super) ipv4_inside: bool,
}

/// The devices that take off what comes: one for each pair of families over IPv4, one for both over IPv6.
pub(super) fn devices(needs: &Needs) -> Vec<Device> {
    let [ipv4, ipv6] = needs.inside;
    let device = |name, kind, ipv4_inside| Device { name, kind, ipv4_inside };
    match needs.address {
        IpAddr::V4(_) => {
            let ipip = ipv4.then(|| device("dsrlb-ipip", "ipip", true));
            ipip.into_iter().chain(ipv6.then(|| device("dsrlb-sit", "sit", false))).collect()
        }
        IpAddr::V6(_) if ipv4 || ipv6 => vec![device("dsrlb-ip6tnl", "ip6tnl", ipv4)],
        IpAddr::V6(_) => Vec::new(),
    }
}

fn tunnels(needs: &Needs) -> Option<Part> {
    let devices = devices(needs);
    let local = needs.address;
    let add = |Device { name, kind, ipv4_inside }: &Device| {
        let ends = match local {
            IpAddr::V4(_) => format!("type {kind} local {local} remote any"),
            IpAddr::V6(_) => format!("type {kind} mode any local {local} remote ::"),
        };
        let there =
            format!("ip link show dev {name} > /dev/null 2>&1 ||\n\tip link add {name} {ends}");
        let loose = ipv4_inside.then(|| loosen(name)).into_iter().flatten();
        [there].into_iter().chain(loose).chain([format!("ip link set {name} up")])
    };
    (!devices.is_empty()).then(|| Part {
        why: WHY_TUNNELS,
        commands: devices.iter().flat_map(add).collect(),
        undo_why: "The ends of the tunnels.",
        undo: devices.iter().map(|device| format!("ip link del {}", device.name)).collect(),
    })
}

/// Commands that have a device take packets from everywhere.
pub(super) fn loosen(device: &str) -> [String; 2] {
    [
        format!("sysctl -q -w net.ipv4.conf.{device}.rp_filter=2"),
        format!("ip address replace {DUMMY} dev {device} scope host"),
    ]
}

/// What `ip fou` says of a port after its number, by the family of the outer header.
pub(super) fn fou_family(needs: &Needs) -> &'static str {
    if needs.address.is_ipv6() { " -6" } else { "" }
}

/// A command that finds the port in what `ip fou` shows.
pub(super) fn fou_shown(needs: &Needs, port: u16) -> String {
    format!("ip fou show | grep -q '^port {port} gue{} *$'", fou_family(needs))
}

fn gue(needs: &Needs) -> Option<Part> {
    let family = fou_family(needs);
    let ports = &needs.gue_ports;
    let add = |port: &u16| {
        format!("{} ||\n\tip fou add port {port} gue{family}", fou_shown(needs, *port))
    };
    (!ports.is_empty()).then(|| Part {
        why: WHY_GUE,
        commands: ports.iter().map(add).collect(),
        undo_why: "The ports of GUE.",
        undo: ports.iter().map(|port| format!("ip fou del port {port}{family}")).collect(),
    })
}

/// The flag of `ip` for a family.
pub(super) fn family(vip: IpNet) -> u8 {
    if vip.addr().is_ipv4() { 4 } else { 6 }
}
