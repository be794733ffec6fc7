//! Who answers ARP and neighbour solicitations for the VIPs and for the backends' addresses.

use super::{refused, usable};
use crate::dataplane::af_xdp::LinkSocket;
use crate::dataplane::neighbour::NeighbourState;
use crate::director::claims::Ears;
use crate::doctor::Checkup;
use crate::doctor::observed::Observed;
use crate::packet::{Claim, MacAddress, question};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many addresses are asked about at most: a link should not be flooded for this.
const MOST_QUESTIONS: usize = 1024;
/// One question, or its answer, may be lost.
const ROUNDS: u32 = 2;
/// How long between two looks at what was heard, and after so many questions.
const PAUSE: Duration = Duration::from_millis(5);
const QUESTIONS_AT_ONCE: usize = 16;

pub(super) fn look(checkup: &Checkup, seen: &mut Observed) {
    let services = checkup.config.services.iter().map(|bound| bound.service.key.prefix());
    let single = services.filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
    let vips: BTreeSet<IpAddr> = single.map(|prefix| prefix.addr()).collect();
    let on_link = seen.backends.iter().filter(|(_, state)| is_on_link(state));
    let asked: BTreeSet<IpAddr> =
        vips.iter().copied().chain(on_link.map(|(address, _)| *address)).collect();
    let what = "who answers for the VIPs";
    if asked.len() > MOST_QUESTIONS {
        let why = format!("the first {MOST_QUESTIONS} of {} addresses were asked for", asked.len());
        seen.unseen.push(super::unseen(what, why, ""));
    }
    let asked: Vec<IpAddr> = asked.into_iter().take(MOST_QUESTIONS).collect();
    if asked.is_empty() {
        return;
    }
    match ask(checkup, seen, &asked) {
        Ok(claims) => {
            let own: Vec<MacAddress> =
                seen.links.iter().filter_map(|link| link.there.as_ref()?.mac).collect();
            seen.vips.claims = claims.into_iter().filter(|c| !own.contains(&c.mac)).collect();
            seen.vips.asked = asked.into_iter().filter(|address| vips.contains(address)).collect();
        }
        Err(error) => seen.unseen.push(refused(what, &error)),
    }
}

/// Others are asked for untagged, on the interface that packets come in by.
fn is_on_link(state: &NeighbourState) -> bool {
    match state {
        NeighbourState::Resolved(path) => {
            path.port == 0 && path.vlan.is_none() && path.gateway.is_none()
        }
        _ => false,
    }
}

fn ask(checkup: &Checkup, seen: &Observed, asked: &[IpAddr]) -> io::Result<BTreeSet<Claim>> {
    let index = usable(&seen.links).ok_or(io::ErrorKind::NotFound)?;
    let ingress = seen.links.first().and_then(|link| link.there.as_ref()?.mac);
    let own = ingress.ok_or(io::ErrorKind::InvalidData)?;
    let ears = Ears::open(index)?;
    let mouth = LinkSocket::open(index, 0, &[])?;
    let mut claims = BTreeSet::new();
    for _ in 0..ROUNDS {
        let until = Instant::now() + checkup.patience / ROUNDS;
        for some in asked.chunks(QUESTIONS_AT_ONCE) {
            for address in some {
                mouth.send(&question(own, *address))?;
            }
            sleep(PAUSE);
            claims.extend(ears.hear());
        }
        while Instant::now() < until {
            sleep(PAUSE);
            claims.extend(ears.hear());
        }
    }
    Ok(claims.into_iter().filter(|claim| asked.contains(&claim.address)).collect())
}
