//! Linux by files: systemd-networkd, and netplan as far as it goes.

use super::linux::{self, devices, fou_family};
use super::needs::Needs;
use super::{Part, Plan, linux_checks, nft};
use std::net::IpAddr;

/// Of files for lo only the first counts, so what each backend has is in a directory beside this one.
const LOOPBACK: &str = "/etc/systemd/network/20-dsrlb-lo.network";

const WHY_SERVICE: &str = "What networkd has no word for: rules of nft, and ports of GUE (its FooOverUDP listens over IPv4 \
    only). TCP announces segments that fit into the tunnel, what has a certain DSCP value is for its VIP, and fou takes GUE \
    off.";
const FIRST_OF_LOOPBACK: &str = "Of networkd's files for lo only the first by name counts: if there is one before \
    20-dsrlb-lo.network already, put what is in 20-dsrlb-lo.network.d beside that one.";
const NOT_NETPLAN: &str = "netplan has no word for the receiving ends of tunnels (open to any sender, `mode any`, ports of \
    GUE); where it renders for networkd, files of networkd count beside it: take the guide for networkd";

pub(super) fn plan(needs: &Needs) -> Plan {
    let parts = [silence(needs), Some(hold(needs)), service(needs), tunnels(needs)];
    let mut notes = linux::notes_for(needs);
    notes.push(FIRST_OF_LOOPBACK.into());
    Plan { parts: parts.into_iter().flatten().collect(), checks: linux_checks::of(needs), notes }
}

/// As [`plan`], with the VIPs in netplan's file.
pub(super) fn netplan(needs: &Needs) -> Result<Plan, String> {
    if needs.tunnels() {
        return Err(NOT_NETPLAN.into());
    }
    let parts = [silence(needs), Some(hold_by_netplan(needs)), service(needs)];
    let mut notes = linux::notes_for(needs);
    notes.push(
        "For netplan with networkd as its renderer; kernel settings and nft are not netplan's."
            .into(),
    );
    Ok(Plan {
        parts: parts.into_iter().flatten().collect(),
        checks: linux_checks::of(needs),
        notes,
    })
}

fn file(path: &str, content: &str) -> String {
    format!("cat > {path} << 'EOF'\n{content}EOF")
}

fn silence(needs: &Needs) -> Option<Part> {
    let path = format!("/etc/sysctl.d/90-dsrlb-{}.conf", needs.address);
    let settings = "net.ipv4.conf.all.arp_ignore = 1\nnet.ipv4.conf.all.arp_announce = 2\n";
    needs.ipv4_vips().then(|| Part {
        why: linux::WHY_SILENT,
        commands: vec![
            linux::note_settings(needs),
            file(&path, settings),
            format!("sysctl -q -p {path}"),
        ],
        undo_why: "ARP as it was before; after a boot in between, at the next one.",
        undo: vec![format!("rm -f {path}"), linux::restore_settings(needs)],
    })
}

fn hold(needs: &Needs) -> Part {
    let mut text = String::new();
    for vip in needs.addresses() {
        text += &format!("[Address]\nAddress={vip}\n");
        if vip.addr().is_ipv6() {
            text += "PreferredLifetime=0\nDuplicateAddressDetection=none\n";
        }
    }
    for vip in needs.prefixes() {
        text += &format!("[Route]\nDestination={vip}\nType=local\n");
    }
    let own = format!("{LOOPBACK}.d/{}.conf", needs.address);
    Part {
        why: linux::WHY_HOLD,
        commands: vec![
            format!("mkdir -p {LOOPBACK}.d"),
            file(
                LOOPBACK,
                "[Match]
Name=lo
",
            ),
            file(&own, &text),
            "networkctl reload".into(),
            "networkctl reconfigure lo".into(),
        ],
        undo_why: "The VIPs are no longer this host's; of the last backend on it, the file that all shared goes, too.",
        undo: undo_hold(
            needs,
            vec![
                format!("rm -f {own}"),
                // There may be another backend on this host.
                format!("! rmdir {LOOPBACK}.d 2> /dev/null || rm -f {LOOPBACK}"),
                "networkctl reload".into(),
            ],
        ),
    }
}

/// Whether networkd takes addresses away that are no longer in its files depends on its version; here they are gone
/// in any case.
fn undo_hold(needs: &Needs, mut commands: Vec<String>) -> Vec<String> {
    let release = linux::release(needs).into_iter();
    commands.extend(release.map(|command| format!("{command} 2> /dev/null || true")));
    commands
}

fn hold_by_netplan(needs: &Needs) -> Part {
    let mut text =
        "network:\n  version: 2\n  ethernets:\n    lo:\n      match:\n        name: lo\n"
            .to_owned();
    let mut list = |key: &str, items: Vec<String>| {
        if !items.is_empty() {
            text += &format!("      {key}:\n{}", items.concat());
        }
    };
    let address = |vip: ipnet::IpNet| match vip.addr() {
        IpAddr::V4(_) => format!("        - \"{vip}\"\n"),
        IpAddr::V6(_) => format!("        - \"{vip}\":\n            lifetime: 0\n"),
    };
    list("addresses", needs.addresses().map(address).collect());
    let route = |vip| format!("        - to: \"{vip}\"\n          type: local\n");
    list("routes", needs.prefixes().map(route).collect());
    let own = format!("/etc/netplan/90-dsrlb-{}.yaml", needs.address);
    Part {
        why: linux::WHY_HOLD,
        commands: vec![
            file(&own, &text),
            // Or netplan warns that others may read it.
            format!("chmod 600 {own}"),
            "netplan apply".into(),
        ],
        undo_why: "The VIPs are no longer this host's.",
        undo: undo_hold(needs, vec![format!("rm -f {own}"), "netplan apply".into()]),
    }
}

fn service(needs: &Needs) -> Option<Part> {
    let (rules, table) = (nft::rules(needs), nft::table(needs));
    let rules_file = format!("/etc/{table}.nft");
    let unit = format!("dsrlb-backend-{}.service", needs.address);
    let unit_file = format!("/etc/systemd/system/{unit}");
    let family = fou_family(needs);
    let (mut before, mut start, mut stop) = (Vec::new(), Vec::new(), Vec::new());
    if rules.is_some() {
        start.push(format!("/usr/sbin/nft -f {rules_file}"));
        stop.push(format!("-/usr/sbin/nft delete table inet {table}"));
    }
    for port in &needs.gue_ports {
        let delete = format!("-/sbin/ip fou del port {port}{family}");
        // It may be there already, by hand, and cannot be replaced.
        before.push(delete.clone());
        start.push(format!("/sbin/ip fou add port {port} gue{family}"));
        stop.push(delete);
    }
    if start.is_empty() {
        return None;
    }
    let lines = |key: &str, commands: &[String]| -> String {
        commands.iter().map(|command| format!("{key}={command}\n")).collect()
    };
    let text = format!(
        "[Unit]\nDescription=What a backend of dsrlb has beside addresses and devices\nBefore=network-pre.target\n\
         Wants=network-pre.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n{}{}{}\n\
         [Install]\nWantedBy=multi-user.target\n",
        lines("ExecStartPre", &before),
        lines("ExecStart", &start),
        // All of it, whatever else is gone; also where not all could be started.
        lines("ExecStopPost", &stop),
    );
    let mut commands: Vec<_> = rules.iter().map(|rules| file(&rules_file, rules)).collect();
    commands.extend([
        file(&unit_file, &text),
        "systemctl daemon-reload".into(),
        format!("systemctl enable {unit}"),
        format!("systemctl restart {unit}"),
    ]);
    Some(Part {
        why: WHY_SERVICE,
        commands,
        undo_why: "Rules and ports.",
        undo: vec![
            format!("systemctl disable --now {unit}"),
            format!("rm -f {unit_file} {rules_file}"),
            "systemctl daemon-reload".into(),
        ],
    })
}

fn tunnels(needs: &Needs) -> Option<Part> {
    let devices = devices(needs);
    if devices.is_empty() {
        return None;
    }
    let path = |name: &str, suffix: &str| format!("/etc/systemd/network/20-{name}.{suffix}");
    let loose: String = devices
        .iter()
        .filter(|device| device.ipv4_inside)
        .map(|device| format!("net.ipv4.conf.{}.rp_filter = 2\n", device.name))
        .collect();
    let sysctl = format!("/etc/sysctl.d/91-dsrlb-{}.conf", needs.address);
    let mut commands = Vec::new();
    if !loose.is_empty() {
        // Before there is a device; udev applies it when it comes. What holds where there is no udev is below.
        commands.push(file(&sysctl, &loose));
    }
    for device in &devices {
        let (name, kind) = (device.name, device.kind);
        let mode = if needs.address.is_ipv6() { "Mode=any\n" } else { "" };
        let netdev = format!(
            "[NetDev]\nName={name}\nKind={kind}\n\n[Tunnel]\nIndependent=yes\nLocal={}\nRemote=any\n{mode}",
            needs.address
        );
        // systemd 255 and later have the word for rp_filter; earlier ones say that they do not know it, and go on.
        let open = match device.ipv4_inside {
            true => format!(
                "IPv4ReversePathFilter=loose\n\n[Address]\nAddress={}\nScope=host\n",
                linux::DUMMY
            ),
            false => String::new(),
        };
        let network = format!("[Match]\nName={name}\n\n[Network]\nLinkLocalAddressing=no\n{open}");
        commands.push(file(&path(name, "netdev"), &netdev));
        commands.push(file(&path(name, "network"), &network));
    }
    commands.push("networkctl reload".into());
    let files: Vec<_> = devices
        .iter()
        .map(|device| format!("{} {}", path(device.name, "netdev"), path(device.name, "network")))
        .collect();
    let mut undo = vec![format!("rm -f {sysctl} {}", files.join(" ")), "networkctl reload".into()];
    undo.extend(devices.iter().map(|device| format!("ip link del {}", device.name)));
    Some(Part { why: linux::WHY_TUNNELS, commands, undo_why: "The ends of the tunnels.", undo })
}
