//! Backends beyond the director's link: each in a subnet of its own behind a router.
//!
//! ```text
//!   client .2 ─┐                       ┌─ 10.78.1.0/24 ─ b1 .2
//! director .1 ─┴─ 10.77.0.0/24 ─ .3 router ─ 10.78.2.0/24 ─ b2 .2
//!          └───── 10.79.0.0/24 ─ .3 ─┘ (the second arm, if wanted)
//! ```

use super::topology::{VIP4, VIP6};
use super::{Host, LabOptions, Namespace};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The director's second interface, straight to the router.
pub const SECOND_ARM: &str = "arm";
const ROUTER_ARM: &str = "director";

/// The network behind the router, or part of it, by its number.
pub(super) fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 78, number, 2), Ipv6Addr::new(0xfd78, number.into(), 0, 0, 0, 0, 0, 2))
}

/// Connects backends to the router and has all that are concerned route to each other.
pub(super) fn connect(
    router: &Host,
    director: &Host,
    client: &Host,
    backends: &[Host],
    options: &LabOptions,
) -> io::Result<()> {
    router.namespace.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // Telling the client of a shorter way would take the router out of the picture.
        ("net/ipv4/conf/all/send_redirects", "0"),
        // Each packet too big is worth an answer.
        ("net/ipv4/icmp_ratelimit", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
    ])?;
    for (number, backend) in (1..).zip(backends) {
        connect_backend(router, backend, number, options)?;
    }
    for host in [director, client] {
        host.namespace.ip_batch(&[
            format!("route add 10.78.0.0/16 via {}", router.v4),
            format!("route add fd78::/16 via {}", router.v6),
        ])?;
    }
    if options.second_arm {
        connect_second_arm(router, director, options.mtu)?;
    }
    Ok(())
}

fn connect_backend(
    router: &Host,
    backend: &Host,
    number: u8,
    options: &LabOptions,
) -> io::Result<()> {
    let (name, mtu) = (&backend.name, options.far_mtu.unwrap_or(options.mtu));
    let (namespace, interface) = (backend.namespace.name(), &backend.interface);
    router.namespace.ip_batch(&[
        format!(
            "link add name {name} mtu {mtu} type veth peer name {interface} mtu {mtu} \
             address {} netns {namespace}",
            backend.mac_text()
        ),
        format!("addr add 10.78.{number}.1/24 dev {name}"),
        format!("addr add fd78:{number}::1/64 dev {name} nodad"),
        format!("link set dev {name} up"),
    ])?;
    backend.namespace.ip_batch(&[
        format!("link set dev {interface} up"),
        format!("addr add {}/24 dev {interface}", backend.v4),
        format!("addr add {}/64 dev {interface} nodad", backend.v6),
        format!("route add default via 10.78.{number}.1"),
        format!("route add default via fd78:{number}::1"),
        format!("addr add {VIP4}/32 dev lo"),
        format!("addr add {VIP6}/128 dev lo nodad preferred_lft 0"),
    ])
}

fn connect_second_arm(router: &Host, director: &Host, mtu: u16) -> io::Result<()> {
    let namespace = router.namespace.name();
    director.namespace.ip_batch(&[
        format!(
            "link add name {SECOND_ARM} mtu {mtu} type veth peer name {ROUTER_ARM} mtu {mtu} \
             netns {namespace}"
        ),
        format!("addr add 10.79.0.1/24 dev {SECOND_ARM}"),
        format!("addr add fd79::1/64 dev {SECOND_ARM} nodad"),
        format!("link set dev {SECOND_ARM} up"),
    ])?;
    router.namespace.ip_batch(&[
        format!("addr add 10.79.0.3/24 dev {ROUTER_ARM}"),
        format!("addr add fd79::3/64 dev {ROUTER_ARM} nodad"),
        format!("link set dev {ROUTER_ARM} up"),
    ])?;
    director.namespace.ip_batch(&[
        format!("route replace 10.78.0.0/16 via 10.79.0.3 dev {SECOND_ARM}"),
        format!("route replace fd78::/16 via fd79::3 dev {SECOND_ARM}"),
    ])
}

/// Changes the MTU of the last link to a backend, at both its ends.
pub(super) fn set_far_mtu(router: &Namespace, backend: &Host, mtu: u16) -> io::Result<()> {
    let mtu = mtu.to_string();
    router.run("ip", &["link", "set", "dev", &backend.name, "mtu", &mtu])?;
    backend.namespace.run("ip", &["link", "set", "dev", &backend.interface, "mtu", &mtu]).map(drop)
}
