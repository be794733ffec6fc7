//! Looking, and nothing else. What needs rights that this process lacks is noted and left out.

mod answers;
mod host;
mod links;
mod neighbours;
mod peer;
mod questions;
mod segments;
mod through;

use super::Checkup;
use super::observed::{Link, Observed, Trial, Unseen};
use crate::dataplane::af_xdp::{XdpError, XdpInterface};
use std::io;

/// Looks at everything, at what might disturb the rest last.
pub(super) fn observe(checkup: &Checkup) -> Observed {
    let mut seen = Observed::default();
    seen.host = host::look(&mut seen.unseen);
    let links = links::look(checkup, &mut seen.unseen);
    seen.links = links;
    if usable(&seen.links).is_some() {
        neighbours::look(checkup, &mut seen);
        answers::look(checkup, &mut seen);
        through::look(checkup, &mut seen);
        links::look_again(&mut seen.links, &mut seen.unseen);
        try_out(checkup, &mut seen);
    } else {
        let what = "the VIPs, the backends, and what the driver grants";
        seen.unseen.push(unseen(what, "the interface cannot be used", ""));
    }
    seen
}

/// The index of the interface that packets come in by, if a director could be on it.
fn usable(links: &[Link]) -> Option<u32> {
    let is_usable = |link: &Link| {
        link.there.as_ref().is_some_and(|there| there.up && there.not_ethernet.is_none())
    };
    if !links.iter().all(is_usable) {
        return None;
    }
    Some(links.first()?.there.as_ref()?.index)
}

/// Whether somebody's XDP program sees the packets first.
fn is_taken(links: &[Link]) -> bool {
    links.iter().any(|link| link.there.as_ref().is_some_and(|there| there.program.is_some()))
}

/// Does as a director does, but for taking any packet.
fn try_out(checkup: &Checkup, seen: &mut Observed) {
    let mut note = |why: &str, remedy: &str| {
        seen.unseen.push(unseen("the XDP mode that the driver grants", why, remedy));
    };
    if !checkup.trial {
        return note("it was not to be tried", "");
    }
    if is_taken(&seen.links) {
        return note("an XDP program is attached already", "");
    }
    let tried = XdpInterface::open(&checkup.interface, &checkup.xdp).and_then(|mut interface| {
        interface.attach()?;
        Ok(interface.granted())
    });
    seen.trial = match tried {
        Ok(granted) => Trial::Granted(granted),
        Err(XdpError::Privileges { action, .. }) => {
            note(&format!("not permitted to {action}"), RIGHTS);
            Trial::NotMade
        }
        Err(error) => Trial::Failed(error),
    };
}

/// What gives this process the rights it lacks.
const RIGHTS: &str = "run as root; in a container, in a privileged one";

fn unseen(what: impl Into<String>, why: impl Into<String>, remedy: &str) -> Unseen {
    Unseen { what: what.into(), why: why.into(), remedy: remedy.to_owned() }
}

/// Notes that something could not be looked at because of an error.
fn refused(what: &str, error: &io::Error) -> Unseen {
    let remedy = if error.kind() == io::ErrorKind::PermissionDenied { RIGHTS } else { "" };
    unseen(what, error.to_string(), remedy)
}
