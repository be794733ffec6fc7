//! The interfaces themselves: there, up, free, with room for their frames, and what they lose.

use super::{Notes, offloads};
use crate::dataplane::af_xdp::{DeviceStats, XdpOptions, page_size};
use crate::doctor::catalogue::{
    CARRIER, DOWN, DROPS, FRAME_SIZE, KIND, MISSING, PROGRAM, RING, RP_FILTER, UNBOUND,
};
use crate::doctor::observed::{Counted, Held, Link, Program, Properties};
use crate::doctor::{Checkup, Severity};

pub(super) fn judge(checkup: &Checkup, link: &Link, notes: &mut Notes) {
    let name = &link.name;
    let Some(there) = &link.there else {
        let evidence = "is not in this network namespace; those that are:";
        return notes.error(MISSING, name, evidence, "ip link");
    };
    if let Some(kind) = &there.not_ethernet {
        let evidence = format!("is not Ethernet ({kind}); use one with a MAC address");
        return notes.error(KIND, name, evidence, "");
    }
    if !there.up {
        return notes.error(DOWN, name, "is down", format!("ip link set dev {name} up"));
    }
    if there.carrier {
        notes.ok(CARRIER, name, "is up and has a carrier");
    } else {
        let evidence = "is up and has no carrier: look at the cable, or at the other end";
        notes.error(CARRIER, name, evidence, "");
    }
    program(name, there.program.as_ref(), notes);
    frame_size(&checkup.xdp, name, there.mtu, notes);
    unbound(&checkup.xdp, name, there, notes);
    offloads::judge(checkup, name, there, notes);
    ring(name, there, notes);
    if let Some(counted) = &there.counted {
        drops(name, counted, notes);
    }
    rp_filter(checkup, name, there, notes);
}

fn program(name: &str, program: Option<&Program>, notes: &mut Notes) {
    let Some(Program { id, mode, name: title, held }) = program else {
        return notes.ok(PROGRAM, name, "has no XDP program");
    };
    let title = title.as_deref().map_or(String::new(), |title| format!(" ({title})"));
    let evidence = format!("has the XDP program {id}{title}, mode {mode}");
    let off = format!("ip link set dev {name} {mode} off");
    match held {
        Held::ByLink(link) => {
            let evidence = format!(
                "{evidence}, held by a BPF link, which is pinned or some process's; stop that, or:"
            );
            notes.error(PROGRAM, name, evidence, format!("bpftool link detach id {link}"));
        }
        Held::ByItself => notes.error(PROGRAM, name, evidence, off),
        Held::Unknown => {
            let evidence =
                format!("{evidence}; unless a BPF link holds it (bpftool link shows it):");
            notes.error(PROGRAM, name, evidence, off);
        }
    }
}

fn frame_size(options: &XdpOptions, name: &str, mtu: u32, notes: &mut Notes) {
    let fits = options.largest_mtu();
    if mtu <= fits {
        let evidence = format!("has an MTU of {mtu} bytes, up to {fits} fit into a frame");
        return notes.ok(FRAME_SIZE, name, evidence);
    }
    let needed = XdpOptions::frame_size_for(mtu);
    let raise = if needed <= page_size() {
        format!("set frame-size to {needed}, or lower the MTU here and at whatever sends to it:")
    } else {
        "no frame is larger than a memory page; lower the MTU here and at whatever sends to it:"
            .into()
    };
    let evidence = format!(
        "has an MTU of {mtu} bytes, and up to {fits} fit into a frame of {} bytes; {raise}",
        options.frame_size
    );
    notes.error(FRAME_SIZE, name, evidence, format!("ip link set dev {name} mtu {fits}"));
}

fn unbound(options: &XdpOptions, name: &str, there: &Properties, notes: &mut Notes) {
    let Some(queues) = there.queues else {
        return;
    };
    let sockets = options.queues.unwrap_or(queues.receive).min(queues.receive);
    let spread = there.indirection.as_deref();
    let reached = spread.is_none_or(|table| table.iter().any(|queue| *queue >= sockets));
    let count = queues.receive;
    if sockets == count || !reached {
        let evidence = format!("packets arrive on {sockets} of {count} queues, each has a socket");
        return notes.ok(UNBOUND, name, evidence);
    }
    let evidence = format!(
        "{sockets} of {count} RX queues would have a socket; what arrives on the others stays with the \
         kernel. Serve all, or:"
    );
    let remedy = match (spread, queues.combined) {
        (Some(_), _) => format!("ethtool -X {name} equal {sockets}"),
        (None, true) => format!("ethtool -L {name} combined {sockets}"),
        (None, false) => format!("ethtool -L {name} rx {sockets}"),
    };
    notes.warn(UNBOUND, name, evidence, remedy);
}

fn ring(name: &str, there: &Properties, notes: &mut Notes) {
    let (Some((entries, most)), Some(counted)) = (there.ring, there.counted) else {
        return;
    };
    let missed = counted.after.receive_missed;
    let evidence =
        format!("RX rings have {entries} of {most} entries, {missed} packets were missed");
    if missed > 0 && entries < most {
        notes.warn(RING, name, evidence, format!("ethtool -G {name} rx {most}"));
    } else {
        notes.ok(RING, name, evidence);
    }
}

fn drops(name: &str, counted: &Counted, notes: &mut Notes) {
    let losses = |stats: &DeviceStats| {
        [
            ("missed", stats.receive_missed),
            ("dropped", stats.receive_dropped),
            ("received in error", stats.receive_errors),
            ("dropped when sent", stats.transmit_dropped),
            ("sent in error", stats.transmit_errors),
        ]
    };
    let text: Vec<String> = losses(&counted.after)
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let sum =
        |stats| losses(stats).into_iter().map(|(_, count)| count).fold(0, u64::saturating_add);
    let grew = sum(&counted.after).saturating_sub(sum(&counted.before));
    let of = counted.after.received.saturating_add(counted.after.transmitted);
    let remedy = format!("ip -s -s link show dev {name}; ethtool -S {name}");
    match (text.is_empty(), grew) {
        (true, _) => notes.ok(DROPS, name, format!("none of {of} packets lost by the device")),
        (false, 0) => {
            let evidence = format!("of {of} packets since it was made: {}", text.join(", "));
            notes.say(DROPS, Severity::Info, name, evidence, remedy);
        }
        (false, _) => {
            let text = text.join(", ");
            let evidence = format!("of {of} packets: {text}; {grew} of these just now. In detail:");
            notes.warn(DROPS, name, evidence, remedy);
        }
    }
}

/// Harmless where all goes by one interface. Loose lets in what any interface has a route to, but on one without an
/// address it looks no further than at that interface, as strict does.
fn rp_filter(checkup: &Checkup, name: &str, there: &Properties, notes: &mut Notes) {
    let Some(value) = there.rp_filter else {
        return;
    };
    let has_address = there.has_ipv4 != Some(false);
    let strictness = match value {
        _ if checkup.xdp.egress.is_empty() => None,
        1 => Some("strict"),
        2 if !has_address => Some("loose, on an interface without an IPv4 address as strict"),
        _ => None,
    };
    let Some(strictness) = strictness else {
        return notes.ok(RP_FILTER, name, format!("is {value}"));
    };
    let evidence = format!(
        "is {strictness}, and backends are reached by another interface than packets come in by: what they \
         send to this host is dropped"
    );
    let remedy = if has_address {
        format!("sysctl -w net/ipv4/conf/{name}/rp_filter=2")
    } else {
        // The larger of the two counts.
        format!("sysctl -w net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/{name}/rp_filter=0")
    };
    notes.warn(RP_FILTER, name, evidence, remedy);
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::dataplane::af_xdp::ethtool::Queues;
    use crate::doctor::observed::Observed;

    fn one(id: &str, there: Properties) -> Option<(Severity, String)> {
        let mut found = complaints(id, &Checkup::new("eth0"), &seen(there));
        assert!(found.len() < 2, "{found:?}");
        found.pop()
    }

    #[test]
    fn an_interface_that_cannot_be_used_says_why() {
        let nothing = Link { name: "eth0".to_owned(), there: None };
        let missing = Observed { links: vec![nothing], ..Observed::default() };
        let found = complaints(MISSING, &Checkup::new("eth0"), &missing);
        assert_eq!(found, [(Severity::Error, "ip link".to_owned())]);
        let down = Properties { up: false, ..link() };
        assert_eq!(one(DOWN, down), Some((Severity::Error, "ip link set dev eth0 up".to_owned())));
        let kind = Properties { not_ethernet: Some("Loopback".to_owned()), ..link() };
        assert_eq!(one(KIND, kind).unwrap().0, Severity::Error);
        let unplugged = Properties { carrier: false, ..link() };
        assert_eq!(one(CARRIER, unplugged).unwrap().0, Severity::Error);
        for id in [MISSING, DOWN, KIND, CARRIER] {
            assert_eq!(one(id, link()), None);
        }
    }

    #[test]
    fn a_program_is_taken_off_as_it_is_held() {
        let of = |held| {
            let program = Program { id: 7, mode: "xdpdrv", name: None, held };
            one(PROGRAM, Properties { program: Some(program), ..link() }).unwrap().1
        };
        assert_eq!(of(Held::ByItself), "ip link set dev eth0 xdpdrv off");
        assert_eq!(of(Held::ByLink(9)), "bpftool link detach id 9");
        assert_eq!(of(Held::Unknown), "ip link set dev eth0 xdpdrv off");
        assert_eq!(one(PROGRAM, link()), None);
    }

    #[test]
    fn an_mtu_that_does_not_fit_is_lowered_to_what_does() {
        let of = |mtu| one(FRAME_SIZE, Properties { mtu, ..link() }).map(|(_, remedy)| remedy);
        assert_eq!(of(1770), None);
        for mtu in [1771, 9000] {
            assert_eq!(of(mtu).as_deref(), Some("ip link set dev eth0 mtu 1770"));
        }
    }

    /// Cannot be provoked on veth, which has no table.
    #[test]
    fn queues_without_a_socket_matter_if_packets_arrive_on_them() {
        let of = |sockets, combined, indirection: Option<&[u32]>| {
            let queues = Some(Queues { receive: 4, transmit: 4, combined });
            let indirection = indirection.map(<[u32]>::to_vec);
            let options = XdpOptions { queues: sockets, ..XdpOptions::default() };
            let seen = seen(Properties { queues, indirection, ..link() });
            let found = complaints(UNBOUND, &Checkup::new("eth0").xdp(options), &seen);
            found.into_iter().map(|(_, remedy)| remedy).next()
        };
        assert_eq!(of(None, true, None), None);
        assert_eq!(of(Some(4), true, Some(&[0, 1, 2, 3])), None);
        assert_eq!(of(Some(2), true, Some(&[0, 1, 0, 1])), None);
        let remedy = |of: Option<String>| of.unwrap();
        assert_eq!(remedy(of(Some(2), true, Some(&[0, 1, 2]))), "ethtool -X eth0 equal 2");
        assert_eq!(remedy(of(Some(2), true, None)), "ethtool -L eth0 combined 2");
        assert_eq!(remedy(of(Some(1), false, None)), "ethtool -L eth0 rx 1");
    }

    /// Cannot be provoked on veth, which has no rings and misses nothing.
    #[test]
    fn rings_are_small_if_packets_were_missed() {
        let of = |ring, receive_missed| {
            let after = DeviceStats { receive_missed, ..DeviceStats::default() };
            let counted = Some(Counted { before: after, after });
            one(RING, Properties { ring, counted, ..link() }).map(|(_, remedy)| remedy)
        };
        assert_eq!(of(None, 5), None);
        assert_eq!(of(Some((512, 4096)), 0), None);
        assert_eq!(of(Some((4096, 4096)), 5), None);
        assert_eq!(of(Some((512, 4096)), 5).as_deref(), Some("ethtool -G eth0 rx 4096"));
    }

    #[test]
    fn losses_that_go_on_are_worse_than_old_ones() {
        let of = |before, after| {
            let stats = |receive_dropped| DeviceStats { receive_dropped, ..DeviceStats::default() };
            let counted = Some(Counted { before: stats(before), after: stats(after) });
            one(DROPS, Properties { counted, ..link() }).map(|(severity, _)| severity)
        };
        assert_eq!(of(0, 0), None);
        assert_eq!(of(3, 3), Some(Severity::Info));
        assert_eq!(of(3, 4), Some(Severity::Warning));
    }

    #[test]
    fn a_strict_filter_matters_with_a_second_arm() {
        let of = |value, has_ipv4, egress: &[&str]| {
            let egress = egress.iter().map(|name| (*name).to_owned()).collect();
            let options = XdpOptions { egress, ..XdpOptions::default() };
            let seen = seen(Properties { rp_filter: Some(value), has_ipv4, ..link() });
            let found = complaints(RP_FILTER, &Checkup::new("eth0").xdp(options), &seen);
            found
                .into_iter()
                .map(|(severity, remedy)| {
                    assert_eq!(severity, Severity::Warning);
                    remedy
                })
                .collect::<Vec<_>>()
        };
        for has_ipv4 in [None, Some(false), Some(true)] {
            assert_eq!(of(0, has_ipv4, &["eth1"]), [""; 0]);
            assert_eq!([of(1, has_ipv4, &[]), of(2, has_ipv4, &[])], [[""; 0]; 2]);
        }
        for has_ipv4 in [None, Some(true)] {
            assert_eq!(of(2, has_ipv4, &["eth1"]), [""; 0]);
            assert_eq!(of(1, has_ipv4, &["eth1"]), ["sysctl -w net/ipv4/conf/eth0/rp_filter=2"]);
        }
        let off = "sysctl -w net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/eth0/rp_filter=0";
        for value in [1, 2] {
            assert_eq!(of(value, Some(false), &["eth1"]), [off]);
        }
    }
}
