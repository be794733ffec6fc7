//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4), with weights in exact proportion.

use super::{Candidate, LookupTable, Policy, Selector};
use crate::flow::{FlowHash, HashKey};

const OFFSET_KEY: HashKey = HashKey::new(*b"dsrlb maglev off");
const SKIP_KEY: HashKey = HashKey::new(*b"dsrlb maglev skp");

/// A slot that nobody has taken yet. There are at most 65,535 candidates, so none has this number.
const FREE: u16 = u16::MAX;

/// The Maglev policy.
///
/// # Specification
///
/// For a table of M slots, M prime, candidate `id` has a permutation of the slots: it begins at
/// `offset` and goes on in steps of `skip`, modulo M, with
///
/// * `offset = slot(SipHash-1-3(k_offset, id), M)`,
/// * `skip = 1 + slot(SipHash-1-3(k_skip, id), M - 1)`,
///
/// where `k_offset` is the 16 bytes `dsrlb maglev off`, `k_skip` is `dsrlb maglev skp`, and `slot`
/// is [`FlowHash::slot`]. Of the M slots, every candidate gets its exact proportion, M times its
/// weight over the sum of weights: the whole part first, and the slots left over go to the largest
/// remainders, among equals to the first id. Candidates are taken in the order of their ids, round
/// after round. In each round a candidate's credit grows by its weight; when it reaches the largest
/// weight of all, the credit is reduced by that and the candidate, unless it has its proportion
/// already, takes the first free slot of its permutation. With equal weights everyone takes one
/// slot a round, which is the paper's table.
///
/// A change of one backend moves few of the other flows, and the shares stay even; rendezvous
/// hashing moves none of them, but shares out less evenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maglev {
    table_size: usize,
}

impl Default for Maglev {
    /// A table of [`Maglev::DEFAULT_TABLE_SIZE`] slots.
    fn default() -> Self {
        Self { table_size: Self::DEFAULT_TABLE_SIZE }
    }
}

/// A table size that Maglev cannot use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "Maglev table size {0} is not usable: it must be a prime of at most {max}, and best more than \
     100 times the number of backends (251, 1021, 4093, 16381, 65537, 655373 are usual)",
    max = Maglev::MAX_TABLE_SIZE
)]
pub struct TableSizeError(usize);

impl Maglev {
    /// 65,537 slots, 128 KiB: even to within one per cent for up to 650 backends (section 5.3).
    pub const DEFAULT_TABLE_SIZE: usize = 65_537;
    /// The largest table allowed, 16 MiB.
    pub const MAX_TABLE_SIZE: usize = 1 << 23;

    /// A policy whose tables have this many slots.
    ///
    /// # Errors
    ///
    /// If `table_size` is not prime, so that a permutation could miss slots, or is larger than
    /// [`Maglev::MAX_TABLE_SIZE`].
    pub fn with_table_size(table_size: usize) -> Result<Self, TableSizeError> {
        if table_size <= Self::MAX_TABLE_SIZE && is_prime(table_size) {
            Ok(Self { table_size })
        } else {
            Err(TableSizeError(table_size))
        }
    }

    /// The lookup table for these candidates; see [`Maglev`] for its specification.
    pub fn table(&self, candidates: &[Candidate<'_>]) -> LookupTable {
        let size = self.table_size;
        let largest = candidates.iter().map(|c| u32::from(c.weight)).max();
        let Some(largest) = largest.filter(|weight| *weight > 0) else {
            return LookupTable::new(Box::default());
        };
        let mut turns: Vec<Turn> = (0..FREE)
            .zip(candidates)
            .filter(|(_, candidate)| candidate.weight > 0)
            .map(|(position, candidate)| Turn::new(position, candidate, size))
            .collect();
        proportion(&mut turns, size);
        let mut slots = vec![FREE; size].into_boxed_slice();
        let mut free = size;
        while free > 0 {
            for turn in &mut turns {
                turn.credit += turn.weight;
                if turn.credit < largest {
                    continue;
                }
                turn.credit -= largest;
                if turn.quota > 0 {
                    turn.quota -= 1;
                    turn.take_slot(&mut slots);
                    free -= 1;
                }
            }
        }
        LookupTable::new(slots)
    }
}

impl Policy for Maglev {
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        Box::new(self.table(candidates))
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("dsrlb maglev {}", self.table_size))
    }
}

/// One candidate's way through the filling of the table.
struct Turn {
    position: u16,
    weight: u32,
    credit: u32,
    /// Slots still to be taken.
    quota: usize,
    next: usize,
    skip: usize,
}

impl Turn {
    fn new(position: u16, candidate: &Candidate<'_>, size: usize) -> Self {
        let hash = |key: HashKey| FlowHash(key.hash_bytes(candidate.id.as_bytes()));
        Self {
            position,
            weight: u32::from(candidate.weight),
            credit: 0,
            quota: 0,
            next: hash(OFFSET_KEY).slot(size),
            skip: 1 + hash(SKIP_KEY).slot(size - 1),
        }
    }

    /// Takes the first free slot of the permutation. There is one: the caller counts them, and a
    /// step that is prime to the table size visits every slot.
    fn take_slot(&mut self, slots: &mut [u16]) {
        loop {
            let at = self.next;
            self.next += self.skip;
            if self.next >= slots.len() {
                self.next -= slots.len();
            }
            match slots.get_mut(at) {
                Some(slot) if *slot == FREE => {
                    *slot = self.position;
                    return;
                }
                _ => {}
            }
        }
    }
}

/// Divides `size` slots in proportion to the weights, by largest remainder.
fn proportion(turns: &mut [Turn], size: usize) {
    let total: u64 = turns.iter().map(|turn| u64::from(turn.weight)).sum();
    let mut remainders = Vec::with_capacity(turns.len());
    let mut left = size;
    for (at, turn) in turns.iter_mut().enumerate() {
        let exact = size as u64 * u64::from(turn.weight);
        turn.quota = (exact / total) as usize;
        left -= turn.quota;
        remainders.push((std::cmp::Reverse(exact % total), at));
    }
    remainders.sort_unstable();
    for (_, at) in remainders.into_iter().take(left) {
        if let Some(turn) = turns.get_mut(at) {
            turn.quota += 1;
        }
    }
}

/// Trial division: sizes are small and this runs once per configuration.
fn is_prime(number: usize) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::super::{digest, shares};
    use super::*;
    use proptest::prelude::*;

    fn named(names: &[String]) -> Vec<Candidate<'_>> {
        names.iter().map(|id| Candidate { id, weight: 1 }).collect()
    }

    /// The paper's pseudocode, section 3.4: permutations first, then turns.
    fn paper(ids: &[String], size: usize) -> Vec<u16> {
        let permutation: Vec<Vec<usize>> = ids
            .iter()
            .map(|id| {
                let offset = FlowHash(OFFSET_KEY.hash_bytes(id.as_bytes())).slot(size);
                let skip = FlowHash(SKIP_KEY.hash_bytes(id.as_bytes())).slot(size - 1) + 1;
                (0..size).map(|j| (offset + j * skip) % size).collect()
            })
            .collect();
        let mut next = vec![0; ids.len()];
        let mut entry = vec![u16::MAX; size];
        let mut n = 0;
        loop {
            for i in 0..ids.len() {
                let mut c = permutation[i][next[i]];
                while entry[c] != u16::MAX {
                    next[i] += 1;
                    c = permutation[i][next[i]];
                }
                entry[c] = i as u16;
                next[i] += 1;
                n += 1;
                if n == size {
                    return entry;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn equal_weights_give_the_table_of_the_paper(
            ids in prop::collection::btree_set("[a-z0-9.]{1,12}", 1..20),
            weight in 1u16..,
        ) {
            let ids: Vec<String> = ids.into_iter().collect();
            let candidates: Vec<_> =
                ids.iter().map(|id| Candidate { id, weight }).collect();
            let table = Maglev::with_table_size(251).unwrap().table(&candidates);
            prop_assert_eq!(table.slots(), &paper(&ids, 251));
        }

        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(1u16..=1000, 1..40)) {
            let ids: Vec<String> = (0..weights.len()).map(|i| format!("b{i:03}")).collect();
            let candidates: Vec<_> =
                ids.iter().zip(&weights).map(|(id, &weight)| Candidate { id, weight }).collect();
            let shares = shares(&Maglev::with_table_size(16_381).unwrap().table(&candidates), ids.len());
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            for (share, weight) in shares.iter().zip(&weights) {
                let exact = 16_381.0 * f64::from(*weight) / total as f64;
                prop_assert!((*share as f64 - exact).abs() < 1.0, "{share} for {exact}");
            }
        }
    }

    /// Tables are for ever: directors of two versions share VIPs. The numbers are those of a port
    /// of the specification to another language.
    #[test]
    fn known_tables_do_not_change() {
        let candidates = [("10.0.0.11", 1), ("10.0.0.12", 1), ("10.0.0.13", 2)];
        let candidates = candidates.map(|(id, weight)| Candidate { id, weight });
        let small = Maglev::with_table_size(31).unwrap().table(&candidates);
        assert_eq!(
            small.slots(),
            [
                0, 2, 1, 2, 0, 2, 2, 1, 2, 2, 0, 2, 1, 0, 0, 1, 1, 2, 1, 0, 1, 2, 0, 1, 2, 0, 2, 2,
                2, 2, 2
            ]
        );
        assert_eq!(digest(&Maglev::default().table(&candidates)), 0x869d_15eb_f160_f8ff);
    }

    #[test]
    fn a_weight_of_one_in_a_thousand_is_exact() {
        let candidates =
            [Candidate { id: "heavy", weight: 1000 }, Candidate { id: "light", weight: 1 }];
        let shares = shares(&Maglev::default().table(&candidates), 2);
        assert_eq!(shares, [65_537 - 65, 65]);
    }

    #[test]
    fn one_of_a_hundred_removed_moves_few_others() {
        let ids: Vec<String> = (0..100).map(|i| format!("10.0.0.{i}")).collect();
        let before = Maglev::default().table(&named(&ids));
        let after = Maglev::default().table(&named(&ids[..99]));
        let moved = before
            .slots()
            .iter()
            .zip(after.slots())
            .filter(|(old, new)| **old != 99 && old != new)
            .count();
        // 0.57 % is what the algorithm gives on average at this size; twice that would be a fault.
        assert!((1..=65_537 * 12 / 1000).contains(&moved), "{moved}");
    }

    #[test]
    fn table_sizes_are_checked() {
        for bad in [0, 1, 4, 65_536, Maglev::MAX_TABLE_SIZE + 1, usize::MAX] {
            assert!(Maglev::with_table_size(bad).is_err(), "{bad}");
        }
        assert!(Maglev::with_table_size(2).is_ok());
    }

    #[test]
    fn no_candidates_make_an_empty_table() {
        assert_eq!(Maglev::default().table(&[]).select(FlowHash(7)), None);
        let weightless = [Candidate { id: "a", weight: 0 }];
        assert_eq!(Maglev::default().table(&weightless).select(FlowHash(7)), None);
    }
}
