//! Probes through the VIP: out as clients' packets, and back.

use super::*;

/// A probe is framed for a backend as a client's packet is, to the last byte.
#[test]
fn probes_leave_as_clients_packets_do() {
    for mode in MODES.into_iter().chain(["l2"]) {
        for (over_ipv6, is_ipv6) in [(false, false), (false, true), (true, false), (true, true)] {
            if mode == "l3dsr:10" && over_ipv6 != is_ipv6 {
                continue;
            }
            let mut world = World::new(mode, over_ipv6, 1500);
            let frame = tcp(is_ipv6, 100);
            let (verdict, sent) = world.send(frame.clone());
            let Verdict::Forward(index) = verdict else { panic!("{mode}: {verdict:?}") };
            let mut framed = Vec::new();
            let mut framer = ProbeFramer::new();
            framer
                .frame(&world.plan.snapshot, index, &frame[14..], |port, bytes| {
                    framed.push((port, bytes.to_vec()));
                })
                .unwrap();
            assert_eq!(framed, sent, "{mode} {over_ipv6} {is_ipv6}");
            let stranger = BackendIndex::new(index.slot(), index.generation() + 1);
            let refused = framer.frame(&world.plan.snapshot, stranger, &frame[14..], |_, _| ());
            assert_eq!(refused, Err(DropReason::NextHopUnresolved));
            for garbage in [&[][..], &[0x45; 10], &[0; 40], &[0x60; 4000]] {
                framer.frame(&world.plan.snapshot, index, garbage, |_, _| ()).unwrap_err();
            }
        }
    }
}

/// Only what a VIP sends to where probes are sent from, and to our station, is an answer.
#[test]
fn answers_to_probes_go_to_who_asked() {
    let prober = [10, 0, 0, 1];
    let with_sources = |site: Site| Site {
        probe_sources: ProbeSources { ipv4: Some(prober.into()), ipv6: None },
        ..site
    };
    let frame = |to: [u8; 6], from: [u8; 4], destination: [u8; 4]| {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, to).ipv4(from, destination, 64);
        let mut frame = Vec::new();
        builder.tcp(80, 33_000, 1, 2).syn().ack(1).write(&mut frame, &[]).unwrap();
        frame
    };
    let mut world = World::with("l2", false, |path| path, with_sources, |service| service);
    let answer = frame(STATION.0, VIP, prober);
    let mut pass = |frame: Vec<u8>| {
        let mut bytes = frame;
        let mut frames = [Frame::new(&mut bytes)];
        let snapshot = &world.plan.snapshot;
        let verdict = world.pipeline.process(snapshot, Timestamp(0), &mut frames)[0];
        let mut drained = Vec::new();
        let drain = |port, bytes: &[u8]| -> Result<(), ()> {
            drained.push((port, bytes.to_vec()));
            Ok(())
        };
        world.pipeline.drain(drain).unwrap();
        (verdict, drained)
    };
    assert_eq!(pass(answer.clone()), (Verdict::Probe, vec![(Port::PROBER, answer.clone())]));
    for other in [
        frame(STATION.0, CLIENT, prober),
        frame(STATION.0, VIP, [10, 0, 0, 2]),
        frame(SECOND.0, VIP, prober),
    ] {
        assert_eq!(pass(other), (Verdict::Pass, vec![]));
    }
    // A refusal is an answer too, though it quotes what came from us.
    let mut refusal = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
        .ipv4(VIP, prober, 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut refusal, &frame(STATION.0, prober, VIP)[14..])
        .unwrap();
    assert_eq!(pass(refusal).0, Verdict::Probe);
    let counts = world.counts();
    assert_eq!((counts.probes, counts.passed, counts.verdicts()), (2, 3, 5));
    assert_eq!(World::new("l2", false, 1500).send(answer).0, Verdict::Pass);
}
