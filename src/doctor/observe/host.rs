//! The kernel, and what it lets this process do.

use crate::dataplane::af_xdp::huge_page_size;
use crate::doctor::observed::{Host, Sockets};
use socket2::{Domain, Socket, Type};
use std::fs;

pub(super) fn look() -> Host {
    let meminfo = read("/proc/meminfo");
    let free = meminfo.as_deref().and_then(|text| field(text, "HugePages_Free:")?.parse().ok());
    Host {
        kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        sockets: sockets(),
        capabilities: read("/proc/thread-self/status")
            .and_then(|text| u64::from_str_radix(&field(&text, "CapEff:")?, 16).ok()),
        memlock: read("/proc/self/limits").and_then(|text| memlock(&text)),
        jit: read("/proc/sys/net/core/bpf_jit_enable").and_then(|text| text.trim().parse().ok()),
        huge_pages: huge_page_size().zip(free),
    }
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
        let host = look();
        assert!(host.kernel.is_some() && host.memlock.is_some() && host.capabilities.is_some());
    }
}
