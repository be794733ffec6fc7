//! How fast a counter rises, now and in the last minutes.

use std::collections::VecDeque;

/// How many rates are kept, which is as many as the widest terminal shows.
const KEPT: usize = 240;

/// The rates of one counter, in the order of time.
#[derive(Default, Debug)]
pub struct Trace {
    /// Between the last two samples, by second; none if that is not known.
    pub last: Option<f64>,
    /// The same of the bytes that belong to what is counted.
    pub bytes: Option<f64>,
    history: VecDeque<u64>,
}

impl Trace {
    pub fn push(&mut self, rate: Option<f64>) {
        self.last = rate;
        if self.history.len() == KEPT {
            self.history.pop_front();
        }
        // Of a sparkline whole numbers are enough; what is slower than one a second shall still be seen.
        self.history.push_back(rate.map_or(0, |rate| rate.ceil() as u64));
    }

    /// The last of them, at most this many; one that was not known is zero.
    pub fn history(&self, most: usize) -> Vec<u64> {
        let skipped = self.history.len().saturating_sub(most);
        self.history.iter().skip(skipped).copied().collect()
    }
}

/// How much a counter rose in a second; none without a value before, or if that was higher: then it
/// has begun anew.
pub fn rate(now: u64, before: Option<u64>, seconds: f64) -> Option<f64> {
    let rise = now.checked_sub(before?)?;
    (seconds > 0.0).then(|| rise as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_takes_two_values_and_time() {
        assert_eq!(rate(30, Some(10), 4.0), Some(5.0));
        assert_eq!(rate(30, None, 4.0), None);
        assert_eq!(rate(10, Some(30), 4.0), None);
        assert_eq!(rate(30, Some(10), 0.0), None);
    }

    #[test]
    fn a_history_is_bounded_and_the_last_of_it_is_shown() {
        let mut trace = Trace::default();
        (0..1000).for_each(|rate| trace.push(Some(f64::from(rate) + 0.1)));
        trace.push(None);
        assert_eq!(trace.history.len(), KEPT);
        assert_eq!(trace.history(3), [999, 1000, 0]);
    }
}
