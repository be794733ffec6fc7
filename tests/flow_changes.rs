//! No flow is broken by a change that leaves its backend able to serve: random histories against an oracle.

mod support;

use proptest::prelude::*;
use support::changes_model::check_changes;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_change_breaks_a_flow(data in prop::collection::vec(any::<u8>(), 4..4000)) {
        check_changes(&data);
    }
}
