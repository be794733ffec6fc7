//! Whether there is memory for the flows, before any of it is taken: the kernel promises more than there is, and ends
//! whom it likes when that is written to.

mod groups;

use super::error::StartError;
use crate::balancer::FlowTable;
use groups::Room;

/// Refuses more flows than there is memory for, be it the host's or what a control group leaves of it. Where it is not
/// told how much there is, nothing is refused.
pub(super) fn check(entries: usize, workers: usize) -> Result<(), StartError> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = available(&meminfo).unwrap_or(u64::MAX);
    fits(entries, workers, host, groups::tightest())
}

fn fits(entries: usize, workers: usize, host: u64, group: Option<Room>) -> Result<(), StartError> {
    let bytes = entries.saturating_mul(FlowTable::ENTRY_BYTES).saturating_mul(workers) as u64;
    let (available, limit) = match group {
        Some(Room { left, limit }) if left < host => (left, Some(limit)),
        _ => (host, None),
    };
    match bytes <= available {
        true => Ok(()),
        false => Err(StartError::Memory { entries, workers, bytes, available, limit }),
    }
}

/// What could be used without swapping, in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_flows_than_there_is_memory_for_are_refused() {
        fits(1 << 20, 4, 64 << 20, None).unwrap();
        let error = fits(1 << 20, 4, (64 << 20) - 1, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "flows: 1048576 for each of 4 workers take 67108864 bytes, and 67108863 are available; ask for fewer, or \
             for fewer queues"
        );
        fits(usize::MAX, usize::MAX, 1 << 40, None).unwrap_err();
    }

    #[test]
    fn the_smaller_of_host_and_control_group_decides_and_is_named() {
        let room = |left| Some(Room { left, limit: "/sys/fs/cgroup/a/memory.max".into() });
        fits(1 << 20, 4, u64::MAX, room(64 << 20)).unwrap();
        let error = fits(1 << 20, 4, 1 << 30, room((64 << 20) - 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "flows: 1048576 for each of 4 workers take 67108864 bytes, and 67108863 are available under the limit in \
             /sys/fs/cgroup/a/memory.max; ask for fewer, or for fewer queues"
        );
        let error = fits(1 << 20, 4, 1, room(2)).unwrap_err();
        assert!(matches!(error, StartError::Memory { available: 1, limit: None, .. }), "{error}");
    }

    #[test]
    fn what_is_available_is_read_where_it_is_told() {
        let text = "MemTotal:       24576 kB\nMemFree:  7 kB\nMemAvailable:   20480 kB\n";
        assert_eq!(available(text), Some(20 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        // This host's own.
        assert!(available(&std::fs::read_to_string("/proc/meminfo").unwrap()).unwrap() > 0);
        check(1, 1).unwrap();
    }
}
