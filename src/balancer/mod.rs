//! Which backend a packet goes to: services, policies and the balancer, pure.
//!
//! Three traits, from the outside in:
//!
//! * [`Backend`]: a real server as the embedder knows it. Read when a [`ServiceTable`] is built,
//!   never for a packet.
//! * [`Policy`]: builds, off the packet path, an immutable [`Selector`] from the backends that may
//!   take traffic. Stock: [`Maglev`] and [`Rendezvous`]. [`QuicLb`] and [`ByConnection`] wrap one of
//!   them and route QUIC by connection ID before that.
//! * [`Balancer`]: assigns packets to backends, one per worker, without locks. Stock:
//!   [`HashBalancer`], which decides every packet by hashing alone, and [`FlowBalancer`], which
//!   remembers what it has decided.
//!
//! # Contract
//!
//! No I/O, no clock, no allocation per packet, no panic. Decisions depend on the *set* of
//! services and backends and on the hash keys, never on the order of the configuration, the
//! machine or the process: directors configured alike agree on every flow.

#![forbid(unsafe_code)]

mod assign;
mod backend;
mod built;
mod connection;
mod elder;
mod exact;
mod flow_table;
mod keepers;
mod placement;
mod policy;
mod registry;
mod remember;
mod selection;
mod service;
mod sync;
mod table;

pub use assign::{Assignment, Balancer, HashBalancer};
pub use backend::{AdminState, Backend, RealServer};
pub use built::Service;
pub use connection::{
    ByConnection, ConnectionRouter, LengthError, QuicConfig, QuicLb, QuicLbError,
};
pub use flow_table::{CapacityError, FlowCounts, FlowTimes, State as FlowState};
/// For the benchmarks and fuzz targets.
#[doc(hidden)]
pub use flow_table::{
    FlowKey, FlowRecord, FlowTable, Found, Imported, Inserted, Lease, Lifetimes, Located, Signal,
    Spot, State, Steady,
};
pub(crate) use keepers::AT_HAND;
pub use keepers::Keeping;
pub use placement::{Decider, FlowMemory, Placement, Recall};
pub use policy::{Candidate, LookupTable, Maglev, Policy, Rendezvous, Selector, TableSizeError};
pub use registry::IndexRegistry;
pub use remember::{FlowBalancer, Record};
pub use selection::{Rule, Selection};
pub use service::{Echo, Persistence, Scope, VipKey, VirtualService, WhenAllDown};
pub use sync::{BackendNames, FlowSync, SharedFlow, SharedFlowError, SyncCounts};
pub use table::{Lookup, ServiceTable};
