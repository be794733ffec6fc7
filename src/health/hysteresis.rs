//! One lost probe is no dead backend.

/// Turns single results into a state: it changes after so many equal results in a row that
/// contradict it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hysteresis {
    rise: u32,
    fall: u32,
    up: bool,
    /// Results in a row that contradict the state.
    against: u32,
}

impl Hysteresis {
    /// Begins in the state `up`; `rise` good results take it up, `fall` failed ones down. Zero
    /// counts as one.
    pub fn new(rise: u32, fall: u32, up: bool) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), up, against: 0 }
    }

    /// The state.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Takes in one result; returns the new state if that changed it.
    pub fn observe(&mut self, good: bool) -> Option<bool> {
        if good == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if self.up { self.fall } else { self.rise };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.up = good;
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The rule itself, looking back over the whole history.
        #[test]
        fn changes_when_the_last_results_all_say_so(
            rise in 1u32..5, fall in 1u32..5, initially: bool,
            results in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut hysteresis = Hysteresis::new(rise, fall, initially);
            let (mut up, mut since) = (initially, 0);
            for at in 0..results.len() {
                let needed = if up { fall } else { rise } as usize;
                let seen = &results[since..=at];
                let agree = seen.len() >= needed && seen[seen.len() - needed..].iter().all(|r| *r != up);
                let expected = agree.then_some(!up);
                if agree {
                    (up, since) = (!up, at + 1);
                }
                prop_assert_eq!(hysteresis.observe(results[at]), expected);
                prop_assert_eq!(hysteresis.is_up(), up);
            }
        }
    }
}
