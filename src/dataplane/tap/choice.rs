//! Which frames a tap takes. Pure.

use super::Sample;
use crate::flow::FiveTuple;
use crate::verdict::{BackendIndex, DropReason, Verdict};
use std::num::NonZeroU32;

/// Which of the frames offered to a [`Tap`](super::Tap) are written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Chosen {
    /// Every one.
    #[default]
    All,
    /// Those that are dropped, for whatever reason.
    Dropped,
    /// Those that are dropped for this reason.
    Drops(DropReason),
    /// Those of this flow, ICMP errors about it included. Later fragments carry no ports, and so are of no
    /// flow that has some.
    Flow(FiveTuple),
    /// Those that are forwarded to a backend, which has an [index](crate::dataplane::Member::index) for each
    /// service that it is in.
    Backend(Vec<BackendIndex>),
    /// The first of those offered, and every so many of them from there on; of a running director, of
    /// those of each queue.
    OneIn(NonZeroU32),
}

/// Chooses among one frame after the other.
#[derive(Debug)]
pub(super) struct Choice {
    chosen: Chosen,
    /// How many are still to be passed over, where one in so many is chosen.
    pass_over: u32,
}

impl Choice {
    pub(super) fn new(chosen: Chosen) -> Self {
        Self { chosen, pass_over: 0 }
    }

    pub(super) fn takes(&mut self, sample: &Sample<'_>) -> bool {
        match &self.chosen {
            Chosen::All => true,
            Chosen::Dropped => matches!(sample.verdict, Verdict::Drop(_)),
            Chosen::Drops(reason) => sample.verdict == Verdict::Drop(*reason),
            Chosen::Flow(flow) => sample.find_flow() == Some(*flow),
            Chosen::Backend(indices) => {
                matches!(sample.verdict, Verdict::Forward(index) if indices.contains(&index))
            }
            Chosen::OneIn(count) => {
                let is_due = self.pass_over == 0;
                self.pass_over = if is_due { count.get() - 1 } else { self.pass_over - 1 };
                is_due
            }
        }
    }
}
