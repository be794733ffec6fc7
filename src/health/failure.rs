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
    /// It was not probed, for want of something of our own. This says nothing of the backend, whose
    /// state stays as it is.
    #[error("not probed: {0}")]
    NotProbed(String),
    /// The operating system failed in another way.
    #[error("{0}")]
    System(String),
    /// The monitor panicked, with this message.
    #[error("the monitor panicked: {0}")]
    Panicked(String),
    /// Whoever learns the backend's health elsewhere says that it is unwell.
    #[error("reported as down: {0}")]
    Reported(String),
    /// Whoever learns the backend's health elsewhere has said nothing for longer than that holds.
    #[error("no report for {silence:?}, longer than the lease of {lease:?}")]
    LeaseExpired {
        /// Since the last report.
        silence: Duration,
        /// For how long a report holds.
        lease: Duration,
    },
    /// Whoever learns the backend's health elsewhere has never said anything, for this long.
    #[error("never reported, for {0:?} now")]
    NeverReported(Duration),
    /// All of several probes failed, one of which had to succeed.
    #[error("none succeeded: {}", list(.0))]
    NoneOf(Vec<ProbeFailure>),
    /// A probe succeeded that was not to.
    #[error("the probe succeeded, though it is to fail")]
    Succeeded,
}

impl ProbeFailure {
    /// The failure of a socket that was given `timeout` in all.
    pub(super) fn of_io(error: io::Error, timeout: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout(timeout),
            _ => error.into(),
        }
    }

    /// Whether it tells nothing of the backend: the probe itself could not be made.
    pub(super) fn says_nothing(&self) -> bool {
        match self {
            Self::Overran(_)
            | Self::NotProbed(_)
            | Self::NotPermitted(_)
            | Self::System(_)
            | Self::Panicked(_)
            | Self::LeaseExpired { .. }
            | Self::NeverReported(_) => true,
            Self::NoneOf(failures) => failures.iter().any(Self::says_nothing),
            _ => false,
        }
    }
}

fn list(failures: &[ProbeFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<io::Error> for ProbeFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::PermissionDenied => Self::NotPermitted(error.to_string()),
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::NoRoute(error.to_string()),
            // Out of local ports, or of file descriptors.
            io::ErrorKind::AddrNotAvailable => Self::NotProbed(error.to_string()),
            _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
                Self::NotProbed(error.to_string())
            }
            _ => Self::System(error.to_string()),
        }
    }
}

/// The process, or the system, has as many files open as it may (`errno.h` of Linux and BSD).
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
