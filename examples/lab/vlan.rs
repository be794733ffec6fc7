//! 802.1Q on one cable, by two small tc programs (see `vlan.bpf.c`), since many kernels lack the 8021q module.

use super::netns::Namespace;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("vlan.bpf.c");

/// Makes a cable a trunk that carries `id`. Its ends are given as namespace and interface.
pub fn make_trunk(id: u16, ends: [(&Namespace, &str); 2]) -> io::Result<()> {
    // Named after the namespace, which is unique; `create_dir` refuses a directory that somebody else prepared.
    let directory = std::env::temp_dir().join(ends[0].0.name());
    fs::create_dir(&directory).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot make {}: {error}", directory.display()))
    })?;
    let object = directory.join("vlan.o");
    let object = object.to_string_lossy();
    let attached = compile(id, &object).and_then(|()| {
        ends.iter().try_for_each(|(namespace, interface)| attach(namespace, interface, &object))
    });
    fs::remove_dir_all(&directory)?;
    attached
}

fn attach(namespace: &Namespace, interface: &str, object: &str) -> io::Result<()> {
    namespace.run("tc", &["qdisc", "add", "dev", interface, "clsact"])?;
    for (hook, section) in [("egress", "push"), ("ingress", "pop")] {
        let program = ["bpf", "direct-action", "object-file", object, "section", section];
        namespace
            .run("tc", &[&["filter", "add", "dev", interface, hook][..], &program].concat())?;
    }
    // A tag kept beside the frame would be invisible to XDP on the other end.
    namespace.run("ethtool", &["-K", interface, "txvlan", "off", "rxvlan", "off"]).map(drop)
}

fn compile(id: u16, object: &str) -> io::Result<()> {
    let mut clang = Command::new("clang")
        .args(["-O2", "-target", "bpf", "-x", "c", "-c", "-", "-o", object])
        .arg(format!("-DVLAN_ID={id}"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let message = format!(
                "cannot start clang to compile vlan.bpf.c: {error}; install the package clang"
            );
            io::Error::new(error.kind(), message)
        })?;
    let written = clang.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(SOURCE.as_bytes()));
    let output = clang.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "clang cannot compile vlan.bpf.c: {}",
            complaint.trim()
        )));
    }
    written
}
