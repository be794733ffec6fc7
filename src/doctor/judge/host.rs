//! The kernel, and what it lets this process do.

use super::Notes;
use crate::doctor::catalogue::{AF_XDP, CAPABILITIES, HUGE_PAGES, JIT, KERNEL, MEMLOCK};
use crate::doctor::observed::{Observed, Sockets};
use crate::doctor::{Checkup, Severity};

const KERNEL_SUBJECT: &str = "kernel";
const PROCESS: &str = "this process";

/// What is needed: BPF links for XDP programs came with 5.9, memory shared with egress interfaces with 5.10.
const OLDEST: (u32, u32) = (5, 9);
const OLDEST_FOR_EGRESS: (u32, u32) = (5, 10);

/// By their numbers in linux/capability.h.
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const NET_RAW: (u32, &str) = (13, "CAP_NET_RAW");
const IPC_LOCK: u32 = 14;
const SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");

pub(super) fn judge(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    let host = &seen.host;
    if let Some(release) = &host.kernel {
        kernel(checkup, release, notes);
    }
    match host.sockets {
        Some(Sockets::There) => notes.ok(AF_XDP, KERNEL_SUBJECT, "has AF_XDP sockets"),
        Some(Sockets::NotBuilt) => {
            let evidence = "has no AF_XDP sockets: it was built without CONFIG_XDP_SOCKETS";
            notes.error(AF_XDP, KERNEL_SUBJECT, evidence, "");
        }
        Some(Sockets::NotPermitted) => {
            let evidence = "does not let this process have AF_XDP sockets (CAP_NET_RAW)";
            notes.warn(AF_XDP, KERNEL_SUBJECT, evidence, "run as root");
        }
        None => {}
    }
    let may = |capability: u32| host.capabilities.is_none_or(|all| all >> capability & 1 == 1);
    // Those of another user namespace than the first one count for what belongs to its network namespaces alone.
    let is_contained = host.is_contained == Some(true);
    let may = |capability| may(capability) && (!is_contained || capability == NET_RAW.0);
    let needed = needed(checkup, &may);
    let missing: Vec<&str> =
        needed.iter().filter(|(number, _)| !may(*number)).map(|(_, name)| *name).collect();
    if host.capabilities.is_some() {
        capabilities(&needed, &missing, is_contained, notes);
    }
    match host.memlock {
        Some(_) if may(IPC_LOCK) => {
            notes.ok(MEMLOCK, PROCESS, "may lock any amount of memory (CAP_IPC_LOCK)");
        }
        Some(limit) => memlock(checkup, seen, limit, missing.is_empty(), notes),
        None => {}
    }
    match host.jit {
        Some(0) => {
            let remedy = "sysctl -w net.core.bpf_jit_enable=1";
            notes.warn(JIT, KERNEL_SUBJECT, "interprets BPF programs for each packet", remedy);
        }
        Some(_) => notes.ok(JIT, KERNEL_SUBJECT, "compiles BPF programs"),
        // It nearly always does, so this is no warning.
        None => {
            let evidence =
                "only the host's own network namespace tells whether BPF programs are compiled";
            let remedy = "there: sysctl net.core.bpf_jit_enable";
            notes.say(JIT, Severity::Info, KERNEL_SUBJECT, evidence, remedy);
        }
    }
    huge_pages(checkup, seen, notes);
}

fn kernel(checkup: &Checkup, release: &str, notes: &mut Notes) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok());
    let Some(version) = number().zip(number()) else {
        return;
    };
    let needed = if checkup.xdp.egress.is_empty() { OLDEST } else { OLDEST_FOR_EGRESS };
    if version < needed {
        let evidence = format!("Linux {release}; {}.{} or later is needed", needed.0, needed.1);
        notes.error(KERNEL, KERNEL_SUBJECT, evidence, "");
    } else {
        notes.ok(KERNEL, KERNEL_SUBJECT, format!("Linux {release}"));
    }
}

/// The capabilities without which no director starts.
fn needed(checkup: &Checkup, may: &impl Fn(u32) -> bool) -> Vec<(u32, &'static str)> {
    let mut needed = vec![BPF, NET_ADMIN, NET_RAW];
    if may(SYS_ADMIN.0) {
        // It includes CAP_BPF (capabilities(7)).
        needed.retain(|capability| *capability != BPF);
    }
    if checkup.config.probes_through_vips() {
        needed.push(SYS_ADMIN);
    }
    needed
}

fn capabilities(needed: &[(u32, &str)], missing: &[&str], is_contained: bool, notes: &mut Notes) {
    if missing.is_empty() {
        notes.ok(CAPABILITIES, PROCESS, "may do all that a director has to");
        return;
    }
    // Of this process, and the director may be another.
    let missing = missing.join(", ");
    if is_contained {
        let evidence = format!(
            "is in a user namespace (a rootless container), whose {missing} do not count; without them no \
             director starts"
        );
        return notes.warn(CAPABILITIES, PROCESS, evidence, "run as root outside of it");
    }
    let evidence = format!("lacks {missing}, without which no director starts");
    let names: Vec<String> = needed.iter().map(|(_, name)| name.to_lowercase()).collect();
    let remedy = format!(
        "run as root, in a container in a privileged one, or: setcap {}+ep PROGRAM",
        names.join(",")
    );
    notes.warn(CAPABILITIES, PROCESS, evidence, remedy);
}

/// Bytes for the frames of all queues that are to have a socket.
fn memory(checkup: &Checkup, seen: &Observed) -> u64 {
    let link = seen.links.first().and_then(|link| link.there.as_ref());
    let receive = link.and_then(|there| there.queues).map_or(1, |queues| queues.receive);
    let queues = checkup.xdp.queues.unwrap_or(receive);
    checkup.xdp.memory().saturating_mul(queues.into())
}

/// An error only if a director could be started as this process is: one that is started has a limit of its own.
fn memlock(checkup: &Checkup, seen: &Observed, limit: u64, is_able: bool, notes: &mut Notes) {
    let needed = memory(checkup, seen);
    if needed <= limit {
        let evidence = format!("may lock {limit} bytes, frames take {needed}");
        return notes.ok(MEMLOCK, PROCESS, evidence);
    }
    let severity = if is_able { Severity::Error } else { Severity::Warning };
    let evidence = format!(
        "may lock {limit} bytes, and the frames of a director take {needed}; in the shell or unit \
         (LimitMEMLOCK=) that starts it:"
    );
    let remedy = format!("ulimit -l {}", needed.div_ceil(1024));
    notes.say(MEMLOCK, severity, PROCESS, evidence, remedy);
}

fn huge_pages(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    if !checkup.xdp.huge_pages {
        return;
    }
    let needed = memory(checkup, seen);
    match seen.host.huge_pages {
        Some((size, free)) => {
            let pages = needed.div_ceil(size.max(1));
            let evidence =
                format!("{free} huge pages of {size} bytes can be had, {pages} are needed");
            if free >= pages {
                notes.ok(HUGE_PAGES, KERNEL_SUBJECT, evidence);
            } else {
                let remedy = format!(
                    "echo $(($(cat /proc/sys/vm/nr_hugepages) + {})) > /proc/sys/vm/nr_hugepages",
                    pages - free
                );
                notes.error(HUGE_PAGES, KERNEL_SUBJECT, evidence, remedy);
            }
        }
        None => {
            let evidence = "has no huge pages; set huge_pages to false";
            notes.error(HUGE_PAGES, KERNEL_SUBJECT, evidence, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trying::{complaints, link, seen};
    use super::*;
    use crate::dataplane::af_xdp::XdpOptions;
    use crate::doctor::observed::Host;

    const ALL: u64 = u64::MAX;

    fn with(host: Host) -> Observed {
        Observed { host, ..seen(link()) }
    }

    #[test]
    fn old_kernels_are_named_and_egress_needs_a_newer_one() {
        let of = |release: &str, egress: &[&str]| {
            let egress = egress.iter().map(|name| (*name).to_owned()).collect();
            let checkup = Checkup::new("eth0").xdp(XdpOptions { egress, ..XdpOptions::default() });
            let host = Host { kernel: Some(release.to_owned()), ..Host::default() };
            complaints(KERNEL, &checkup, &with(host)).len()
        };
        assert_eq!(of("5.8.0-1-amd64", &[]), 1);
        assert_eq!(of("4.19", &[]), 1);
        assert_eq!(of("5.9.1", &[]), 0);
        assert_eq!(of("5.9.1", &["eth1"]), 1);
        assert_eq!(of("6.12.0-rc1", &["eth1"]), 0);
        assert_eq!(of("unreadable", &[]), 0);
    }

    #[test]
    fn sockets_and_the_compiler_of_the_kernel() {
        let checkup = Checkup::new("eth0");
        for (sockets, expected) in [
            (Sockets::There, &[][..]),
            (Sockets::NotBuilt, &[Severity::Error]),
            (Sockets::NotPermitted, &[Severity::Warning]),
        ] {
            let host = Host { sockets: Some(sockets), ..Host::default() };
            let found = complaints(AF_XDP, &checkup, &with(host));
            let severities: Vec<_> = found.into_iter().map(|(severity, _)| severity).collect();
            assert_eq!(severities, expected);
        }
        for (jit, expected) in [(0, 1), (1, 0)] {
            let host = Host { jit: Some(jit), ..Host::default() };
            assert_eq!(complaints(JIT, &checkup, &with(host)).len(), expected);
        }
    }

    #[test]
    fn a_lack_of_rights_is_of_this_process_and_no_error() {
        let of = |capabilities| {
            let host = Host { capabilities: Some(capabilities), ..Host::default() };
            complaints(CAPABILITIES, &Checkup::new("eth0"), &with(host))
        };
        assert_eq!(of(ALL), []);
        let needed = [BPF, NET_ADMIN, NET_RAW].map(|(number, _)| 1 << number);
        assert_eq!(of(needed.iter().sum()), []);
        assert_eq!(of((1 << SYS_ADMIN.0) + needed[1] + needed[2]), []);
        let [(severity, remedy)] = &of(needed[0] + needed[1])[..] else { panic!() };
        assert_eq!(*severity, Severity::Warning);
        assert!(remedy.contains("setcap cap_bpf,cap_net_admin,cap_net_raw+ep"), "{remedy}");
    }

    #[test]
    fn capabilities_of_another_user_namespace_do_not_count() {
        for (is_contained, expected) in [(None, 0), (Some(false), 0), (Some(true), 1)] {
            let capabilities = Some(ALL);
            // More than may be locked, which is the least of the troubles there.
            let host = Host { capabilities, is_contained, memlock: Some(1), ..Host::default() };
            let seen = with(host);
            let of = |id| complaints(id, &Checkup::new("eth0"), &seen);
            assert_eq!(of(CAPABILITIES).len(), expected);
            let memlock: Vec<_> = of(MEMLOCK).into_iter().map(|(severity, _)| severity).collect();
            assert_eq!(memlock, vec![Severity::Warning; expected]);
        }
    }

    #[test]
    fn locked_memory_counts_only_without_the_right_to_any() {
        let of = |capabilities, memlock| {
            let (capabilities, memlock) = (Some(capabilities), Some(memlock));
            let host = Host { capabilities, memlock, ..Host::default() };
            complaints(MEMLOCK, &Checkup::new("eth0"), &with(host))
        };
        let needed = XdpOptions::default().memory();
        assert_eq!(of(ALL, 1), []);
        assert_eq!(of(ALL & !(1 << IPC_LOCK), needed), []);
        let expected = (Severity::Error, format!("ulimit -l {}", needed / 1024));
        assert_eq!(of(ALL & !(1 << IPC_LOCK), needed - 1), [expected]);
        for lacking in [0, !(1 << IPC_LOCK) & !(1 << NET_ADMIN.0)] {
            assert_eq!(of(lacking, needed - 1)[0].0, Severity::Warning);
        }
    }

    #[test]
    fn huge_pages_are_counted_if_they_are_wanted() {
        let of = |huge_pages, pages| {
            let checkup =
                Checkup::new("eth0").xdp(XdpOptions { huge_pages, ..XdpOptions::default() });
            let host = Host { huge_pages: pages, ..Host::default() };
            complaints(HUGE_PAGES, &checkup, &with(host)).len()
        };
        assert_eq!([of(false, None), of(true, None)], [0, 1]);
        assert_eq!([of(true, Some((2 << 20, 3))), of(true, Some((2 << 20, 4)))], [1, 0]);
    }
}
