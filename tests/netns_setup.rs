//! The guides for Linux backends, run as they are printed: a host that is none becomes one and serves through a real
//! director, its check finds each fault, and undoing leaves nothing behind.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/guides.rs"]
mod support;

use dsrlb::config::file::ConfigFile;
use dsrlb::setup_guide::{Guide, System};
use lab::{Host, Lab, LabOptions};
use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{
    config, failures, guides, hold_more_vips, more_vips, plain, serves, state, succeeds,
};

/// Guides keep what was before in /run, which all hosts of the laboratory share.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each fault is found by one line, which says what to do; that done, it is gone.
fn faults_are_found(host: &Host, guide: &Guide, faults: &[(&str, &str, &str)]) {
    for (fault, line, mend) in faults {
        succeeds(host, fault);
        let failed = failures(host, guide);
        assert!(failed.len() == 1 && failed[0].contains(line), "{fault}: {failed:?}");
        let remedy = failed[0].rsplit_once(": ").unwrap().1;
        // Where the remedy is a command, as it is.
        succeeds(host, if mend.is_empty() { remedy } else { mend });
        assert_eq!(failures(host, guide), [""; 0], "after {fault}, mended");
    }
}

#[test]
fn mac_rewrite_with_two_vips_of_each_family() {
    let _alone = alone();
    let options = LabOptions { backends: 1, ..LabOptions::named("setupl2") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let backend = &lab.backends[0];
    plain(backend);
    hold_more_vips(&lab);
    let own = backend.v4.into();
    let config = more_vips(own);
    let guide = guides(&config, System::Linux).remove(0);
    let before = state(backend);

    let failed = failures(backend, &guide);
    let fails = |what: &str| failed.iter().any(|line| line.contains(what));
    assert!(
        fails("VIP 10.77.0.101 is this host's") && fails("VIP fd77::100 is this host's"),
        "{failed:?}"
    );
    assert!(fails("arp_ignore (eth0 has 0)") && fails("arp_announce"), "{failed:?}");

    // The second time is as the first.
    for _ in 0..2 {
        succeeds(backend, &guide.to_string());
        assert_eq!(failures(backend, &guide), [""; 0]);
    }
    serves(&lab, &config);

    faults_are_found(
        backend,
        &guide,
        &[
            ("ip address del 10.77.0.100/32 dev lo", "VIP 10.77.0.100 is this host's", ""),
            ("ip address del fd77::101/128 dev lo", "VIP fd77::101 is this host's", ""),
            ("ip route del local 203.0.113.0/24 dev lo", "VIP 203.0.113.0/24 is this host's", ""),
            (
                "ip address add 10.77.0.101/32 dev eth0",
                "VIP 10.77.0.101 is on lo alone, where no neighbour can ask for it (it is on eth0)",
                "ip address del 10.77.0.101/32 dev eth0",
            ),
            (
                "ip address change fd77::100/128 dev lo preferred_lft forever valid_lft forever",
                "VIP fd77::100 is no source",
                "",
            ),
            ("sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp_ignore (eth0 has 0)", ""),
            // Answers for what is on lo.
            (
                "sysctl -w net.ipv4.conf.eth0.arp_ignore=3",
                "arp_ignore (eth0 has 3)",
                "sysctl -w net.ipv4.conf.eth0.arp_ignore=0",
            ),
            ("sysctl -w net.ipv4.conf.all.arp_announce=1", "arp_announce (eth0 has 1)", ""),
            (
                "ip link add other type veth peer name third && ip link set other up
                 ip route add default dev other && sysctl -w net.ipv4.conf.eth0.rp_filter=1",
                "rp_filter (strict on eth0)",
                "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
            ),
            (
                "ip link del other; sysctl -w net.ipv4.conf.eth0.rp_filter=0
                 ip route del 10.77.0.0/24 dev eth0",
                "there is a way to clients of IPv4",
                &format!("ip route add 10.77.0.0/24 dev eth0 proto kernel scope link src {own}"),
            ),
        ],
    );
    serves(&lab, &config);
    succeeds(backend, &guide.undo_script().to_string());
    assert_eq!(state(backend), before);
}

/// A host with an address of each family is two backends, and can be.
#[test]
fn l3dsr_of_both_families_on_one_host() {
    let _alone = alone();
    let options = LabOptions { routed: true, backends: 1, ..LabOptions::named("setupl3dsr") };
    let Some(lab) = Lab::build_or_skip(&options) else { return };
    let backend = &lab.backends[0];
    plain(backend);
    let config = config(&[
        ("10.77.0.100", backend.v4.into(), "{ l3dsr = { dscp = 10 } }"),
        ("fd77::100", backend.v6.into(), "{ l3dsr = { dscp = 63 } }"),
    ]);
    let guides = guides(&config, System::Linux);
    let before = state(backend);
    for guide in &guides {
        let failed = failures(backend, guide);
        assert!(failed.iter().any(|line| line.contains("names the VIP")), "{failed:?}");
    }
    for guide in &guides {
        succeeds(backend, &guide.to_string());
    }
    for guide in &guides {
        assert_eq!(failures(backend, guide), [""; 0]);
    }
    serves(&lab, &config);
    let setup = guides[0].to_string();
    let faults = [(
        format!("nft delete table inet dsrlb-{}", backend.v4),
        "DSCP 10 names the VIP 10.77.0.100",
        setup.as_str(),
    )];
    let faults = faults.each_ref().map(|(fault, line, mend)| (fault.as_str(), *line, *mend));
    faults_are_found(backend, &guides[0], &faults);
    for guide in guides.iter().rev() {
        succeeds(backend, &guide.undo_script().to_string());
    }
    assert_eq!(state(backend), before);
}

/// The program prints the library's scripts, for the backend that is meant.
#[test]
fn the_example_prints_them() {
    if let Err(missing) = Lab::privileged() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}");
        return;
    }
    let file = std::env::temp_dir().join(format!("dsrlb-test-setup-{}.toml", std::process::id()));
    let text = "[[service]]\nvip = \"10.0.0.100\"\n[[service.backend]]\nid = \"web\"\naddress = \"10.0.0.11\"\n\
                [[service.backend]]\naddress = \"10.0.0.12\"\nforward = \"ipip\"\n";
    std::fs::write(&file, text).unwrap();
    let print = |arguments: &[&str]| {
        let program = process::example("backend_setup");
        let output =
            Command::new(program).arg("--config").arg(&file).args(arguments).output().unwrap();
        let [out, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        if output.status.success() { Ok(out) } else { Err(error) }
    };
    let config = ConfigFile::parse(text).unwrap().to_config().unwrap();
    let guides = guides(&config, System::Linux);
    assert_eq!(print(&["--backend", "web"]), Ok(guides[0].to_string()));
    assert_eq!(
        print(&["--backend", "10.0.0.12", "--check"]),
        Ok(guides[1].check_script().to_string())
    );
    assert_eq!(print(&["--backend", "web", "--undo"]), Ok(guides[0].undo_script().to_string()));
    let several = print(&[]).unwrap_err();
    assert!(several.contains("10.0.0.11 (web), 10.0.0.12 (10.0.0.12)"), "{several}");
    let windows = print(&["--backend", "10.0.0.12", "--system", "windows"]).unwrap_err();
    assert!(windows.contains("forward = \"l2\""), "{windows}");
    std::fs::remove_file(&file).unwrap();
}
