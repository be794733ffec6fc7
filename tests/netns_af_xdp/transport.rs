//! Receiving and sending: queues, accounting, and what goes wrong on the way.

use crate::wire::*;
use dsrlb::dataplane::af_xdp::{FrameCensus, XdpOptions, XdpQueue};
use dsrlb::dataplane::{Action, MAX_BATCH, PacketIo, Port};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

fn total(census: FrameCensus) -> usize {
    census.receiving + census.transmitting + census.free
}

/// Polls without a handler to speak of until nothing is on its way out.
fn settle(queue: &mut XdpQueue) -> FrameCensus {
    let deadline = Instant::now() + Duration::from_secs(2);
    while queue.census().transmitting > 0 && Instant::now() < deadline {
        queue.poll(Duration::from_millis(1), &mut |_| ()).unwrap();
    }
    queue.census()
}

#[test]
fn each_queue_receives_its_own() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpqueues", 2)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    assert_eq!(director.queues.len(), 2);
    assert_eq!(director.interface.granted().zero_copy, [false, false]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for at in [0, 1, 1, 0] {
        let before = director.queues[1 - at].stats().received;
        let back = round_trip(&mut director.queues[at], &mut client.queues[at], &frame, WAIT)?;
        assert_eq!(back, Some(reflected(&frame)), "queue {at}");
        assert_eq!(director.queues[1 - at].poll(SILENCE, &mut |_| ())?, 0);
        assert_eq!(director.queues[1 - at].stats().received, before);
    }
    // What arrives on a queue without a socket stays with the kernel, and is counted.
    director.queues.remove(1);
    for _ in 0..5 {
        client.queues[1].send(Port::INGRESS, &frame)?;
    }
    let no_socket = || director.interface.stats().map_or(0, |stats| stats.no_socket);
    assert!(eventually(|| no_socket() == 5), "{}", no_socket());
    assert_eq!(director.queues[0].poll(SILENCE, &mut |_| ())?, 0);
    assert_eq!(director.interface.stats()?.redirected, 4);
    Ok(())
}

#[test]
fn fewer_queues_than_there_are_leave_the_rest_to_the_kernel() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpfewer", 2)?;
    let options = XdpOptions { queues: Some(1), ..XdpOptions::default() };
    let interface = wire.open_director(&options)?;
    assert_eq!(interface.granted().zero_copy.len(), 1);
    assert!(
        interface.warnings().iter().any(|text| text.contains("queues")),
        "{:?}",
        interface.warnings()
    );
    Ok(())
}

#[test]
fn a_hundred_thousand_frames_and_none_lost() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    const FRAMES: u64 = 100_000;
    const WINDOW: u64 = 500;
    let wire = Wire::build("afxdpmany", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    let (whole, peers) = (total(queue.census()), total(peer.census()));
    let (mut sent, mut back) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while back < FRAMES {
        assert!(Instant::now() < deadline, "{sent} sent, {back} back");
        while sent < FRAMES && sent - back < WINDOW && peer.send(Port::INGRESS, &frame)? {
            sent += 1;
        }
        queue.poll(Duration::ZERO, &mut |frames| {
            assert!(frames.len() <= MAX_BATCH);
            frames.iter_mut().for_each(reflect);
        })?;
        back += peer.poll(Duration::ZERO, &mut |_| ())? as u64;
        assert_eq!(total(queue.census()), whole);
    }
    let stats = queue.stats();
    assert_eq!((stats.received, stats.transmitted), (FRAMES, FRAMES), "{stats:?}");
    assert_eq!(director.interface.stats()?.redirected, FRAMES);
    for (queue, whole) in [(queue, whole), (peer, peers)] {
        let census = settle(queue);
        assert_eq!(census.transmitting, 0);
        assert_eq!(total(census), whole);
        let stats = queue.stats();
        let lost = [
            stats.transmit_rejected,
            stats.transmit_failed,
            stats.receive_ring_full,
            stats.receive_no_frame,
            stats.receive_dropped,
        ];
        assert_eq!(lost, [0; 5], "{stats:?}");
    }
    Ok(())
}

#[test]
fn an_overrun_is_counted_to_the_frame_and_does_no_harm() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpflood", 1)?;
    let options = XdpOptions { frames_per_queue: 64, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for _ in 0..1000 {
        assert!(peer.send(Port::INGRESS, &frame)?);
    }
    let redirected = || director.interface.stats().map_or(0, |stats| stats.redirected);
    assert!(eventually(|| redirected() == 1000), "{}", redirected());
    while queue.poll(SILENCE, &mut |frames| {
        frames.iter_mut().for_each(|frame| frame.set_action(Action::Release))
    })? > 0
    {}
    let stats = queue.stats();
    let lost = stats.receive_ring_full + stats.receive_no_frame + stats.receive_dropped;
    assert_eq!(stats.received + lost, 1000, "{stats:?}");
    assert!(stats.receive_no_frame > 0, "{stats:?}");
    assert_eq!(round_trip(queue, peer, &frame, WAIT)?, Some(reflected(&frame)));
    Ok(())
}

#[test]
fn one_poll_sends_a_whole_batch() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpbatch", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for _ in 0..MAX_BATCH {
        assert!(client.queues[0].send(Port::INGRESS, &frame)?);
    }
    std::thread::sleep(SILENCE);
    let polled =
        director.queues[0].poll(WAIT, &mut |frames| frames.iter_mut().for_each(reflect))?;
    assert_eq!(polled, MAX_BATCH);
    // Copy mode sends 32 frames per system call; the rest must not wait for the next poll.
    let mut back = 0;
    while back < MAX_BATCH {
        match client.queues[0].poll(WAIT, &mut |_| ())? {
            0 => break,
            more => back += more,
        }
    }
    assert_eq!(back, MAX_BATCH);
    Ok(())
}

#[test]
fn a_panic_in_the_handler_loses_no_frame() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdppanic", 1)?;
    let options = XdpOptions { frames_per_queue: 64, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let whole = total(queue.census());
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    // More panics than there are frames: one lost each time would show.
    for _ in 0..200 {
        peer.send(Port::INGRESS, &frame)?;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            queue.poll(WAIT, &mut |_| std::panic::resume_unwind(Box::new("on purpose")))
        }));
        assert!(polled.is_err());
        assert_eq!(total(queue.census()), whole);
    }
    for _ in 0..200 {
        assert_eq!(round_trip(queue, peer, &frame, WAIT)?, Some(reflected(&frame)));
    }
    Ok(())
}

#[test]
fn frames_that_cannot_be_sent_are_counted() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpfail", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let queue = &mut director.queues[0];
    let frame = udp(CLIENT_MAC, &[], VIP4);
    assert!(!queue.send(Port::INGRESS, &[0; 13])?, "shorter than a header");
    assert!(!queue.send(Port::INGRESS, &[0; 1793])?, "longer than a frame");
    assert_eq!(queue.stats().transmit_rejected, 2);
    assert!(queue.send(Port::INGRESS, &frame)?);
    assert_eq!(client.queues[0].poll(WAIT, &mut |_| ())?, 1);

    // No carrier: the kernel says of each frame that it was dropped.
    wire.client.run("ip", &["link", "set", CLIENT, "down"])?;
    for _ in 0..10 {
        assert!(queue.send(Port::INGRESS, &frame)?);
    }
    let stats = queue.stats();
    assert_eq!((stats.transmitted, stats.transmit_failed), (1, 10), "{stats:?}");
    let whole = total(queue.census());
    assert_eq!(settle(queue).transmitting, 0);
    assert_eq!(total(queue.census()), whole);
    Ok(())
}

#[test]
fn an_interface_may_go_down_and_must_not_go_away() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpgone", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    wire.director.run("ip", &["link", "set", DIRECTOR, "down"])?;
    assert_eq!(queue.poll(SILENCE, &mut |_| ())?, 0, "down is not gone");
    assert!(queue.send(Port::INGRESS, &frame)?, "kept until the interface is up");
    wire.director.run("ip", &["link", "set", DIRECTOR, "up"])?;
    std::thread::sleep(SILENCE);
    assert_eq!(round_trip(queue, peer, &frame, WAIT)?, Some(reflected(&frame)));

    wire.director.run("ip", &["link", "del", DIRECTOR])?;
    let error = queue.poll(SILENCE, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains(DIRECTOR), "{error}");
    assert!(queue.send(Port::INGRESS, &frame).is_err());
    let mut spins = 0;
    let error = loop {
        match queue.poll(Duration::ZERO, &mut |_| ()) {
            Ok(_) if spins < 10_000 => spins += 1,
            polled => break polled,
        }
    };
    assert!(error.is_err(), "also without a wait");
    director.interface.detach();
    Ok(())
}

/// How often the calling thread has gone to sleep.
pub(crate) fn sleeps() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.ok_or("no such line")?.trim().parse()?)
}

#[test]
fn what_cannot_be_sent_does_not_keep_the_thread_awake() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpawake", 1)?;
    let (mut director, _client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let queue = &mut director.queues[0];
    let frame = udp(CLIENT_MAC, &[], VIP4);
    let mut awake = |state: &str| -> TestResult {
        assert!(queue.send(Port::INGRESS, &frame)?);
        let before = sleeps()?;
        assert_eq!(queue.poll(Duration::from_millis(500), &mut |_| ())?, 0);
        let sleeps = sleeps()? - before;
        assert!(sleeps < 30, "{state}: woke {sleeps} times in half a second");
        Ok(())
    };
    wire.client.run("ip", &["link", "set", CLIENT, "down"])?;
    awake("no carrier, so dropped at once")?;
    wire.director.run("ip", &["link", "set", DIRECTOR, "down"])?;
    awake("down, so kept")
}

#[test]
fn an_idle_queue_sleeps() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpidle", 1)?;
    let mut interface = wire.open_director(&XdpOptions::default())?;
    let mut queues = interface.take_queues();
    let cpu = || {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
    };
    let (started, before) = (Instant::now(), cpu()?);
    assert_eq!(queues[0].poll(Duration::from_millis(500), &mut |_| ())?, 0);
    assert!(started.elapsed() >= Duration::from_millis(500));
    let used = cpu()? - before;
    assert!(used < Duration::from_millis(5), "{used:?}");
    Ok(())
}
