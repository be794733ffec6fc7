//! Whether what keeps a backend down has become something else.

use super::ProbeFailure;
use std::mem::{Discriminant, discriminant};

/// The kind of failure that was told last, and of the one that came since.
///
/// A backend that is down can be so for one reason and then for another: the application is stopped, and then the VIP
/// taken away. Who reads the first would mend the wrong thing. One probe that was lost is no news, so another kind of
/// failure is told once it has come twice in a row.
#[derive(Debug, Default)]
pub(super) struct Reason {
    told: Option<Discriminant<ProbeFailure>>,
    since: Option<Discriminant<ProbeFailure>>,
}

impl Reason {
    /// This is what is told.
    pub(super) fn tell(&mut self, failure: Option<&ProbeFailure>) {
        *self = Self { told: failure.map(discriminant), since: None };
    }

    /// Notes a failure of a backend that is down already, and says whether it is now down for that.
    pub(super) fn changes(&mut self, failure: &ProbeFailure) -> bool {
        let kind = Some(discriminant(failure));
        if kind == self.told {
            self.since = None;
            return false;
        }
        if kind != self.since {
            self.since = kind;
            return false;
        }
        self.tell(Some(failure));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_is_told_once_it_has_come_twice_in_a_row() {
        let refused = || ProbeFailure::Refused;
        let down = |text: &str| ProbeFailure::ApplicationDown(text.to_owned());
        let unbound = || ProbeFailure::VipNotBound("as told".to_owned());
        let mut reason = Reason::default();
        reason.tell(Some(&down("at first")));
        for (failure, changes) in [
            (down("in other words"), false),
            (unbound(), false),
            (down("again"), false),
            (unbound(), false),
            (refused(), false),
            (unbound(), false),
            (unbound(), true),
            (unbound(), false),
            (down("last"), false),
            (down("last"), true),
        ] {
            assert_eq!(reason.changes(&failure), changes, "{failure}");
        }
    }
}
