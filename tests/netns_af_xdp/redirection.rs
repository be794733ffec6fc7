//! Which frames leave the kernel and which do not.

use crate::wire::*;
use dsrlb::dataplane::af_xdp::{Answer, XdpError, XdpOptions};
use dsrlb::dataplane::{PacketIo, Port};
use dsrlb::forwarding::ProbeSources;

const C_TAG: (u16, u16) = (0x8100, 100);
const S_TAG: (u16, u16) = (0x88a8, 200);

#[test]
fn frames_for_a_vip_come_out_and_back_and_no_others() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpredir", 1)?;
    let addresses = kernel(&[VIP4, VIP6, "10.99.0.0/16", "fd99::/32"]);
    let (mut director, mut client) = wire.open(&addresses, &XdpOptions::default())?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    assert!(wire.ping("10.88.0.1") && wire.ping("fd88::1"), "the kernel's own traffic");

    let taken = [
        ("IPv4", udp(DIRECTOR_MAC, &[], VIP4)),
        ("IPv6", udp(DIRECTOR_MAC, &[], VIP6)),
        ("one tag", udp(DIRECTOR_MAC, &[C_TAG], VIP4)),
        ("one tag, IPv6", udp(DIRECTOR_MAC, &[C_TAG], VIP6)),
        ("two tags", udp(DIRECTOR_MAC, &[S_TAG, C_TAG], VIP4)),
        ("two tags, IPv6", udp(DIRECTOR_MAC, &[C_TAG, C_TAG], VIP6)),
        ("prefix", udp(DIRECTOR_MAC, &[], "10.99.3.4")),
        ("prefix, IPv6", udp(DIRECTOR_MAC, &[], "fd99:0:1::1")),
    ];
    for (case, frame) in &taken {
        let back = round_trip(queue, peer, frame, WAIT)?;
        assert_eq!(back, Some(reflected(frame)), "{case}");
    }
    let stats = director.interface.stats()?;
    assert_eq!(stats.redirected, taken.len() as u64);
    assert_eq!(queue.stats().received, taken.len() as u64);
    assert_eq!(queue.stats().transmitted, taken.len() as u64);
    assert_eq!(stats.no_socket, 0);

    let mut cut = udp(DIRECTOR_MAC, &[], VIP4);
    cut.truncate(14 + 19);
    let left = [
        ("another station's", udp(FOREIGN_MAC, &[], VIP4)),
        ("another station's, IPv6", udp(FOREIGN_MAC, &[C_TAG], VIP6)),
        ("broadcast", udp(BROADCAST, &[], VIP4)),
        ("another address", udp(DIRECTOR_MAC, &[], "10.88.0.101")),
        ("another address, IPv6", udp(DIRECTOR_MAC, &[], "fd88::101")),
        ("outside the prefix", udp(DIRECTOR_MAC, &[], "10.98.0.1")),
        ("three tags", udp(DIRECTOR_MAC, &[S_TAG, C_TAG, C_TAG], VIP4)),
        ("an IPv4 header cut short", cut),
        ("ARP", arp(BROADCAST, [10, 88, 0, 100])),
    ];
    for (case, frame) in &left {
        let before = director.interface.stats()?;
        let back = round_trip(queue, peer, frame, SILENCE)?;
        assert_eq!(back, None, "{case}");
        let after = director.interface.stats()?;
        assert_eq!(after.redirected, before.redirected, "{case}");
        assert!(after.passed > before.passed, "{case}");
    }
    Ok(())
}

#[test]
fn requests_for_the_mac_go_to_who_answers() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpanswer", 1)?;
    let mut addresses = kernel(&[VIP4, VIP6]);
    addresses.push(("10.88.0.200/32".parse()?, Answer::Handler));
    addresses.push(("fd88::200/128".parse()?, Answer::Handler));
    let (mut director, mut client) = wire.open(&addresses, &XdpOptions::default())?;
    let group = |last| [0x33, 0x33, 0xff, 0, last, 0];
    let cases = [
        ("ARP, broadcast", true, arp(BROADCAST, [10, 88, 0, 200])),
        ("ARP, to us", true, arp(DIRECTOR_MAC, [10, 88, 0, 200])),
        ("ARP, to another", false, arp(FOREIGN_MAC, [10, 88, 0, 200])),
        ("ARP, the kernel's", false, arp(BROADCAST, [10, 88, 0, 100])),
        ("ND", true, neighbour_discovery(group(2), "ff02::1:ff00:200", 135, "fd88::200")),
        ("ND, to us", true, neighbour_discovery(DIRECTOR_MAC, "fd88::200", 135, "fd88::200")),
        ("ND, to another", false, neighbour_discovery(FOREIGN_MAC, "fd88::200", 135, "fd88::200")),
        (
            "ND, the kernel's",
            false,
            neighbour_discovery(group(1), "ff02::1:ff00:100", 135, "fd88::100"),
        ),
        (
            "ND probe, the kernel's",
            false,
            neighbour_discovery(DIRECTOR_MAC, "fd88::100", 135, "fd88::100"),
        ),
        ("ND advertisement", false, neighbour_discovery(DIRECTOR_MAC, "fd88::100", 136, "fd88::2")),
    ];
    for (case, taken, frame) in &cases {
        client.queues[0].send(Port::INGRESS, frame)?;
        let mut seen = Vec::new();
        let wait = if *taken { WAIT } else { SILENCE };
        director.queues[0].poll(wait, &mut |frames| {
            seen.extend(frames.iter().map(|frame| frame.bytes().to_vec()));
        })?;
        assert_eq!(seen.first(), taken.then_some(frame), "{case}");
    }
    Ok(())
}

#[test]
fn the_set_of_addresses_is_replaced_as_a_whole() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpset", 1)?;
    let options = XdpOptions { max_addresses: 2, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4, VIP6, "10.99.0.0/16"]), &options)?;
    let one = udp(DIRECTOR_MAC, &[], VIP4);
    let other = udp(DIRECTOR_MAC, &[], "10.99.1.1");
    let mut expect = |director: &mut End, frame: &[u8], taken: bool| -> TestResult {
        let wait = if taken { WAIT } else { SILENCE };
        let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
        let back = round_trip(queue, peer, frame, wait)?;
        assert_eq!(back, taken.then(|| reflected(frame)));
        Ok(())
    };
    expect(&mut director, &one, true)?;
    expect(&mut director, &other, true)?;

    let too_many = kernel(&[VIP4, "10.0.0.1/32", "10.0.0.2/32"]);
    let error = director.interface.redirect(&too_many).unwrap_err();
    assert!(matches!(error, XdpError::TooManyAddresses { count: 3, limit: 2, .. }), "{error:?}");
    expect(&mut director, &one, true)?;
    expect(&mut director, &other, true)?;

    // Full before and after; an address takes the place of the prefix it was in.
    let exact = kernel(&["10.99.1.1/32", "10.99.1.2/32"]);
    director.interface.redirect(&exact)?;
    expect(&mut director, &one, false)?;
    expect(&mut director, &other, true)?;
    director.interface.redirect(&[])?;
    expect(&mut director, &one, false)?;
    expect(&mut director, &other, false)?;
    director.interface.redirect(&kernel(&[VIP4]))?;
    expect(&mut director, &one, true)?;

    director.interface.set_station(FOREIGN_MAC.into())?;
    expect(&mut director, &one, false)?;
    expect(&mut director, &udp(FOREIGN_MAC, &[], VIP4), true)?;
    Ok(())
}

/// What a VIP answers to a probe comes out, also before there is traffic; nothing else that is sent there does.
#[test]
fn answers_to_probes_come_out_and_until_it_serves_nothing_else() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpprobe", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4, VIP6]), &XdpOptions::default())?;
    // Where the addresses are in the frame: source, then destination.
    let turned = |mut frame: Vec<u8>, length: usize| {
        let at = if length == 4 { 26 } else { 22 };
        let (source, destination) = frame[at..at + 2 * length].split_at_mut(length);
        source.swap_with_slice(destination);
        frame
    };
    let asked = [udp(DIRECTOR_MAC, &[], VIP4), udp(DIRECTOR_MAC, &[], VIP6)];
    let answers = [turned(asked[0].clone(), 4), turned(asked[1].clone(), 16)];
    let address = |frame: &[u8]| {
        let v4: [u8; 4] = frame[30..34].try_into().unwrap();
        std::net::Ipv4Addr::from(v4)
    };
    let address6 = |frame: &[u8]| {
        let v6: [u8; 16] = frame[38..54].try_into().unwrap();
        std::net::Ipv6Addr::from(v6)
    };
    let sources =
        ProbeSources { ipv4: Some(address(&answers[0])), ipv6: Some(address6(&answers[1])) };
    let mut expect = |director: &mut End, frame: &[u8], taken: bool| -> TestResult {
        client.queues[0].send(Port::INGRESS, frame)?;
        let mut seen = Vec::new();
        let wait = if taken { WAIT } else { SILENCE };
        director.queues[0].poll(wait, &mut |frames| {
            seen.extend(frames.iter().map(|frame| frame.bytes().to_vec()));
        })?;
        assert_eq!(seen.first().map(Vec::as_slice), taken.then_some(frame));
        Ok(())
    };
    for answer in &answers {
        expect(&mut director, answer, false)?;
    }
    director.interface.set_probe_sources(sources)?;
    director.interface.set_serving(false)?;
    for (asked, answer) in asked.iter().zip(&answers) {
        expect(&mut director, answer, true)?;
        expect(&mut director, asked, false)?;
    }
    director.interface.set_serving(true)?;
    for (asked, answer) in asked.iter().zip(&answers) {
        expect(&mut director, answer, true)?;
        expect(&mut director, asked, true)?;
    }
    // From another address than a VIP.
    let mut other = answers[0].clone();
    other[29] ^= 1;
    expect(&mut director, &other, false)?;
    Ok(())
}
