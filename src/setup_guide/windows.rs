//! Windows Server, in PowerShell: VIPs on a loopback adapter, and the weak host model for the interfaces that need it.

use super::needs::Needs;
use super::{Check, Part, Plan};
use crate::balancer::{Scope, VipKey};
use crate::flow::Protocol;
use ipnet::IpNet;

const WHY_ADAPTER: &str = "The VIPs get an adapter of their own, the Microsoft KM-TEST Loopback Adapter, which no neighbour can \
    ask: Windows answers ARP and neighbour solicitations only for addresses of the interface asked. devcon.exe is in the \
    Windows Driver Kit; without it: Device Manager, Action, Add legacy hardware, Network adapters, Microsoft, that adapter, \
    and then the line that renames it.";
const WHY_WEAK: &str = "Windows since Vista and Server 2008 takes packets only for addresses of the interface they come by, and \
    sends only from addresses of the interface they leave by (the strong host model). Both have to be allowed on the \
    adapter; on the network card, that packets come by it for the VIPs. Each family has settings of its own.";
const WHY_HOLD: &str = "Metric 254, so that no route prefers the adapter; no registration, so that DNS does not hand out VIPs \
    for this host's name; skipassource, so that the host's own connections do not come from a VIP.";
const WHY_FIREWALL: &str = "The firewall lets in what the services are for.";

pub(super) fn plan(needs: &Needs) -> Result<Plan, String> {
    if !needs.tunnels() && needs.by_dscp.is_empty() {
        if let Some(prefix) = needs.prefixes().next() {
            return Err(format!(
                "Windows cannot hold {prefix} as a whole; make it services of single addresses"
            ));
        }
        let nic = "$nic = (Get-NetIPAddress -IPAddress '".to_owned()
            + &needs.address.to_string()
            + "').InterfaceAlias";
        return Ok(Plan {
            parts: vec![adapter(), weak_host(needs, &nic), hold(needs), firewall(needs)],
            checks: checks(needs),
            notes: [
                "PowerShell, as administrator. It survives boots.",
                "PowerShell goes on after a line of netsh or devcon that failed: read what they say, and run the check. Run \
                 again, netsh says of addresses that they are there already.",
                "Windows Server 2003 and before have the weak host model for IPv4 and no setting for it: leave the lines \
                 with weakhost… out there; IPv6 is not for them.",
                "The answers' way is the routing table's: the default gateway is the router, not the director.",
            ]
            .map(str::to_owned)
            .into(),
        });
    }
    Err("Windows takes off neither IP-in-IP nor GUE, and gives DSCP values no VIPs: use forward = \"l2\" and a director on its link".into())
}

/// `ipv4` and `ipv6`, as far as there are VIPs of them.
fn families(needs: &Needs) -> impl Iterator<Item = &'static str> {
    let ipv4 = needs.ipv4_vips().then_some("ipv4");
    ipv4.into_iter().chain(needs.ipv6_vips().then_some("ipv6"))
}

fn name(vip: IpNet) -> &'static str {
    if vip.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

fn adapter() -> Part {
    Part {
        why: WHY_ADAPTER,
        commands: vec![
            "if (-not (Get-NetAdapter -Name dsrlb -ErrorAction SilentlyContinue)) {\n    \
             devcon.exe install \"$env:windir\\inf\\netloop.inf\" *MSLOOP\n    \
             Get-NetAdapter | Where-Object InterfaceDescription -like '*KM-TEST Loopback*' |\n        \
             Sort-Object ifIndex | Select-Object -Last 1 | Rename-NetAdapter -NewName dsrlb\n}"
                .into(),
        ],
        undo_why: "The adapter, by its own name.",
        undo: vec![
            "$id = (Get-NetAdapter -Name dsrlb).PnPDeviceID".into(),
            "devcon.exe remove \"@$id\"".into(),
        ],
    }
}

fn weak_host(needs: &Needs, nic: &str) -> Part {
    let set = |family: &str, interface: &str, what: &str| {
        format!("netsh interface {family} set interface {interface} {what}")
    };
    let on = families(needs).flat_map(|family| {
        [
            set(family, "\"$nic\"", "weakhostreceive=enabled"),
            set(family, "dsrlb", "weakhostreceive=enabled weakhostsend=enabled"),
        ]
    });
    let off = families(needs).map(|family| set(family, "\"$nic\"", "weakhostreceive=disabled"));
    let first = || std::iter::once(nic.to_owned());
    Part {
        why: WHY_WEAK,
        commands: first().chain(on).collect(),
        undo_why: "The strong host model for the network card, which is what Windows comes with.",
        undo: first().chain(off).collect(),
    }
}

fn hold(needs: &Needs) -> Part {
    // Microsoft's reference of netsh has no metric.
    let metric = families(needs).map(|family| {
        let (of, dad) = if family == "ipv6" { ("IPv6", " -DadTransmits 0") } else { ("IPv4", "") };
        format!(
            "Set-NetIPInterface -InterfaceAlias dsrlb -AddressFamily {of} -InterfaceMetric 254{dad}"
        )
    });
    let address = |vip: IpNet| {
        let vip_text = if vip.addr().is_ipv4() {
            format!("{} 255.255.255.255", vip.addr())
        } else {
            vip.to_string()
        };
        format!("netsh interface {} add address dsrlb {vip_text} skipassource=true", name(vip))
    };
    let register =
        "Set-DnsClient -InterfaceAlias dsrlb -RegisterThisConnectionsAddress $false".to_owned();
    Part {
        why: WHY_HOLD,
        commands: metric.chain([register]).chain(needs.addresses().map(address)).collect(),
        undo_why: "The VIPs are no longer this host's.",
        undo: needs
            .addresses()
            .map(|vip| format!("netsh interface {} delete address dsrlb {}", name(vip), vip.addr()))
            .collect(),
    }
}

fn rule(key: &VipKey) -> (String, String) {
    let name = format!("dsrlb {key}");
    let protocol = |of: Protocol| of.0;
    let what = match key.scope() {
        Scope::All => "protocol=any".to_owned(),
        Scope::Protocol(of) => format!("protocol={}", protocol(of)),
        Scope::Port(of, port) if of == Protocol::TCP => format!("protocol=TCP localport={port}"),
        Scope::Port(of, port) if of == Protocol::UDP => format!("protocol=UDP localport={port}"),
        // Ports go with TCP and UDP only.
        Scope::Port(of, _) => format!("protocol={}", protocol(of)),
    };
    let add = format!(
        "netsh advfirewall firewall add rule name=\"{name}\" dir=in action=allow localip={} {what}",
        key.prefix().addr()
    );
    (add, format!("netsh advfirewall firewall delete rule name=\"{name}\""))
}

fn firewall(needs: &Needs) -> Part {
    let (commands, undo) = needs.services.iter().map(rule).unzip();
    Part { why: WHY_FIREWALL, commands, undo_why: "The firewall's rules.", undo }
}

fn checks(needs: &Needs) -> Vec<Check> {
    let mut checks = Vec::new();
    for vip in needs.addresses() {
        let address = vip.addr();
        let on = |test: &str| {
            format!(
                "Get-NetIPAddress -IPAddress '{address}' -ErrorAction SilentlyContinue | Where-Object {test}"
            )
        };
        checks.push(Check::new(
            format!("VIP {address} is on the adapter dsrlb"),
            on("InterfaceAlias -eq 'dsrlb'"),
            "run the setup; it adds it",
        ));
        checks.push(Check::new(
            format!("VIP {address} is on no other interface, where neighbours could ask for it"),
            format!("-not ({})", on("InterfaceAlias -ne 'dsrlb'")),
            "remove it there",
        ));
    }
    for family in families(needs) {
        let of = if family == "ipv4" { "IPv4" } else { "IPv6" };
        let setting = |interface: &str, key: &str| {
            format!(
                "(Get-NetIPInterface -InterfaceAlias {interface} -AddressFamily {of}).{key} -eq 'Enabled'"
            )
        };
        let nic = format!("(Get-NetIPAddress -IPAddress '{}').InterfaceAlias", needs.address);
        for (what, interface, key, option) in [
            (
                "the network card takes packets for VIPs",
                nic.as_str(),
                "WeakHostReceive",
                "weakhostreceive",
            ),
            ("the adapter dsrlb takes packets", "dsrlb", "WeakHostReceive", "weakhostreceive"),
            ("VIPs may be sent from by the network card", "dsrlb", "WeakHostSend", "weakhostsend"),
        ] {
            checks.push(Check::new(
                format!("{what} ({of})"),
                setting(
                    if interface == "dsrlb" {
                        interface.to_owned()
                    } else {
                        format!("({interface})")
                    }
                    .as_str(),
                    key,
                ),
                format!("netsh interface {family} set interface … {option}=enabled"),
            ));
        }
    }
    checks
}
