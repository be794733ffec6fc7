//! Huge pages without reservation, for memory of our own.

use super::memory::page_size;
use std::fs;
use std::ops::Range;

/// Less than one has, nothing is asked for: small pieces of the heap would be mappings of their own from then on.
const HUGE: usize = 2 << 20;
/// linux/mman.h; the `libc` crate has it for glibc alone.
const MADV_COLLAPSE: libc::c_int = 25;
/// Where the kernel says whether it makes huge pages.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Asks the kernel for huge pages (`madvise(2)`, `MADV_HUGEPAGE`) for the memory at these addresses, as far as it is whole
/// pages, and to move there at once what it holds already (`MADV_COLLAPSE`, since Linux 6.1): for
/// [`FlowBalancer::new_in`](crate::balancer::FlowBalancer::new_in), [`Snapshot::memory`](crate::dataplane::Snapshot::memory)
/// and [`WorkerCounters::memory`](crate::dataplane::WorkerCounters::memory).
///
/// Each packet goes to a line of a flow table that no other went to lately, so in a table of megabytes each misses the
/// core's cache of addresses, too, and finds them in several steps. It is a wish: where the kernel has none, or they are
/// switched off, the memory is as it was. So it is where there is less than a huge page of it.
pub fn prefer_huge_pages(memory: Range<usize>) {
    let page = page_size() as usize;
    let start = memory.start.checked_next_multiple_of(page).unwrap_or(usize::MAX);
    let length = memory.end.saturating_sub(start) / page * page;
    // To collapse does not ask whether they are switched off.
    if length < HUGE || fs::read_to_string(ENABLED).is_ok_and(|all| all.contains("[never]")) {
        return;
    }
    for advice in [libc::MADV_HUGEPAGE, MADV_COLLAPSE] {
        // SAFETY: by these the kernel changes what pages hold the memory, and never what is in it, whoever has it; addresses where
        // there is none are passed over.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::addresses;
    use crate::balancer::FlowBalancer;
    use crate::dataplane::WorkerCounters;
    use crate::flow::HashKey;

    /// The lines of `/proc/self/smaps` about the mapping that an address is in.
    fn mapping(address: usize) -> String {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut found = String::new();
        let mut is_in = false;
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16).ok();
            if let Some((start, end)) = range.and_then(|(a, b)| number(a).zip(number(b))) {
                is_in = (start..end).contains(&address);
            }
            if is_in {
                found += line;
                found += "\n";
            }
        }
        found
    }

    /// Whether there is this address in memory that the kernel was asked for huge pages for; yes where it has none.
    fn is_marked(address: usize) -> bool {
        let found = mapping(address);
        let flags = found.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        let mut flags = flags.split_whitespace();
        flags.any(|flag| flag == "hg")
            || !fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap()
    }

    fn middle(memory: &Range<usize>) -> usize {
        memory.start + memory.len() / 2
    }

    #[test]
    fn what_is_there_already_is_marked_and_stays() {
        let mut memory: Vec<u64> = (0..1 << 20).collect();
        prefer_huge_pages(addresses(&memory));
        let within = middle(&addresses(&memory));
        assert!(is_marked(within), "{}", mapping(within));
        assert!(memory.iter().copied().eq(0..1 << 20));
        memory.fill(7);
        assert!(memory.iter().all(|number| *number == 7));

        let counters = WorkerCounters::new(1 << 18);
        assert_eq!(counters.memory().len(), 16 << 18);
        prefer_huge_pages(counters.memory());
        assert!(is_marked(middle(&counters.memory())));
    }

    /// It would be a mapping of its own from then on, and there may not be many.
    #[test]
    fn less_than_a_huge_page_is_left_alone() {
        let memory = vec![1_u8; 1 << 20];
        prefer_huge_pages(addresses(&memory));
        let flags = mapping(middle(&addresses(&memory)));
        assert!(!flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
    }

    #[test]
    fn the_memory_of_a_flow_table_is_marked_and_what_is_no_memory_is_left_alone() {
        let mut within = 0;
        let balancer = FlowBalancer::new_in(1 << 20, 16, HashKey::default(), |memory| {
            assert_eq!(memory.len(), 1 << 24);
            within = middle(&memory);
            prefer_huge_pages(memory);
        });
        assert!(is_marked(within), "{}", mapping(within));
        drop(balancer);
        let huge = usize::MAX;
        for memory in [0..0, 0..1 << 30, huge - 5..huge, 4096..4097] {
            prefer_huge_pages(memory);
        }
    }
}
