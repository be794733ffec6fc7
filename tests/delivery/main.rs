//! What leaves the pipeline for backends beyond the link, and what is answered instead: through the public interface, in
//! memory, checked by another parser.

mod icmp;
mod probes;

use dsrlb::balancer::{Backend, Echo, HashBalancer, RealServer, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Counts, ErrorPolicy, Frame, MemoryIo, Observed, PacketIo, Pipeline, PipelineOptions, Plan,
    Planner, Port, ProbeFramer, Site, WorkerCounters,
};
use dsrlb::flow::Timestamp;
use dsrlb::forwarding::{Encapsulation, Forwarding, ProbeSources, Tunnel, TunnelSources};
use dsrlb::packet::MacAddress;
use dsrlb::verdict::{AnswerKind, BackendIndex, DropReason, Verdict};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use std::sync::Arc;
use std::time::Duration;

const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SECOND: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];
const CLIENT: [u8; 4] = [192, 0, 2, 7];
const VIP: [u8; 4] = [10, 0, 0, 100];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const MODES: [&str; 4] = ["ipip", "gue:6080", "gue1:6080", "l3dsr:10"];

/// Ten backends that are reached by this mode, with this path MTU, of the given family.
struct World {
    plan: Plan,
    pipeline: Pipeline<HashBalancer>,
}

impl World {
    fn new(mode: &str, over_ipv6: bool, mtu: u32) -> Self {
        Self::with(mode, over_ipv6, |path| Path { mtu, ..path }, |site| site, |service| service)
    }

    fn with(
        mode: &str,
        over_ipv6: bool,
        path: impl Fn(Path) -> Path,
        site: impl Fn(Site) -> Site,
        service: impl Fn(VirtualService) -> VirtualService,
    ) -> Self {
        let forwarding: Forwarding = mode.parse().unwrap();
        let services: Vec<_> = ["10.0.0.100", "fd00::100"]
            .into_iter()
            .flat_map(|vip| {
                let brackets = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
                [format!("{brackets}:80/tcp"), format!("{brackets}:53/udp")]
            })
            .map(|key| {
                let is_ipv6 = key.starts_with('[');
                // L3DSR does not cross families.
                let v6 = if mode.starts_with("l3dsr") { is_ipv6 } else { over_ipv6 };
                let all = (11..=20).map(|last| match v6 {
                    true => format!("fd01::{last}"),
                    false => format!("10.1.0.{last}"),
                });
                let new = VirtualService::new(key.parse().unwrap());
                service(all.fold(new, |service, address| {
                    let server = RealServer::new(address.parse().unwrap());
                    service.backend(server.with_forwarding(forwarding))
                }))
            })
            .collect();
        let observe = |_, backend: &dyn Backend| {
            let last = match backend.address() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(ip) => ip.octets()[15],
            };
            let on_link = Path::on_link(MacAddress([2, 0, 0, 0, 1, last]));
            Observed::well(path(on_link))
        };
        let sources = ["10.0.0.1/32", "fd00::1/128"].map(|source| source.parse().unwrap());
        let mut here = Site::new(STATION);
        here.ports = vec![(STATION, 1500), (SECOND, 1500)];
        here.tunnel_sources =
            sources.into_iter().fold(TunnelSources::default(), TunnelSources::with);
        let plan = Planner::new(64).plan(&services, &site(here), observe);
        assert!(plan.members.iter().all(|member| member.idle.is_none()), "{:?}", plan.members);
        let pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(64)));
        Self { plan, pipeline }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.pipeline.counters().add_to(&mut counts);
        counts
    }

    /// The verdict, and what is sent.
    fn send(&mut self, frame: Vec<u8>) -> (Verdict, Vec<(Port, Vec<u8>)>) {
        self.send_at(Timestamp(0), frame)
    }

    fn send_at(&mut self, now: Timestamp, frame: Vec<u8>) -> (Verdict, Vec<(Port, Vec<u8>)>) {
        let mut io = MemoryIo::new();
        io.push(frame);
        let mut verdict = None;
        io.poll(Duration::ZERO, &mut |frames| {
            verdict = Some(self.pipeline.process(&self.plan.snapshot, now, frames)[0]);
        })
        .unwrap();
        self.pipeline.drain(|port, bytes| io.send(port, bytes).map(drop)).unwrap();
        (verdict.unwrap(), io.sent().to_vec())
    }
}

fn tcp(is_ipv6: bool, payload: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, STATION.0);
    let mut frame = Vec::new();
    let payload = vec![7; payload];
    if is_ipv6 {
        let builder = builder.ipv6(CLIENT6, VIP6, 64).tcp(4000, 80, 1, 2);
        builder.write(&mut frame, &payload).unwrap();
    } else {
        let builder = builder.ipv4(CLIENT, VIP, 64).tcp(4000, 80, 1, 2);
        builder.write(&mut frame, &payload).unwrap();
    }
    frame
}

/// A TCP segment whose IP packet has this many bytes.
fn sized(is_ipv6: bool, length: usize) -> Vec<u8> {
    let headers = if is_ipv6 { 60 } else { 40 };
    tcp(is_ipv6, length - headers)
}

fn set_dont_fragment(frame: &mut [u8], value: bool) {
    frame[20] = if value { 0x40 } else { 0 };
    frame[24..26].fill(0);
    let sum = dsrlb::packet::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn overhead(mode: &str, over_ipv6: bool) -> usize {
    match mode.parse().unwrap() {
        Forwarding::Tunnel(tunnel) => tunnel.overhead(over_ipv6),
        _ => 0,
    }
}

/// Sizes around the limit, by each mode and family mix: the value in section 2 of the rules.
#[test]
fn what_fits_is_sent_and_one_byte_more_is_answered_with_what_fits() {
    for mode in MODES {
        for over_ipv6 in [false, true] {
            for is_ipv6 in [false, true] {
                let mut world = World::new(mode, over_ipv6, 1500);
                let fits = 1500 - overhead(mode, over_ipv6);
                let (verdict, sent) = world.send(sized(is_ipv6, fits));
                assert!(matches!(verdict, Verdict::Forward(_)), "{mode} {verdict:?}");
                let outer = &sent[0].1[14..];
                assert_eq!(outer.len(), 1500, "{mode}");

                if fits == 1500 {
                    continue;
                }
                let offender = sized(is_ipv6, fits + 1);
                let (verdict, sent) = world.send(offender.clone());
                assert_eq!(verdict, Verdict::Answer(AnswerKind::PacketTooBig));
                let [(Port::INGRESS, answer)] = sent.as_slice() else { panic!("{sent:?}") };
                assert_eq!((&answer[..6], &answer[6..12]), (&CLIENT_MAC[..], &STATION.0[..]));
                let sliced = SlicedPacket::from_ethernet(answer).unwrap();
                let (mtu, quoted, limit) = match sliced.transport.unwrap() {
                    TransportSlice::Icmpv4(icmp) => {
                        let etherparse::Icmpv4Type::DestinationUnreachable(
                            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
                                next_hop_mtu,
                            },
                        ) = icmp.icmp_type()
                        else {
                            panic!("{:?}", icmp.icmp_type())
                        };
                        (usize::from(next_hop_mtu), icmp.payload().to_vec(), 576)
                    }
                    TransportSlice::Icmpv6(icmp) => {
                        let etherparse::Icmpv6Type::PacketTooBig { mtu } = icmp.icmp_type() else {
                            panic!("{:?}", icmp.icmp_type())
                        };
                        (mtu as usize, icmp.payload().to_vec(), 1280)
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(mtu, fits, "{mode} {over_ipv6} {is_ipv6}");
                assert_eq!(quoted, offender[14..14 + quoted.len()], "quoted as it came");
                assert_eq!(answer.len(), 14 + limit);
                match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        assert_eq!(
                            (ip.header().source(), ip.header().destination()),
                            (VIP, CLIENT)
                        );
                    }
                    NetSlice::Ipv6(ip) => {
                        let header = ip.header();
                        assert_eq!((header.source(), header.destination()), (VIP6, CLIENT6));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn padding_of_short_frames_does_not_travel_in_the_tunnel() {
    for mode in ["ipip", "gue:6080"] {
        let mut world = World::new(mode, false, 1500);
        let mut frame = tcp(false, 0);
        let packet = frame[14..].to_vec();
        frame.resize(60, 0xee);
        let (_, sent) = world.send(frame);
        let extra = overhead(mode, false);
        assert_eq!(sent[0].1.len(), 14 + extra + packet.len());
        let mut expected = packet;
        expected[8] -= 1; // a hop
        assert_eq!(sent[0].1[14 + extra + 12..], expected[12..]);
        assert_eq!(sent[0].1[14 + extra + 8], 63);
    }
}

/// The packet has to fit; what the frame has behind it does not travel.
#[test]
fn the_size_of_a_packet_is_not_that_of_its_frame() {
    for mode in MODES {
        let mut world = World::new(mode, false, 1500);
        let mut frame = sized(false, 1500 - overhead(mode, false));
        frame.extend([0xee; 4]);
        assert!(matches!(world.send(frame).0, Verdict::Forward(_)), "{mode}");
    }
}

#[test]
fn a_configured_path_mtu_limits_what_the_interface_takes_and_does_not_widen_it() {
    let wide = |path| Path { mtu: 1500, ..path };
    for (configured, fits) in [(1400, 1380), (1600, 1480)] {
        let service = |service: VirtualService| {
            let mut tunnel = Tunnel::new(Encapsulation::IpIp);
            tunnel.path_mtu = Some(configured);
            let forwarding = Forwarding::Tunnel(tunnel);
            let server = RealServer::new("10.1.0.9".parse().unwrap()).with_forwarding(forwarding);
            VirtualService::new(service.key).backend(server)
        };
        let mut world = World::with("ipip", false, wide, |site| site, service);
        for (length, does_fit) in [(fits, true), (fits + 1, false)] {
            let (verdict, _) = world.send(sized(false, length));
            assert_eq!(matches!(verdict, Verdict::Forward(_)), does_fit, "{configured} {length}");
        }
    }
}

/// The first piece has the checksum of the whole, and the others have data in its place.
#[test]
fn pieces_for_l3dsr_make_up_the_packet_that_a_wide_path_would_carry() {
    let mut frame = sized(false, 1500);
    set_dont_fragment(&mut frame, false);
    let (_, whole) = World::new("l3dsr:10", false, 1500).send(frame.clone());
    let (verdict, pieces) = World::new("l3dsr:10", false, 1000).send(frame);
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    assert_eq!(pieces.len(), 2);
    let payload: Vec<_> = pieces.iter().flat_map(|(_, piece)| piece[34..].to_vec()).collect();
    assert_eq!(payload, whole[0].1[34..]);
    for (_, piece) in &pieces {
        assert_eq!((piece[15], piece[22]), (10 << 2, 63));
        assert_eq!(dsrlb::packet::checksum::checksum(&piece[14..34]), 0);
        assert_eq!(piece[30..34], whole[0].1[30..34]);
    }
}

/// RFC 2003 section 3.1: cut up before it is wrapped, each piece with a header of its own.
#[test]
fn ipv4_that_may_be_fragmented_is_and_by_option_is_dropped() {
    for mode in ["ipip", "gue:6080"] {
        for over_ipv6 in [false, true] {
            let mut world = World::new(mode, over_ipv6, 1500);
            let mut frame = sized(false, 1500);
            set_dont_fragment(&mut frame, false);
            let (verdict, sent) = world.send(frame.clone());
            assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
            assert_eq!(sent.len(), 2);
            let extra = overhead(mode, over_ipv6);
            let mut payload = Vec::new();
            let mut identifications = Vec::new();
            if mode == "gue:6080" {
                let port = if over_ipv6 { 54..56 } else { 34..36 };
                assert_eq!(sent[0].1[port.clone()], sent[1].1[port], "the pieces go one way");
            }
            for (_, piece) in &sent {
                assert!(piece.len() <= 14 + 1500);
                if !over_ipv6 {
                    assert_eq!(piece[20] & 0x40, 0, "the outer one may be fragmented as well");
                    identifications.push([piece[18], piece[19]]);
                }
                let inner = etherparse::Ipv4Slice::from_slice(&piece[14 + extra..]).unwrap();
                let header = inner.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!(usize::from(header.fragment_offset.value()) * 8, payload.len());
                assert_eq!(header.time_to_live, 63);
                payload.extend_from_slice(inner.payload().payload);
            }
            assert_eq!(payload, frame[34..]);
            identifications.dedup();
            assert_eq!(identifications.len(), if over_ipv6 { 0 } else { 2 }, "ids differ");

            let refusing = |mut site: Site| {
                site.errors = ErrorPolicy { fragment: false, ..ErrorPolicy::default() };
                site
            };
            let small = |path| Path { mtu: 1500, ..path };
            let mut world = World::with(mode, over_ipv6, small, refusing, |service| service);
            let (verdict, sent) = world.send(frame);
            assert_eq!(verdict, Verdict::Drop(DropReason::FragmentationRefused));
            assert!(sent.is_empty());
        }
    }
}

/// RFC 2473 section 7.1: no sender of IPv6 can be told to send less than 1,280 bytes.
#[test]
fn small_ipv6_packets_are_carried_in_fragments_where_the_path_is_narrow() {
    for over_ipv6 in [false, true] {
        let mut world = World::new("ipip", over_ipv6, 1280);
        let frame = sized(true, 1280);
        let (verdict, sent) = world.send(frame.clone());
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
        assert_eq!(sent.len(), 2, "over IPv6: {over_ipv6}");
        let mut inner = Vec::new();
        for (_, piece) in &sent {
            assert!(piece.len() <= 14 + 1280);
            let header = if over_ipv6 { 40 + 8 } else { 20 };
            inner.extend_from_slice(&piece[14 + header..]);
        }
        let mut expected = frame[14..].to_vec();
        expected[7] -= 1;
        assert_eq!(inner, expected);
        // The next packet's pieces are not taken for these (RFC 6864 section 4.3).
        let identification = if over_ipv6 { 14 + 44..14 + 48 } else { 14 + 4..14 + 6 };
        let (_, next) = world.send(frame);
        assert_ne!(sent[0].1[identification.clone()], next[0].1[identification]);
        // What is larger is told 1,280, not less.
        let (verdict, sent) = world.send(sized(true, 1281));
        assert_eq!(verdict, Verdict::Answer(AnswerKind::PacketTooBig));
        assert_eq!(sent[0].1[14 + 40 + 4..][..4], 1280_u32.to_be_bytes());
    }
}

#[test]
fn errors_are_limited_and_come_from_the_configured_address() {
    let site = |mut site: Site| {
        site.errors.source_ipv4 = Some([10, 0, 0, 1].into());
        site.errors.source_ipv6 = Some("fd00::1".parse().unwrap());
        site
    };
    let small = |path| Path { mtu: 1500, ..path };
    let mut world = World::with("ipip", false, small, site, |service| service);
    world.pipeline = Pipeline::with_options(
        HashBalancer,
        Arc::new(WorkerCounters::new(64)),
        &PipelineOptions { errors_at_once: 2, errors_per_second: 1, ..Default::default() },
    );
    let (_, sent) = world.send(sized(false, 1500));
    assert_eq!(sent[0].1[26..30], [10, 0, 0, 1]);
    let (_, sent) = world.send(sized(true, 1500));
    assert_eq!(sent[0].1[22..38], [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let (verdict, sent) = world.send(sized(false, 1500));
    assert_eq!(verdict, Verdict::Drop(DropReason::IcmpRateLimited));
    assert!(sent.is_empty());
    let later = Timestamp(2_000_000_000);
    let (verdict, _) = world.send_at(later, sized(false, 1500));
    assert_eq!(verdict, Verdict::Answer(AnswerKind::PacketTooBig));
}

/// cilium #48489: what GRO or LRO merged was never one packet.
#[test]
fn what_is_larger_than_the_link_is_not_answered() {
    let mut world = World::new("ipip", false, 1500);
    let (verdict, _) = world.send(sized(false, 1501));
    assert_eq!(verdict, Verdict::Drop(DropReason::Aggregated));
}

#[test]
fn a_packet_without_a_hop_left_goes_no_further_and_its_sender_is_told() {
    for mode in MODES {
        for is_ipv6 in [false, true] {
            let mut world = World::new(mode, false, 1500);
            let mut frame = tcp(is_ipv6, 0);
            frame[if is_ipv6 { 21 } else { 22 }] = 1;
            let (verdict, sent) = world.send(frame);
            assert_eq!(verdict, Verdict::Answer(AnswerKind::TimeExceeded), "{mode}");
            let kind = if is_ipv6 { sent[0].1[54] } else { sent[0].1[34] };
            assert_eq!(kind, if is_ipv6 { 3 } else { 11 });
            let mut frame = tcp(is_ipv6, 0);
            frame[if is_ipv6 { 21 } else { 22 }] = 2;
            assert!(matches!(world.send(frame).0, Verdict::Forward(_)), "{mode}: one is left");
        }
    }
}

/// A UDP datagram in three fragments, in every order: all end on one backend.
#[test]
fn fragments_in_any_order_reach_one_backend() {
    let whole = {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(CLIENT, VIP, 64).udp(4000, 53).write(&mut packet, &[9; 3000]).unwrap();
        packet
    };
    let fragment = |begin: usize, end: usize, more: bool, identification: u16| {
        let mut header = whole[..20].to_vec();
        header[2..4].copy_from_slice(&((20 + end - begin) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        let field = (begin / 8) as u16 | if more { 0x2000 } else { 0 };
        header[6..8].copy_from_slice(&field.to_be_bytes());
        header[10..12].fill(0);
        let sum = dsrlb::packet::checksum::checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&STATION.0[..], &CLIENT_MAC, &[8, 0], &header, &whole[20 + begin..20 + end]].concat()
    };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for mode in ["ipip", "gue:6080", "l2", "l3dsr:10"] {
        let mut world = World::new(mode, false, 1500);
        for (identification, order) in (1..).zip(orders) {
            let parts = [
                fragment(0, 1000, true, identification),
                fragment(1000, 2000, true, identification),
                fragment(2000, 3008, false, identification),
            ];
            let mut sent = Vec::new();
            for number in order {
                let (verdict, frames) = world.send(parts[number].clone());
                let first_came =
                    order.iter().position(|n| *n == 0) <= order.iter().position(|n| *n == number);
                assert_eq!(verdict == Verdict::Hold, !first_came, "{mode} {order:?}");
                sent.extend(frames);
            }
            assert_eq!(sent.len(), 3, "{mode} {order:?}");
            assert!(sent.iter().all(|(_, frame)| frame[..6] == sent[0].1[..6]), "one backend");
            if mode == "gue:6080" {
                let port = &sent[0].1[34..36];
                assert!(sent.iter().all(|(_, frame)| frame[34..36] == *port), "by one way");
            }
        }
        let counts = world.counts();
        assert_eq!((counts.forwarded, counts.held, counts.verdicts()), (18, 0, 18));
        // The first never comes.
        assert_eq!(world.send(fragment(1000, 2000, true, 99)).0, Verdict::Hold);
        world.pipeline.idle(&world.plan.snapshot, Timestamp(600_000_000));
        let counts = world.counts();
        assert_eq!((counts.held, counts.dropped(DropReason::FragmentTimeout)), (0, 1));
    }
}

#[test]
fn a_datagram_cannot_be_made_to_end_in_two_places() {
    let mut world = World::new("ipip", false, 1500);
    let first = |port| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
            .ipv4(CLIENT, VIP, 64)
            .udp(port, 53)
            .write(&mut frame, &[0; 64])
            .unwrap();
        frame[20] = 0x20;
        frame
    };
    assert!(matches!(world.send(first(4000)).0, Verdict::Forward(_)));
    assert!(matches!(world.send(first(4000)).0, Verdict::Forward(_)), "a duplicate");
    let (verdict, _) = world.send(first(4001));
    assert_eq!(verdict, Verdict::Drop(DropReason::FragmentConflict));
}

#[test]
fn frames_for_another_port_leave_by_it_with_its_address_and_tags() {
    let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0xa0, 10], &frame[12..]].concat();
    for (mode, vlan, expected) in [
        ("ipip", None, &[8, 0][..]),
        ("ipip", Some(20), &[0x81, 0, 0xa0, 20, 8, 0]),
        ("l2", None, &[8, 0]),
        ("l2", Some(20), &[0x81, 0, 0xa0, 20, 8, 0]),
        ("l3dsr:10", None, &[8, 0]),
    ] {
        let path = |path| Path { mtu: 1500, port: 1, vlan, ..path };
        let mut world = World::with(mode, false, path, |site| site, |service| service);
        for (came, priority) in [(tagged(tcp(false, 0)), 0xa0), (tcp(false, 0), 0)] {
            let (_, sent) = world.send(came);
            let (port, frame) = &sent[0];
            assert_eq!((*port, &frame[6..12]), (Port(1), &SECOND.0[..]), "{mode}");
            // A frame that had no tag has no priority to keep.
            let expected: Vec<u8> =
                expected.iter().map(|byte| if *byte == 0xa0 { priority } else { *byte }).collect();
            assert_eq!(frame[12..12 + expected.len()], expected, "{mode} {vlan:?}");
        }
    }
    // By the port it came in by, a frame keeps its tag, also around a tunnel.
    let (_, sent) = World::new("ipip", true, 1500).send(tagged(tcp(false, 0)));
    assert_eq!(sent[0].1[12..18], [0x81, 0, 0xa0, 10, 0x86, 0xdd]);
}
