//! The rules that a Linux backend has for what neither addresses nor devices can say.

use super::needs::{Needs, text};
use std::fmt::Write;
use std::net::IpAddr;

/// The table's name. A host with an address of each family may be two backends.
pub(super) fn table(needs: &Needs) -> String {
    format!("dsrlb-{}", needs.address).replace(':', "_")
}

/// The table, in place of what it was, if anything needs one: what has a DSCP value is for its VIP, and TCP announces
/// segments that fit into the tunnel.
pub(super) fn rules(needs: &Needs) -> Option<String> {
    if needs.by_dscp.is_empty() && needs.mss.is_empty() {
        return None;
    }
    // Named first, so that it can be deleted whether or not it was there; all of it is one transaction.
    let table = table(needs);
    let mut rules =
        format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    let family = |address: IpAddr| if address.is_ipv4() { "ip" } else { "ip6" };
    if !needs.by_dscp.is_empty() {
        // Before connection tracking (-200), which then sees the VIP alone. The kernel corrects the checksums.
        rules += "\tchain vip-by-dscp {\n\t\ttype filter hook prerouting priority -300\n";
        for (dscp, vip) in &needs.by_dscp {
            let (ip, own) = (family(needs.address), needs.address);
            let _ = writeln!(rules, "\t\t{ip} daddr {own} {ip} dscp {dscp} {ip} daddr set {vip}");
        }
        rules += "\t}\n";
    }
    if !needs.mss.is_empty() {
        // nft only ever lowers an MSS.
        rules += "\tchain mss {\n\t\ttype filter hook output priority -150\n";
        for (vip, mss) in &needs.mss {
            let (ip, vip) = (family(vip.addr()), text(*vip));
            let _ = writeln!(
                rules,
                "\t\t{ip} saddr {vip} tcp flags syn tcp option maxseg size set {mss}"
            );
        }
        rules += "\t}\n";
    }
    Some(rules + "}\n")
}
