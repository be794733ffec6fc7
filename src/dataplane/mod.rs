//! Where packets meet the balancer: drivers, the pipeline and the worker.

#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub mod af_xdp;
mod io;
mod memory;

pub use io::{Action, Frame, Handler, IoStats, MAX_BATCH, PacketIo};
pub use memory::MemoryIo;
