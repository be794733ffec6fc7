//! The system packages that the AF_XDP feature, the demonstration and the tests need: the one list of them.

use crate::process;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

/// What cannot be done without a package.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Need {
    /// The library cannot be built, or the demonstration not run.
    Demo,
    /// Tests fail.
    Tests,
    /// Some tests say that they are skipped. Not every distribution has it.
    SomeTests,
}
use Need::{Demo, SomeTests, Tests};

/// Something the system has to have.
pub(crate) struct Package {
    pub(crate) need: Need,
    pub(crate) sign: Sign,
    /// What it is called by each of [`crate::install::MANAGERS`], in their order.
    pub(crate) names: [&'static str; 3],
    pub(crate) why: &'static str,
}

/// How to tell that it is there.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sign {
    Program(&'static str),
    /// A program that succeeds with this argument.
    Works(&'static str, &'static str),
    File(&'static str),
    /// A library, by the name pkg-config knows it by.
    Library(&'static str),
}
use Sign::{File, Library, Program, Works};

const fn package(need: Need, sign: Sign, names: [&'static str; 3], why: &'static str) -> Package {
    Package { need, sign, names, why }
}

const PACKAGES: &[Package] = &[
    package(
        Demo,
        Program("cc"),
        ["build-essential", "gcc", "gcc"],
        "compiles libbpf and libxdp, links every Rust program",
    ),
    package(Demo, Program("make"), ["build-essential", "make", "make"], "runs libbpf's build"),
    package(
        Demo,
        Program("pkg-config"),
        ["pkg-config", "pkgconf-pkg-config", "pkgconf"],
        "finds libelf for libbpf's build",
    ),
    package(
        Demo,
        Library("libelf"),
        ["libelf-dev", "elfutils-libelf-devel", "libelf"],
        "libbpf reads BPF objects with it",
    ),
    package(
        Demo,
        Library("zlib"),
        ["zlib1g-dev", "zlib-devel", "zlib"],
        "libelf unpacks sections with it",
    ),
    package(
        Demo,
        Program("m4"),
        ["m4", "m4", "m4"],
        "writes libxdp's dispatcher program from its template",
    ),
    package(
        Demo,
        Program("clang"),
        ["clang", "clang", "clang"],
        "compiles XDP programs; its libclang reads headers for bindgen",
    ),
    package(
        Tests,
        Program("valgrind"),
        ["valgrind", "valgrind", "valgrind"],
        "counts the instructions that a packet takes",
    ),
    package(
        Demo,
        Program("ip"),
        ["iproute2", "iproute", "iproute2"],
        "makes the namespaces and interfaces of demo and tests",
    ),
    package(
        Demo,
        Program("ethtool"),
        ["ethtool", "ethtool", "ethtool"],
        "turns off checksum offload on their interfaces",
    ),
    package(
        Tests,
        Program("python3"),
        ["python3", "python3", "python"],
        "keeps the kernel from telling the doctor some things, checks test vectors",
    ),
    package(
        SomeTests,
        // Ubuntu has a wrapper of that name, which looks for one of the very kernel that runs.
        Works("bpftool", "version"),
        ["bpftool", "bpftool", "bpf"],
        "takes off an XDP program that no process holds, as the doctor says",
    ),
    package(
        Demo,
        Program("ping"),
        ["iputils-ping", "iputils", "iputils"],
        "sends the first packets through them",
    ),
    package(
        Tests,
        Program("nft"),
        ["nftables", "nftables", "nftables"],
        "stands for the map from DSCP values to VIPs on the backends of tests",
    ),
    package(
        Tests,
        Program("curl"),
        ["curl", "curl", "curl"],
        "gives the commands of docs/metrics.md to the appliance",
    ),
    package(
        Tests,
        Program("tmux"),
        ["tmux", "tmux", "tmux"],
        "is the terminal that the example `top` is tested in",
    ),
    package(
        Tests,
        Program("sysctl"),
        ["procps", "procps-ng", "procps-ng"],
        "is typed as the guides and the doctor say",
    ),
    package(
        SomeTests,
        Program("networkctl"),
        ["systemd", "systemd-networkd", "systemd"],
        "is booted in namespaces, for the guides that tell it of VIPs",
    ),
    package(
        SomeTests,
        File("/usr/lib/systemd/system/dbus.service"),
        ["dbus", "dbus-daemon", "dbus"],
        "carries what networkctl tells systemd-networkd there",
    ),
    package(
        SomeTests,
        Program("netplan"),
        ["netplan.io", "netplan", "netplan"],
        "is told of VIPs there, too",
    ),
    package(
        SomeTests,
        Program("udevadm"),
        ["udev", "systemd-udev", "systemd"],
        "is called by netplan",
    ),
    package(
        Tests,
        Program("tshark"),
        ["tshark", "wireshark-cli", "wireshark-cli"],
        "reads the captures that tests write",
    ),
];

/// What is not there of that which there is one of these needs of.
pub(crate) fn missing(
    needs: RangeInclusive<Need>,
    present: impl Fn(Sign) -> bool,
) -> Vec<&'static Package> {
    let wanted = PACKAGES.iter().filter(|package| needs.contains(&package.need));
    wanted.filter(|package| !present(package.sign)).collect()
}

/// For tests, which package they have to do without: the value of a variable that says they are run by us, and so are
/// not to be skipped for want of any other program (`tests/support/skip.rs`).
pub(crate) fn may_lack() -> (&'static str, String) {
    (MAY_LACK, list(&missing(Demo..=SomeTests, Sign::present)))
}

const MAY_LACK: &str = "DSRLB_MAY_LACK";

/// What Debian calls them, as that is what tests call them.
fn list(packages: &[&Package]) -> String {
    packages.iter().map(|package| package.names[0]).collect::<Vec<_>>().join(" ")
}

impl Sign {
    pub(crate) fn present(self) -> bool {
        match self {
            Program(name) => process::on_path(name),
            Works(name, argument) => process::succeeds(Command::new(name).arg(argument)),
            File(path) => Path::new(path).exists(),
            Library(name) => process::succeeds(Command::new("pkg-config").args(["--exists", name])),
        }
    }
}

impl Package {
    /// What to say when it is still missing after it was installed.
    pub(crate) fn unfound(&self) -> String {
        match self.sign {
            Program(name) => format!("there is no `{name}` on PATH: see where it went"),
            Works(name, argument) => format!("`{name} {argument}` fails: see what it says"),
            File(path) => format!("there is no {path}: see where it went"),
            Library(name) => {
                format!("`pkg-config --exists {name}` fails: see whether PKG_CONFIG_PATH hides it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_may_lack_what_is_not_there_and_nothing_else() {
        let absent = |sign| missing(Demo..=SomeTests, |other| other != sign);
        assert_eq!(list(&absent(Works("bpftool", "version"))), "bpftool");
        assert_eq!(list(&absent(Program("netplan"))), "netplan.io");
        assert_eq!(list(&[]), "");
        // What every distribution has stops the run before any test, so it is not among what they are told.
        for program in ["python3", "tshark", "ip"] {
            let of = absent(Program(program));
            assert!(
                of.iter().all(|package| package.need < SomeTests) && of.len() == 1,
                "{program}"
            );
        }
    }

    #[test]
    fn a_program_that_is_there_and_does_not_work_is_missing() {
        assert!(Works("true", "x").present());
        assert!(!Works("false", "x").present() && Program("false").present());
        assert!(!Works("no-such-program-anywhere", "x").present());
    }
}
