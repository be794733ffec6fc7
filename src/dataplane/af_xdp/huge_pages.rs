//! Huge pages without reservation, for memory of our own.

use super::memory::page_size;
use std::ops::Range;

/// Asks the kernel for huge pages (`madvise(2)`, `MADV_HUGEPAGE`) for the memory at these addresses, as far as it is whole
/// pages: for [`FlowBalancer::new_in`](crate::balancer::FlowBalancer::new_in).
///
/// Each packet goes to a line of a flow table that no other went to lately, so in a table of megabytes each misses the
/// core's cache of addresses, too, and finds them in several steps. It is a wish: where the kernel has none, or they are
/// switched off, the memory is as it was.
pub fn prefer_huge_pages(memory: Range<usize>) {
    let page = page_size() as usize;
    let start = memory.start.checked_next_multiple_of(page).unwrap_or(usize::MAX);
    let length = memory.end.saturating_sub(start) / page * page;
    if length > 0 {
        // SAFETY: by this advice the kernel changes what pages hold the memory, and never what is in it, whoever has it; addresses where
        // there is none are refused.
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_HUGEPAGE)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::FlowBalancer;
    use crate::flow::HashKey;
    use std::fs;

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

    #[test]
    fn the_memory_of_a_flow_table_is_marked_and_what_is_no_memory_is_left_alone() {
        let mut middle = 0;
        let balancer = FlowBalancer::new_in(1 << 20, 16, HashKey::default(), |memory| {
            assert_eq!(memory.len(), 1 << 24);
            middle = memory.start + memory.len() / 2;
            prefer_huge_pages(memory);
        });
        let found = mapping(middle);
        // Kernels without huge pages have no such flag.
        if fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
            let flags = found.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
            assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{found}");
        }
        drop(balancer);
        let huge = usize::MAX;
        for memory in [0..0, 0..1 << 20, huge - 5..huge, 4096..4097] {
            prefer_huge_pages(memory);
        }
    }
}
