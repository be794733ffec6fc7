//! The memory of flow tables.

use std::ops::Range;

/// Asks for huge pages, as a director does; nothing without AF_XDP.
pub fn prepare(memory: Range<usize>) {
    #[cfg(all(feature = "af-xdp", target_os = "linux"))]
    dsrlb::dataplane::af_xdp::prefer_huge_pages(memory);
    #[cfg(not(all(feature = "af-xdp", target_os = "linux")))]
    let _ = memory;
}
