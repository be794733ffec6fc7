//! One remembered flow, and how long and as what it is remembered.

use super::state::State;
use super::times::MAX_TICK;
use crate::verdict::BackendIndex;

const STATE_BITS: u32 = 3;
/// Above the state: nothing has been heard of the flow since another director told of it.
const TOLD: u32 = 1 << STATE_BITS;
/// Of the state: set if that is proven.
pub(super) const PROVEN_BIT: u32 = STATE_BITS - 1;
/// Below the end.
const LOW_BITS: u32 = STATE_BITS + 1;

/// The tick at which a flow ends and its state, in one word: the end above [`TOLD`] and
/// [`STATE_BITS`] of state. Zero: there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Life(pub(super) u32);

impl Life {
    pub(super) const NONE: Self = Self(0);

    #[inline]
    pub(super) fn new(state: State, end: u32) -> Self {
        Self(end.min(MAX_TICK) << LOW_BITS | state as u32)
    }

    /// The same with the clock so many ticks further on, where that leaves room for it.
    #[inline(always)]
    pub(super) const fn later(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks << LOW_BITS))
    }

    /// Of a flow that another director told of.
    #[inline]
    pub(super) fn told(state: State, end: u32) -> Self {
        Self(Self::new(state, end).0 | TOLD)
    }

    /// What is not above this as a number has ended at this tick, or is none.
    #[inline]
    pub(super) const fn last_ended(now: u32) -> u32 {
        now << LOW_BITS | ((1 << LOW_BITS) - 1)
    }

    #[inline(always)]
    pub(super) const fn has_ended(self, now: u32) -> bool {
        self.0 <= Self::last_ended(now)
    }

    #[inline]
    pub(super) const fn is_told(self) -> bool {
        self.0 & TOLD != 0
    }

    /// The state as a number, 0 of none.
    #[inline]
    pub(super) const fn rank(self) -> u32 {
        self.0 & ((1 << STATE_BITS) - 1)
    }

    /// Whether it is that of a proven flow.
    #[inline]
    pub(super) const fn is_proven(self) -> bool {
        self.0 & 1 << PROVEN_BIT != 0
    }

    /// A number that is greater for a higher rank, and within one for a later end. Of what has never been told of:
    /// unproven flows are not.
    #[inline]
    pub(super) const fn rank_first(self) -> u32 {
        self.0.rotate_right(LOW_BITS)
    }

    /// The least such number beyond those of this rank.
    #[inline]
    pub(super) const fn beyond(rank: u32) -> u32 {
        (rank + 1) << (u32::BITS - LOW_BITS)
    }

    /// None if there is no flow.
    #[inline]
    pub(super) const fn state(self) -> Option<State> {
        State::from_bits(self.rank())
    }

    /// The first tick at which the flow is forgotten.
    #[inline]
    pub(super) const fn end(self) -> u32 {
        self.0 >> LOW_BITS
    }

    /// The same, for a clock that has been moved up by so many ticks.
    pub(super) fn moved(self, ticks: u32) -> Self {
        let low = self.0 & ((1 << LOW_BITS) - 1);
        Self(self.end().saturating_sub(ticks) << LOW_BITS | low)
    }
}

/// 16 bytes: the whole hash of the flow, its backend, and its life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) backend: BackendIndex,
    pub(super) life: Life,
}

impl Entry {
    pub(super) const FREE: Self =
        Self { key: 0, backend: BackendIndex::new(0, 0), life: Life::NONE };
}
