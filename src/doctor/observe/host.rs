//! The kernel, and what it lets this process do.

use super::unseen;
use crate::dataplane::af_xdp::huge_page_size;
use crate::doctor::observed::{Host, Sockets, Unseen};
use nix::sys::utsname::uname;
use socket2::{Domain, Socket, Type};
use std::os::unix::fs::MetadataExt;
use std::{fs, io};

/// The inode number of the first user namespace (`PROC_USER_INIT_INO`, linux/proc_ns.h).
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

pub(super) fn look(not_seen: &mut Vec<Unseen>) -> Host {
    let overcommit = read("/proc/sys/vm/nr_overcommit_hugepages");
    let overcommit = overcommit.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let free = read("/proc/meminfo").and_then(|text| huge_pages(&text, overcommit));
    let host = Host {
        kernel: uname().ok().map(|name| name.release().to_string_lossy().into_owned()),
        sockets: sockets(),
        capabilities: read("/proc/thread-self/status")
            .and_then(|text| u64::from_str_radix(&field(&text, "CapEff:")?, 16).ok()),
        is_contained: is_contained(),
        memlock: read("/proc/self/limits").and_then(|text| memlock(&text)),
        jit: read("/proc/sys/net/core/bpf_jit_enable").and_then(|text| text.trim().parse().ok()),
        huge_pages: huge_page_size().zip(free),
    };
    not_seen.extend(missing(&host));
    host
}

/// Whether this is another user namespace than the first. Kernels without them do not name any.
fn is_contained() -> Option<bool> {
    let namespace = |of: &str| fs::metadata(format!("/proc/thread-self/ns/{of}"));
    match namespace("user") {
        Ok(own) => Some(own.ino() != FIRST_USER_NAMESPACE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            namespace("net").is_ok().then_some(false)
        }
        Err(_) => None,
    }
}

/// What could not be read, each with a command that shows it elsewhere. Not the setting of the JIT: network namespaces
/// other than the host's have none.
fn missing(host: &Host) -> impl Iterator<Item = Unseen> + use<> {
    let proc = "/proc does not tell";
    [
        (host.kernel.is_some(), "the kernel's version", "uname(2) fails", ""),
        (host.sockets.is_some(), "whether there are AF_XDP sockets", "none can be made", ""),
        (host.capabilities.is_some(), "the capabilities of this process", proc, "capsh --print"),
        (host.is_contained.is_some(), "in which user namespace this is", proc, "lsns --type user"),
        (host.memlock.is_some(), "the limit of locked memory", proc, "ulimit -l"),
        (host.huge_pages.is_some(), "huge pages", proc, "grep Huge /proc/meminfo"),
    ]
    .into_iter()
    .filter(|(is_seen, ..)| !is_seen)
    .map(|(_, what, why, remedy)| unseen(what, why, remedy))
}

/// How many can be had: those that are free and not spoken for, and those that the kernel may make when they are
/// asked for.
fn huge_pages(meminfo: &str, overcommit: u64) -> Option<u64> {
    let count = |name| field(meminfo, name)?.parse::<u64>().ok();
    let free = count("HugePages_Free:")?.saturating_sub(count("HugePages_Rsvd:")?);
    Some(free.saturating_add(overcommit.saturating_sub(count("HugePages_Surp:")?)))
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

fn read(path: &str) -> Option<String> {
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
    fn huge_pages_that_can_be_had_are_counted() {
        let text = "HugePages_Total: 9\nHugePages_Free: 5\nHugePages_Rsvd: 2\nHugePages_Surp: 1\n";
        assert_eq!(huge_pages(text, 0), Some(3));
        assert_eq!(huge_pages(text, 4), Some(6));
        assert_eq!(huge_pages("MemTotal: 9 kB", 4), None);
    }

    #[test]
    fn this_host_can_be_read() {
        let host = look(&mut Vec::new());
        assert!(host.kernel.is_some() && host.memlock.is_some() && host.capabilities.is_some());
    }

    #[test]
    fn what_is_not_told_is_said_to_be_unseen() {
        assert_eq!(missing(&Host::default()).count(), 6);
        assert_eq!(missing(&look(&mut Vec::new())).count(), 0);
    }
}
