//! How often to probe, how long to wait, and how many results count.

use super::HealthState;
use crate::error::{ConfigError, ConfigProblem};
use std::time::Duration;

/// When a backend counts as healthy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", default, deny_unknown_fields)
)]
pub struct HealthPolicy {
    /// From one probe to the next; 1 s unless told, from 10 ms to a day.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub interval: Duration,
    /// How long a probe may take; 500 ms unless told, at most the interval.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy backend healthy; 2 unless told, at least 1.
    pub rise: u32,
    /// Failures in a row that make a healthy backend unhealthy; 3 unless told, at least 1.
    pub fall: u32,
    /// What a new backend counts as.
    ///
    /// Unless told, [`HealthState::Unknown`]: its first probe, which is made at once, decides
    /// either way, and until then it takes no traffic. Thus a director that starts is ready after
    /// one round trip, and never sends to what was dead from the start.
    pub initial: HealthState,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
            initial: HealthState::Unknown,
        }
    }
}

impl HealthPolicy {
    const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
    const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

    /// How long it takes at most until a backend that has ceased to answer is found unhealthy: it may
    /// have ceased just after a probe.
    pub fn detection(&self) -> Duration {
        self.interval.saturating_mul(self.fall.max(1)).saturating_add(self.timeout)
    }

    /// Checks all fields.
    ///
    /// # Errors
    ///
    /// Every field that is out of its range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = self.problems("");
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
    }

    /// What is wrong, each path beginning with `prefix`.
    pub(crate) fn problems(&self, prefix: &str) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, field: &str, value: String, expected: String| {
            if !ok {
                let path = format!("{prefix}{field}");
                problems.push(ConfigProblem { path, value, expected });
            }
        };
        let (shortest, longest) = (Self::SHORTEST_INTERVAL, Self::LONGEST_INTERVAL);
        check(
            (shortest..=longest).contains(&self.interval),
            "interval",
            format!("{:?}", self.interval),
            format!("must be from {shortest:?} to {longest:?}"),
        );
        check(
            !self.timeout.is_zero() && self.timeout <= self.interval,
            "timeout",
            format!("{:?}", self.timeout),
            format!("must be above 0 and at most the interval, {:?}", self.interval),
        );
        for (field, value) in [("rise", self.rise), ("fall", self.fall)] {
            let expected = "must be at least 1".to_owned();
            check(value >= 1, field, value.to_string(), expected);
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(HealthPolicy::default().validate(), Ok(()));
    }

    #[test]
    fn every_bad_field_is_named_with_its_value_and_what_is_allowed() {
        let good = HealthPolicy::default();
        let millis = Duration::from_millis;
        let cases = [
            (HealthPolicy { interval: Duration::ZERO, ..good }, "interval: 0ns: must be from 10ms"),
            (HealthPolicy { interval: Duration::MAX, ..good }, "interval: 1844"),
            (HealthPolicy { timeout: Duration::ZERO, ..good }, "timeout: 0ns: must be above 0"),
            (
                HealthPolicy { timeout: millis(1001), ..good },
                "timeout: 1.001s: must be above 0 and at most the interval, 1s",
            ),
            (HealthPolicy { rise: 0, ..good }, "rise: 0: must be at least 1"),
            (HealthPolicy { fall: 0, ..good }, "fall: 0: must be at least 1"),
        ];
        for (policy, expected) in cases {
            let error = policy.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let all =
            HealthPolicy { interval: Duration::ZERO, timeout: millis(1), rise: 0, fall: 0, ..good };
        assert_eq!(all.validate().unwrap_err().problems().len(), 4);
    }
}
