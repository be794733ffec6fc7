//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4), with weights in exact proportion.

mod filling;
mod turns;

use super::{Candidate, LookupTable, Policy, Selector};
use filling::{FREE, fill};
use turns::{Turn, proportion};

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
/// is [`FlowHash::slot`](crate::flow::FlowHash::slot). Of the M slots, every candidate gets its exact proportion, M times its
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
        let mut turns: Vec<Turn> = (0..FREE)
            .zip(candidates)
            .filter(|(_, candidate)| candidate.weight > 0)
            .map(|(position, candidate)| Turn::new(position, candidate, size))
            .collect();
        if turns.is_empty() {
            return LookupTable::new(Box::default());
        }
        proportion(&mut turns, size);
        LookupTable::new(fill(&mut turns, size))
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

/// Trial division: sizes are small and this runs once per configuration.
fn is_prime(number: usize) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

#[cfg(test)]
mod tests;
