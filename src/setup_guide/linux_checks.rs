//! What is to hold on a Linux backend, whoever made it so.

use super::linux::{devices, family, fou_family, fou_shown, loosen};
use super::needs::{Needs, text};
use super::{Check, nft};
use ipnet::IpNet;

/// Functions that the tests use. They set `found` to what else there is to say.
pub(super) const FUNCTIONS: &str = r#"
# Interfaces on which ARP is spoken.
links() { ip -o link show up | grep -v -e LOOPBACK -e NOARP | cut -d: -f2 | cut -d@ -f1; }
# What holds for an interface is the larger of its own value and that for all.
effective() { # KEY INTERFACE
	all=$(cat "/proc/sys/net/ipv4/conf/all/$1") own=$(cat "/proc/sys/net/ipv4/conf/$2/$1")
	if [ "$all" -gt "$own" ]; then echo "$all"; else echo "$own"; fi
}
each_link_has() { # KEY VALUE...
	key=$1
	shift
	for link in $(links); do
		value=$(effective "$key" "$link")
		case " $* " in *" $value "*) ;; *) found="$link has $value"; return 1 ;; esac
	done
}
is_local() { ip -o route get "$1" 2> /dev/null | grep -q '^local '; }
on_no_link() { # VIP
	for link in $(links); do
		if ip -o address show dev "$link" to "$1" | grep -q .; then found="it is on $link"; return 1; fi
	done
}
is_deprecated() { ! ip -6 -o address show to "$1" | grep -vq deprecated; }
has_routes() { ip "-$1" route show table main | grep -v -e '^fe80' -e ' dev lo ' | grep -q .; }
way_in() { ip -o address show to "$1" | sed 's/^[0-9]*: *\([^ ]*\) .*/\1/' | head -n 1; }
way_in_is_not_strict() { # ADDRESS
	link=$(way_in "$1")
	[ -n "$link" ] && [ "$(effective rp_filter "$link")" = 1 ] || return 0
	[ -n "$(ip -4 route show default)" ] || return 0
	found="strict on $link" && ip -4 route show default | grep -qw "dev $link"
}
tunnel_is_up() { # DEVICE ADDRESS
	ip -d -o link show dev "$1" up 2> /dev/null | grep -qw "local $2" || return 1
	found="$(ip -s link show dev "$1" | sed -n '/RX:/{n;s/^ *[0-9]* *\([0-9]*\).*/\1/p;}') packets so far"
}
is_loose() { # DEVICE
	[ -e "/proc/sys/net/ipv4/conf/$1" ] || return 1
	value=$(effective rp_filter "$1")
	found="it is $value"
	if [ "$value" = 2 ] && [ -z "$(ip -4 -o address show dev "$1")" ]; then
		found="it is 2, which is as strict as 1 without an address"
		return 1
	fi
	[ "$value" != 1 ]
}
announces() { # FAMILY VIP MSS TABLE
	nft list table inet "$4" 2> /dev/null | grep -q "saddr $2 .*maxseg size set $3\$" && return 0
	routes=$(ip "-$1" route show default)
	[ -n "$routes" ] && ! echo "$routes" | grep -qvw "advmss $3"
}
is_named() { # DSCP, in two hexadecimal digits, VIP and TABLE
	nft -n list table inet "$3" 2> /dev/null | grep -q "dscp 0x$1 .*daddr set $2\$"
}
"#;

pub(super) fn of(needs: &Needs) -> Vec<Check> {
    let (own, table) = (needs.address, nft::table(needs));
    let mut checks = vec![Check::new(
        format!("this is backend {own}"),
        format!("[ -n \"$(way_in {own})\" ]"),
        "run this on that host, or correct the backend's address in the configuration",
    )];
    checks.extend(needs.vips.iter().flat_map(|vip| of_vip(*vip)));
    if needs.ipv4_vips() {
        checks.push(Check::new(
            "ARP for VIPs is not answered: arp_ignore",
            "each_link_has arp_ignore 1 2 8",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1",
        ));
        checks.push(Check::new(
            "ARP is not asked in the name of VIPs: arp_announce",
            "each_link_has arp_announce 2",
            "sysctl -w net.ipv4.conf.all.arp_announce=2",
        ));
        checks.push(Check::new(
            "packets of clients are not held to have come the wrong way: rp_filter",
            format!("way_in_is_not_strict {own}"),
            "the way back is by another interface: set rp_filter=2 for this one",
        ));
    }
    for (of, is_wanted) in [(4, needs.ipv4_vips()), (6, needs.ipv6_vips())] {
        checks.extend(is_wanted.then(|| {
            Check::new(
                format!("there is a way to clients of IPv{of}"),
                format!("has_routes {of}"),
                "add a route; the default route is the router, not the director",
            )
        }));
    }
    for device in devices(needs) {
        let name = device.name;
        checks.push(Check::new(
            format!("tunnel {name} is up"),
            format!("tunnel_is_up {name} {own}"),
            format!("ip link del {name}, then run the setup, which makes it"),
        ));
        checks.extend(device.ipv4_inside.then(|| {
            Check::new(
                format!("rp_filter lets in what comes out of {name}"),
                format!("is_loose {name}"),
                loosen(name).join(" && "),
            )
        }));
    }
    for port in &needs.gue_ports {
        checks.push(Check::new(
            format!("GUE is taken off at UDP port {port}"),
            fou_shown(needs, *port),
            format!("ip fou add port {port} gue{}", fou_family(needs)),
        ));
    }
    for (vip, mss) in &needs.mss {
        checks.push(Check::new(
            format!("TCP of {} announces an MSS of {mss}", text(*vip)),
            format!("announces {} {} {mss} {table}", family(*vip), text(*vip)),
            format!("run the setup; it loads the nft table {table}"),
        ));
    }
    for (dscp, vip) in &needs.by_dscp {
        checks.push(Check::new(
            format!("DSCP {dscp} names the VIP {vip}"),
            format!("is_named {:02x} {vip} {table}", dscp.value()),
            format!("run the setup; it loads the nft table {table}"),
        ));
    }
    checks
}

fn of_vip(vip: IpNet) -> Vec<Check> {
    let short = text(vip);
    let is_address = short != vip.to_string();
    let (add, options) = match (is_address, vip.addr().is_ipv6()) {
        (true, true) => ("ip address replace", " nodad preferred_lft 0"),
        (true, false) => ("ip address replace", ""),
        (false, _) => ("ip route replace local", ""),
    };
    let mut checks = vec![
        Check::new(
            format!("VIP {short} is this host's"),
            format!("is_local {}", vip.addr()),
            format!("{add} {vip} dev lo{options}"),
        ),
        Check::new(
            format!("VIP {short} is on lo alone, where no neighbour can ask for it"),
            format!("on_no_link {vip}"),
            "ip address del it there, with the length that `ip address` shows",
        ),
    ];
    if is_address && vip.addr().is_ipv6() {
        checks.push(Check::new(
            format!("VIP {short} is no source of the host's own connections"),
            format!("is_deprecated {vip}"),
            format!("{add} {vip} dev lo{options}"),
        ));
    }
    checks
}
