//! What the fuzz targets check, also run by the ordinary tests over the committed corpus.

use super::frames::DIRECTOR_MAC;
use super::pool;
use dsrlb::balancer::{Candidate, Maglev, Policy, QuicConfig, QuicLb};
use dsrlb::dataplane::{Action, Frame};
use dsrlb::flow::{PacketKind, Timestamp};
use dsrlb::packet::{Parse, connection_id, parse};
use dsrlb::verdict::Verdict;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use std::net::IpAddr;

/// Any bytes parse without a panic, the offsets stay inside the frame, and whatever etherparse
/// accepts as an IP packet reads the same here.
pub fn check_parse(data: &[u8]) {
    let parsed = match parse(data) {
        Parse::Ip(parsed) => parsed,
        Parse::NotIp { payload, .. } => return assert!(payload <= data.len()),
        Parse::Malformed(_) => return,
    };
    assert!(parsed.network <= parsed.transport);
    assert!(u32::from(parsed.transport) <= parsed.end);
    assert!(parsed.end as usize <= data.len());

    let Ok(witness) = SlicedPacket::from_ethernet(data) else {
        return;
    };
    let (source, destination): (IpAddr, IpAddr) = match &witness.net {
        Some(NetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        Some(NetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => return,
    };
    // An error has the flow of what it quotes.
    if parsed.info.kind == PacketKind::IcmpError {
        return assert_eq!(parsed.info.flow.destination, destination);
    }
    let flow = parsed.info.flow;
    assert_eq!((flow.source, flow.destination), (source, destination));
    let ports = match &witness.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => return,
    };
    // etherparse walks the Authentication Header; here it is a protocol of its own.
    if flow.protocol.has_ports() {
        assert_eq!((flow.source_port, flow.destination_port), ports);
    }
}

/// Any bytes get one verdict, the same alone and in a batch; what is forwarded differs in its
/// twelve bytes of MAC addresses only, and what is not forwarded does not differ at all.
pub fn check_rewrite(data: &[u8]) {
    // Three frames to a batch: the bytes as they are, addressed to us, and as an IPv4 VIP's.
    let mut ours = data.to_vec();
    for (to, from) in ours.iter_mut().zip(DIRECTOR_MAC) {
        *to = from;
    }
    let mut vip = ours.clone();
    if let Some(destination) = vip.get_mut(30..34) {
        destination.copy_from_slice(&[10, 0, 0, 101]);
    }
    let originals = [data.to_vec(), ours, vip];

    let plan = pool::plan_once();
    let mut scalar = pool::pipeline();
    let mut alone = originals.clone();
    let mut verdicts = Vec::new();
    for (bytes, original) in alone.iter_mut().zip(&originals) {
        let mut frame = Frame::new(bytes);
        let verdict = scalar.process_one(&plan.snapshot, Timestamp(0), &mut frame);
        let (forwards, answers) =
            (matches!(verdict, Verdict::Forward(_)), matches!(verdict, Verdict::Answer(_)));
        assert_eq!(matches!(frame.action(), Action::Transmit(_)), forwards || answers);
        if forwards {
            assert_eq!(bytes.get(12..), original.get(12..));
        }
        if forwards || answers {
            assert_eq!(bytes.get(6..12), Some(DIRECTOR_MAC.as_slice()));
        } else {
            assert_eq!(bytes, original);
        }
        verdicts.push(verdict);
    }

    let mut batch = pool::pipeline();
    let mut together = originals.clone();
    let mut frames: Vec<_> = together.iter_mut().map(|bytes| Frame::new(bytes)).collect();
    assert_eq!(batch.process(&plan.snapshot, Timestamp(0), &mut frames), verdicts);
    assert_eq!(together, alone);

    let mut counts = Default::default();
    batch.counters().add_to(&mut counts);
    assert_eq!(counts.verdicts(), originals.len() as u64);
}

/// Any pool gets a full table in exact proportion, whatever order it is given in.
pub fn check_maglev(data: &[u8]) {
    let weights: Vec<u16> =
        data.chunks_exact(2).take(64).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let ids: Vec<String> = (0..weights.len()).map(|i| format!("backend-{i:02}")).collect();
    let candidates: Vec<Candidate<'_>> =
        ids.iter().zip(&weights).map(|(id, &weight)| Candidate { id, weight }).collect();
    let policy = Maglev::with_table_size(1021).expect("a prime");
    let table = policy.table(&candidates);
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return assert!(table.slots().is_empty());
    }
    assert_eq!(table.slots().len(), 1021);
    let mut shares = vec![0u64; weights.len()];
    for slot in table.slots() {
        shares[usize::from(*slot)] += 1;
    }
    for (share, weight) in shares.iter().zip(&weights) {
        let exact = 1021 * u64::from(*weight);
        assert!((exact / total..=exact / total + 1).contains(share));
    }
}

/// Any bytes as a UDP payload have an ID that is in them, or none; whatever it is, and however it is to be
/// decoded, it leads to a backend that there is, or nowhere. What any server has written is read again.
pub fn check_quic(data: &[u8]) {
    let Some((&[rotation, server_id, nonce], payload)) = data.split_first_chunk() else {
        return;
    };
    let Ok(config) = QuicConfig::new(server_id % 16, nonce % 19) else {
        return;
    };
    let (rotation, length) = (rotation % 7, config.server_id_length());
    let id = |number: u8| vec![number; length];
    #[cfg(feature = "quic")]
    let configs = [config.clone(), config.encrypted(b"sixteen bytes...")];
    #[cfg(not(feature = "quic"))]
    let configs = [config];
    for (number, config) in configs.into_iter().enumerate() {
        let policy = QuicLb::new(Maglev::default()).config(rotation, config).expect("no other");
        let policy = policy.server("a", &id(1)).and_then(|policy| policy.server("b", &id(2)));
        let router =
            policy.expect("both are new").connections(&["a", "b", "c"]).expect("it routes");
        if let Some(id) = connection_id(payload) {
            assert!(
                id.bytes().is_empty() || payload.windows(id.bytes().len()).any(|w| w == id.bytes())
            );
            let to = router.route(&id);
            assert!(to.is_none_or(|to| to < 2 && id.bytes()[0] >> 5 == rotation));
        }
        // Of a plain one what the server does is known: it is in the first case only.
        if number == 0 {
            let written = [&[0x40, rotation << 5], &id(2)[..], &[0; 18]].concat();
            assert_eq!(connection_id(&written).and_then(|id| router.route(&id)), Some(1));
        }
    }
}
