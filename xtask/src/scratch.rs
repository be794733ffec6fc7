//! A directory outside the tree, where no setting of ours can help.

use crate::Result;
use std::path::PathBuf;
use std::{env, fs};

/// The directory; gone when dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// A new directory for `purpose`.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let directory = env::temp_dir().join(format!("dsrlb-{purpose}-{}", std::process::id()));
        fs::create_dir(&directory)
            .map_err(|error| format!("making {}: {error}", directory.display()))?;
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: removing {}: {error}", self.0.display());
        }
    }
}
