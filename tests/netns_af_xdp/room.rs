//! Frames that begin elsewhere when they are sent than when they were received, and ports.

use super::wire::{
    CLIENT_MAC, DIRECTOR_MAC, VIP4, WAIT, Wire, alone, ethernet, kernel, packet, reflect, udp,
};
use dsrlb::dataplane::af_xdp::{FrameCensus, XdpOptions};
use dsrlb::dataplane::{Action, Frame, PacketIo, Port};
use std::error::Error;

type TestResult = Result<(), Box<dyn Error>>;

fn total(census: FrameCensus) -> usize {
    census.receiving + census.transmitting + census.free
}

/// Puts an IPv4 header for the VIP and `filling` bytes before the packet, and sends it back.
fn wrap(frame: &mut Frame<'_>, filling: usize) {
    frame.trim_front(14);
    assert!(!frame.grow_front(1000) && frame.grow_front(20 + filling + 14));
    let outer = outer(filling, frame.bytes().len() - 34 - filling);
    frame.bytes_mut()[..34 + filling].copy_from_slice(&outer);
    frame.set_action(Action::Transmit(Port::INGRESS));
}

/// Ethernet and IPv4 headers for so many bytes behind the filling, and the filling.
fn outer(filling: usize, inside: usize) -> Vec<u8> {
    let (ether_type, packet) = packet(VIP4, 4, &vec![filling as u8; filling + inside]);
    let mut frame = ethernet(CLIENT_MAC, &[], ether_type, &packet);
    frame[6..12].copy_from_slice(&DIRECTOR_MAC);
    frame.truncate(34 + filling);
    frame
}

/// Every frame of the memory is used many times, and comes back from odd places.
#[test]
fn headers_are_put_before_packets_that_are_not_moved() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdproom", 1)?;
    let options = XdpOptions { frames_per_queue: 64, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let whole = total(queue.census());
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for round in 0..2_000 {
        let filling = [0, 20, 32, 100, 236][round % 5];
        assert!(peer.send(Port::INGRESS, &frame)?);
        assert_eq!(
            queue.poll(WAIT, &mut |frames| frames.iter_mut().for_each(|f| wrap(f, filling)))?,
            1
        );
        let mut received = Vec::new();
        peer.poll(WAIT, &mut |frames| {
            received.extend(frames.iter().map(|frame| frame.bytes().to_vec()));
        })?;
        let expected = [&outer(filling, frame.len() - 14)[..], &frame[14..]].concat();
        assert_eq!(received, [expected], "round {round}");
        assert_eq!(total(queue.census()), whole);
    }
    let stats = queue.stats();
    assert_eq!((stats.transmitted, stats.transmit_failed, stats.transmit_rejected), (2_000, 0, 0));
    Ok(())
}

#[test]
fn a_frame_can_be_cut_off_and_what_is_too_short_or_for_no_port_is_not_sent() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpcut", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    let mut back = |change: fn(&mut Frame<'_>)| -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        assert!(peer.send(Port::INGRESS, &frame)?);
        queue.poll(WAIT, &mut |frames| {
            for frame in frames {
                reflect(frame);
                change(frame);
            }
        })?;
        let mut received = Vec::new();
        peer.poll(super::wire::SILENCE, &mut |frames| {
            received.extend(frames.iter().map(|frame| frame.bytes().to_vec()));
        })?;
        Ok(received)
    };
    assert_eq!(back(|frame| frame.truncate(38))?[0].len(), 38);
    assert!(back(|frame| frame.truncate(13))?.is_empty());
    assert!(back(|frame| frame.set_action(Action::Transmit(Port(1))))?.is_empty());
    assert!(!queue.send(Port(1), &frame)?);
    let stats = queue.stats();
    assert_eq!((stats.transmitted, stats.transmit_rejected), (1, 3));
    Ok(())
}
