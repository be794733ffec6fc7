//! `forward`: how packets reach a backend.

use super::item::Item;
use super::place::Place;
use super::reader::Reader;
use super::table::{Examine, Keys, table};
use crate::forwarding::{Dscp, Encapsulation, Forwarding, GueVariant, Tunnel, TunnelDscp};
use schemars::{Schema, SchemaGenerator, json_schema};
use std::num::{NonZeroU8, NonZeroU16};
use toml::de::DeValue;

table! {
    /// IP-in-IP with other settings than the usual ones.
    Ipip {
        /// What the outer header has as its DSCP; that of the packet unless told.
        "dscp" dscp: Option<Dscp>,
        /// Time to live, or hop limit, of the outer header; 64 unless told.
        "hop-limit" hop_limit: Option<NonZeroU8>,
        /// The largest outer packet the way to the backend takes, in bytes; that of the interface
        /// unless told.
        "path-mtu" path_mtu: Option<NonZeroU16>,
    }
}

table! {
    /// Generic UDP encapsulation.
    Gue {
        /// The UDP port that the backend listens on.
        "port" port: NonZeroU16,
        /// 0 for a GUE header, 1 for none: the IP packet follows the UDP header; 0 unless told.
        "variant" variant: Option<GueVariant>,
        /// Whether the UDP checksum is computed; not unless told.
        "checksum" checksum: Option<bool>,
        /// What the outer header has as its DSCP; that of the packet unless told.
        "dscp" dscp: Option<Dscp>,
        /// Time to live, or hop limit, of the outer header; 64 unless told.
        "hop-limit" hop_limit: Option<NonZeroU8>,
        /// The largest outer packet the way to the backend takes, in bytes; that of the interface
        /// unless told.
        "path-mtu" path_mtu: Option<NonZeroU16>,
    }
}

table! {
    /// Rewrites the destination address; a DSCP value tells the backend the VIP.
    L3dsr {
        /// The value that stands for the VIP at this backend, 1 to 63.
        "dscp" dscp: Dscp,
    }
}

table! {
    /// A way with settings; exactly one of them.
    ForwardTable {
        /// IP-in-IP.
        "ipip" ipip: Option<Ipip>,
        /// Generic UDP encapsulation.
        "gue" gue: Option<Gue>,
        /// Rewrites the destination address.
        "l3dsr" l3dsr: Option<L3dsr>,
    }
}

impl Examine for Ipip {}
impl Examine for Gue {}
impl Examine for L3dsr {
    fn examine(&self, keys: &mut Keys<'_, '_, '_>) {
        if self.dscp == Dscp::ZERO {
            keys.problem("dscp", "1 to 63; zero is what packets have that name no VIP");
        }
    }
}
impl Examine for ForwardTable {
    fn examine(&self, keys: &mut Keys<'_, '_, '_>) {
        let ways = ["ipip", "gue", "l3dsr"].into_iter().filter(|way| keys.has(way)).count();
        if ways != 1 {
            keys.problem("ipip", "exactly one of ipip, gue and l3dsr");
        }
    }
}

impl ForwardTable {
    fn forwarding(&self) -> Option<Forwarding> {
        if let Some(l3dsr) = &self.l3dsr {
            // Zero has been noted; with none at all nobody notes it again.
            return Some(l3dsr.dscp).filter(|dscp| *dscp != Dscp::ZERO).map(Forwarding::L3Dsr);
        }
        if let Some(gue) = &self.gue {
            let (port, variant) = (gue.port.get(), gue.variant.unwrap_or(GueVariant::Zero));
            let checksum = gue.checksum.unwrap_or(false);
            let tunnel = Tunnel::new(Encapsulation::Gue { port, variant, checksum });
            return Some(with(tunnel, gue.dscp, gue.hop_limit, gue.path_mtu));
        }
        let ipip = self.ipip.as_ref()?;
        let tunnel = Tunnel::new(Encapsulation::IpIp);
        Some(with(tunnel, ipip.dscp, ipip.hop_limit, ipip.path_mtu))
    }
}

fn with(
    tunnel: Tunnel,
    dscp: Option<Dscp>,
    hop_limit: Option<NonZeroU8>,
    path_mtu: Option<NonZeroU16>,
) -> Forwarding {
    Forwarding::Tunnel(Tunnel {
        dscp: dscp.map_or(tunnel.dscp, TunnelDscp::Pipe),
        hop_limit: hop_limit.map_or(tunnel.hop_limit, NonZeroU8::get),
        path_mtu: path_mtu.map(NonZeroU16::get),
        ..tunnel
    })
}

impl Item for Forwarding {
    const ALLOWED: &'static str = "\"l2\", \"ipip\", { gue = { port = 6080 } }, \
                                   { l3dsr = { dscp = 5 } } or { ipip = { hop-limit = 64 } }";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            DeValue::Table(_) => ForwardTable::read(value, at, reader)?.forwarding(),
            DeValue::String(text) if text == "l2" => Some(Self::L2),
            DeValue::String(text) if text == "ipip" => Some(Self::IPIP),
            other => {
                reader.refuse(other, at, Self::ALLOWED);
                None
            }
        }
    }
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "enum": ["l2", "ipip"] },
            ForwardTable::schema(generator),
        ] })
    }
}
