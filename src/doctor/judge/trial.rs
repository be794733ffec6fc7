//! What came of doing as a director does.

use super::Notes;
use crate::dataplane::af_xdp::{AttachMode, Attached, Granted, XdpError};
use crate::doctor::catalogue::{
    FRAME_SIZE, HUGE_PAGES, MEMLOCK, MODE, PROGRAM, QUEUE_BUSY, QUEUES,
};
use crate::doctor::observed::{Observed, Trial};
use crate::doctor::{Checkup, Severity};

pub(super) fn judge(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    match &seen.trial {
        Trial::NotMade => {}
        Trial::Granted(granted) => modes(checkup, seen, granted, notes),
        Trial::Failed(error) => {
            let (id, remedy) = meaning(error);
            // What has been seen from outside is not told twice.
            if !notes.has_complaint(id) || id == MODE {
                notes.error(id, &checkup.interface, error, remedy);
            }
        }
    }
}

fn modes(checkup: &Checkup, seen: &Observed, granted: &Granted, notes: &mut Notes) {
    let name = &checkup.interface;
    let link = seen.links.first().and_then(|link| link.there.as_ref());
    let driver = link.and_then(|there| there.driver.as_deref()).unwrap_or("unknown");
    let mut evidence = format!("{granted} (driver {driver})");
    for fallback in &granted.fallbacks {
        evidence = format!("{evidence}; {fallback}");
    }
    if granted.attach != Some(Attached::Generic) {
        notes.ok(MODE, name, evidence);
    } else if checkup.xdp.attach == AttachMode::Generic {
        notes.say(MODE, Severity::Info, name, format!("{evidence}, as was asked for"), "");
    } else {
        notes.warn(MODE, name, evidence, "");
    }
}

/// Which finding an error is, and what to type.
fn meaning(error: &XdpError) -> (&'static str, String) {
    match error {
        XdpError::FrameTooSmall { interface, fitting, .. } => {
            (FRAME_SIZE, format!("ip link set dev {interface} mtu {fitting}"))
        }
        XdpError::JumboFrames { interface, largest, .. } => {
            (FRAME_SIZE, format!("ip link set dev {interface} mtu {largest}"))
        }
        XdpError::QueueBusy { .. } => (QUEUE_BUSY, "ss --xdp -p".to_owned()),
        XdpError::TooFewQueues { interface, requested, .. } => (
            QUEUES,
            format!(
                "ethtool -L {interface} combined {requested} || ethtool -L {interface} rx {requested} \
                 tx {requested}"
            ),
        ),
        XdpError::NoTransmitQueue { interface, receive, .. } => {
            (QUEUES, format!("ethtool -L {interface} tx {receive}"))
        }
        XdpError::NoHugePages { .. } => (HUGE_PAGES, String::new()),
        XdpError::LockedMemory { .. } => (MEMLOCK, String::new()),
        XdpError::ProgramAttached { .. } => (PROGRAM, String::new()),
        _ => (MODE, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::dataplane::af_xdp::XdpOptions;

    fn granted(attach: Attached) -> Granted {
        Granted {
            attach: Some(attach),
            zero_copy: vec![false],
            busy_polling: vec![false],
            cores: vec![None],
            transmit_budget: 64,
            fallbacks: Vec::new(),
        }
    }

    #[test]
    fn the_generic_hook_is_a_warning_unless_asked_for() {
        let of = |wanted, came| {
            let options = XdpOptions { attach: wanted, ..XdpOptions::default() };
            let seen = Observed { trial: Trial::Granted(granted(came)), ..seen(link()) };
            complaints(MODE, &Checkup::new("eth0").xdp(options), &seen).pop()
        };
        assert_eq!(of(AttachMode::Auto, Attached::Native), None);
        let severity = |found: Option<(Severity, String)>| found.unwrap().0;
        assert_eq!(severity(of(AttachMode::Auto, Attached::Generic)), Severity::Warning);
        assert_eq!(severity(of(AttachMode::Generic, Attached::Generic)), Severity::Info);
    }

    #[test]
    fn each_error_is_one_finding_with_what_to_type() {
        let interface = || "eth0".to_owned();
        let of = |error| {
            let seen = Observed { trial: Trial::Failed(error), ..seen(link()) };
            move |id| complaints(id, &Checkup::new("eth0"), &seen)
        };
        let busy = of(XdpError::QueueBusy { interface: interface(), queue: 0 });
        assert_eq!(busy(QUEUE_BUSY), [(Severity::Error, "ss --xdp -p".to_owned())]);
        assert_eq!(busy(MODE), []);
        let few = of(XdpError::NoTransmitQueue { interface: interface(), receive: 4, transmit: 2 });
        assert_eq!(few(QUEUES), [(Severity::Error, "ethtool -L eth0 tx 4".to_owned())]);
        let other = of(XdpError::Map {
            interface: interface(),
            action: "set the socket",
            reason: "x".to_owned(),
        });
        assert_eq!(other(MODE).len(), 1);
    }

    #[test]
    fn what_was_seen_already_is_not_told_again() {
        let error = XdpError::FrameTooSmall {
            interface: "eth0".to_owned(),
            mtu: 2000,
            longest: 2022,
            frame_size: 2048,
            room: 1792,
            needed: 4096,
            fitting: 1770,
        };
        let mut large = link();
        large.mtu = 2000;
        let seen = Observed { trial: Trial::Failed(error), ..seen(large) };
        assert_eq!(complaints(FRAME_SIZE, &Checkup::new("eth0"), &seen).len(), 1);
    }
}
