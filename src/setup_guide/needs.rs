//! What all services together ask of one backend.

use crate::balancer::{Backend, VipKey};
use crate::config::Config;
use crate::forwarding::{Dscp, Encapsulation, Forwarding, Tunnel};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a host may send without being told of an MSS (RFC 9293 section 3.7.1); nothing is gained by less.
const LEAST_MSS_IPV4: u16 = 536;
const LEAST_MSS_IPV6: u16 = 1220;
/// Headers of IP and TCP without options.
const HEADERS_IPV4: usize = 40;
const HEADERS_IPV6: usize = 60;

/// A backend, and what it has to have.
pub(super) struct Needs {
    pub(super) address: IpAddr,
    pub(super) names: BTreeSet<String>,
    pub(super) services: BTreeSet<VipKey>,
    pub(super) vips: BTreeSet<IpNet>,
    /// How packets come, as configuration files have it.
    pub(super) ways: BTreeSet<String>,
    /// Whether IPv4 and whether IPv6 comes out of tunnels.
    pub(super) inside: [bool; 2],
    pub(super) gue_ports: BTreeSet<u16>,
    pub(super) by_dscp: BTreeMap<Dscp, IpAddr>,
    /// Of VIPs that come by tunnels: the largest segment that fits, in bytes.
    pub(super) mss: BTreeMap<IpNet, u16>,
    /// Why there can be no such backend.
    pub(super) impossible: Option<String>,
}

impl Needs {
    /// Of all backends, by address.
    pub(super) fn of_all(config: &Config, link_mtu: u16) -> Vec<Self> {
        let mut all = BTreeMap::<IpAddr, Self>::new();
        for service in config.services.iter().map(|bound| &bound.service) {
            for backend in service.all_backends() {
                let address = backend.address();
                let needs = all.entry(address).or_insert_with(|| Self::none(address));
                needs.add(service.key, backend.as_ref(), link_mtu);
            }
        }
        all.into_values().collect()
    }

    fn none(address: IpAddr) -> Self {
        Self {
            address,
            names: BTreeSet::new(),
            services: BTreeSet::new(),
            vips: BTreeSet::new(),
            ways: BTreeSet::new(),
            inside: [false; 2],
            gue_ports: BTreeSet::new(),
            by_dscp: BTreeMap::new(),
            mss: BTreeMap::new(),
            impossible: None,
        }
    }

    fn add(&mut self, key: VipKey, backend: &dyn Backend, link_mtu: u16) {
        let vip = key.prefix();
        self.names.insert(backend.id().to_owned());
        self.services.insert(key);
        self.vips.insert(vip);
        self.ways.insert(backend.forwarding().to_string());
        match backend.forwarding() {
            Forwarding::L2 => {}
            Forwarding::Tunnel(tunnel) => {
                let [ipv4, ipv6] = &mut self.inside;
                *(if vip.addr().is_ipv4() { ipv4 } else { ipv6 }) = true;
                if let Encapsulation::Gue { port, .. } = tunnel.encapsulation {
                    self.gue_ports.insert(port);
                }
                let fits = largest_segment(&tunnel, self.address, vip.addr(), link_mtu);
                let mss = self.mss.entry(vip).or_insert(fits);
                *mss = fits.min(*mss);
            }
            Forwarding::L3Dsr(dscp) => self.add_dscp(dscp, vip),
        }
    }

    fn add_dscp(&mut self, dscp: Dscp, vip: IpNet) {
        let one = vip.prefix_len() == vip.max_prefix_len();
        if !one || vip.addr().is_ipv4() != self.address.is_ipv4() {
            let why = format!(
                "L3DSR puts {} in the place of one VIP of its family, not of {vip}",
                self.address
            );
            self.impossible.get_or_insert(why);
            return;
        }
        let other = *self.by_dscp.entry(dscp).or_insert(vip.addr());
        if other != vip.addr() {
            let why = format!("DSCP {dscp} names the VIPs {other} and {}", vip.addr());
            self.impossible.get_or_insert(why);
        }
    }

    /// Whether packets come through tunnels.
    pub(super) fn tunnels(&self) -> bool {
        self.inside != [false; 2]
    }

    pub(super) fn ipv4_vips(&self) -> bool {
        self.vips.iter().any(|vip| vip.addr().is_ipv4())
    }

    pub(super) fn ipv6_vips(&self) -> bool {
        self.vips.iter().any(|vip| vip.addr().is_ipv6())
    }

    /// The VIPs that are single addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpNet> {
        self.vips.iter().copied().filter(|vip| vip.prefix_len() == vip.max_prefix_len())
    }

    /// The VIPs that are not.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.vips.iter().copied().filter(|vip| vip.prefix_len() != vip.max_prefix_len())
    }

    /// The services' VIPs, and how they come.
    pub(super) fn summary(&self) -> String {
        let vips: Vec<_> = self.vips.iter().map(|vip| text(*vip)).collect();
        let ways: Vec<_> = self.ways.iter().map(String::as_str).collect();
        format!("VIPs {}; they come by {}", vips.join(", "), ways.join(", "))
    }
}

/// A VIP without the length of an address.
pub(super) fn text(vip: IpNet) -> String {
    match vip.prefix_len() == vip.max_prefix_len() {
        true => vip.addr().to_string(),
        false => vip.to_string(),
    }
}

fn largest_segment(tunnel: &Tunnel, backend: IpAddr, vip: IpAddr, link_mtu: u16) -> u16 {
    let outer = tunnel.path_mtu.map_or(link_mtu, |path| path.min(link_mtu));
    let (headers, least) = match vip {
        IpAddr::V4(_) => (HEADERS_IPV4, LEAST_MSS_IPV4),
        IpAddr::V6(_) => (HEADERS_IPV6, LEAST_MSS_IPV6),
    };
    let taken = tunnel.overhead(backend.is_ipv6()) + headers;
    outer.saturating_sub(u16::try_from(taken).unwrap_or(u16::MAX)).max(least)
}
