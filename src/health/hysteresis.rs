//! From single results to a state that does not flap.

use super::HealthPolicy;

/// What a backend counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum HealthState {
    /// Not probed yet; takes no traffic.
    #[default]
    Unknown,
    /// Healthy.
    Up,
    /// Unhealthy.
    Down,
}

named!(
    HealthState,
    "state",
    "unknown, up or down",
    ["unknown" => Unknown, "up" => Up, "down" => Down]
);

/// A change of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// Before.
    pub from: HealthState,
    /// From now on.
    pub to: HealthState,
}

/// Counts results in a row: `rise` successes make it up, `fall` failures down; the first result of
/// all decides at once while nothing is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hysteresis {
    rise: u32,
    fall: u32,
    state: HealthState,
    /// Results in a row that speak against the state.
    streak: u32,
}

impl Hysteresis {
    /// Begins in the policy's initial state; a threshold of zero counts as one.
    pub fn new(policy: &HealthPolicy) -> Self {
        Self {
            rise: policy.rise.max(1),
            fall: policy.fall.max(1),
            state: policy.initial,
            streak: 0,
        }
    }

    /// Takes other thresholds; state and results so far are kept.
    pub fn set_thresholds(&mut self, policy: &HealthPolicy) {
        self.rise = policy.rise.max(1);
        self.fall = policy.fall.max(1);
    }

    /// What the results so far amount to.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Takes one result; returns the change of state it brings.
    pub fn observe(&mut self, success: bool) -> Option<Transition> {
        let (to, needed) = match (self.state, success) {
            (HealthState::Up, true) | (HealthState::Down, false) => {
                self.streak = 0;
                return None;
            }
            (HealthState::Up, false) => (HealthState::Down, self.fall),
            (HealthState::Down, true) => (HealthState::Up, self.rise),
            (HealthState::Unknown, true) => (HealthState::Up, 1),
            (HealthState::Unknown, false) => (HealthState::Down, 1),
        };
        self.streak = self.streak.saturating_add(1);
        if self.streak < needed {
            return None;
        }
        self.streak = 0;
        let from = std::mem::replace(&mut self.state, to);
        Some(Transition { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, over the whole history: up if the last `rise` results are successes, down
    /// if the last `fall` are failures, else as before.
    fn slow(policy: &HealthPolicy, history: &[bool]) -> HealthState {
        let mut state = policy.initial;
        for end in 1..=history.len() {
            let so_far = &history[..end];
            let all_last = |count: u32, value| {
                let count = count as usize;
                so_far.len() >= count && so_far[so_far.len() - count..].iter().all(|&r| r == value)
            };
            state = match state {
                HealthState::Unknown if so_far[end - 1] => HealthState::Up,
                HealthState::Unknown => HealthState::Down,
                HealthState::Down if all_last(policy.rise, true) => HealthState::Up,
                HealthState::Up if all_last(policy.fall, false) => HealthState::Down,
                same => same,
            };
        }
        state
    }

    #[test]
    fn three_failures_down_two_successes_up() {
        let policy = HealthPolicy::default();
        let mut hysteresis = Hysteresis::new(&policy);
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let changed: Vec<_> = results.map(|r| hysteresis.observe(r).map(|t| t.to)).into();
        let (up, down) = (Some(HealthState::Up), Some(HealthState::Down));
        let none = None;
        assert_eq!(changed, [up, none, none, none, none, none, down, none, none, none, up]);
    }

    proptest! {
        #[test]
        fn equals_the_slow_definition(
            rise in 1u32..5,
            fall in 1u32..5,
            initial in prop_oneof![
                Just(HealthState::Unknown), Just(HealthState::Up), Just(HealthState::Down)
            ],
            history in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let policy = HealthPolicy { rise, fall, initial, ..HealthPolicy::default() };
            let mut fast = Hysteresis::new(&policy);
            for end in 1..=history.len() {
                let before = fast.state();
                let transition = fast.observe(history[end - 1]);
                prop_assert_eq!(fast.state(), slow(&policy, &history[..end]));
                let expected = (before != fast.state())
                    .then_some(Transition { from: before, to: fast.state() });
                prop_assert_eq!(transition, expected);
            }
        }
    }
}
