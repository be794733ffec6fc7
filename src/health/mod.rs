//! Whether backends are well: monitors look, the runner decides when and what it means.
//!
//! A [`Monitor`] probes one backend once and says whether it is well or why not. Everything else
//! is the library's: the [`Runner`] owns the timing, the threads, the thresholds and the reporting,
//! so a monitor is one function. Decisions ([`Hysteresis`], [`Schedule`]) are pure and run in
//! virtual time.
//!
//! MAC addresses are none of a monitor's business: neighbours are resolved whatever monitor is
//! bound, and if none is.
//!
//! ```
//! use dsrlb::health::{Monitor, ProbeFailure, Target};
//! use std::net::TcpStream;
//! use std::time::Duration;
//!
//! /// Well is who accepts connections on port 80.
//! struct TcpConnect;
//!
//! impl Monitor for TcpConnect {
//!     fn probe(&self, target: &Target, timeout: Duration) -> Result<(), ProbeFailure> {
//!         TcpStream::connect_timeout(&(target.address, 80).into(), timeout)
//!             .map(drop)
//!             .map_err(|error| ProbeFailure::Failed(format!("port 80: {error}")))
//!     }
//! }
//! ```

#![forbid(unsafe_code)]

mod hysteresis;
mod icmp;
mod policy;
mod runner;
mod schedule;

pub use hysteresis::Hysteresis;
pub use icmp::IcmpEcho;
pub use policy::{HealthPolicy, HealthPolicyError};
pub use runner::{HealthEvent, Runner, RunnerError};
pub use schedule::Schedule;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is to be probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The backend's own address.
    pub address: IpAddr,
}

impl Target {
    /// A backend at this address.
    pub fn new(address: IpAddr) -> Self {
        Self { address }
    }
}

/// Why a backend is not well, as far as one probe can tell.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// Nothing came back in time.
    #[error("no answer within {} ms", .0.as_millis())]
    NoAnswer(Duration),
    /// The network says that the backend cannot be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The backend was reached, and what it did is not what a well one does.
    #[error("{0}")]
    Failed(String),
    /// The probe could not be made; this says nothing about the backend.
    #[error("cannot {doing}: {error}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// What the system said, and what to do about it.
        error: String,
    },
    /// The monitor panicked.
    #[error("the monitor panicked: {0}")]
    Panicked(String),
}

/// Probes backends.
///
/// Called from several threads at once, for different backends; never twice at once for one.
pub trait Monitor: Send + Sync {
    /// Probes one backend once, and is done within about `timeout`: one that takes longer holds up
    /// nobody but itself, and one of the runner's threads.
    ///
    /// # Errors
    ///
    /// Why the backend is not well.
    fn probe(&self, target: &Target, timeout: Duration) -> Result<(), ProbeFailure>;
}

impl<T: Monitor + ?Sized> Monitor for Box<T> {
    fn probe(&self, target: &Target, timeout: Duration) -> Result<(), ProbeFailure> {
        (**self).probe(target, timeout)
    }
}

impl<T: Monitor + ?Sized> Monitor for Arc<T> {
    fn probe(&self, target: &Target, timeout: Duration) -> Result<(), ProbeFailure> {
        (**self).probe(target, timeout)
    }
}
