//! Why a probe failed.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Why a backend is not taken for healthy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// Nothing came back in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The monitor itself did not come back in time; it still occupies its thread.
    #[error("the monitor has not returned after {0:?}, although it was to give up before")]
    Overran(Duration),
    /// A router, or the backend's own host, says that there is no way to it.
    #[error("{from} reports unreachable (ICMP type {kind}, code {code})")]
    Unreachable {
        /// Who says so.
        from: IpAddr,
        /// The ICMP or ICMPv6 type.
        kind: u8,
        /// The code within the type.
        code: u8,
    },
    /// This host has no way to the backend.
    #[error("no way to it from here: {0}")]
    NoRoute(String),
    /// The backend refused, such as by a TCP reset.
    #[error("refused")]
    Refused,
    /// This process may not do what the monitor needs.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// The backend answered, but not as a healthy one does.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
    /// The backend has no usable next hop, so no client's packet would reach it either.
    #[error("neighbour unresolved: {0}")]
    NeighbourUnresolved(String),
    /// The backend's host answers, but not what is sent to it through its tunnel.
    #[error("tunnel not decapsulated: {0}")]
    NotDecapsulated(String),
    /// The backend's host answers for itself, but not for the VIP.
    #[error("VIP not bound: {0}")]
    VipNotBound(String),
    /// The backend's host answers pings to the VIP, but the service on it does not answer.
    #[error("application down: {0}")]
    ApplicationDown(String),
    /// The operating system failed in another way.
    #[error("{0}")]
    System(String),
    /// The monitor panicked, with this message.
    #[error("the monitor panicked: {0}")]
    Panicked(String),
}

impl From<io::Error> for ProbeFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::PermissionDenied => Self::NotPermitted(error.to_string()),
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::NoRoute(error.to_string()),
            _ => Self::System(error.to_string()),
        }
    }
}
