//! Against the paper, a literal reading of the specification, and tables that must never change.

use super::super::{digest, shares};
use super::turns::{OFFSET_KEY, SKIP_KEY};
use super::*;
use crate::flow::FlowHash;
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
            0, 2, 1, 2, 0, 2, 2, 1, 2, 2, 0, 2, 1, 0, 0, 1, 1, 2, 1, 0, 1, 2, 0, 1, 2, 0, 2, 2, 2,
            2, 2
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

/// The specification with its weights, read literally.
fn literal(weights: &[u16], ids: &[String], size: usize) -> Vec<u16> {
    let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
    let mut quota: Vec<usize> = weights.iter().map(|w| size * usize::from(*w) / total).collect();
    let mut by_rest: Vec<usize> = (0..weights.len()).collect();
    by_rest.sort_by_key(|i| std::cmp::Reverse(size * usize::from(weights[*i]) % total));
    let left = size - quota.iter().sum::<usize>();
    by_rest[..left].iter().for_each(|i| quota[*i] += 1);
    let largest = u32::from(*weights.iter().max().unwrap());
    let mut credit = vec![0; weights.len()];
    let mut table = vec![FREE; size];
    while table.contains(&FREE) {
        for i in 0..weights.len() {
            credit[i] += u32::from(weights[i]);
            if credit[i] >= largest {
                credit[i] -= largest;
                if quota[i] > 0 {
                    quota[i] -= 1;
                    let offset = FlowHash(OFFSET_KEY.hash_bytes(ids[i].as_bytes())).slot(size);
                    let skip = FlowHash(SKIP_KEY.hash_bytes(ids[i].as_bytes())).slot(size - 1) + 1;
                    let mut permutation = (0..size).map(|j| (offset + j * skip) % size);
                    let slot = permutation.find(|slot| table[*slot] == FREE).unwrap();
                    table[slot] = i as u16;
                }
            }
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn weights_of_all_sorts_give_the_table_of_the_specification(
        mut weights in prop::collection::vec(
            prop_oneof![4 => 1u16..4, 2 => 1u16..=1000, 1 => Just(u16::MAX)], 1..60,
        ),
        light in 0usize..200,
        size in prop::sample::select(vec![2, 3, 31, 251, 1021]),
    ) {
        weights.extend(std::iter::repeat_n(1, light));
        let ids: Vec<String> = (0..weights.len()).map(|i| format!("b{i:03}")).collect();
        let candidates: Vec<_> =
            ids.iter().zip(&weights).map(|(id, &weight)| Candidate { id, weight }).collect();
        let table = Maglev::with_table_size(size).unwrap().table(&candidates);
        prop_assert_eq!(table.slots(), &literal(&weights, &ids, size));
    }
}
