//! The guides for systemd-networkd and netplan, run as they are printed: a systemd is booted on a host of the laboratory,
//! becomes a backend that serves through a real director, is one still after the next boot, and nothing is left after the
//! undoing.

#[path = "support/container.rs"]
mod container;
#[path = "support/guides.rs"]
mod guides;
#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/skip.rs"]
mod skip;

use container::{Container, Machine};
use dsrlb::config::Config;
use dsrlb::setup_guide::{Guide, System};
use guides::{config, failed, hold_more_vips, more_vips, plain, serves, state, succeeds};
use lab::{Host, Lab, LabOptions};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long networkd may take for what it was told; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

fn build_or_skip(options: &LabOptions) -> Option<Lab> {
    if container::can_boot(options.tag) {
        return Lab::build_or_skip(options);
    }
    assert!(std::env::var("DSRLB_LAB").as_deref() != Ok("required"), "a skipped test");
    None
}

/// What the check finds, once networkd has done what it was told.
fn failures(inside: &Container, guide: &Guide) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let failed = failed(inside.sh(&guide.check_script().to_string()), guide);
        if failed.is_empty() || begun.elapsed() > PATIENCE {
            return failed;
        }
        sleep(Duration::from_millis(100));
    }
}

fn run(inside: &Container, script: &str) {
    let (success, said) = inside.sh(script);
    assert!(success, "{said}\nof\n{script}\n{}", inside.journal());
}

/// All that a guide changes, of the network, of the files that stay, and of the container's own /run, which is not the
/// one that programs outside see.
fn all_state(
    backend: &Host,
    machine: &Machine,
    inside: &Container,
) -> (Vec<String>, Vec<PathBuf>, Vec<String>) {
    let (success, run) = inside.sh("ls /run");
    assert!(success, "{run}");
    let ours = run.lines().filter(|name| name.contains("dsrlb")).map(str::to_owned).collect();
    (state(backend), machine.files(), ours)
}

/// One host, as all its guides say, from nothing to nothing; twice, with boots in between the second time.
fn for_good(lab: &Lab, config: &Config, system: System) {
    let (backend, machine) = (&lab.backends[0], Machine::new());
    let guides = guides::guides(config, system);
    let inside = machine.boot(backend);
    let before = all_state(backend, &machine, &inside);
    let is_as_before = |inside: &Container| {
        let begun = Instant::now();
        while all_state(backend, &machine, inside) != before && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(100));
        }
        assert_eq!(all_state(backend, &machine, inside), before, "{}", inside.journal());
    };
    let undo = |inside: &Container| {
        guides.iter().rev().for_each(|guide| run(inside, &guide.undo_script().to_string()));
    };
    for guide in &guides {
        assert!(!failed(inside.sh(&guide.check_script().to_string()), guide).is_empty());
    }
    // The second time is as the first.
    for _ in 0..2 {
        guides.iter().for_each(|guide| run(&inside, &guide.to_string()));
        all_pass(&inside, &guides);
    }
    serves(lab, config);
    undo(&inside);
    is_as_before(&inside);

    // What the next boot finds is the files and nothing else.
    guides.iter().for_each(|guide| run(&inside, &guide.to_string()));
    all_pass(&inside, &guides);
    drop(inside);
    forget(backend, config);
    let inside = machine.boot(backend);
    all_pass(&inside, &guides);
    serves(lab, config);

    // What ARP was before is no longer known, so it takes another boot.
    undo(&inside);
    drop(inside);
    plain(backend);
    is_as_before(&machine.boot(backend));
}

fn all_pass(inside: &Container, guides: &[Guide]) {
    for guide in guides {
        assert_eq!(failures(inside, guide), [""; 0], "{}", inside.journal());
    }
}

/// A host without power loses what the kernel had been told.
fn forget(host: &Host, config: &Config) {
    let undo = guides::guides(config, System::Linux);
    for guide in undo.iter().rev() {
        succeeds(host, &guide.undo_script().to_string());
    }
    plain(host);
    for guide in &undo {
        assert!(!guides::failures(host, guide).is_empty());
    }
}

#[test]
fn networkd_holds_two_vips_of_each_family_and_a_prefix() {
    let options = LabOptions { backends: 1, ..LabOptions::named("networkd") };
    let Some(lab) = build_or_skip(&options) else { return };
    plain(&lab.backends[0]);
    hold_more_vips(&lab);
    let config = more_vips(lab.backends[0].v4.into());
    for_good(&lab, &config, System::Networkd);
}

/// The service with the rules of nft, of two backends that are one host.
#[test]
fn networkd_beside_l3dsr_of_both_families() {
    let options = LabOptions { routed: true, backends: 1, ..LabOptions::named("networkdl3dsr") };
    let Some(lab) = build_or_skip(&options) else { return };
    let backend = &lab.backends[0];
    plain(backend);
    let config = config(&[
        ("10.77.0.100", backend.v4.into(), "{ l3dsr = { dscp = 10 } }"),
        ("fd77::100", backend.v6.into(), "{ l3dsr = { dscp = 63 } }"),
    ]);
    for_good(&lab, &config, System::Networkd);
}

#[test]
fn netplan_holds_two_vips_of_each_family_and_a_prefix() {
    let options = LabOptions { backends: 1, ..LabOptions::named("netplan") };
    let netplan = [("/usr/sbin/netplan", "netplan.io"), ("/usr/bin/udevadm", "udev")];
    if !container::has_files(&netplan, options.tag) {
        return;
    }
    let Some(lab) = build_or_skip(&options) else { return };
    plain(&lab.backends[0]);
    hold_more_vips(&lab);
    let config = more_vips(lab.backends[0].v4.into());
    for_good(&lab, &config, System::Netplan);
}
