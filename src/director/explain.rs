//! What the workers would do, gathered.

use super::control::Shared;
use super::error::ExplainError;
use super::workers::Workers;
use crate::balancer::Decider;
use crate::dataplane::{Explanation, Question};
use std::fmt;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How long the workers are waited for: they look for questions after each batch, and twenty times a
/// second while there is no traffic.
const PATIENCE: Duration = Duration::from_secs(1);

/// What each queue would do; see [`Director::explain`](super::Director::explain).
///
/// Workers remember flows by themselves, and the NIC decides which queue a flow comes by. So what
/// counts is what the queue says that knows the flow; of a flow that no queue knows all say the same,
/// unless one is a moment behind with the configuration. `Display` writes what
/// [`main`](Self::main) found, and where other queues differ.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Explained {
    /// In the order of the queues; there is at least one.
    pub queues: Vec<OfQueue>,
}

/// What one queue would do.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct OfQueue {
    /// The queue's number.
    pub queue: u32,
    /// What its worker would do.
    pub explanation: Explanation,
}

impl OfQueue {
    /// Whether its worker remembers the flow.
    pub fn knows(&self) -> bool {
        let recall = self.explanation.placement.and_then(|placement| placement.recall);
        recall.is_some_and(|recall| recall.before.is_some())
    }

    /// Whether that decides.
    fn counts(&self) -> bool {
        let decider = self.explanation.placement.map(|placement| placement.decider);
        decider == Some(Decider::FlowTable)
    }
}

impl Explained {
    /// The queue that counts: the first that knows the flow and would go by that, else the first that
    /// knows it, else the first.
    pub fn main(&self) -> Option<&OfQueue> {
        let mut queues = self.queues.iter();
        let known = queues.clone().find(|of| of.counts());
        known.or_else(|| queues.clone().find(|of| of.knows())).or_else(|| queues.next())
    }

    /// The queues that remember the flow.
    pub fn known_by(&self) -> impl Iterator<Item = u32> {
        self.queues.iter().filter(|of| of.knows()).map(|of| of.queue)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(main) = self.main() else { return Ok(()) };
        writeln!(f, "{}", main.explanation)?;
        let known: Vec<String> = self.known_by().map(|queue| queue.to_string()).collect();
        let (of, all) = (main.queue, self.queues.len());
        match known.as_slice() {
            [] => write!(f, "{:12}{of} of {all}; none knows the flow", "queue")?,
            known => write!(f, "{:12}{of} of {all}; known by {}", "queue", known.join(", "))?,
        }
        let others = self
            .queues
            .iter()
            .filter(|other| other.explanation.verdict != main.explanation.verdict);
        others
            .into_iter()
            .try_for_each(|other| write!(f, "\nqueue {}:\n{}", other.queue, other.explanation))
    }
}

pub(super) fn explain(
    workers: &Workers,
    shared: &Shared,
    question: &Question,
) -> Result<Explained, ExplainError> {
    let deadline = Instant::now() + PATIENCE;
    let mut queues = Vec::new();
    for (queue, answer) in workers.ask(question) {
        let left = deadline.saturating_duration_since(Instant::now());
        let explanation = answer.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Disconnected => ExplainError::Ended { queue },
            RecvTimeoutError::Timeout => ExplainError::Busy { queue, waited: PATIENCE },
        })??;
        queues.push(OfQueue { queue, explanation });
    }
    let names = shared.names();
    for of in &mut queues {
        let explanation = of.explanation.clone();
        of.explanation = explanation.named(|index| names.get(&index).cloned());
    }
    Ok(Explained { queues })
}
