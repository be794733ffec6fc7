//! What can go wrong when a director starts or changes.

use crate::balancer::CapacityError;
use crate::config::SourceError;
use crate::dataplane::MixedFamilies;
use crate::dataplane::af_xdp::XdpError;
use crate::dataplane::neighbour::ResolverError;
use crate::error::ConfigError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a director did not start. The network is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The services are not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The interface cannot be used.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// Neighbours cannot be followed.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// What routers say about tunnels cannot be listened to.
    #[error("cannot listen to ICMP about the tunnels: {0}; run as root or with CAP_NET_RAW")]
    Feedback(#[source] io::Error),
    /// Whether others claim the VIPs cannot be listened to.
    #[error(
        "cannot listen to who else claims the VIPs: {0}; run as root or with CAP_NET_RAW, or set \
         claim_checks(None)"
    )]
    Claims(#[source] io::Error),
    /// Probes cannot go through VIPs.
    #[error(transparent)]
    Probing(io::Error),
    /// The configuration source has none to begin with.
    #[error("there is no configuration to begin with: {0}")]
    Source(SourceError),
    /// There is no room for the flows.
    #[error(transparent)]
    Flows(#[from] CapacityError),
    /// The flow tables would take more memory than there is.
    #[error(
        "flows: {entries} for each of {workers} workers take {bytes} bytes, and {available} are available{}; ask for \
         fewer, or for fewer queues", under(.limit)
    )]
    Memory {
        /// How many flows each worker was to have room for.
        entries: usize,
        /// How many workers there would be.
        workers: usize,
        /// What all that would take.
        bytes: u64,
        /// What the kernel says could be used without swapping.
        available: u64,
        /// The file with the limit that leaves no more, if it is one of a control group and not the host's memory.
        limit: Option<PathBuf>,
    },
    /// A thread could not be started.
    #[error("cannot start the {thread} thread: {source}; is the limit of processes reached?")]
    Thread {
        /// What it was for.
        thread: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn under(limit: &Option<PathBuf>) -> String {
    limit
        .as_ref()
        .map_or_else(String::new, |file| format!(" under the limit in {}", file.display()))
}

/// Why a change was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The services that would result are not valid. Nothing has changed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The XDP program could not be told about the new VIPs. The old services are in force.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// Probes cannot go through VIPs, as the new services want. The old ones are in force.
    #[error(transparent)]
    Probing(io::Error),
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// No packet can be of that flow.
    #[error(transparent)]
    Flow(#[from] MixedFamilies),
    /// A worker has failed.
    #[error("the worker of queue {queue} has ended; Director::failure says why")]
    Ended {
        /// Its queue.
        queue: u32,
    },
    /// A worker does not answer.
    #[error(
        "the worker of queue {queue} has not answered for {waited:?}: is the host overloaded? ask again"
    )]
    Busy {
        /// Its queue.
        queue: u32,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl From<UpdateError> for StartError {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Config(error) => Self::Config(error),
            UpdateError::Xdp(error) => Self::Xdp(error),
            UpdateError::Probing(error) => Self::Probing(error),
        }
    }
}
