//! The deeper checks: a stock Debian kernel in a virtual machine, for what this host's kernel may not have.

use crate::{Result, install, process};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What scripts find beside them.
const EXAMPLES: [&str; 3] = ["simple_vip", "backend_setup", "doctor"];
const HELPERS: [&str; 3] = ["hosts.sh", "upload.py", "findings.py"];

/// A script that runs in the guest, and what its virtual machine has to have.
struct Check {
    name: &'static str,
    script: &'static str,
    /// Passed to the script, then to `boot.sh`.
    arguments: &'static [&'static str],
}

const CHECKS: [Check; 5] = [
    Check { name: "tunnels", script: "tunnels.sh", arguments: &["--arg", "linux"] },
    Check { name: "networkd", script: "tunnels.sh", arguments: &["--arg", "networkd"] },
    Check { name: "migrate", script: "migrate.sh", arguments: &[] },
    Check {
        name: "zero-copy",
        script: "zero-copy.sh",
        arguments: &["--arg", "virtio_net", "--wire", "virtio-zc"],
    },
    Check {
        name: "doctor",
        script: "doctor.sh",
        // With a tap at its other end a virtio-net merges, or says that it does.
        arguments: &[
            "--wire",
            "igb",
            "--wire",
            "vmxnet3",
            "--wire",
            "e1000",
            "--nic",
            "virtio",
            "tap,ifname=dsrlb0,script=no,downscript=no",
        ],
    },
];

pub(crate) fn run(only: Option<&str>) -> Result {
    let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
    if let Some(only) = only.filter(|only| !names.contains(only)) {
        return Err(format!("there is no check `{only}`, only: {}", names.join(", ")));
    }
    install::ensure_packages()?;
    let build = ["build", "--release", "--features", "file"];
    let examples = EXAMPLES.iter().flat_map(|example| ["--example", *example]);
    process::run(process::cargo(&build).args(examples))?;
    let target = process::target_dir()?;
    let scripts = process::root()?.join("xtask/vm");
    let machine = target.join("vm");
    // Anew when its recipe is another.
    let (recipe, made_by) = (scripts.join("setup.sh"), machine.join("made-by.sh"));
    let same = |a: &Path, b: &Path| matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b);
    if !machine.join("initrd.cpio").is_file() || !same(&recipe, &made_by) {
        println!(
            "fetching an emulator, a kernel and a guest from Debian: half a minute to some minutes, 0.7 GB"
        );
        process::run(Command::new("bash").arg(&recipe).arg(&machine))?;
        fs::copy(&recipe, &made_by).map_err(|error| format!("{}: {error}", made_by.display()))?;
    }
    let mut failed = Vec::new();
    for check in CHECKS.iter().filter(|check| only.is_none_or(|only| only == check.name)) {
        println!("\n{} in a virtual machine:", check.name);
        let mut command = Command::new("bash");
        command.arg(scripts.join("run-in-guest.sh")).arg(&machine).arg(scripts.join(check.script));
        for example in EXAMPLES {
            command.arg("--file").arg(target.join("release/examples").join(example));
        }
        for helper in HELPERS {
            command.arg("--file").arg(scripts.join(helper));
        }
        let container = process::root()?.join("tests/support/container.sh");
        command.arg("--file").arg(container).args(check.arguments);
        // It is killed after eight minutes, which `LAB_TIMEOUT` (seconds) changes.
        if process::run(&mut command).is_err() {
            failed.push(check.name);
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(format!("failed in the virtual machine: {}", failed.join(", "))),
    }
}
