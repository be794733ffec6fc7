//! Properties of the pure core, with etherparse and pnet_packet as witnesses.

mod support;

use dsrlb::balancer::{Backend, FlowBalancer, RealServer, Record, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Frame, HEADROOM, Observed, Pipeline, Planner, Site, Snapshot, WorkerCounters,
};
use dsrlb::flow::{Fragment, HashKey, Timestamp};
use dsrlb::forwarding::{Forwarding, TunnelSources};
use dsrlb::packet::{MacAddress, Parse, parse};
use pnet_packet::Packet;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::tcp::TcpPacket;
use pnet_packet::udp::UdpPacket;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;
use support::frames::{self, Protocol, ipv4, ipv6, tagged};
use support::{harness, pool};

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(a, b)| Protocol::Tcp(a, b)),
        any::<(u16, u16)>().prop_map(|(a, b)| Protocol::Udp(a, b)),
        Just(Protocol::Echo),
        prop::sample::select(vec![47u8, 50, 51, 253]).prop_map(Protocol::Other),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let vips = prop::sample::select(vec![
        [10, 0, 0, 100],
        [10, 0, 0, 101],
        [203, 0, 113, 9],
        [10, 9, 9, 9],
    ]);
    let v4 = (any::<[u8; 4]>(), vips, protocol(), prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(from, to, protocol, payload)| ipv4(from, to, protocol, &payload));
    let v6 = (any::<[u8; 16]>(), 0u8..2, protocol(), prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(from, last, protocol, payload)| {
            let mut to = [0; 16];
            (to[0], to[14], to[15]) = (0xfd, 1, last);
            ipv6(from, to, protocol, &payload)
        });
    let tags = prop::collection::vec(1u16..4095, 0..4);
    (prop_oneof![v4, v6], tags).prop_map(|(frame, tags)| tagged(&frame, &tags))
}

proptest! {
    #[test]
    fn any_bytes_parse(data in prop::collection::vec(any::<u8>(), 0..200)) {
        harness::check_parse(&data);
        harness::check_rewrite(&data);
    }

    #[test]
    fn well_formed_frames_with_some_bytes_changed_parse(
        mut frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        harness::check_parse(&frame);
        harness::check_rewrite(&frame);
        frame.truncate(cut.index(frame.len()));
        harness::check_parse(&frame);
        harness::check_rewrite(&frame);
    }

    #[test]
    fn pools_get_their_exact_share(data in prop::collection::vec(any::<u8>(), 0..130)) {
        harness::check_maglev(&data);
    }

    #[test]
    fn reads_what_pnet_reads(
        from: [u8; 4], to: [u8; 4], protocol in protocol(),
        options in prop::collection::vec(any::<u8>(), 0..=40),
        payload in prop::collection::vec(any::<u8>(), 0..80),
        padding in 0usize..30,
    ) {
        let options = &options[..options.len() / 4 * 4];
        let mut frame = frames::ipv4_options(from, to, options, protocol, &payload);
        let unpadded = frame.len();
        frame.resize(unpadded + padding, 0xee);
        let Parse::Ip(parsed) = parse(&frame) else { panic!("{:?}", parse(&frame)) };
        prop_assert_eq!(parsed.end as usize, unpadded);

        let ethernet = EthernetPacket::new(&frame).unwrap();
        let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
        let flow = parsed.info.flow;
        prop_assert_eq!(flow.source, ip.get_source());
        prop_assert_eq!(flow.destination, ip.get_destination());
        prop_assert_eq!(flow.protocol.0, ip.get_next_level_protocol().0);
        let header = usize::from(ip.get_header_length()) * 4;
        prop_assert_eq!(usize::from(parsed.transport), 14 + header);
        let rest = &frame[14 + header..unpadded];
        let (source, destination, flags) = match protocol {
            Protocol::Tcp(..) => {
                let tcp = TcpPacket::new(rest).unwrap();
                (tcp.get_source(), tcp.get_destination(), tcp.get_flags())
            }
            Protocol::Udp(..) => {
                let udp = UdpPacket::new(rest).unwrap();
                (udp.get_source(), udp.get_destination(), 0)
            }
            _ => (0, 0, 0),
        };
        prop_assert_eq!((flow.source_port, flow.destination_port), (source, destination));
        prop_assert_eq!(parsed.info.tcp_flags.0, flags);
        prop_assert_eq!(parsed.info.fragment, Fragment::Whole);
    }

    /// Sixty-four frames of all sorts in one batch come out as they do one by one: also those of flows that are
    /// known, to backends of all sorts, some of which take short packets only, and with little room around them.
    #[test]
    fn batch_and_scalar_agree(
        kinds in prop::collection::vec(frame(), 1..=24),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0usize..=2), 0..=64),
        flags in prop::collection::vec(prop::sample::select(vec![0x10u8, 0x10, 0x10, 2, 0x11, 4]), 64),
        mtu in 60u32..160,
        seconds in 0u64..3,
        // So few that flows displace each other within a batch, or more than there are flows.
        entries in prop::sample::select(vec![4usize, 8, 256]),
        record in prop::sample::select(vec![Record::All, Record::Contested]),
    ) {
        let snapshot = mixed(mtu);
        let new = || flow_pipeline(entries, record);
        let (mut scalar, mut batch) = (new(), new());
        // Three rounds of the same: in the first, flows begin, in the next they are proven, then they go on.
        for round in 0..3 {
            let now = Timestamp(round * seconds * 40_000_000_000);
            let memories = || picks.iter().zip(&flags).map(|((pick, room), flags)| {
                let room = [0, 20, HEADROOM][*room];
                let mut memory = vec![0; room];
                memory.extend(pick.get(&kinds));
                // Of TCP without tags and options.
                let flags_at = match memory.get(room + 12..room + 15) {
                    Some([0x08, 0x00, 0x45]) if memory.get(room + 23) == Some(&6) => 47,
                    Some([0x86, 0xdd, _]) if memory.get(room + 20) == Some(&6) => 67,
                    _ => usize::MAX,
                };
                if let Some(place) = memory.get_mut(flags_at.saturating_add(room)) {
                    *place = *flags;
                }
                // IPv4 that may be fragmented: its outer header has an identification.
                if memory.get(room + 12) == Some(&8) && *flags == 0x10 {
                    memory[room + 20] &= !0x40;
                }
                (memory, room)
            });
            let (mut alone, mut verdicts): (Vec<_>, Vec<_>) = Default::default();
            for (mut memory, room) in memories() {
                let end = memory.len();
                let mut frame = Frame::in_memory(&mut memory, room..end);
                verdicts.push(scalar.process_one(&snapshot, now, &mut frame));
                alone.push((frame.bytes().to_vec(), frame.action()));
            }
            let mut together: Vec<_> = memories().collect();
            let mut lent: Vec<_> = together
                .iter_mut()
                .map(|(memory, room)| {
                    let end = memory.len();
                    Frame::in_memory(memory, *room..end)
                })
                .collect();
            prop_assert_eq!(batch.process(&snapshot, now, &mut lent), verdicts);
            let sent: Vec<_> =
                lent.iter().map(|frame| (frame.bytes().to_vec(), frame.action())).collect();
            prop_assert_eq!(sent, alone);
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for (pipeline, frames) in [(&mut scalar, &mut one), (&mut batch, &mut other)] {
                pipeline
                    .drain(|port, frame| {
                        frames.push((port, frame.to_vec()));
                        Ok::<_, ()>(())
                    })
                    .unwrap();
            }
            prop_assert_eq!(one, other);
        }
        let (mut one, mut other) = (Default::default(), Default::default());
        scalar.counters().add_to(&mut one);
        batch.counters().add_to(&mut other);
        prop_assert_eq!(one, other);
        let of = |pipeline: &Pipeline<FlowBalancer>| pipeline.balancer().counts();
        prop_assert_eq!(of(&scalar), of(&batch));
    }
}

/// The pool with a backend of each kind of forwarding, of which the tunnels' paths take this much.
fn mixed(mtu: u32) -> Snapshot {
    let kinds = ["l2", "ipip", "gue:6080", "l3dsr:5"];
    let services = pool::SERVICES.map(|(key, input)| {
        let service = VirtualService::new(key.parse().unwrap()).hash_input(input);
        kinds.iter().zip(11..).fold(service, |service, (forwarding, last)| {
            let server = RealServer::new(IpAddr::from([10, 0, 0, last]));
            service.backend(server.with_forwarding(forwarding.parse().unwrap()))
        })
    });
    let mut site = Site::new(pool::STATION);
    site.tunnel_sources = TunnelSources::default().with("10.0.0.1/32".parse().unwrap());
    let observe = |_, backend: &dyn Backend| {
        let path = Path::on_link(MacAddress([2, 0, 0, 0, 0, 9]));
        let mtu = if matches!(backend.forwarding(), Forwarding::L2) { 100 } else { mtu };
        Observed::well(Path { mtu, ..path })
    };
    Planner::new(64).plan(&services, &site, observe).snapshot
}

fn flow_pipeline(entries: usize, record: Record) -> Pipeline<FlowBalancer> {
    let balancer = FlowBalancer::new(entries, 64, HashKey::new([3; 16])).unwrap().record(record);
    Pipeline::new(balancer, Arc::new(WorkerCounters::new(64)))
}
