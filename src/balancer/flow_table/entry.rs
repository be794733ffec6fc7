//! One remembered flow, and the cache line it shares with three others.

use super::state::State;
use super::times::MAX_TICK;
use crate::verdict::BackendIndex;

/// Entries to a set.
pub(super) const WAYS: usize = 4;

const STATE_BITS: u32 = 3;

/// 16 bytes: the whole hash of the flow, its backend, and in one word the tick at which it ends and
/// its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) backend: BackendIndex,
    /// Zero: free. Else the end above [`STATE_BITS`] of state.
    life: u32,
}

impl Entry {
    pub(super) const FREE: Self = Self { key: 0, backend: BackendIndex::new(0, 0), life: 0 };

    #[inline]
    pub(super) fn new(key: u64, backend: BackendIndex, state: State, end: u32) -> Self {
        Self { key, backend, life: Self::life(state, end) }
    }

    #[inline]
    fn life(state: State, end: u32) -> u32 {
        end.min(MAX_TICK) << STATE_BITS | state as u32
    }

    /// None if it is free.
    #[inline]
    pub(super) const fn state(&self) -> Option<State> {
        State::from_bits(self.life & ((1 << STATE_BITS) - 1))
    }

    /// The first tick at which the flow is forgotten.
    #[inline]
    pub(super) const fn end(&self) -> u32 {
        self.life >> STATE_BITS
    }

    /// The line is only written to if something changes: most packets come within the same tick.
    #[inline]
    pub(super) fn set(&mut self, state: State, end: u32) {
        let life = Self::life(state, end);
        if self.life != life {
            self.life = life;
        }
    }
}

/// A cache line of entries.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Set(pub(super) [Entry; WAYS]);

impl Set {
    pub(super) const FREE: Self = Self([Entry::FREE; WAYS]);

    /// The entry of this flow, alive or not.
    #[inline]
    pub(super) fn find(&mut self, key: u64) -> Option<(&mut Entry, State)> {
        let same = self.0.iter_mut().find(|entry| entry.key == key && entry.state().is_some())?;
        let state = same.state()?;
        Some((same, state))
    }
}

const _: () = assert!(size_of::<Entry>() == 16);
const _: () = assert!(size_of::<Set>() == 64 && align_of::<Set>() == 64);
