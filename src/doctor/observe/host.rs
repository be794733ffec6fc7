//! The kernel, and what it lets this process do.

use super::unseen;
use crate::dataplane::af_xdp::huge_page_size;
use crate::doctor::observed::{Host, Sockets, Unseen};
use socket2::{Domain, Socket, Type};
use std::fs;

pub(super) fn look(not_seen: &mut Vec<Unseen>) -> Host {
    let meminfo = read("/proc/meminfo");
    let free = meminfo.as_deref().and_then(|text| field(text, "HugePages_Free:")?.parse().ok());
    let host = Host {
        kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        sockets: sockets(),
        capabilities: read("/proc/thread-self/status")
            .and_then(|text| u64::from_str_radix(&field(&text, "CapEff:")?, 16).ok()),
        memlock: read("/proc/self/limits").and_then(|text| memlock(&text)),
        jit: read("/proc/sys/net/core/bpf_jit_enable").and_then(|text| text.trim().parse().ok()),
        huge_pages: huge_page_size().zip(free),
    };
    not_seen.extend(missing(&host));
    host
}

/// What could not be read, each with a command that shows it elsewhere. Not the setting of the JIT: network namespaces
/// other than the host's have none.
fn missing(host: &Host) -> impl Iterator<Item = Unseen> + use<> {
    let proc = "/proc does not tell";
    [
        (host.kernel.is_some(), "the kernel's version", proc, "uname -r"),
        (host.sockets.is_some(), "whether there are AF_XDP sockets", "none can be made", ""),
        (host.capabilities.is_some(), "the capabilities of this process", proc, "capsh --print"),
        (host.memlock.is_some(), "the limit of locked memory", proc, "ulimit -l"),
        (host.huge_pages.is_some(), "huge pages", proc, "grep Huge /proc/meminfo"),
    ]
    .into_iter()
    .filter(|(is_seen, ..)| !is_seen)
    .map(|(_, what, why, remedy)| unseen(what, why, remedy))
}

fn sockets() -> Option<Sockets> {
    match Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None) {
        Ok(_) => Some(Sockets::There),
        Err(error) => match error.raw_os_error()? {
            libc::EAFNOSUPPORT => Some(Sockets::NotBuilt),
            libc::EPERM | libc::EACCES => Some(Sockets::NotPermitted),
            _ => None,
        },
    }
}

pub(super) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first word after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// The soft limit: the first number behind the name, or the word for none.
fn memlock(limits: &str) -> Option<u64> {
    match field(limits, "Max locked memory")?.as_str() {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let line = "Max locked memory         8388608              8388608              bytes\n";
        assert_eq!(memlock(line), Some(8_388_608));
        assert_eq!(memlock(&line.replacen("8388608", "unlimited", 1)), Some(u64::MAX));
        assert_eq!(memlock("Max stack size  1  1 bytes"), None);
    }

    #[test]
    fn this_host_can_be_read() {
        let host = look(&mut Vec::new());
        assert!(host.kernel.is_some() && host.memlock.is_some() && host.capabilities.is_some());
    }

    #[test]
    fn what_is_not_told_is_said_to_be_unseen() {
        assert_eq!(missing(&Host::default()).count(), 5);
        assert_eq!(missing(&look(&mut Vec::new())).count(), 0);
    }
}
