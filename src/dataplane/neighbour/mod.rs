//! Which MAC each backend is reached by, kept fresh whatever monitors do.
//!
//! On one link, Direct Server Return is a change of MAC addresses, so a backend whose MAC is not
//! known, or is wrong, can be sent nothing. The kernel resolves and watches neighbours well; what it
//! lacks here is a reason to, since the packets to the backends do not go through it. So the
//! `Resolver` makes it ask, follows what it learns, and refuses what would make a loop.
//!
//! - [`NeighbourTable`] is the pure part: what is wanted, what is known, when to ask again.
//! - `Resolver` is the I/O: netlink sockets and, if wanted, a thread.
//! - `verify` asks for one neighbour now, for a monitor.

mod state;
mod table;

#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod decode;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod monitor;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod resolver;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod thread;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod verify;

pub use state::{
    Entry, Freshness, Link, LinkState, NeighbourEvent, NeighbourState, Observation, Path,
    Rejection, Route, Unresolved,
};
pub use table::NeighbourTable;

#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub use monitor::NeighbourReachable;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub use resolver::{Resolver, ResolverError};
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub use thread::ResolverThread;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub(crate) use thread::join;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub use verify::{Unverified, verify};
