//! A limit on how often something is done.

use crate::flow::Timestamp;

/// Lets through so many a second in the long run, and so many at once after a quiet time
/// (RFC 4443 section 2.4 (f)). Whole nanoseconds, so nothing drifts.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Nanoseconds a token takes to come; none come if the rate is zero.
    interval: Option<u64>,
    /// How far ahead of the clock a token may be spent.
    ahead: u64,
    /// When the bucket will be full again.
    full_at: u64,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens, into which `per_second` come. None is ever let through if
    /// either is zero.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000_u64.checked_div(per_second.into()).filter(|_| burst > 0);
        let ahead = interval.unwrap_or(0).saturating_mul(burst.saturating_sub(1).into());
        Self { interval, ahead, full_at: 0 }
    }

    /// Takes a token if there is one.
    #[inline]
    pub fn take(&mut self, now: Timestamp) -> bool {
        let Some(interval) = self.interval else {
            return false;
        };
        if self.full_at > now.0.saturating_add(self.ahead) {
            return false;
        }
        self.full_at = self.full_at.max(now.0).saturating_add(interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_rate_and_after_a_quiet_time_a_burst_again() {
        let mut bucket = TokenBucket::new(10, 5);
        let mut taken = |from: u64, to: u64| {
            (from..to).step_by(1_000_000).filter(|at| bucket.take(Timestamp(*at))).count()
        };
        assert_eq!(taken(0, 1), 1);
        assert_eq!(taken(1_000_000, 2_000_000), 1);
        assert_eq!(taken(2_000_000, 100_000_000), 3);
        assert_eq!(taken(100_000_000, SECOND), 9);
        assert_eq!(taken(SECOND, 11 * SECOND), 100);
        assert_eq!(taken(100 * SECOND, 100 * SECOND + 50_000_000), 5);
    }

    #[test]
    fn nothing_comes_of_nothing_and_odd_times_do_no_harm() {
        assert!(!TokenBucket::new(0, 5).take(Timestamp(SECOND)));
        assert!(!TokenBucket::new(5, 0).take(Timestamp(SECOND)));
        let mut bucket = TokenBucket::new(u32::MAX, u32::MAX);
        assert!(bucket.take(Timestamp(0)) && bucket.take(Timestamp(u64::MAX)));
        let mut bucket = TokenBucket::new(1, 1);
        assert!(bucket.take(Timestamp(5 * SECOND)));
        assert!(!bucket.take(Timestamp(0)), "time that goes back brings no tokens");
        assert!(bucket.take(Timestamp(6 * SECOND)));
    }
}
