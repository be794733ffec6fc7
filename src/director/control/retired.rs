//! Who frees a snapshot.
//!
//! A worker lets go of its snapshot when it takes the next one, between two batches. The last to let go frees it, and where
//! there are many backends that takes milliseconds. So that one is to be who publishes, and never a worker.

use std::sync::Arc;

/// What was published before, for as long as others may have it.
#[derive(Debug)]
pub(super) struct Retired<T>(Vec<Arc<T>>);

impl<T> Default for Retired<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Retired<T> {
    /// Keeps this one, and frees those that nobody else has any more. What is left is at most one for each holder, and
    /// this.
    pub(super) fn keep(&mut self, last: Arc<T>) {
        self.0.retain(|earlier| Arc::strong_count(earlier) > 1);
        self.0.push(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_let_go_of_is_freed_with_the_next_one_and_not_before() {
        let mut retired = Retired::default();
        let (first, second) = (Arc::new(1), Arc::new(2));
        let [first_left, second_left] = [&first, &second].map(Arc::downgrade);
        let mut worker = Some(Arc::clone(&first));
        retired.keep(first);
        retired.keep(second);
        assert_eq!((first_left.strong_count(), second_left.strong_count()), (2, 1));
        // The worker takes another one: it is not the last to have it.
        worker.take();
        assert_eq!(first_left.strong_count(), 1);
        retired.keep(Arc::new(3));
        assert_eq!((first_left.strong_count(), second_left.strong_count()), (0, 0));
        assert_eq!(retired.0.len(), 1);
    }
}
