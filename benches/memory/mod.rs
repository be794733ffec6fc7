//! The memory of flow tables.

use std::ops::Range;

/// Asks for huge pages, as a director does.
pub fn prepare(memory: Range<usize>) {
    #[cfg(feature = "af-xdp")]
    dsrlb::dataplane::af_xdp::prefer_huge_pages(memory);
    #[cfg(not(feature = "af-xdp"))]
    drop(memory);
}
