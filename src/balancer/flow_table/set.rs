//! The cache line that four flows share.
//!
//! Which entry of a set is the one, or is free, cannot be predicted. So nothing branches by it: a question
//! is put to all four at once, in one vector, and the answer is a vector, or a bit for each.

use super::entry::{Entry, Life, PROVEN_BIT};
use super::tally::Tally;
use crate::verdict::BackendIndex;
use wide::{i16x8, i32x8, u32x4};

/// Entries to a set.
pub(super) const WAYS: usize = 4;

const SIGN: u32 = 1 << (u32::BITS - 1);

/// The answer for each entry of a set: all bits of a word, or none.
#[derive(Clone, Copy)]
pub(super) struct Lanes(u32x4);

impl Lanes {
    /// A bit for each entry, the lowest for the first.
    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0.to_bitmask()
    }

    /// The number of the first one of which it is true; [`WAYS`] if there is none.
    #[inline(always)]
    pub(super) fn first(self) -> u32 {
        (self.bits() | 1 << WAYS).trailing_zeros()
    }

    /// Whether it is true of any entry of either set.
    #[inline(always)]
    pub(super) fn or_any(self, other: Self) -> bool {
        Self(self.0 | other.0).bits() != 0
    }
}

/// Four entries, each field of them side by side.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Set {
    low: [u32; WAYS],
    high: [u32; WAYS],
    lives: [Life; WAYS],
    backends: [BackendIndex; WAYS],
}

impl Set {
    pub(super) const FREE: Self = Self {
        low: [0; WAYS],
        high: [0; WAYS],
        lives: [Life::NONE; WAYS],
        backends: [BackendIndex::new(0, 0); WAYS],
    };

    #[inline]
    fn lives(&self) -> u32x4 {
        u32x4::new(self.lives.map(|life| life.0))
    }

    /// The entry of this flow, alive or not.
    #[inline(always)]
    pub(super) fn holding(&self, key: u64) -> Lanes {
        let low = u32x4::new(self.low) ^ u32x4::splat(key as u32);
        let high = u32x4::new(self.high) ^ u32x4::splat((key >> 32) as u32);
        let same = (low | high).simd_eq(u32x4::ZERO);
        // Also free entries have a key, and it might be this one.
        Lanes(same & !self.free().0)
    }

    /// Where nothing is.
    #[inline(always)]
    fn free(&self) -> Lanes {
        Lanes(self.lives().simd_eq(u32x4::ZERO))
    }

    /// What was to end by this tick, and is not free.
    #[inline(always)]
    pub(super) fn over(&self, now: u32) -> Lanes {
        // Vectors are compared as signed, so both have their sign turned; and one less turns nothing into the most
        // there is. Of the lives one addition does both.
        let lives = self.lives() + u32x4::splat(SIGN - 1);
        let bound = u32x4::splat(Life::last_ended(now) ^ SIGN);
        Lanes(lives.cast_signed().simd_lt(bound.cast_signed()).cast_unsigned())
    }

    /// Where nothing is, in the lower four bits, and what is proven, in the four above.
    #[inline(always)]
    pub(super) fn free_and_proven(&self) -> u8 {
        // Only signs count from here on.
        let proven = self.lives() << (u32::BITS - 1 - PROVEN_BIT);
        let [a, b, c, d] = self.free().0.cast_signed().to_array();
        let [e, f, g, h] = proven.cast_signed().to_array();
        i16x8::from_i32x8_saturate(i32x8::new([a, b, c, d, e, f, g, h])).to_bitmask() as u8
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + use<> {
        let Self { low, high, lives, backends } = *self;
        let words = low.into_iter().zip(high).zip(lives.into_iter().zip(backends));
        words.map(|((low, high), (life, backend))| Entry {
            key: u64::from(high) << 32 | u64::from(low),
            backend,
            life,
        })
    }

    #[inline]
    pub(super) fn entry(&self, way: usize) -> Entry {
        let way = way % WAYS;
        match (self.low.get(way), self.high.get(way), self.lives.get(way), self.backends.get(way)) {
            (Some(low), Some(high), Some(life), Some(backend)) => Entry {
                key: u64::from(*high) << 32 | u64::from(*low),
                backend: *backend,
                life: *life,
            },
            _ => Entry::FREE,
        }
    }

    #[inline(always)]
    pub(super) fn key(&self, way: usize) -> u64 {
        self.entry(way).key
    }

    #[inline]
    pub(super) fn life(&self, way: usize) -> Life {
        self.lives.get(way % WAYS).copied().unwrap_or(Life::NONE)
    }

    #[inline]
    pub(super) fn backend(&self, way: usize) -> BackendIndex {
        self.backends.get(way % WAYS).copied().unwrap_or(Entry::FREE.backend)
    }

    /// The line is only written to if something changes: most packets come within the same tick.
    #[inline]
    pub(super) fn set_life(&mut self, way: usize, life: Life) {
        if let Some(place) = self.lives.get_mut(way % WAYS)
            && *place != life
        {
            *place = life;
        }
    }

    #[inline]
    pub(super) fn put(&mut self, way: usize, entry: Entry) {
        let way = way % WAYS;
        if let (Some(low), Some(high), Some(life), Some(backend)) = (
            self.low.get_mut(way),
            self.high.get_mut(way),
            self.lives.get_mut(way),
            self.backends.get_mut(way),
        ) {
            *low = entry.key as u32;
            *high = (entry.key >> 32) as u32;
            *life = entry.life;
            *backend = entry.backend;
        }
    }

    /// Frees the entries of which this is true.
    #[inline]
    pub(super) fn purge(&mut self, tally: &mut Tally, is_over: &impl Fn(&Entry) -> bool) {
        for (way, entry) in self.entries().enumerate() {
            if entry.life != Life::NONE && is_over(&entry) {
                self.put(way, Entry::FREE);
                tally.remove(entry.backend, entry.life.is_proven());
            }
        }
    }
}

const _: () = assert!(size_of::<Set>() == 64 && align_of::<Set>() == 64);
const _: () = assert!(size_of::<Entry>() == 16);
