//! Opening, attaching, detaching, starting again, and the errors on the way.

use crate::skip;
use crate::wire::*;
use dsrlb::dataplane::PacketIo;
use dsrlb::dataplane::af_xdp::{
    AttachMode, Attached, CopyMode, XdpError, XdpInterface, XdpOptions,
};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for the copy of this program that is to be killed: the interface it is to use.
const CHILD: &str = "DSRLB_TEST_CHILD";

#[test]
fn detached_the_kernel_has_its_traffic_back() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpdetach", 1)?;
    let mut interface = wire.open_director(&XdpOptions::default())?;
    wire.client.run("ip", &["route", "add", VIP4, "via", "10.88.0.1"])?;
    interface.redirect(&kernel(&[VIP4]))?;
    assert!(wire.ping("10.88.0.100"), "open is not attached");
    for _ in 0..2 {
        wire.director.enter(|| interface.attach())?;
        wire.director.enter(|| interface.attach())?;
        assert_eq!(interface.granted().attach, Some(Attached::Native));
        assert!(!wire.ping("10.88.0.100"), "nobody answers for what is redirected");
        assert!(wire.ping("10.88.0.1"));
        interface.detach();
        interface.detach();
        assert_eq!(interface.granted().attach, None);
        assert!(wire.ping("10.88.0.100"));
    }
    wire.director.enter(|| interface.attach())?;
    drop(interface);
    assert!(wire.ping("10.88.0.100"), "dropped is detached");
    Ok(())
}

#[test]
fn twenty_times_closed_and_opened_at_once() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpagain", 2)?;
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for _ in 0..20 {
        let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
        let back = round_trip(&mut director.queues[1], &mut client.queues[1], &frame, WAIT)?;
        assert_eq!(back, Some(reflected(&frame)));
    }
    Ok(())
}

#[test]
fn a_program_started_meanwhile_does_not_keep_the_queue() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpinherit", 1)?;
    let interface = wire.open_director(&XdpOptions::default())?;
    let mut child = Command::new("sleep").arg("60").spawn()?;
    drop(interface);
    let again = wire.open_director(&XdpOptions::default());
    child.kill()?;
    child.wait()?;
    again?;
    Ok(())
}

#[test]
fn generic_mode_when_asked_for() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpgeneric", 1)?;
    let options = XdpOptions { attach: AttachMode::Generic, ..XdpOptions::default() };
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &options)?;
    assert_eq!(director.interface.granted().attach, Some(Attached::Generic));
    for tags in [&[][..], &[(0x8100, 5)], &[(0x88a8, 6), (0x8100, 5)]] {
        let frame = udp(DIRECTOR_MAC, tags, VIP4);
        let back = round_trip(&mut director.queues[0], &mut client.queues[0], &frame, WAIT)?;
        assert_eq!(back, Some(reflected(&frame)), "{tags:?}");
    }
    Ok(())
}

#[test]
fn auto_falls_back_to_generic_where_the_driver_refuses() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpfall", 1)?;
    // With a program that takes no fragments, veth refuses a peer with an MTU beyond a page.
    wire.client.run("ip", &["link", "set", CLIENT, "mtu", "9000"])?;
    let mut interface = wire.open_director(&XdpOptions::default())?;
    wire.director.enter(|| interface.attach())?;
    let granted = interface.granted();
    assert_eq!(granted.attach, Some(Attached::Generic));
    assert!(granted.fallbacks.iter().any(|text| text.contains("generic")), "{granted:?}");
    drop(interface);

    let options = XdpOptions { attach: AttachMode::Native, ..XdpOptions::default() };
    let mut interface = wire.open_director(&options)?;
    let error = wire.director.enter(|| interface.attach()).unwrap_err();
    assert!(matches!(error, XdpError::Attach { mode: "native", .. }), "{error}");
    Ok(())
}

#[test]
fn names_of_every_length() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpnames", 1)?;
    let mut current = DIRECTOR.to_owned();
    for length in [1, 14, 15] {
        let name = "x".repeat(length);
        wire.director.ip_batch(&[
            format!("link set {current} down"),
            format!("link set {current} name {name}"),
            format!("link set {name} up"),
        ])?;
        let interface =
            wire.director.enter(|| XdpInterface::open(&name, &XdpOptions::default()))?;
        assert_eq!(interface.name(), name);
        assert_eq!(interface.ports()[0].mac, DIRECTOR_MAC.into());
        assert_eq!(interface.ports()[0].mtu, 1500);
        current = name;
    }
    Ok(())
}

#[test]
fn each_obstacle_has_its_own_error() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdperrors", 1)?;
    let plain = XdpOptions::default();
    let open = |name: &str, options: &XdpOptions| {
        let error = wire.director.enter(|| XdpInterface::open(name, options)).unwrap_err();
        println!("{error}");
        error
    };
    let error = open("nosuch0", &plain);
    assert!(
        matches!(&error, XdpError::NoSuchInterface { interface } if interface == "nosuch0"),
        "{error:?}"
    );
    let error = open("a-name-longer-than-any", &plain);
    assert!(matches!(error, XdpError::NoSuchInterface { .. }), "{error:?}");
    let error = open("lo", &plain);
    assert!(matches!(error, XdpError::NotEthernet { .. }), "{error:?}");
    let error = open(DIRECTOR, &XdpOptions { queues: Some(9), ..plain.clone() });
    assert!(
        matches!(error, XdpError::TooFewQueues { requested: 9, available: 1, .. }),
        "{error:?}"
    );
    let error = open(DIRECTOR, &XdpOptions { copy: CopyMode::ZeroCopy, ..plain.clone() });
    assert!(matches!(error, XdpError::NoZeroCopy { .. }), "{error:?}");
    let error = open(DIRECTOR, &XdpOptions { frame_size: 65536, ..plain.clone() });
    assert!(matches!(error, XdpError::Memory { .. }), "{error:?}");

    let wide = Wire::build("afxdpwide", 2)?;
    wide.director.run("ethtool", &["-L", DIRECTOR, "tx", "1"])?;
    let error = wide.open_director(&plain).unwrap_err();
    println!("{error}");
    assert!(
        matches!(error, XdpError::NoTransmitQueue { receive: 2, transmit: 1, .. }),
        "{error:?}"
    );

    wire.director.run("ip", &["link", "set", DIRECTOR, "mtu", "3000"])?;
    let error = open(DIRECTOR, &plain);
    assert!(
        matches!(error, XdpError::FrameTooSmall { mtu: 3000, needed: 4096, fitting: 1770, .. }),
        "{error:?}"
    );
    let large = XdpOptions { frame_size: 4096, ..plain.clone() };
    drop(wire.open_director(&large)?);
    wire.director.run("ip", &["link", "set", DIRECTOR, "mtu", "1500", "down"])?;
    let error = open(DIRECTOR, &plain);
    assert!(matches!(error, XdpError::InterfaceDown { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_second_director_is_told_about_the_first() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdptwo", 1)?;
    let mut first = wire.open_director(&XdpOptions::default())?;
    let error = wire.open_director(&XdpOptions::default()).unwrap_err();
    assert!(matches!(error, XdpError::QueueBusy { queue: 0, .. }), "{error:?}");

    // The sockets are free, the program is still there, held by a link.
    wire.director.enter(|| first.attach())?;
    drop(first.take_queues());
    let mut second = wire.open_director(&XdpOptions::default())?;
    for _ in 0..2 {
        let error = wire.director.enter(|| second.attach()).unwrap_err();
        println!("{error}");
        assert!(
            matches!(&error, XdpError::ProgramAttached { remedy, .. } if remedy.contains("link")),
            "{error:?}"
        );
    }
    drop(first);
    wire.director.enter(|| second.attach())?;
    second.detach();

    // A program without a link, as `ip` attaches it.
    if !skip::has_ip_with_libbpf() {
        return Ok(());
    }
    let object = concat!(env!("OUT_DIR"), "/redirect.bpf.o");
    wire.director
        .run("ip", &["link", "set", DIRECTOR, "xdpgeneric", "obj", object, "sec", "xdp"])?;
    let error = wire.director.enter(|| second.attach()).unwrap_err();
    println!("{error}");
    assert!(
        matches!(&error, XdpError::ProgramAttached { remedy, .. } if remedy.contains("xdpgeneric off")),
        "{error:?}"
    );
    wire.director.run("ip", &["link", "set", DIRECTOR, "xdpgeneric", "off"])?;
    wire.director.enter(|| second.attach())?;
    Ok(())
}

/// What is killed below: a director that reflects until it dies.
fn reflect_until_killed(name: &str) -> TestResult {
    let mut interface = XdpInterface::open(name, &XdpOptions::default())?;
    interface.redirect(&kernel(&[VIP4]))?;
    let mut queues = interface.take_queues();
    interface.attach()?;
    println!("\nREADY");
    loop {
        queues[0].poll(Duration::from_millis(100), &mut |frames| {
            frames.iter_mut().for_each(reflect);
        })?;
    }
}

#[test]
fn killed_and_started_again() -> TestResult {
    if let Ok(name) = std::env::var(CHILD) {
        return reflect_until_killed(&name);
    }
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdpkill", 1)?;
    wire.client.run("ip", &["route", "add", VIP4, "via", "10.88.0.1"])?;
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for _ in 0..3 {
        let mut child = wire.director.enter(|| {
            Command::new(std::env::current_exe()?)
                .args(["--exact", "lifecycle::killed_and_started_again", "--nocapture"])
                .env(CHILD, DIRECTOR)
                .stdout(Stdio::piped())
                .spawn()
        })?;
        let output = child.stdout.take().ok_or("no output")?;
        let ready =
            BufReader::new(output).lines().map_while(Result::ok).any(|line| line == "READY");
        assert!(ready, "{:?}", child.wait());
        assert!(!wire.ping("10.88.0.100"), "redirected");
        child.kill()?;
        child.wait()?;
        assert!(wire.ping("10.88.0.100"), "the program is gone with its process");
    }
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let back = round_trip(&mut director.queues[0], &mut client.queues[0], &frame, WAIT)?;
    assert_eq!(back, Some(reflected(&frame)));
    Ok(())
}
