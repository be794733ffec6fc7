//! What the pool has been, so that each connection can be judged by what held during its life.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Backends by their numbers.
pub type Backends = BTreeSet<u8>;

/// What holds from one moment to the next.
#[derive(Clone, Debug, Default)]
struct Phase {
    /// Who may be given new flows.
    taking: Backends,
    /// Whose flows are cut.
    cut: Backends,
}

/// The pool of one service, phase by phase: each change is a phase in which what was and what will be are both
/// right, and after it comes one in which only what is.
#[derive(Debug)]
pub struct History(Mutex<Vec<Phase>>);

impl History {
    pub fn new(taking: &Backends) -> Self {
        Self(Mutex::new(vec![Phase { taking: taking.clone(), cut: Backends::new() }]))
    }

    fn phases(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The phase it is.
    pub fn now(&self) -> usize {
        self.phases().len() - 1
    }

    /// Makes a change.
    pub fn change<T>(&self, taking: &Backends, cut: &Backends, change: impl FnOnce() -> T) -> T {
        let mut phases = self.phases();
        let both = phases.last().map(|phase| &phase.taking | taking).unwrap_or_default();
        phases.push(Phase { taking: both, cut: cut.clone() });
        drop(phases);
        let changed = change();
        self.phases().push(Phase { taking: taking.clone(), cut: Backends::new() });
        changed
    }

    /// Whether a flow that began in that phase or later may have been given to this backend.
    pub fn took(&self, backend: u8, since: usize) -> bool {
        self.phases()[since..].iter().any(|phase| phase.taking.contains(&backend))
    }

    /// Whether a flow that began in that phase may be broken: its backend was cut since; any, if it is not known.
    pub fn cut(&self, backend: Option<u8>, since: usize) -> bool {
        let phases = self.phases();
        let mut cuts = phases[since..].iter().flat_map(|phase| &phase.cut);
        cuts.any(|cut| backend.is_none_or(|backend| backend == *cut))
    }
}
