//! A decision of a balancer, with what it was decided by.

use super::assign::Assignment;
use super::flow_table::{FlowRecord, State};
use crate::verdict::BackendIndex;
use std::time::Duration;

/// What a balancer would decide about a packet; see [`Balancer::explain`](super::Balancer::explain).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The decision.
    pub assignment: Assignment,
    /// What it was made by.
    pub decider: Decider,
    /// What the flow table has of the flow; none if it is not asked, or there is none.
    pub recall: Option<Recall>,
}

/// What decides about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Decider {
    /// The look-up of the service, and what is checked of every packet before it is placed.
    Lookup,
    /// The packet's connection ID.
    ConnectionId,
    /// The flow table.
    FlowTable,
    /// The hash, by the selector of the service.
    Selector,
    /// The hash, by what the service was before the last changes: the flow is older than those.
    Elder,
}

/// What a flow table has of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recall {
    /// Before the packet; if its backend does not keep it, or the packet opens another flow with the same
    /// addresses and ports, it does not decide.
    pub before: Option<FlowMemory>,
    /// When the packet has been decided; none also if there is no place for it.
    pub after: Option<FlowMemory>,
}

/// A flow that is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowMemory {
    /// The backend it goes to.
    pub backend: BackendIndex,
    /// What is known of it.
    pub state: State,
    /// For how much longer it is remembered if nothing is heard of it, in steps of 134 ms.
    pub remaining: Duration,
}

impl Placement {
    /// A decision without memory.
    pub fn new(assignment: Assignment, decider: Decider) -> Self {
        Self { assignment, decider, recall: None }
    }
}

impl From<FlowRecord> for FlowMemory {
    fn from(record: FlowRecord) -> Self {
        let FlowRecord { backend, state, remaining, .. } = record;
        Self { backend, state, remaining }
    }
}
