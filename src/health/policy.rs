//! How often backends are probed, and how many results it takes to change one's mind.

use std::time::Duration;

/// Timing and thresholds of probing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthPolicy {
    /// From the beginning of one probe of a backend to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// So many good probes in a row make a backend that was down well.
    pub rise: u32,
    /// So many failed probes in a row take a backend that was well down.
    pub fall: u32,
    /// Whether a backend counts as well before the first results.
    pub initially_up: bool,
}

impl Default for HealthPolicy {
    /// Every second, half a second each, two to rise, three to fall. Up until proven down: a
    /// director that restarts does not take the service away.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
            initially_up: true,
        }
    }
}

/// A policy that makes no sense: which field, its value, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("health policy: {field} = {value} is not valid: expected {expected}")]
pub struct HealthPolicyError {
    field: &'static str,
    value: String,
    expected: &'static str,
}

impl HealthPolicy {
    /// Checks every field, and the timeout against the interval.
    ///
    /// # Errors
    ///
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), HealthPolicyError> {
        const DAY: Duration = Duration::from_secs(86_400);
        let time = |time: Duration| format!("{time:?}");
        let checks = [
            (
                self.interval >= Duration::from_millis(10) && self.interval <= DAY,
                "interval",
                time(self.interval),
                "10 ms to one day",
            ),
            (!self.timeout.is_zero(), "timeout", time(self.timeout), "more than zero"),
            (
                self.timeout <= self.interval,
                "timeout",
                time(self.timeout),
                "at most the interval, so that a backend is not probed twice at once",
            ),
            (self.rise > 0, "rise", self.rise.to_string(), "at least 1"),
            (self.fall > 0, "fall", self.fall.to_string(), "at least 1"),
        ];
        match checks.into_iter().find(|(valid, ..)| !valid) {
            None => Ok(()),
            Some((_, field, value, expected)) => Err(HealthPolicyError { field, value, expected }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_name() {
        let good = HealthPolicy::default();
        assert_eq!(good.validate(), Ok(()));
        for (policy, field) in [
            (HealthPolicy { interval: Duration::ZERO, ..good }, "interval"),
            (HealthPolicy { timeout: Duration::ZERO, ..good }, "timeout"),
            (HealthPolicy { timeout: Duration::from_secs(2), ..good }, "timeout"),
            (HealthPolicy { rise: 0, ..good }, "rise"),
            (HealthPolicy { fall: 0, ..good }, "fall"),
        ] {
            let error = policy.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("{field} = ")), "{error}");
        }
    }
}
