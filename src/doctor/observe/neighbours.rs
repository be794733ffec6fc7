//! The host's own addresses, and the ways to the backends.

use super::{RIGHTS, unseen};
use crate::dataplane::neighbour::{NeighbourState, Resolver, ResolverError, Unresolved};
use crate::director::probe_sources;
use crate::doctor::Checkup;
use crate::doctor::observed::Observed;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

pub(super) fn look(checkup: &Checkup, seen: &mut Observed) {
    if let Err(error) = resolve(checkup, seen) {
        let remedy = if matches!(error, ResolverError::NotPermitted) { RIGHTS } else { "" };
        seen.unseen.push(unseen("the backends' neighbours", error.to_string(), remedy));
    }
}

fn resolve(checkup: &Checkup, seen: &mut Observed) -> Result<(), ResolverError> {
    let ports: Vec<u32> =
        seen.links.iter().filter_map(|link| Some(link.there.as_ref()?.index)).collect();
    let mut resolver = Resolver::open(&ports)?;
    seen.vips.held = resolver.host_addresses()?;
    seen.vips.preferred = resolver.preferred_host_routes()?;
    seen.vips.sources = probe_sources(checkup.probe_sources, &resolver.own_addresses()?);

    let services = checkup.config.services.iter();
    let backends = services.flat_map(|bound| bound.service.all_backends());
    let wanted: BTreeSet<IpAddr> = backends.map(|backend| backend.address()).collect();
    resolver.want(&wanted)?;
    let deadline = Instant::now() + checkup.patience;
    let is_known = |resolver: &Resolver, address| {
        matches!(
            resolver.state(address),
            Some(NeighbourState::Resolved(_) | NeighbourState::Rejected { .. })
        )
    };
    let mut outcome = Ok(());
    while outcome.is_ok()
        && Instant::now() < deadline
        && !wanted.iter().all(|address| is_known(&resolver, *address))
    {
        let left = deadline.saturating_duration_since(Instant::now());
        outcome = resolver.next_events(left).map(drop);
    }
    // What the kernel knew without being asked is known all the same; that one has not answered who was not asked is not.
    let is_told = |state: &NeighbourState| {
        outcome.is_ok() || *state != NeighbourState::Unresolved { why: Unresolved::Pending }
    };
    let state = |address: &IpAddr| Some((*address, resolver.state(*address).filter(is_told)?));
    seen.backends = wanted.iter().filter_map(state).collect();
    outcome
}
