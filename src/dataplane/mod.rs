//! Where packets meet the balancer: drivers, the pipeline and the worker.

mod io;
mod memory;
pub mod neighbour;

pub use io::{Action, Frame, Handler, IoStats, MAX_BATCH, PacketIo};
pub use memory::MemoryIo;
