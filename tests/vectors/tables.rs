//! Tables as vectors.

use dsrlb::balancer::{Candidate, LookupTable};
use dsrlb::flow::HashKey;
use serde_json::{Map, Value, json};

/// Tables of at most this many slots are published whole.
const WHOLE: usize = 251;

/// The backends of a case.
pub enum Pool {
    /// By name and weight, in any order.
    Named(Vec<(String, u16)>),
    /// Number `i` from zero is called `backend-i`, and its weight is `weights[i % weights.len()]`.
    Rule { count: usize, weights: Vec<u16> },
}

pub fn named(backends: &[(&str, u16)]) -> Pool {
    Pool::Named(backends.iter().map(|(id, weight)| ((*id).to_owned(), *weight)).collect())
}

/// A pool and the table that `build` makes of it.
pub fn case(pool: &Pool, build: impl Fn(&[Candidate<'_>]) -> LookupTable) -> Value {
    let (mut backends, described) = match pool {
        Pool::Named(backends) => (backends.clone(), json!({"backends": backends})),
        Pool::Rule { count, weights } => {
            let number = |i| (format!("backend-{i}"), weights[i % weights.len()]);
            let backends = (0..*count).map(number).collect();
            (backends, json!({"count": count, "weights": weights}))
        }
    };
    backends.sort();
    let candidates: Vec<_> =
        backends.iter().map(|(id, weight)| Candidate { id, weight: *weight }).collect();
    let table = build(&candidates);
    let slots = table.slots();
    let mut case = described.as_object().cloned().unwrap_or_default();
    case.insert("size".to_owned(), json!(slots.len()));
    let owner = |at: usize| candidates[usize::from(slots[at])].id;
    if slots.len() <= WHOLE {
        let owners: Vec<_> = (0..slots.len()).map(owner).collect();
        case.insert("table".to_owned(), json!(owners));
    } else {
        let some = (0..slots.len()).step_by(slots.len() / 16);
        let some: Map<_, _> = some.map(|at| (at.to_string(), json!(owner(at)))).collect();
        case.insert("slots".to_owned(), json!(some));
        let bytes: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
        let digest = HashKey::default().hash_bytes(&bytes);
        case.insert("digest".to_owned(), json!(format!("{digest:016x}")));
    }
    Value::Object(case)
}
