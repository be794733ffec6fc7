//! One remembered flow, and the cache line it shares with three others.

use super::state::State;
use super::times::MAX_TICK;
use crate::verdict::BackendIndex;

/// Entries to a set.
pub(super) const WAYS: usize = 4;

const STATE_BITS: u32 = 3;
/// Above the state: nothing has been heard of the flow since another director told of it.
const TOLD: u32 = 1 << STATE_BITS;
/// Below the end.
const LOW_BITS: u32 = STATE_BITS + 1;

/// 16 bytes: the whole hash of the flow, its backend, and in one word the tick at which it ends and
/// its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) backend: BackendIndex,
    /// Zero: free. Else the end above [`TOLD`] and [`STATE_BITS`] of state.
    life: u32,
}

impl Entry {
    pub(super) const FREE: Self = Self { key: 0, backend: BackendIndex::new(0, 0), life: 0 };

    #[inline]
    pub(super) fn new(key: u64, backend: BackendIndex, state: State, end: u32) -> Self {
        Self { key, backend, life: Self::life(state, end) }
    }

    /// A flow that another director told of.
    #[inline]
    pub(super) fn told(key: u64, backend: BackendIndex, state: State, end: u32) -> Self {
        Self { key, backend, life: Self::life(state, end) | TOLD }
    }

    #[inline]
    pub(super) const fn is_told(&self) -> bool {
        self.life & TOLD != 0
    }

    #[inline]
    fn life(state: State, end: u32) -> u32 {
        end.min(MAX_TICK) << LOW_BITS | state as u32
    }

    #[inline]
    pub(super) const fn is_used(&self) -> bool {
        self.life != 0
    }

    /// The state as a number, 0 of what is free.
    #[inline]
    pub(super) const fn rank(&self) -> u32 {
        self.life & ((1 << STATE_BITS) - 1)
    }

    #[inline]
    pub(super) const fn is_unproven(&self) -> bool {
        (self.rank() == State::Opening as u32) | (self.rank() == State::Single as u32)
    }

    /// None if it is free.
    #[inline]
    pub(super) const fn state(&self) -> Option<State> {
        State::from_bits(self.rank())
    }

    /// The first tick at which the flow is forgotten.
    #[inline]
    pub(super) const fn end(&self) -> u32 {
        self.life >> LOW_BITS
    }

    /// Notes what a packet made of it here. The line is only written to if something changes: most packets come within the same tick.
    #[inline]
    pub(super) fn set(&mut self, state: State, end: u32) {
        let life = Self::life(state, end);
        if self.life != life {
            self.life = life;
        }
    }

    /// The same entry, for a clock that has been moved up by so many ticks.
    pub(super) fn moved(&self, state: State, ticks: u32) -> Self {
        let end = self.end().saturating_sub(ticks);
        let life = Self::life(state, end) | self.life & TOLD;
        Self { life, ..*self }
    }
}

/// A cache line of entries.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Set(pub(super) [Entry; WAYS]);

impl Set {
    pub(super) const FREE: Self = Self([Entry::FREE; WAYS]);

    /// A bit for each entry of which this is true. Without iterators or `map`: those are calls.
    #[inline(always)]
    pub(super) fn mask(&self, is: impl Fn(&Entry) -> bool) -> u32 {
        let [a, b, c, d] = &self.0;
        let bit = |entry| u32::from(is(entry));
        bit(a) | bit(b) << 1 | bit(c) << 2 | bit(d) << 3
    }

    /// A bit for the entry of this flow, alive or not.
    #[inline]
    pub(super) fn holding(&self, key: u64) -> u32 {
        self.mask(|entry| (entry.key == key) & entry.is_used())
    }
}

const _: () = assert!(size_of::<Entry>() == 16);
const _: () = assert!(size_of::<Set>() == 64 && align_of::<Set>() == 64);
