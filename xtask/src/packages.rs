//! The system packages that the AF_XDP feature and its tests need: the one list of them.

use crate::process;
use std::process::Command;

/// Something the system has to have.
pub(crate) struct Package {
    sign: Sign,
    /// What it is called by each of [`crate::install::MANAGERS`], in their order.
    pub(crate) names: [&'static str; 3],
    pub(crate) why: &'static str,
}

/// How to tell that it is there.
#[derive(Clone, Copy)]
pub(crate) enum Sign {
    Program(&'static str),
    /// A library, by the name pkg-config knows it by.
    Library(&'static str),
}
use Sign::{Library, Program};

const fn package(sign: Sign, names: [&'static str; 3], why: &'static str) -> Package {
    Package { sign, names, why }
}

const PACKAGES: &[Package] = &[
    package(
        Program("cc"),
        ["build-essential", "gcc", "gcc"],
        "compiles libbpf and libxdp, links every Rust program",
    ),
    package(Program("make"), ["build-essential", "make", "make"], "runs libbpf's build"),
    package(
        Program("pkg-config"),
        ["pkg-config", "pkgconf-pkg-config", "pkgconf"],
        "finds libelf for libbpf's build",
    ),
    package(
        Library("libelf"),
        ["libelf-dev", "elfutils-libelf-devel", "libelf"],
        "libbpf reads BPF objects with it",
    ),
    package(
        Library("zlib"),
        ["zlib1g-dev", "zlib-devel", "zlib"],
        "libelf unpacks sections with it",
    ),
    package(
        Program("m4"),
        ["m4", "m4", "m4"],
        "writes libxdp's dispatcher program from its template",
    ),
    package(
        Program("clang"),
        ["clang", "clang", "clang"],
        "compiles XDP programs; its libclang reads headers for bindgen",
    ),
    package(
        Program("valgrind"),
        ["valgrind", "valgrind", "valgrind"],
        "counts the instructions that a packet takes",
    ),
    package(
        Program("ip"),
        ["iproute2", "iproute", "iproute2"],
        "makes the namespaces and interfaces of demo and tests",
    ),
    package(
        Program("ethtool"),
        ["ethtool", "ethtool", "ethtool"],
        "turns off checksum offload on their interfaces",
    ),
    package(
        Program("bpftool"),
        ["bpftool", "bpftool", "bpf"],
        "takes off an XDP program that no process holds, as the doctor says",
    ),
    package(
        Program("ping"),
        ["iputils-ping", "iputils", "iputils"],
        "sends the first packets through them",
    ),
    package(
        Program("nft"),
        ["nftables", "nftables", "nftables"],
        "stands for the map from DSCP values to VIPs on the backends of tests",
    ),
    package(
        Program("curl"),
        ["curl", "curl", "curl"],
        "gives the commands of docs/metrics.md to the appliance",
    ),
    package(
        Program("tmux"),
        ["tmux", "tmux", "tmux"],
        "is the terminal that the example `top` is tested in",
    ),
    package(
        Program("sysctl"),
        ["procps", "procps-ng", "procps-ng"],
        "is called by the guides that set up backends",
    ),
    package(
        Program("networkctl"),
        ["systemd", "systemd-networkd", "systemd"],
        "is booted in namespaces, for the guides that tell it of VIPs",
    ),
    package(
        Program("dbus-daemon"),
        ["dbus", "dbus-daemon", "dbus"],
        "carries what networkctl tells systemd-networkd there",
    ),
    package(Program("netplan"), ["netplan.io", "netplan", "netplan"], "is told of VIPs there, too"),
    package(Program("udevadm"), ["udev", "systemd-udev", "systemd"], "is called by netplan"),
    package(
        Program("tshark"),
        ["tshark", "wireshark-cli", "wireshark-cli"],
        "reads the captures that tests write",
    ),
];

pub(crate) fn missing(present: impl Fn(Sign) -> bool) -> Vec<&'static Package> {
    let missing = PACKAGES.iter().filter(|package| !present(package.sign));
    missing.collect()
}

impl Sign {
    pub(crate) fn present(self) -> bool {
        match self {
            Program(name) => process::on_path(name),
            Library(name) => process::succeeds(Command::new("pkg-config").args(["--exists", name])),
        }
    }
}

impl Package {
    /// What to say when it is still missing after it was installed.
    pub(crate) fn unfound(&self) -> String {
        match self.sign {
            Program(name) => format!("there is no `{name}` on PATH: see where it went"),
            Library(name) => {
                format!("`pkg-config --exists {name}` fails: see whether PKG_CONFIG_PATH hides it")
            }
        }
    }
}
