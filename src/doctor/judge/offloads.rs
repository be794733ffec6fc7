//! What NICs and the kernel do to packets before the XDP program, or a backend, sees them.

use super::Notes;
use crate::dataplane::af_xdp::AttachMode;
use crate::doctor::catalogue::{GRO, GRO_HW, LRO, PEER, VLAN};
use crate::doctor::observed::{Peer, Properties};
use crate::doctor::{Checkup, Severity};

pub(super) fn judge(checkup: &Checkup, name: &str, there: &Properties, notes: &mut Notes) {
    match there.lro {
        Some(true) => {
            let evidence = "merges packets (LRO): most drivers then refuse native XDP, and what is \
                            merged is larger than a frame";
            notes.warn(LRO, name, evidence, format!("ethtool -K {name} lro off"));
        }
        Some(false) => notes.ok(LRO, name, "does not merge packets"),
        None => {}
    }
    match there.gro_hw {
        Some(true) => {
            let evidence = "merges packets (GRO in hardware): what is merged is larger than a frame, unless the \
                            driver stops that for native XDP by itself";
            notes.warn(GRO_HW, name, evidence, format!("ethtool -K {name} rx-gro-hw off"));
        }
        Some(false) => notes.ok(GRO_HW, name, "does not merge packets by the rules of GRO"),
        None => {}
    }
    match there.gro {
        Some(true) if checkup.xdp.attach == AttachMode::Generic => {
            let evidence = "the kernel merges packets (GRO) before the generic hook sees them, and what \
                            is merged is larger than a frame";
            notes.warn(GRO, name, evidence, format!("ethtool -K {name} gro off"));
        }
        Some(on) => {
            let evidence = if on { "comes after native XDP" } else { "is off" };
            notes.ok(GRO, name, evidence);
        }
        None => {}
    }
    vlan(name, there, notes);
    if let Some(Peer { name: peer, enter, leaves_checksums }) = &there.peer {
        if *leaves_checksums {
            let evidence = format!(
                "its other end, {peer}, leaves checksums to a device that there is none of: backends \
                 drop what comes from other namespaces of this host"
            );
            notes.warn(PEER, name, evidence, format!("{enter}ethtool -K {peer} tx off"));
        } else {
            notes.ok(PEER, name, format!("its other end, {peer}, completes checksums"));
        }
    }
}

fn vlan(name: &str, there: &Properties, notes: &mut Notes) {
    match there.strips_tags {
        Some(true) => {}
        Some(false) => return notes.ok(VLAN, name, "VLAN tags stay in the frames"),
        None => return,
    }
    let (severity, evidence) = match there.vlans.len() {
        0 => (Severity::Info, "VLAN tags are taken out of received frames; where there are VLANs:"),
        _ => (
            Severity::Warning,
            "has VLAN interfaces, and tags are taken out of received frames: tagged ones are seen as \
             untagged",
        ),
    };
    let remedy = format!("ethtool -K {name} rxvlan off");
    notes.say(VLAN, severity, name, evidence, remedy);
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::dataplane::af_xdp::XdpOptions;
    use crate::doctor::observed::Vlan;

    fn one(id: &str, there: Properties) -> Option<(Severity, String)> {
        complaints(id, &Checkup::new("eth0"), &seen(there)).pop()
    }

    /// Cannot be provoked on veth, which has neither.
    #[test]
    fn merging_in_the_nic_is_switched_off() {
        let lro = |lro| one(LRO, Properties { lro, ..link() });
        let gro = |gro_hw| one(GRO_HW, Properties { gro_hw, ..link() });
        assert_eq!((lro(None), lro(Some(false))), (None, None));
        assert_eq!((gro(None), gro(Some(false))), (None, None));
        let remedy = "ethtool -K eth0 lro off".to_owned();
        assert_eq!(lro(Some(true)), Some((Severity::Warning, remedy)));
        let remedy = "ethtool -K eth0 rx-gro-hw off".to_owned();
        assert_eq!(gro(Some(true)), Some((Severity::Warning, remedy)));
    }

    #[test]
    fn merging_in_the_kernel_matters_to_the_generic_hook() {
        let of = |attach, gro| {
            let options = XdpOptions { attach, ..XdpOptions::default() };
            let seen = seen(Properties { gro: Some(gro), ..link() });
            complaints(GRO, &Checkup::new("eth0").xdp(options), &seen).len()
        };
        assert_eq!(of(AttachMode::Auto, true), 0);
        assert_eq!([of(AttachMode::Generic, false), of(AttachMode::Generic, true)], [0, 1]);
    }

    #[test]
    fn tags_that_are_taken_out_matter_where_there_are_vlans() {
        let of = |strips_tags, vlans| {
            let vlans = vec![Vlan { id: 7, index: 9, mac: None }; vlans];
            one(VLAN, Properties { strips_tags, vlans, ..link() }).map(|(severity, _)| severity)
        };
        assert_eq!([of(None, 1), of(Some(false), 1)], [None; 2]);
        assert_eq!(of(Some(true), 0), Some(Severity::Info));
        assert_eq!(of(Some(true), 1), Some(Severity::Warning));
    }

    #[test]
    fn the_command_for_the_other_end_is_run_where_that_is() {
        let of = |leaves_checksums| {
            let (name, enter) = ("veth7".to_owned(), "ip netns exec x ".to_owned());
            let peer = Some(Peer { name, enter, leaves_checksums });
            one(PEER, Properties { peer, ..link() }).map(|(_, remedy)| remedy)
        };
        assert_eq!(of(false), None);
        assert_eq!(of(true).as_deref(), Some("ip netns exec x ethtool -K veth7 tx off"));
    }
}
