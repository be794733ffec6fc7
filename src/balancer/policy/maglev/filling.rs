//! Which slot it is: the first free one of a candidate's permutation.

use super::turns::Turn;

/// A slot that nobody has taken yet. There are at most 65,535 candidates, so none has this number.
pub(super) const FREE: u16 = u16::MAX;

/// A table that is being filled.
pub(super) struct Filling {
    slots: Box<[u16]>,
    free: usize,
    /// When no more slots are free, they are looked through instead of the permutation.
    few: usize,
    /// The free slots, once they are few.
    list: Vec<u32>,
}

impl Filling {
    pub(super) fn new(size: usize) -> Self {
        let slots = vec![FREE; size].into_boxed_slice();
        Self { slots, free: size, few: size.isqrt(), list: Vec::new() }
    }

    pub(super) fn into_slots(self) -> Box<[u16]> {
        self.slots
    }

    /// Gives a candidate the first free slot of its permutation, of which there must be one.
    ///
    /// Steps through the permutation find one in `size / free` on average: half of all steps would
    /// be for the last `sqrt(size)` slots.
    #[inline]
    pub(super) fn give_slot(&mut self, turn: &mut Turn) {
        if self.free <= self.few {
            self.give_nearest(turn);
        } else {
            self.walk(turn);
        }
        self.free -= 1;
    }

    #[inline]
    fn walk(&mut self, turn: &mut Turn) {
        loop {
            let at = turn.next as usize;
            step(turn, self.slots.len());
            // The size is prime, so that steps of any length visit every slot.
            match self.slots.get_mut(at) {
                Some(slot) if *slot == FREE => {
                    *slot = turn.position;
                    return;
                }
                _ => {}
            }
        }
    }

    /// Slot `s` is `(s - next) / skip` steps away, modulo the size M. Multiplied by 2^64 / M, that
    /// is `(s - next) * K` modulo 2^64, with `K = 2^64 / M / skip`. Rounding K up makes it wrong by
    /// less than M, which is at most 2^23; two slots differ by at least 2^64 / M. So the order is
    /// exact, and costs one multiplication a slot.
    #[cold]
    fn give_nearest(&mut self, turn: &mut Turn) {
        let size = self.slots.len();
        if self.list.is_empty() {
            let free = (0u32..).zip(&self.slots).filter(|(_, slot)| **slot == FREE);
            self.list = free.map(|(at, _)| at).collect();
        }
        let inverse = u128::from(inverse(turn.skip, size as u32));
        let factor = (inverse << 64).div_ceil(size as u128) as u64;
        let next = u64::from(turn.next).wrapping_mul(factor);
        let away = |slot: u32| u64::from(slot).wrapping_mul(factor).wrapping_sub(next);
        let nearest = self.list.iter().enumerate().min_by_key(|(_, slot)| away(**slot));
        let Some((at, _)) = nearest else { return };
        turn.next = self.list.swap_remove(at);
        if let Some(slot) = self.slots.get_mut(turn.next as usize) {
            *slot = turn.position;
        }
        step(turn, size);
    }
}

#[inline]
fn step(turn: &mut Turn, size: usize) {
    turn.next += turn.skip;
    if turn.next as usize >= size {
        turn.next -= size as u32;
    }
}

/// The inverse of a number modulo a prime above it, by Euclid's algorithm.
fn inverse(number: u32, prime: u32) -> u32 {
    let (mut rest, mut next_rest) = (i64::from(prime), i64::from(number));
    let (mut factor, mut next_factor) = (0, 1);
    while next_rest != 0 {
        let quotient = rest / next_rest;
        (rest, next_rest) = (next_rest, rest - quotient * next_rest);
        (factor, next_factor) = (next_factor, factor - quotient * next_factor);
    }
    i64::rem_euclid(factor, i64::from(prime)) as u32
}
