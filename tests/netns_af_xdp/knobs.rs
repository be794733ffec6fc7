//! What an operator can turn: polling, cores, memory, budgets; and what is said where it cannot be had.

use crate::transport::sleeps;
use crate::wire::*;
use dsrlb::balancer::VirtualService;
use dsrlb::dataplane::af_xdp::{XdpError, XdpInterface, XdpOptions, XdpQueue, pin_thread};
use dsrlb::dataplane::{Action, Cores, MAX_BATCH, PacketIo, Polling, Port};
use dsrlb::director::Director;
use nix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_millis(400);

/// Waits in vain for [`LONG`]; the time that the thread had a core in it, and how often it slept.
fn idle(queue: &mut XdpQueue) -> Result<(Duration, u64), Box<dyn Error>> {
    let cpu = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let (start, before, slept) = (Instant::now(), cpu()?, sleeps()?);
    assert_eq!(queue.poll(LONG, &mut |_| ())?, 0);
    assert!(start.elapsed() >= LONG);
    Ok((cpu()? - before, sleeps()? - slept))
}

#[test]
fn each_way_of_waiting_receives_ends_in_time_and_is_woken() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdppolling", 1)?;
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for polling in [Polling::Sleep, Polling::Busy, Polling::Spin] {
        let options = XdpOptions { polling, ..XdpOptions::default() };
        let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
        let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
        for _ in 0..200 {
            assert_eq!(round_trip(queue, peer, &frame, WAIT)?, Some(reflected(&frame)));
        }
        let (used, slept) = idle(queue)?;
        println!("{polling}: {used:?} of {LONG:?} on a core, slept {slept} times");
        // veth tells the kernel of no NAPI instance, so there is none to drive.
        let granted = director.interface.granted();
        assert_eq!(granted.busy_polling, [false]);
        let said = granted.fallbacks.iter().any(|text| text.contains("busy polling"));
        assert_eq!(said, polling == Polling::Busy, "{:?}", granted.fallbacks);
        match polling {
            Polling::Spin => assert!(slept < 20, "it is not to give up the core"),
            _ => assert!(used < Duration::from_millis(5), "{used:?}"),
        }

        let (waker, start) = (queue.waker(), Instant::now());
        let waking = std::thread::spawn(move || {
            std::thread::sleep(SILENCE);
            waker.wake();
        });
        assert_eq!(queue.poll(WAIT, &mut |_| ())?, 0);
        assert!(start.elapsed() < WAIT / 2, "{polling}: not woken");
        waking.join().unwrap();

        // What the device does not take yet goes out while it waits.
        wire.director.run("ip", &["link", "set", DIRECTOR, "down"])?;
        assert!(queue.send(Port::INGRESS, &udp(CLIENT_MAC, &[], VIP4))?);
        wire.director.run("ip", &["link", "set", DIRECTOR, "up"])?;
        queue.poll(SILENCE, &mut |_| ())?;
        assert_eq!(peer.poll(WAIT, &mut |_| ())?, 1, "{polling}");
    }
    Ok(())
}

#[test]
fn a_spinning_queue_whose_interface_goes_away_says_so() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpspingone", 1)?;
    let options = XdpOptions { polling: Polling::Spin, ..XdpOptions::default() };
    let mut queues = wire.open_director(&options)?.take_queues();
    wire.director.run("ip", &["link", "del", DIRECTOR])?;
    let start = Instant::now();
    let error = loop {
        match queues[0].poll(SILENCE, &mut |_| ()) {
            Ok(_) => assert!(start.elapsed() < WAIT, "nothing is said"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(DIRECTOR), "{error}");
    Ok(())
}

/// The cores that the thread of this name may run on.
fn cores_of(thread: &str) -> Result<String, Box<dyn Error>> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.trim() == thread {
            let status = fs::read_to_string(task.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            return Ok(line.ok_or("no such line")?.trim().to_owned());
        }
    }
    Err(format!("no thread {thread}").into())
}

#[test]
fn each_worker_has_the_core_it_was_given() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpcores", 2)?;
    let own = std::thread::available_parallelism()?.get();
    let start = |cores: Cores| {
        let options = XdpOptions { cores, ..XdpOptions::default() };
        wire.director.enter(|| {
            let service = VirtualService::new("10.88.0.100".parse().unwrap());
            Director::builder(DIRECTOR).service(service).xdp(options).start()
        })
    };
    let workers = ["dsrlb-queue-0", "dsrlb-queue-1"];
    if own < 2 {
        let error = start(Cores::Each).unwrap_err().to_string();
        assert!(error.contains("1 cores are given"), "{error}");
        println!("not tested further: one core");
        return Ok(());
    }
    let free = start(Cores::Any)?;
    assert_eq!(free.granted().cores, [None, None]);
    drop(free);

    let director = start(Cores::Each)?;
    let cores = director.granted().cores;
    for (worker, core) in workers.iter().zip(&cores) {
        let pinned = || cores_of(worker).ok() == core.map(|core| core.to_string());
        assert!(eventually(pinned), "{worker}: {:?}, not {core:?}", cores_of(worker));
    }
    drop(director);

    // In another order.
    let swapped: Vec<u32> = cores.iter().rev().copied().flatten().collect();
    let director = start(Cores::List(swapped.clone()))?;
    for (worker, core) in workers.iter().zip(swapped) {
        let pinned = || cores_of(worker).is_ok_and(|cores| cores == core.to_string());
        assert!(eventually(pinned), "{worker}: {:?}, not {core}", cores_of(worker));
    }
    assert_eq!(director.failure(), None);
    drop(director);

    for (cores, says) in [
        (vec![0], "2 queues to be served, and 1 cores are given"),
        (vec![0, 0], "core 0: it is named twice"),
        (vec![0, 1023], "core 1023: there is no such core"),
        (vec![0, 70_000], "core 70000: there is no such core"),
    ] {
        let error = start(Cores::List(cores)).unwrap_err().to_string();
        println!("{error}");
        assert!(error.contains(says), "{error}");
    }
    assert!(pin_thread(1023).is_err());
    Ok(())
}

#[test]
fn jumbo_frames_are_refused_with_the_largest_mtu_that_works() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpjumbo", 1)?;
    let set = |mtu: u32| {
        let mtu = mtu.to_string();
        wire.director.run("ip", &["link", "set", DIRECTOR, "mtu", &mtu])?;
        wire.client.run("ip", &["link", "set", CLIENT, "mtu", &mtu])
    };
    set(9000)?;
    let error = wire.open_director(&XdpOptions::default()).unwrap_err();
    println!("{error}");
    let XdpError::JumboFrames { mtu: 9000, largest, frame_size, .. } = error else {
        panic!("{error:?}");
    };
    // What it advises works, to the last byte.
    set(largest)?;
    let options = XdpOptions { frame_size, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
    let (ethertype, ip) = packet(VIP4, 17, &vec![7; largest as usize - 20]);
    // veth itself has room for one tag, not two.
    let frame = ethernet(DIRECTOR_MAC, &[(0x8100, 5)], ethertype, &ip);
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    assert!(
        round_trip(queue, peer, &frame, WAIT)? == Some(reflected(&frame)),
        "{:?}",
        queue.stats()
    );
    drop((director, client));
    set(largest + 1)?;
    let error = wire.open_director(&options).unwrap_err();
    assert!(matches!(error, XdpError::JumboFrames { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_packet_longer_than_a_frame_is_counted() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdplong", 1)?;
    let (mut director, client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    drop(client);
    // An MTU that grows after the start is nothing the director is asked about.
    for (namespace, name) in [(&wire.director, DIRECTOR), (&wire.client, CLIENT)] {
        namespace.run("ip", &["link", "set", name, "mtu", "3000"])?;
    }
    let options = XdpOptions { frame_size: 4096, ..XdpOptions::default() };
    let mut client = wire.client.enter(|| XdpInterface::open(CLIENT, &options))?;
    let peer = &mut client.take_queues()[0];
    for length in [1770, 1794, 2900, 1770] {
        let (ethertype, ip) = packet(VIP4, 17, &vec![7; length - 20]);
        assert!(peer.send(Port::INGRESS, &ethernet(DIRECTOR_MAC, &[], ethertype, &ip))?);
    }
    let (queue, mut received) = (&mut director.queues[0], 0);
    while received < 2 {
        let count = queue.poll(WAIT, &mut |_| ())?;
        assert!(count > 0, "{:?}", queue.stats());
        received += count;
    }
    assert_eq!(queue.poll(SILENCE, &mut |_| ())?, 0);
    assert_eq!(queue.stats().receive_dropped, 2, "{:?}", queue.stats());
    Ok(())
}

#[test]
fn the_transmit_budget_is_what_the_kernel_grants() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpbudget", 1)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let offered = (numbers.next(), numbers.next()) >= (Some(6), Some(18));
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for budget in [32, 64, 4096] {
        let options = XdpOptions { transmit_budget: budget, ..XdpOptions::default() };
        let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
        let granted = director.interface.granted().transmit_budget;
        assert_eq!(granted, if offered { budget } else { 32 }, "{release}");
        for _ in 0..MAX_BATCH {
            assert!(client.queues[0].send(Port::INGRESS, &frame)?);
        }
        std::thread::sleep(SILENCE);
        let queue = &mut director.queues[0];
        let count = queue.poll(WAIT, &mut |frames| frames.iter_mut().for_each(reflect))?;
        assert_eq!(count, MAX_BATCH);
        let mut back = 0;
        while back < MAX_BATCH {
            match client.queues[0].poll(WAIT, &mut |_| ())? {
                0 => break,
                more => back += more,
            }
        }
        assert_eq!(back, MAX_BATCH, "budget {budget}");
    }
    Ok(())
}

#[test]
fn what_the_device_lost_is_told_beside_what_the_ring_lost() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpdevice", 1)?;
    let options = XdpOptions { frames_per_queue: 64, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    let before = director.interface.device_stats()?;
    for _ in 0..500 {
        assert!(peer.send(Port::INGRESS, &frame)?);
    }
    let redirected = || director.interface.stats().map_or(0, |stats| stats.redirected);
    assert!(eventually(|| redirected() == 500), "{}", redirected());
    while queue.poll(SILENCE, &mut |frames| {
        frames.iter_mut().for_each(|frame| frame.set_action(Action::Release))
    })? > 0
    {}
    let stats = queue.stats();
    let lost = stats.receive_ring_full + stats.receive_no_frame + stats.receive_dropped;
    assert!(lost > 0 && stats.received + lost == 500, "{stats:?}");
    let after = director.interface.device_stats()?;
    println!("{stats:?}\n{after:?}");
    assert_eq!(after.len(), 1, "one interface");
    assert!(after[0].received - before[0].received >= 500, "{after:?}");
    assert_eq!(after[0].receive_dropped - before[0].receive_dropped, lost, "{after:?}");

    // No carrier: the device drops what is sent.
    wire.client.run("ip", &["link", "set", CLIENT, "down"])?;
    let before = director.interface.device_stats()?[0];
    for _ in 0..10 {
        assert!(queue.send(Port::INGRESS, &frame)?);
    }
    let after = director.interface.device_stats()?[0];
    println!("{before:?}\n{after:?}");
    assert_eq!(queue.stats().transmit_failed, 10);
    wire.director.run("ip", &["link", "del", DIRECTOR])?;
    let error = director.interface.device_stats().unwrap_err();
    assert!(matches!(error, XdpError::Query { what: "counters", .. }), "{error}");
    Ok(())
}
