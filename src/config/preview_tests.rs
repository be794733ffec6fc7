//! Previews against a look at every flow there could be.

use super::*;
use crate::balancer::{
    Candidate, LookupTable, Maglev, Policy, RealServer, Rendezvous, Selector, VirtualService,
    WhenAllDown,
};
use crate::flow::HashKey;
use proptest::prelude::*;
use std::collections::BTreeMap;

const VIP: &str = "10.0.0.100:80/tcp";

fn service(policy: impl Policy + 'static, backends: &[(u8, u16)]) -> VirtualService {
    let service = VirtualService::new(VIP.parse().unwrap()).policy(policy);
    backends.iter().fold(service, |service, (number, weight)| {
        let server = RealServer::new([10, 0, 1, *number].into());
        service.backend(server.with_id(format!("b{number:02}")).with_weight(*weight))
    })
}

fn between(old: &VirtualService, new: &VirtualService) -> Preview {
    let [old, new] = [old, new].map(|service| Config::from_iter([service.clone()]));
    Preview::between(&old, &new, |_, _| true)
}

fn size(size: usize) -> Maglev {
    Maglev::with_table_size(size).unwrap()
}

/// The owner of each of `count` flows, by name.
fn owners(service: &VirtualService, count: u64) -> Vec<String> {
    let mut backends: Vec<_> = service.backends.iter().filter(|b| b.weight() > 0).collect();
    backends.sort_by_key(|backend| backend.id());
    let candidate = |b: &&Arc<dyn Backend>| (b.id().to_owned(), b.weight());
    let pool: Vec<(String, u16)> = backends.iter().map(candidate).collect();
    let pool: Vec<_> = pool.iter().map(|(id, weight)| Candidate { id, weight: *weight }).collect();
    let selector = service.policy.build(&pool);
    let step = u64::MAX / count;
    let owner = |number: u64| {
        let position = selector.select(FlowHash(number * step + step / 2));
        position.map_or("nobody".to_owned(), |at| pool[usize::from(at)].id.to_owned())
    };
    (0..count).map(owner).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

fn backends() -> impl Strategy<Value = Vec<(u8, u16)>> {
    let weights = prop::collection::btree_map(1u8..12, 0u16..4, 0..8);
    weights.prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Among as many evenly spread flows as both tables have slots together multiplied, each slot has
    /// as many as the other table has slots.
    #[test]
    fn shares_are_exact(
        old in backends(),
        new in backends(),
        sizes in prop::sample::select(vec![(31, 31), (31, 13), (13, 31), (251, 251)]),
    ) {
        let (old, new) = (service(size(sizes.0), &old), service(size(sizes.1), &new));
        let flows = sizes.0 * sizes.1;
        let (from, to) = (owners(&old, flows as u64), owners(&new, flows as u64));
        let mut expected = BTreeMap::<_, [f64; 4]>::new();
        let mut moved = 0.0;
        for (from, to) in from.iter().zip(&to) {
            let differs = f64::from(u8::from(from != to));
            moved += differs;
            let [before, _, _, lost] = expected.entry(from.clone()).or_default();
            *before += 1.0;
            *lost += differs;
            let [_, after, gained, _] = expected.entry(to.clone()).or_default();
            *after += 1.0;
            *gained += differs;
        }
        expected.remove("nobody");
        let preview = between(&old, &new);
        let Some(moves) = preview.moves.first() else {
            prop_assert_eq!(moved, 0.0);
            return Ok(());
        };
        prop_assert!(near(moves.share, moved / flows as f64), "{} {}", moves.share, moved);
        for (backend, (id, numbers)) in moves.backends.iter().zip(&expected) {
            prop_assert_eq!(&backend.id, id);
            let found = [backend.before, backend.after, backend.gained, backend.lost];
            for (found, number) in found.into_iter().zip(numbers) {
                prop_assert!(near(found, number / flows as f64), "{} {:?}", preview, expected);
            }
        }
        prop_assert_eq!(moves.backends.len(), expected.len());
        let slots = sizes.0 == sizes.1 && !from.contains(&"nobody".to_owned())
            && !to.contains(&"nobody".to_owned());
        let changed = (moved as usize / sizes.1, sizes.0);
        prop_assert_eq!(moves.slots, slots.then_some(changed));
    }
}

#[test]
fn with_another_hash_all_move_that_do_not_meet_again_by_chance() {
    let old = service(size(65_537), &[(1, 1), (2, 3)]);
    let mut new = old.clone();
    new.hash_key = HashKey::new([7; 16]);
    let preview = between(&old, &new);
    let [moves] = &preview.moves[..] else { panic!("{preview}") };
    assert_eq!(moves.slots, Some((0, 65_537)));
    // 1 - (1/4)^2 - (3/4)^2; of what goes away from each the other has its share.
    let close = |a: f64, b: f64| (a - b).abs() < 1e-4;
    assert!(close(moves.share, 0.375), "{preview}");
    assert!(moves.backends.iter().all(|backend| close(backend.lost, 0.1875)), "{preview}");

    // Of real flows the same share moves.
    let flows = (0..20_000u32).map(u32::to_le_bytes);
    let pool = [Candidate { id: "b01", weight: 1 }, Candidate { id: "b02", weight: 3 }];
    let table = Maglev::default().table(&pool);
    let select = |service: &VirtualService, bytes: &[u8]| {
        table.select(FlowHash(service.hash_key.hash_bytes(bytes)))
    };
    let moved = flows.filter(|bytes| select(&old, bytes) != select(&new, bytes)).count();
    // Four standard deviations of a share of 0.375 among 20,000.
    assert!((moved as f64 / 20_000.0 - 0.375).abs() < 0.0137, "{moved}");
}

/// Without slots, by halves of the hash.
#[derive(Debug)]
struct Halves(u64);

impl Policy for Halves {
    fn build(&self, _: &[Candidate<'_>]) -> Box<dyn Selector> {
        Box::new(Half(self.0))
    }
}

#[derive(Debug)]
struct Half(u64);

impl Selector for Half {
    fn select(&self, hash: FlowHash) -> Option<u16> {
        Some(u16::from(hash.0 >= self.0))
    }
}

#[test]
fn selectors_without_slots_are_asked() {
    let backends = [(1, 1), (2, 1)];
    let preview =
        between(&service(Halves(1 << 63), &backends), &service(Halves(1 << 62), &backends));
    let [moves] = &preview.moves[..] else { panic!("{preview}") };
    assert!((moves.share - 0.25).abs() < 1e-4 && moves.slots.is_none(), "{preview}");
}

#[test]
fn it_reads_as_a_table() {
    #[derive(Debug)]
    struct Thirds(&'static [u16]);
    impl Policy for Thirds {
        fn build(&self, _: &[Candidate<'_>]) -> Box<dyn Selector> {
            Box::new(LookupTable::new(self.0.into()))
        }
    }
    let old = service(Thirds(&[0, 0, 1, 1]), &[(1, 1), (2, 1)]);
    let new = service(Thirds(&[0, 1, 1, 2]), &[(1, 1), (2, 1), (33, 1)]);
    assert_eq!(
        between(&old, &new).to_string(),
        "services: 0 added, 0 removed, 1 changed; backends: 1 added, 0 removed, 0 changed\n\
         10.0.0.100:80/tcp: 50.00 % of new flows move, 2 of 4 slots\n\
         \u{20}\u{20}backend  before   after  gained    lost\n\
         \u{20}\u{20}b01      50.00%  25.00%   0.00%  25.00%\n\
         \u{20}\u{20}b02      50.00%  50.00%  25.00%  25.00%\n\
         \u{20}\u{20}b33       0.00%  25.00%  25.00%   0.00%"
    );
    assert_eq!(between(&old, &old).moves, []);
}

#[test]
fn who_is_not_well_takes_nothing_and_the_fallback_all() {
    let old = service(Rendezvous, &[(1, 1), (2, 1)]);
    let sorry = RealServer::new([10, 0, 1, 99].into()).with_id("sorry");
    let new = old.clone().when_all_down(WhenAllDown::Fallback(Arc::new(sorry)));
    let [old, new] = [old, new].map(|service| Config::from_iter([service]));
    let preview = Preview::between(&old, &new, |_, backend| backend.id() == "sorry");
    let [moves] = &preview.moves[..] else { panic!("{preview}") };
    let [sorry] = &moves.backends[..] else { panic!("{preview}") };
    assert_eq!((sorry.before, sorry.after, sorry.gained), (0.0, 1.0, 1.0));
    assert_eq!(moves.share, 1.0, "nobody took them before");
    let preview = Preview::between(&old, &new, |_, backend| backend.id() == "b01");
    assert_eq!(preview.moves, []);
}
