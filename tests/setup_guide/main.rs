//! Every guide's commands, as they were read and found good: `DSRLB_GOLDEN=write cargo test --test setup_guide`, and review
//! the difference. That the shell takes them, too.

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::config::Config;
use dsrlb::forwarding::TunnelSources;
use dsrlb::setup_guide::{Circumstances, Guide, Step, System};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const VIPS: [&str; 2] = ["10.0.0.100:80/tcp", "[fd00::100]:53/udp"];

/// Each mode with VIPs of both families; L3DSR takes them apart.
fn configs() -> Vec<(String, Config)> {
    let config = |vips: &[&str], own: &str, mode: &str| {
        let service = |vip: &&str| {
            let server = RealServer::new(own.parse().unwrap());
            let server = server.with_forwarding(mode.parse().unwrap());
            VirtualService::new(vip.parse().unwrap()).backend(server)
        };
        (format!("{mode} to {own}"), vips.iter().map(service).collect())
    };
    let mut all = vec![
        config(&VIPS, "10.0.0.11", "l2"),
        config(&["10.0.0.100", "203.0.113.0/24", "2001:db8::/64"], "10.0.0.11", "l2"),
        config(&VIPS[..1], "10.1.0.11", "l3dsr:5"),
        config(&VIPS[1..], "fd01::11", "l3dsr:6"),
    ];
    for (own, gue) in [("10.1.0.11", "gue:6080"), ("fd01::11", "gue1:6080")] {
        all.extend(["ipip", gue].map(|mode| config(&VIPS, own, mode)));
    }
    all
}

fn guides(system: System) -> impl Iterator<Item = (String, Result<Guide, String>)> {
    let sources = TunnelSources::default()
        .with("10.0.0.10/32".parse().unwrap())
        .with("fd00::10/128".parse().unwrap());
    let circumstances = Circumstances { tunnel_sources: sources, ..Circumstances::default() };
    configs().into_iter().map(move |(name, config)| {
        let [guide] =
            <[_; 1]>::try_from(Guide::for_config(&config, system, &circumstances)).unwrap();
        (name, guide.map_err(|error| error.to_string()))
    })
}

fn commands(steps: &[Step], marker: &str, text: &mut String) {
    for command in steps.iter().flat_map(|step| &step.commands) {
        for line in command.lines() {
            writeln!(text, "{marker} {line}").unwrap();
        }
    }
}

#[test]
fn the_commands_of_every_guide_are_those_that_were_reviewed() {
    for (name, system) in System::NAMES {
        let mut text = String::new();
        for (what, guide) in guides(system) {
            writeln!(text, "== {what}").unwrap();
            match guide {
                Err(why) => writeln!(text, "! {why}").unwrap(),
                Ok(guide) => {
                    commands(&guide.setup, "+", &mut text);
                    commands(&guide.undo, "-", &mut text);
                }
            }
        }
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/setup_guide/{name}.txt"));
        if std::env::var_os("DSRLB_GOLDEN").is_some_and(|what| what == "write") {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap();
        for (number, (is, was)) in text.lines().zip(golden.lines()).enumerate() {
            assert_eq!(is, was, "{name}.txt, line {}", number + 1);
        }
        assert_eq!(text.lines().count(), golden.lines().count(), "{name}.txt");
    }
}

#[test]
fn the_shell_takes_every_script() {
    for (_, system) in System::NAMES.into_iter().filter(|(_, system)| *system != System::Windows) {
        for guide in guides(system).filter_map(|(_, guide)| guide.ok()) {
            for script in [
                guide.to_string(),
                guide.check_script().to_string(),
                guide.undo_script().to_string(),
            ] {
                let mut shell = Command::new("sh")
                    .arg("-n")
                    .stdin(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
                let output = shell.wait_with_output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && error.is_empty(), "{error} in\n{script}");
            }
        }
    }
}
