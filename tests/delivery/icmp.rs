//! ICMP and ICMPv6: errors go to the backend of the flow they quote; pings.

use super::*;

/// An ICMP error about what the VIP sent to a client, and that client's own packets.
#[test]
fn icmp_errors_go_to_the_backend_of_the_flow_they_quote() {
    for mode in ["ipip", "l3dsr:10", "gue1:6080"] {
        let mut world = World::new(mode, false, 1500);
        let mut seen = std::collections::HashSet::new();
        for port in 4000..4040_u16 {
            let mut ordinary = Vec::new();
            PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
                .ipv4(CLIENT, VIP, 64)
                .tcp(port, 80, 1, 2)
                .write(&mut ordinary, b"")
                .unwrap();
            let (Verdict::Forward(of_flow), ordinary) = world.send(ordinary) else { panic!() };
            seen.insert(of_flow);

            let mut quoted = Vec::new();
            PacketBuilder::ipv4(VIP, CLIENT, 60)
                .tcp(80, port, 9, 9)
                .write(&mut quoted, &[1; 900])
                .unwrap();
            for length in [28, 100] {
                let mut error = Vec::new();
                PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
                    .ipv4([203, 0, 113, 9], VIP, 64)
                    .icmpv4_raw(3, 4, [0, 0, 5, 0x78])
                    .write(&mut error, &quoted[..length])
                    .unwrap();
                let (verdict, sent) = world.send(error.clone());
                assert_eq!(verdict, Verdict::Forward(of_flow), "{mode} {port} {length}");
                let carried = &sent[0].1[sent[0].1.len() - 8 - length..];
                assert_eq!(carried, &error[34..], "as it was, its checksum included");
                if mode == "gue1:6080" {
                    assert_eq!(sent[0].1[34..36], ordinary[0].1[34..36], "by the flow's way");
                }
            }
        }
        assert!(seen.len() > 3, "the flows are spread");
        // A packet too big that is itself too big is not answered.
        let mut huge = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
            .ipv4([203, 0, 113, 9], VIP, 64)
            .icmpv4_raw(3, 4, [0, 0, 5, 0x78])
            .write(
                &mut huge,
                &[
                    &[0x45, 0, 5, 0, 0, 0, 0, 0, 64, 6, 0, 0][..],
                    &VIP,
                    &CLIENT,
                    &[0, 80, 16, 0],
                    &[0; 1440],
                ]
                .concat(),
            )
            .unwrap();
        let (verdict, _) = world.send(huge);
        match mode {
            "l3dsr:10" => assert!(matches!(verdict, Verdict::Forward(_))),
            _ => assert_eq!(verdict, Verdict::Drop(DropReason::PacketTooBig)),
        }
    }
}

/// An MTU that no link has is for the backend to ignore (RFC 8201 section 4), and for us to count.
#[test]
fn errors_with_an_mtu_that_cannot_be_are_forwarded_and_counted() {
    let mut world = World::new("ipip", false, 1500);
    let (mut quoted, mut quoted6) = (Vec::new(), Vec::new());
    PacketBuilder::ipv4(VIP, CLIENT, 60).tcp(80, 4000, 9, 9).write(&mut quoted, b"").unwrap();
    PacketBuilder::ipv6(VIP6, CLIENT6, 60).tcp(80, 4000, 9, 9).write(&mut quoted6, b"").unwrap();
    let mut doubted = |is_ipv6: bool, mtu: u16| {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, STATION.0);
        let ([m0, m1], mut error) = (mtu.to_be_bytes(), Vec::new());
        if is_ipv6 {
            let builder = builder.ipv6(CLIENT6, VIP6, 64).icmpv6_raw(2, 0, [0, 0, m0, m1]);
            builder.write(&mut error, &quoted6).unwrap();
        } else {
            let builder = builder.ipv4(CLIENT, VIP, 64).icmpv4_raw(3, 4, [0, 0, m0, m1]);
            builder.write(&mut error, &quoted).unwrap();
        }
        let before = world.counts();
        assert!(matches!(world.send(error).0, Verdict::Forward(_)));
        let after = world.counts();
        assert_eq!(after.verdicts(), before.verdicts() + 1);
        after.doubtful_mtus - before.doubtful_mtus
    };
    assert_eq!([0, 1, 67, 68, 1500].map(|mtu| doubted(false, mtu)), [0, 1, 1, 0, 0]);
    assert_eq!([0, 68, 1279, 1280, 1500].map(|mtu| doubted(true, mtu)), [1, 1, 1, 0, 0]);
}

/// What such an error says of fragments is about those that the VIP sent, not about the client's.
#[test]
fn errors_that_quote_fragments_are_no_fragments() {
    let mut world = World::new("ipip", false, 1500);
    let mut error = |port: u16, field: [u8; 2], more: u8| {
        let mut quoted = Vec::new();
        PacketBuilder::ipv4(VIP, CLIENT, 60).udp(53, port).write(&mut quoted, &[1; 64]).unwrap();
        quoted[6..8].copy_from_slice(&field);
        let mut error = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
            .ipv4([203, 0, 113, 9], VIP, 64)
            .icmpv4_raw(11, 1, [0; 4])
            .write(&mut error, &quoted[..28])
            .unwrap();
        error[20] = more;
        world.send(error).0
    };
    assert!(matches!(error(4000, [0x20, 0], 0), Verdict::Forward(_)), "of a first fragment");
    assert!(matches!(error(4001, [0, 0], 0x20), Verdict::Forward(_)), "in a first fragment");
    // Known limit: without ports nothing tells the flow, and nobody waits for them.
    assert!(matches!(error(0, [0, 9], 0), Verdict::Drop(_)), "of a later fragment");
}

#[test]
fn errors_about_what_the_vip_did_not_send_are_dropped() {
    let mut world = World::new("ipip", false, 1500);
    let mut error = |quoted: &[u8]| {
        let mut error = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
            .ipv4([203, 0, 113, 9], VIP, 64)
            .icmpv4_raw(3, 3, [0; 4])
            .write(&mut error, quoted)
            .unwrap();
        world.send(error).0
    };
    let mut stray = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], CLIENT, 60)
        .tcp(80, 4000, 9, 9)
        .write(&mut stray, b"")
        .unwrap();
    assert_eq!(error(&stray), Verdict::Drop(DropReason::IcmpQuoteStray));
    assert_eq!(error(&stray[..12]), Verdict::Drop(DropReason::IcmpQuoteTruncated));
}

#[test]
fn pings_are_answered_forwarded_or_dropped() {
    let ping = || {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, STATION.0)
            .ipv4(CLIENT, VIP, 64)
            .icmpv4_echo_request(1, 2)
            .write(&mut frame, b"data")
            .unwrap();
        frame
    };
    let small = |path| Path { mtu: 1500, ..path };
    let with = |echo| {
        let service = move |service: VirtualService| {
            let is_first = service.key.to_string().contains(":80/");
            service.echo(if is_first { echo } else { Echo::Answer })
        };
        World::with("ipip", false, small, |site| site, service).send(ping())
    };
    let (verdict, sent) = with(Echo::Answer);
    assert_eq!(verdict, Verdict::Answer(AnswerKind::Echo));
    assert_eq!((&sent[0].1[26..30], sent[0].1[34]), (&VIP[..], 0));
    assert_eq!(with(Echo::Drop).0, Verdict::Drop(DropReason::EchoRefused));
    assert!(matches!(with(Echo::Forward).0, Verdict::Forward(_)));
    // Not a VIP: nothing of ours (Katran answers for any address).
    let mut other = ping();
    other[33] = 99;
    assert_eq!(World::new("ipip", false, 1500).send(other).0, Verdict::Pass);
}
