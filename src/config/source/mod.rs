//! Where configurations come from. The part of `config` that waits, and reads files.
//!
//! [`StaticSource`] has one, [`channel`] is given them by the program, and with feature `file`
//! `FileSource` follows a file.

mod channel;
#[cfg(feature = "file")]
mod file;
mod fixed;
#[cfg(feature = "file")]
mod glance;
#[cfg(feature = "file")]
mod watch;

pub use channel::{ChannelSource, ConfigSender, SourceGone, channel};
#[cfg(feature = "file")]
pub use file::FileSource;
pub use fixed::StaticSource;

use super::Config;
use crate::error::ConfigError;
use std::time::Duration;

/// Yields whole configurations, one after the other.
///
/// The director asks on a thread of its own, checks what it gets, and puts it into force as one
/// snapshot; what is not valid is refused whole and reported, and the last good one keeps serving.
pub trait ConfigSource: Send {
    /// Waits for at most `timeout` for a configuration that has not been given before; the first call
    /// gives the present one at once. `None` if there is none; the caller asks again.
    ///
    /// # Errors
    ///
    /// If there is a new one and it is not valid, or the source cannot be read. Asking goes on, so
    /// the same fault is not to be reported again before something has changed.
    fn next(&mut self, timeout: Duration) -> Result<Option<Config>, SourceError>;
}

impl<S: ConfigSource + ?Sized> ConfigSource for Box<S> {
    fn next(&mut self, timeout: Duration) -> Result<Option<Config>, SourceError> {
        (**self).next(timeout)
    }
}

/// Why a source has no configuration to give.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// What it holds is not a valid configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be read; says what, why, and what to do about it.
    #[error("{0}")]
    Unreadable(String),
}
