//! What the fuzz targets check of backends beyond the link: tunnels, ICMP and fragments. Also run by the ordinary tests
//! over the committed corpus.

use super::frames::{CLIENT_MAC, DIRECTOR_MAC};
use super::pool::{STATION, send};
use dsrlb::balancer::{HashBalancer, RealServer, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Counts, Observed, Pipeline, Plan, Planner, Site, WorkerCounters};
use dsrlb::flow::{Fragment, Timestamp};
use dsrlb::forwarding::{Forwarding, TunnelSources};
use dsrlb::packet::icmp::{self, ErrorKind};
use dsrlb::packet::{Cut, MacAddress, Parse, parse};
use dsrlb::verdict::Verdict;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

const MODES: [(&str, &str); 6] = [
    ("ipip", "10.1.0.11"),
    ("ipip", "fd01::11"),
    ("gue:6080", "10.1.0.11"),
    ("gue1:6080", "fd01::11"),
    ("l2", "10.1.0.11"),
    ("l3dsr:9", "10.1.0.11"),
];
const SOURCES: [&str; 2] = ["10.9.0.0/24", "fd09::/64"];
const MTU: u32 = 1300;
const VIP4: [u8; 4] = [10, 0, 0, 100];
const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// For each mode two backends for every protocol of the VIPs, by a path that takes 1,300 bytes.
fn plans() -> &'static [Plan] {
    static PLANS: OnceLock<Vec<Plan>> = OnceLock::new();
    PLANS.get_or_init(|| {
        MODES
            .iter()
            .map(|(mode, address)| plan(mode.parse().unwrap(), address, SOURCES, MTU))
            .collect()
    })
}

/// Two backends at this address for every protocol of the VIPs, by a path that takes `mtu` bytes.
pub fn plan(forwarding: Forwarding, address: &str, sources: [&str; 2], mtu: u32) -> Plan {
    let vips = match (forwarding, address.contains(':')) {
        // It does not cross families.
        (Forwarding::L3Dsr(_), false) => &["10.0.0.100"][..],
        (Forwarding::L3Dsr(_), true) => &["fd00::100"],
        _ => &["10.0.0.100", "fd00::100"],
    };
    let services: Vec<_> = vips
        .iter()
        .map(|vip| {
            let service = VirtualService::new(vip.parse().unwrap());
            ["a", "b"].into_iter().fold(service, |service, id| {
                let server = RealServer::new(address.parse().unwrap()).with_id(id);
                service.backend(server.with_forwarding(forwarding))
            })
        })
        .collect();
    let mut site = Site::new(STATION);
    site.ports = vec![(STATION, 1500)];
    let sources = sources.map(|source| source.parse().unwrap());
    site.tunnel_sources = sources.into_iter().fold(TunnelSources::default(), TunnelSources::with);
    let path = Path { mtu, ..Path::on_link(MacAddress([2, 0, 0, 0, 1, 1])) };
    Planner::new(8).plan(&services, &site, |_, _| Observed::well(path))
}

fn pipeline() -> Pipeline<HashBalancer> {
    Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(8)))
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    let ether_type =
        if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&DIRECTOR_MAC[..], &CLIENT_MAC, &ether_type, packet].concat()
}

/// Any IP packet for a VIP, by any mode: nothing that is sent is larger than the path takes, what is sent whole comes out
/// of the tunnel as it went in but for a hop, and every frame has its verdict.
pub fn check_encapsulate(data: &[u8]) {
    let Some((choice, packet)) = data.split_first() else {
        return;
    };
    // No link brings more than it takes, trailing bytes included.
    let mut packet = packet.get(..1500).unwrap_or(packet).to_vec();
    let vip: (usize, &[u8]) = match packet.first().map(|first| first >> 4) {
        Some(4) => (16, &VIP4),
        Some(6) => (24, &VIP6),
        _ => return,
    };
    match packet.get_mut(vip.0..vip.0 + vip.1.len()) {
        Some(destination) => destination.copy_from_slice(vip.1),
        None => return,
    }
    let number = usize::from(*choice) % MODES.len();
    let (plan, (mode, address)) = (&plans()[number], MODES[number]);
    let mut pipeline = pipeline();
    let frame = ethernet(&packet);
    let (verdict, sent) = send(&mut pipeline, plan, 0, &frame);
    for bytes in &sent {
        assert!(bytes.len() <= 14 + 1500 && bytes[6..12] == DIRECTOR_MAC);
    }
    if let (Verdict::Forward(_), Parse::Ip(parsed)) = (verdict, parse(&frame)) {
        let over_ipv6 = address.contains(':');
        let overhead = match mode.parse().unwrap() {
            Forwarding::Tunnel(tunnel) => tunnel.overhead(over_ipv6),
            _ => 0,
        };
        let limit = if mode.starts_with('l') { 1500 } else { MTU as usize };
        assert!(sent.iter().all(|bytes| bytes.len() <= 14 + limit || overhead == 0));
        if let ([whole], true) = (sent.as_slice(), overhead > 0) {
            let mut inner = parsed.packet(&frame).to_vec();
            dsrlb::packet::decrement_hop_limit(&mut inner).unwrap();
            assert_eq!(whole[14 + overhead..], inner);
        }
    }
    let mut counts = Counts::default();
    pipeline.counters().add_to(&mut counts);
    assert_eq!(counts.verdicts(), 1);
}

/// Any ICMP message, and any packet that one could be about.
pub fn check_icmp(data: &[u8]) {
    let is_ipv6 = data.first().is_some_and(|first| first & 1 != 0);
    let message = data.get(1..).unwrap_or_default();
    let _ = icmp::tunnel_feedback(message, is_ipv6);
    let mut packet = if is_ipv6 {
        let length = (message.len() as u16).to_be_bytes();
        let fixed = [0x60, 0, 0, 0, length[0], length[1], 58, 64];
        [&fixed[..], &[0x20; 16], &VIP6, message].concat()
    } else {
        let length = (20 + message.len() as u16).to_be_bytes();
        let fixed = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 7];
        [&fixed[..], &VIP4, message].concat()
    };
    for plan in plans() {
        let mut pipeline = pipeline();
        let (verdict, sent) = send(&mut pipeline, plan, 0, &ethernet(&packet));
        match verdict {
            Verdict::Forward(_) | Verdict::Answer(_) => assert!(!sent.is_empty()),
            _ => assert!(sent.is_empty()),
        }
    }
    for transport in [20, 40, 48] {
        let before = packet.clone();
        if icmp::answer_echo(&mut packet, transport, Fragment::Whole).is_err() {
            assert_eq!(packet, before);
        }
    }
    let source: IpAddr = if is_ipv6 { VIP6.into() } else { VIP4.into() };
    let mut refusal = vec![0; icmp::room_for_error(is_ipv6)];
    refusal.extend(message.iter().take(icmp::longest_quote(is_ipv6)));
    if icmp::write_error(&mut refusal, ErrorKind::PacketTooBig { mtu: 1400 }, source) {
        assert!(matches!(parse(&ethernet(&refusal)), Parse::Ip(_)));
    }
    if let Some(cut) = Cut::new(message, 200, 7) {
        for number in 0..cut.count() {
            let mut piece = vec![0; cut.length(number)];
            assert!(piece.len() <= 200 && cut.write(message, number, &mut piece));
        }
    }
}

/// Any sequence of fragments and pauses: each datagram ends on one backend, no more wait than there is room for, and
/// every frame is counted once.
pub fn check_fragments(data: &[u8]) {
    let plan = &plans()[0];
    let (mut pipeline, mut now, mut received) = (pipeline(), 0_u64, 0_u64);
    for step in data.chunks_exact(4) {
        let &[kind, identification, offset, port] = step else {
            return;
        };
        if kind & 3 == 3 {
            now += u64::from(offset) * 10_000_000;
            pipeline.idle(&plan.snapshot, Timestamp(now));
            continue;
        }
        let field = match kind & 3 {
            0 => 0x2000,
            1 => 0x2000 | (u16::from(offset % 32) + 1),
            _ => u16::from(offset % 32) + 1,
        };
        let [f0, f1] = field.to_be_bytes();
        let protocol = if kind & 4 == 0 { 17 } else { 1 };
        let mut packet =
            vec![0x45, 0, 0, 44, 0, identification % 8, f0, f1, 64, protocol, 0, 0, 192, 0, 2, 7];
        packet.extend(VIP4);
        packet.extend([8, 0, 0, port, 0, 24, 0, 0]);
        packet.resize(44, 7);
        let _ = send(&mut pipeline, plan, now, &ethernet(&packet));
        received += 1;
        let mut counts = Counts::default();
        pipeline.counters().add_to(&mut counts);
        assert_eq!(counts.verdicts(), received);
        assert!(counts.held <= 64);
    }
    pipeline.idle(&plan.snapshot, Timestamp(u64::MAX));
    let mut counts = Counts::default();
    pipeline.counters().add_to(&mut counts);
    assert_eq!((counts.verdicts(), counts.held), (received, 0));
}
