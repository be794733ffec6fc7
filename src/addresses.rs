//! Where in memory something lies: for whoever advises the kernel about it, which is no concern of what is there.

use std::ops::Range;

/// The addresses of these items.
pub(crate) fn addresses<T>(items: &[T]) -> Range<usize> {
    let Range { start, end } = items.as_ptr_range();
    start.addr()..end.addr()
}
