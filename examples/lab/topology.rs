//! How the laboratory is wired.

use super::netns::{self, Namespace};
use super::{Host, Lab, LabOptions, routed, vlan};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

const CLIENT: u8 = 2;
const DIRECTOR: u8 = 1;
const ROUTER: u8 = 3;
const FIRST_BACKEND: u8 = 11;
const MOST_BACKENDS: u8 = 80;
pub(super) const VIP4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
const INTERFACE: &str = "eth0";
const BRIDGE: &str = "bridge";

/// Every host answers for itself alone: no routing, no redirects, and none of the settings that a distribution may
/// have made on the host, which new namespaces inherit.
const IPV4_HOST: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
];

/// No duplicate address detection, so that addresses work at once; no router solicitations, so that the wire is quiet.
const IPV6_HOST: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/router_solicitations", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

const NO_IPV6: &[(&str, &str)] =
    &[("net/ipv6/conf/all/disable_ipv6", "1"), ("net/ipv6/conf/default/disable_ipv6", "1")];

/// A backend must not tell anybody that it holds the VIP: neither answer for it (`arp_ignore`) nor ask with it as the
/// sender (`arp_announce`). IPv6 needs neither: Linux answers ND only for the addresses of the interface asked on.
const BACKEND: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/default/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/ipv4/conf/default/arp_announce", "2"),
];

const PLAIN_BRIDGE: &[(&str, &str)] = &[
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
];

pub(super) fn build(options: &LabOptions) -> io::Result<Lab> {
    check(options)?;
    let prefix = netns::new_prefix(options.tag)?;
    let switch = Namespace::create(format!("{prefix}-switch"))?;
    let client = host(&prefix, "client", CLIENT, options)?;
    let director = host(&prefix, "director", DIRECTOR, options)?;
    let mut backends = (1..=options.backends)
        .map(|n| host(&prefix, &format!("b{n}"), FIRST_BACKEND + n - 1, options))
        .collect::<io::Result<Vec<_>>>()?;
    let router = options.routed.then(|| host(&prefix, "router", ROUTER, options)).transpose()?;

    let near = if router.is_some() { [].iter() } else { backends.iter() };
    let hosts = [&client, &director].into_iter().chain(&router).chain(near);
    connect(&switch, hosts, options)?;
    fix_director_cable(&switch, &director, options)?;
    for backend in &backends {
        backend.namespace.sysctl(BACKEND)?;
    }
    address(&client, None, options)?;
    address(&director, options.director_holds_vip.then_some(INTERFACE), options)?;
    match &router {
        None => backends.iter().try_for_each(|backend| address(backend, Some("lo"), options))?,
        Some(router) => {
            address(router, None, options)?;
            for (number, backend) in (1..).zip(&mut backends) {
                (backend.v4, backend.v6) = routed::addresses(number);
            }
            routed::connect(router, &director, &client, &backends, options)?;
        }
    }
    let (vip4, vip6, ipv6) = (VIP4, VIP6, options.ipv6);
    Ok(Lab { switch, client, director, router, backends, vip4, vip6, ipv6 })
}

fn check(options: &LabOptions) -> io::Result<()> {
    let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if !(1..=MOST_BACKENDS).contains(&options.backends) {
        return wrong(format!(
            "LabOptions::backends is {}; expected 1 to {MOST_BACKENDS}",
            options.backends
        ));
    }
    if options.queues == 0 {
        return wrong("LabOptions::queues is 0; expected at least 1".to_owned());
    }
    if let Some(id) = options.vlan.filter(|id| !(1..=4094).contains(id)) {
        return wrong(format!("LabOptions::vlan is {id}; expected 1 to 4094"));
    }
    Ok(())
}

fn host(prefix: &str, name: &str, number: u8, options: &LabOptions) -> io::Result<Host> {
    let namespace = Namespace::create(format!("{prefix}-{name}"))?;
    // Before the interface exists, as an interface takes its settings from `default` when it is made.
    namespace.sysctl(IPV4_HOST)?;
    namespace.sysctl(if options.ipv6 { IPV6_HOST } else { NO_IPV6 })?;
    let digits = same_digits_in_hex(number);
    Ok(Host {
        name: name.to_owned(),
        namespace,
        interface: INTERFACE.to_owned(),
        mac: [0x02, 0, 0, 0, 0x01, digits],
        v4: Ipv4Addr::new(10, 77, 0, number),
        v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits.into()),
    })
}

/// 12 becomes 0x12, so that a host's number looks the same in all of its addresses. Host numbers are below 100.
fn same_digits_in_hex(number: u8) -> u8 {
    number / 10 * 16 + number % 10
}

/// Makes the bridge and the cables. All of it happens inside the switch: nothing passes through the host's namespace.
fn connect<'a>(
    switch: &Namespace,
    hosts: impl Iterator<Item = &'a Host>,
    options: &LabOptions,
) -> io::Result<()> {
    switch.sysctl(NO_IPV6)?;
    // Present only with the br_netfilter module, which would have the bridge drop frames that it finds malformed.
    if switch.enter(|| Path::new("/proc/sys/net/bridge").exists()) {
        switch.sysctl(PLAIN_BRIDGE)?;
    }
    let mut lines = vec![
        // A bridge that snoops multicast would hold back ND until it has seen reports.
        format!("link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
        format!("link set dev {BRIDGE} address 02:00:00:00:02:ff mtu {} up", options.mtu),
    ];
    for host in hosts {
        let (port, namespace, mtu) = (&host.name, host.namespace.name(), options.mtu);
        let port_mac = format!("02:00:00:00:02:{:02x}", host.mac[5]);
        // Both ends: the one that sends picks the queue on which the other receives.
        let queues = format!(
            "numrxqueues {0} numtxqueues {0}",
            if port == "director" { options.queues } else { 1 }
        );
        lines.push(format!(
            "link add name {port} mtu {mtu} address {port_mac} {queues} type veth \
             peer name {INTERFACE} mtu {mtu} address {} {queues} netns {namespace}",
            host.mac_text()
        ));
        lines.push(format!("link set dev {port} master {BRIDGE} up"));
    }
    switch.ip_batch(&lines)
}

/// Makes frames on the director's cable what they would be on a real one.
fn fix_director_cable(switch: &Namespace, director: &Host, options: &LabOptions) -> io::Result<()> {
    // Between namespaces Linux leaves TCP segments unsegmented and without checksums until a real device asks. XDP would
    // get them like that, and the backend would drop them. This end of the cable completes frames before XDP sees them.
    switch.run("ethtool", &["-K", &director.name, "tx", "off", "tso", "off", "gso", "off"])?;
    // Tags stay in the frames, where XDP can see them.
    switch.run("ethtool", &["-K", &director.name, "txvlan", "off"])?;
    director.namespace.run("ethtool", &["-K", &director.interface, "rxvlan", "off"])?;
    match options.vlan {
        Some(id) => vlan::make_trunk(
            id,
            [(switch, &director.name), (&director.namespace, &director.interface)],
        ),
        None => Ok(()),
    }
}

/// Brings a host's interface up with its addresses, and with the VIP on `vip_on`.
fn address(host: &Host, vip_on: Option<&str>, options: &LabOptions) -> io::Result<()> {
    let mut lines = vec![
        format!("link set dev {INTERFACE} up"),
        format!("addr add {}/24 dev {INTERFACE}", host.v4),
    ];
    if options.ipv6 {
        lines.push(format!("addr add {}/64 dev {INTERFACE} nodad", host.v6));
    }
    if let Some(interface) = vip_on {
        lines.push(format!("addr add {VIP4}/32 dev {interface}"));
        if options.ipv6 {
            // Deprecated (preferred for 0 seconds): else, being the longer match, it would be the source address of what
            // the host itself sends, such as health checks.
            lines.push(format!("addr add {VIP6}/128 dev {interface} nodad preferred_lft 0"));
        }
    }
    host.namespace.ip_batch(&lines)
}
