//! From the way to a backend to what its packets need on it. Pure.

use super::io::Port;
use super::neighbour::{Path, Rejection};
use super::planner::{Idle, Observed, Site};
use super::snapshot::{Delivery, NextHop};
use crate::balancer::Backend;
use crate::forwarding::Forwarding;
use crate::packet::{Tags, TunnelPath};
use crate::verdict::BackendIndex;

/// The next hop of a backend, or why it can be sent nothing.
pub(super) fn next_hop(
    site: &Site,
    backend: &dyn Backend,
    index: BackendIndex,
    observed: &Observed,
) -> Result<NextHop, Idle> {
    let path = observed.path.as_ref().map_err(Idle::clone)?;
    let forwarding = backend.forwarding();
    if let (true, Some(router)) = (forwarding.needs_link(), path.gateway) {
        return Err(Idle::RoutedVia(router));
    }
    let stations = site.ports.iter().map(|(station, _)| *station);
    if let Some(why) = Rejection::of(path.mac, stations) {
        return Err(Idle::BadMac { mac: path.mac, why });
    }
    let Some(&(source, _)) = site.ports.get(usize::from(path.port)) else {
        return Err(Idle::Unresolved("it is on an interface that frames cannot leave by".into()));
    };
    let delivery = delivery(site, backend, forwarding)?;
    let configured = match forwarding {
        Forwarding::Tunnel(tunnel) => tunnel.path_mtu,
        _ => None,
    };
    let mtu = u16::try_from(path.mtu).unwrap_or(u16::MAX);
    Ok(NextHop {
        index,
        destination: path.mac,
        source,
        port: Port(path.port),
        tags: tags(path),
        mtu: configured.map_or(mtu, |configured| configured.min(mtu)),
        delivery,
    })
}

/// On the interface they came in by, frames keep the tags they have, for the clients' VLANs need
/// not be known here. Elsewhere those tags mean nothing.
fn tags(path: &Path) -> Tags {
    match (path.vlan, Port(path.port)) {
        (None, Port::INGRESS) => Tags::Keep,
        (None, _) => Tags::Remove,
        (Some(id), _) => Tags::Set(id),
    }
}

fn delivery(site: &Site, backend: &dyn Backend, forwarding: Forwarding) -> Result<Delivery, Idle> {
    let address = backend.address();
    Ok(match forwarding {
        Forwarding::L2 => Delivery::L2,
        Forwarding::L3Dsr(dscp) => Delivery::L3Dsr(address, dscp),
        Forwarding::Tunnel(tunnel) => {
            let source = site.tunnel_sources.towards(address);
            let path = source.and_then(|source| TunnelPath::new(source, address, tunnel));
            Delivery::Tunnel(path.ok_or(Idle::WrongFamily)?)
        }
    })
}
