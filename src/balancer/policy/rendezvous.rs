//! Rendezvous hashing (Thaler and Ravishankar, 1998), weighted, as a table.

use super::{Candidate, LookupTable, Policy, Selector};
use crate::flow::HashKey;

const KEY: HashKey = HashKey::new(*b"dsrlb rendezvous");

/// The rendezvous policy. Its table takes 128 KiB and about 65,536 hashes a backend to build:
/// meant for up to a few hundred backends.
///
/// # Specification
///
/// The table has 65,536 slots. In slot `r`, candidate `id` draws the 64-bit number
/// `x = SipHash-1-3(k, r || SipHash-1-3(k, id))`, both numbers as eight little-endian bytes, `k`
/// being the 16 bytes `dsrlb rendezvous`. The slot goes to the candidate with the smallest
/// `cost(x) / weight`, compared as exact fractions (Schindelhauer and Schomaker, 2005); of equal
/// ones to the largest `x`, then to the first id. Equal weights therefore compare by `x` alone.
///
/// `cost(x)` is `-log2(x / 2^64)` in units of 2^-40, a zero draw counting as one. In integers: let
/// `e` be the position of the highest bit of `x`, `m = x * 2^(63 - e)`, and `f = 0`. Then 40 times
/// `m = floor(m * m / 2^63)` and `f = 2 * f`; if `m` is 2^64 or more, `m = floor(m / 2)` and
/// `f = f + 1`. The cost is `(64 - e) * 2^40 - f`.
///
/// The order of two candidates in a slot never depends on a third, so a change of one backend moves
/// no flow between the others. The price is balance: a candidate's share is a random number with a
/// relative deviation of about `sqrt(N / 65536)`, 4 % for 100 backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rendezvous;

impl Rendezvous {
    /// The number of slots in a table.
    pub const TABLE_SIZE: usize = 1 << 16;

    /// Configurations with more backends in one service are refused: for as many of one weight it takes about a second.
    pub const MOST_CANDIDATES: usize = 1024;

    /// The lookup table for these candidates; see [`Rendezvous`] for its specification.
    pub fn table(&self, candidates: &[Candidate<'_>]) -> LookupTable {
        let mut entrants: Vec<Entrant> = (0..u16::MAX)
            .zip(candidates)
            .filter(|(_, candidate)| candidate.weight > 0)
            .map(|(position, candidate)| Entrant {
                position,
                weight: candidate.weight,
                seed: KEY.hash_bytes(candidate.id.as_bytes()),
            })
            .collect();
        // Stable: within a weight the entrants stay in the order of their ids.
        entrants.sort_by_key(|entrant| entrant.weight);
        let classes: Vec<&[Entrant]> = entrants.chunk_by(|a, b| a.weight == b.weight).collect();
        if classes.is_empty() {
            return LookupTable::new(Box::default());
        }
        let slots = (0..Self::TABLE_SIZE as u64).map(|row| winner(row, &classes));
        LookupTable::new(slots.collect())
    }
}

impl Policy for Rendezvous {
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        Box::new(self.table(candidates))
    }

    fn most_candidates(&self) -> usize {
        Self::MOST_CANDIDATES
    }

    fn fingerprint(&self) -> Option<String> {
        Some("dsrlb rendezvous".to_owned())
    }
}

struct Entrant {
    position: u16,
    weight: u16,
    seed: u64,
}

/// Draws for everyone; only the best of each weight needs its logarithm taken.
fn winner(row: u64, classes: &[&[Entrant]]) -> u16 {
    let draw = |entrant: &Entrant| KEY.siphash_words([row, entrant.seed], 0, 16);
    let champions = classes.iter().filter_map(|class| {
        let mut best: Option<(u64, &Entrant)> = None;
        for entrant in *class {
            let x = draw(entrant);
            if best.is_none_or(|(most, _)| x > most) {
                best = Some((x, entrant));
            }
        }
        best
    });
    champions
        .map(|(x, entrant)| {
            let cost = if classes.len() == 1 { 0 } else { negative_log2(x) };
            (cost, x, entrant)
        })
        .min_by(|(a_cost, a_x, a), (b_cost, b_x, b)| {
            // a_cost / a.weight against b_cost / b.weight, without dividing. A larger draw never
            // costs more, so this is one order, whether or not weights are equal.
            let left = u128::from(*a_cost) * u128::from(b.weight);
            let right = u128::from(*b_cost) * u128::from(a.weight);
            left.cmp(&right).then(b_x.cmp(a_x)).then(a.position.cmp(&b.position))
        })
        .map_or(0, |(_, _, entrant)| entrant.position)
}

const FRACTION_BITS: u32 = 40;

/// `-log2(x / 2^64)` in fixed point, in integers only: the same on every machine.
fn negative_log2(x: u64) -> u64 {
    let x = x.max(1);
    let leading = x.leading_zeros();
    // The mantissa, in [1, 2) with 63 fractional bits; each squaring yields one bit of its log2.
    let mut mantissa = u128::from(x) << leading;
    let mut log = 0u64;
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        log <<= 1;
        if mantissa >> 64 != 0 {
            log |= 1;
            mantissa >>= 1;
        }
    }
    (u64::from(leading + 1) << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use super::super::{digest, shares};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_logarithm_is_right(x in 1u64..) {
            let exact = 64.0 - (x as f64).log2();
            let fixed = negative_log2(x) as f64 / (1u64 << FRACTION_BITS) as f64;
            prop_assert!((exact - fixed).abs() < 1e-9, "{exact} {fixed}");
        }
    }

    /// To the last bit, from a port of the specification to another language.
    #[test]
    fn known_costs_do_not_change() {
        for (x, cost) in [
            (0x0, 0x400000000000),
            (0x1, 0x400000000000),
            (0x3, 0x3e6a3fe5c605),
            (0x123456789abcdef, 0x7d053f6d261),
            (0x8000000000000001, 0x10000000000),
            (0xffffffffffffffff, 0x1),
        ] {
            assert_eq!(negative_log2(x), cost, "{x:#x}");
        }
    }

    fn pool(ids: &[String], weights: impl Fn(usize) -> u16) -> Vec<Candidate<'_>> {
        let weighted = ids.iter().enumerate();
        weighted.map(|(i, id)| Candidate { id, weight: weights(i) }).collect()
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("10.0.0.{i:03}")).collect()
    }

    #[test]
    fn removal_moves_no_other_flow() {
        let ids = ids(20);
        let all = pool(&ids, |i| 1 + i as u16 % 3);
        let before = Rendezvous.table(&all);
        let after = Rendezvous.table(&all[..19]);
        for (old, new) in before.slots().iter().zip(after.slots()) {
            assert!(*old == 19 || old == new);
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let ids = ids(4);
        let shares = shares(&Rendezvous.table(&pool(&ids, |i| [1, 2, 3, 10][i])), 4);
        for (share, weight) in shares.iter().zip([1.0_f64, 2.0, 3.0, 10.0]) {
            let exact = 65_536.0 * weight / 16.0;
            // Binomial: four standard deviations.
            let bound = 4.0 * (exact * (1.0 - weight / 16.0)).sqrt();
            assert!((*share as f64 - exact).abs() < bound, "{share} for {exact}");
        }
    }

    /// Tables are for ever: directors of two versions share VIPs. The numbers are those of a port
    /// of the specification to another language.
    #[test]
    fn known_tables_do_not_change() {
        let ids = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
        for (last, known) in [(2, 0x5f9b_8662_2d83_b222), (1, 0x0284_39e6_9433_4b56)] {
            let pool = ids.iter().zip([1, 1, last]).map(|(id, weight)| Candidate { id, weight });
            let table = Rendezvous.table(&pool.collect::<Vec<_>>());
            assert_eq!(digest(&table), known);
        }
    }

    #[test]
    fn the_optimised_winner_is_the_literal_one() {
        let ids = ids(12);
        let candidates = pool(&ids, |i| [1, 1, 5, 5, 7, 1000][i % 6]);
        let table = Rendezvous.table(&candidates);
        for (row, slot) in table.slots().iter().enumerate().step_by(97) {
            let literal = (0u16..).zip(&candidates).min_by(|(_, a), (_, b)| {
                let cost = |c: &Candidate<'_>| {
                    let mut message = (row as u64).to_le_bytes().to_vec();
                    message.extend(KEY.hash_bytes(c.id.as_bytes()).to_le_bytes());
                    let x = KEY.hash_bytes(&message);
                    (negative_log2(x) as f64 / f64::from(c.weight), std::cmp::Reverse(x))
                };
                cost(a).partial_cmp(&cost(b)).unwrap()
            });
            assert_eq!(literal.map(|(position, _)| position), Some(*slot));
        }
    }

    /// The smallest draw costs 64 * 2^40, and times the largest weight that is far below 2^128. Few
    /// rows, for a whole table takes four thousand million draws.
    #[test]
    fn as_many_and_as_heavy_backends_as_can_be_do_not_overflow() {
        let entrants: Vec<Entrant> = (0..u16::MAX)
            .map(|position| Entrant {
                position,
                weight: u16::MAX - position % 2,
                seed: KEY.hash_bytes(format!("b{position}").as_bytes()),
            })
            .collect();
        let (odd, even): (Vec<_>, Vec<_>) = entrants.into_iter().partition(|e| e.position % 2 == 1);
        let winners: Vec<u16> = (0..4).map(|row| winner(row, &[&odd[..], &even[..]])).collect();
        // From the Python implementation in tests/vectors.
        assert_eq!(winners, [4246, 43590, 25996, 61274]);
    }
}
