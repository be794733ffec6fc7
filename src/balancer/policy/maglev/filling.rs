//! Which slot it is: the first free one of a candidate's permutation.

use super::turns::{Turn, take_turns};

/// A slot that nobody has taken yet. There are at most 65,535 candidates, so none has this number.
pub(super) const FREE: u16 = u16::MAX;

/// A table of `size` slots, filled by these turns, whose quotas are `size` together.
///
/// Steps through a permutation find a free slot in `size / free` on average: half of all steps would
/// be for the last `sqrt(size)` slots. So these are looked through instead.
pub(super) fn fill(turns: &mut [Turn], size: usize) -> Box<[u16]> {
    let mut slots = vec![FREE; size].into_boxed_slice();
    let mut free = size;
    let few = size.isqrt();
    let mut left = Vec::new();
    take_turns(turns, |turn| {
        if free > few {
            walk(&mut slots, turn);
        } else {
            give_nearest(&mut slots, &mut left, turn);
        }
        free -= 1;
    });
    slots
}

/// Gives a candidate the first free slot of its permutation, of which there must be one. The size
/// is prime, so that steps of any length visit every slot.
#[inline]
fn walk(slots: &mut [u16], turn: &mut Turn) {
    loop {
        let at = turn.next as usize;
        step(turn, slots.len());
        match slots.get_mut(at) {
            Some(slot) if *slot == FREE => {
                *slot = turn.position;
                return;
            }
            _ => {}
        }
    }
}

/// The same, by the distance of each slot that is left; these are noted at the first call.
///
/// Slot `s` is `(s - next) / skip` steps away, modulo the size M. Multiplied by 2^64 / M, that is
/// `(s - next) * K` modulo 2^64, with `K = 2^64 / M / skip`. Rounding K up makes it wrong by less
/// than M, which is at most 2^23; two slots differ by at least 2^64 / M. So the order is exact, and
/// costs one multiplication a slot.
#[inline(never)]
fn give_nearest(slots: &mut [u16], left: &mut Vec<u32>, turn: &mut Turn) {
    let size = slots.len();
    if left.is_empty() {
        let free = (0u32..).zip(&*slots).filter(|(_, slot)| **slot == FREE);
        left.extend(free.map(|(at, _)| at));
    }
    let inverse = u128::from(inverse(turn.skip, size as u32));
    let factor = (inverse << 64).div_ceil(size as u128) as u64;
    let next = u64::from(turn.next).wrapping_mul(factor);
    let away = |slot: u32| u64::from(slot).wrapping_mul(factor).wrapping_sub(next);
    let nearest = left.iter().enumerate().min_by_key(|(_, slot)| away(**slot));
    let Some((at, _)) = nearest else { return };
    turn.next = left.swap_remove(at);
    if let Some(slot) = slots.get_mut(turn.next as usize) {
        *slot = turn.position;
    }
    step(turn, size);
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
