//! Whose turn it is: how many slots each candidate gets, and in which order.

use super::Candidate;
use crate::flow::{FlowHash, HashKey};

pub(super) const OFFSET_KEY: HashKey = HashKey::new(*b"dsrlb maglev off");
pub(super) const SKIP_KEY: HashKey = HashKey::new(*b"dsrlb maglev skp");

/// One candidate's way through the filling of the table. No table has more than 2^23 slots.
pub(super) struct Turn {
    pub(super) position: u16,
    weight: u32,
    credit: u32,
    /// Slots still to be taken.
    quota: u32,
    /// Where its permutation goes on.
    pub(super) next: u32,
    pub(super) skip: u32,
}

impl Turn {
    pub(super) fn new(position: u16, candidate: &Candidate<'_>, size: usize) -> Self {
        let hash = |key: HashKey| FlowHash(key.hash_bytes(candidate.id.as_bytes()));
        Self {
            position,
            weight: u32::from(candidate.weight),
            credit: 0,
            quota: 0,
            next: hash(OFFSET_KEY).slot(size) as u32,
            skip: 1 + hash(SKIP_KEY).slot(size - 1) as u32,
        }
    }
}

/// Divides `size` slots in proportion to the weights, by largest remainder.
pub(super) fn proportion(turns: &mut [Turn], size: usize) {
    let total = total(turns);
    let mut remainders = Vec::with_capacity(turns.len());
    let mut left = size as u32;
    for (at, turn) in turns.iter_mut().enumerate() {
        let exact = size as u64 * u64::from(turn.weight);
        turn.quota = (exact / total) as u32;
        left -= turn.quota;
        remainders.push((std::cmp::Reverse(exact % total), at));
    }
    remainders.sort_unstable();
    for (_, at) in remainders.into_iter().take(left as usize) {
        if let Some(turn) = turns.get_mut(at) {
            turn.quota += 1;
        }
    }
}

/// At most 65,535 weights of 16 bits: far from overflow.
fn total(turns: &[Turn]) -> u64 {
    turns.iter().map(|turn| u64::from(turn.weight)).sum()
}

/// Where a round has this many candidates or more for each that takes a slot in it, rounds are not
/// played one by one.
const IDLE: u64 = 8;

/// Calls `take` for each slot that a candidate takes, in the order of the rounds.
#[inline]
pub(super) fn take_turns(turns: &mut [Turn], mut take: impl FnMut(&mut Turn)) {
    let largest = turns.iter().map(|turn| turn.weight).max().unwrap_or_default();
    let mut left: u32 = turns.iter().map(|turn| turn.quota).sum();
    // So many rounds bring each candidate one turn on average. That is no more than the largest
    // weight, and no more than there are candidates.
    let rounds = (turns.len() as u64 * u64::from(largest)) / total(turns).max(1);
    if rounds < IDLE {
        while left > 0 {
            for turn in &mut *turns {
                turn.credit += turn.weight;
                if turn.credit < largest {
                    continue;
                }
                turn.credit -= largest;
                if turn.quota > 0 {
                    turn.quota -= 1;
                    left -= 1;
                    take(turn);
                }
            }
        }
        return;
    }
    let mut due = Vec::new();
    while left > 0 {
        for (at, turn) in (0u64..).zip(&mut *turns) {
            // At most 65,535 + 65,535 * 65,535, which is below 2^32.
            let credit = turn.credit + rounds as u32 * turn.weight;
            let times = credit / largest;
            for time in 1..=times.min(turn.quota) {
                let round = (time * largest - turn.credit).div_ceil(turn.weight);
                due.push(u64::from(round) << 32 | at);
            }
            turn.quota -= times.min(turn.quota);
            turn.credit = credit % largest;
        }
        left -= due.len() as u32;
        due.sort_unstable();
        for at in due.drain(..) {
            if let Some(turn) = turns.get_mut(at as u32 as usize) {
                take(turn);
            }
        }
    }
}
