//! A configuration with some of everything, and the packets that may come for it.

use crate::support::frames::{self, DIRECTOR_MAC, Protocol, fragment, ipv4, ipv6, with_ipv4};
use crate::support::pool::STATION;
use dsrlb::balancer::{
    AdminState, Backend, Echo, Maglev, QuicConfig, QuicLb, RealServer, VirtualService,
};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Idle, Observed, Plan, Planner, Site};
use dsrlb::flow::{HashInput, Timestamp};
use dsrlb::forwarding::{ProbeSources, TunnelSources};
use dsrlb::packet::MacAddress;
use proptest::prelude::*;

pub const BACKENDS: usize = 4;
/// Where each is, and how it is reached.
const POOL: [(&str, &str); BACKENDS] =
    [("10.0.1.0", "l2"), ("10.0.1.1", "ipip"), ("10.0.1.2", "l2"), ("10.0.1.3", "gue:6080")];
/// Of the director itself, whose probes are sent from it.
const OWN: [u8; 4] = [10, 0, 0, 1];

/// How a backend is.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    Well,
    Ill,
    Draining,
    Disabled,
    Unresolved,
}

/// A table that is made in no time.
fn small() -> Maglev {
    Maglev::with_table_size(251).unwrap()
}

pub struct World {
    planner: Planner,
    services: Vec<VirtualService>,
    site: Site,
}

impl World {
    pub fn new() -> Self {
        let of = |key: &str| {
            let service = VirtualService::new(key.parse().unwrap()).policy(small());
            POOL.iter().fold(service, |service, (address, mode)| {
                let server = RealServer::new(address.parse().unwrap());
                service.backend(server.with_forwarding(mode.parse().unwrap()))
            })
        };
        let quic = QuicLb::new(small()).config(0, QuicConfig::new(1, 6).unwrap()).unwrap();
        let ids = POOL.iter().zip(0..);
        let quic = ids.fold(quic, |quic, ((id, _), number)| quic.server(*id, &[number]).unwrap());
        let services = vec![
            of("10.0.0.100:80/tcp"),
            of("10.0.0.100:443/udp").policy(quic),
            of("10.0.0.100:any/udp").hash_input(HashInput::SourceIp),
            of("10.0.0.101").echo(Echo::Forward),
            of("10.0.0.102:80/tcp").echo(Echo::Drop).sessionless(),
            of("fd00::100"),
        ];
        let mut site = Site::new(STATION);
        site.ports = vec![(STATION, 1500)];
        site.probe_sources = ProbeSources { ipv4: Some(OWN.into()), ipv6: None };
        let source = std::net::IpAddr::from(OWN).into();
        site.tunnel_sources = TunnelSources::default().with(source);
        Self { planner: Planner::new(64), services, site }
    }

    pub fn plan(&mut self, conditions: [Condition; BACKENDS], now: Timestamp) -> Plan {
        self.planner.at(now).plan(&self.services, &self.site, |_, backend: &dyn Backend| {
            let number = POOL.iter().position(|(id, _)| *id == backend.id()).unwrap();
            let path =
                Path { mtu: 1400, ..Path::on_link(MacAddress([2, 0, 0, 0, 1, number as u8])) };
            let mut observed = Observed::well(path);
            match conditions[number] {
                Condition::Well => {}
                Condition::Ill => observed.health = Err("as told".to_owned()),
                Condition::Draining => observed.admin = AdminState::Draining,
                Condition::Disabled => observed.admin = AdminState::Disabled,
                Condition::Unresolved => {
                    observed.path = Err(Idle::Unresolved("as told".to_owned()))
                }
            }
            observed
        })
    }
}

/// Few clients and ports, so that flows are met again.
#[derive(Clone, Debug)]
pub struct Packet {
    pub client: u8,
    pub vip: u8,
    pub port: u16,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Tcp(u8),
    /// TCP with so many bytes behind it, so many hops left, and whether it must not be fragmented.
    Large(usize, u8, bool),
    Udp,
    /// To port 443, with a short header and the ID of this server.
    Quic(u8),
    Echo,
    V6,
    Esp,
    /// Part of a UDP datagram, which has this identification; 0 is the first.
    Fragment(u16, u16),
    /// From an address that no client has.
    Martian,
    FromVip,
    Looped,
    NotOurs,
    NotIp,
    Truncated,
    Error,
    /// What the VIP answers to a probe.
    Answer,
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let flags =
        prop_oneof![Just(0x02), Just(0x10), Just(0x11), Just(0x04), Just(0x12), any::<u8>()];
    let hops = prop_oneof![4 => Just(64u8), 1 => Just(1)];
    let what = prop_oneof![
        8 => flags.prop_map(What::Tcp),
        3 => (prop_oneof![Just(0usize), Just(1340), Just(1440), Just(3000)], hops, any::<bool>())
            .prop_map(|(length, hops, whole)| What::Large(length, hops, whole)),
        3 => Just(What::Udp),
        3 => (0..6u8).prop_map(What::Quic),
        1 => Just(What::Echo),
        1 => Just(What::V6),
        1 => Just(What::Esp),
        6 => (0..2u16, 0..3u16).prop_map(|(id, part)| What::Fragment(id, part)),
        1 => Just(What::Martian),
        1 => Just(What::FromVip),
        1 => Just(What::Looped),
        1 => Just(What::NotOurs),
        1 => Just(What::NotIp),
        1 => Just(What::Truncated),
        2 => Just(What::Error),
        1 => Just(What::Answer),
    ];
    let port = prop_oneof![4 => Just(80u16), 1 => Just(81)];
    (1..4u8, prop_oneof![6 => Just(100u8), 2 => 99..103u8], port, what)
        .prop_map(|(client, vip, port, what)| Packet { client, vip, port, what })
}

pub fn frame(packet: &Packet) -> Vec<u8> {
    let (from, to) = ([192, 0, 2, packet.client], [10, 0, 0, packet.vip]);
    let source_port = 4000 + u16::from(packet.client);
    let tcp = |payload: &[u8]| ipv4(from, to, Protocol::Tcp(source_port, packet.port), payload);
    let udp = |port, payload: &[u8]| ipv4(from, to, Protocol::Udp(source_port, port), payload);
    let mut plain = tcp(b"");
    match packet.what {
        What::Tcp(flags) => plain[14 + 20 + 13] = flags,
        What::Large(length, hops, whole) => {
            plain = with_ipv4(tcp(&vec![7; length]), |header| {
                header.time_to_live = hops;
                header.dont_fragment = whole;
            });
        }
        What::Udp => plain = udp(packet.port, b"some"),
        What::Quic(server) => {
            plain = udp(443, &[&[0x41, 7, server][..], &[packet.client; 24]].concat());
        }
        What::Echo => plain = ipv4(from, to, Protocol::Echo, b"ping"),
        What::V6 => {
            let mut source = [0x20; 16];
            source[15] = packet.client;
            let vip = "fd00::100".parse::<std::net::Ipv6Addr>().unwrap().octets();
            plain = ipv6(source, vip, Protocol::Tcp(source_port, packet.port), b"");
        }
        What::Esp => plain = ipv4(from, to, Protocol::Other(50), &[9; 16]),
        What::Fragment(identification, part) => {
            let whole = match part {
                0 => udp(packet.port, &[5; 16]),
                _ => ipv4(from, to, Protocol::Other(17), &[part as u8; 24]),
            };
            let with_id = with_ipv4(whole, |header| header.identification = identification);
            plain = fragment(with_id, part * 24, part < 2);
        }
        What::Martian => {
            plain = ipv4([127, 0, 0, 1], to, Protocol::Tcp(source_port, packet.port), b"");
        }
        What::FromVip => plain = ipv4(to, to, Protocol::Tcp(source_port, packet.port), b""),
        What::Looped => plain[6..12].copy_from_slice(&DIRECTOR_MAC),
        What::NotOurs => plain[5] ^= 1,
        What::NotIp => plain[12..14].copy_from_slice(&[0x88, 0xcc]),
        What::Truncated => plain.truncate(50),
        What::Error => {
            // Port unreachable, about what the VIP has sent to the client.
            let ports = Protocol::Tcp(packet.port, source_port);
            let quoted = ipv4(to, from, ports, b"").split_off(14);
            let message = [&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[..28]].concat();
            plain = ipv4([198, 51, 100, 1], to, Protocol::Other(1), &message);
        }
        What::Answer => {
            plain = ipv4(to, OWN, frames::Protocol::Tcp(packet.port, source_port), b"");
        }
    }
    plain
}
