//! What can be seen of a file without reading it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

/// Differs whenever a file has been written, replaced or removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Glance {
    length: u64,
    modified: Option<SystemTime>,
    /// Device, inode and time of change: another file has another, whatever its times say.
    #[cfg(unix)]
    identity: (u64, u64, i64, i64),
}

impl Glance {
    /// None if there is no file, or nothing that is one.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().filter(Metadata::is_file).map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            identity: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads a file, up to one byte more than `limit`.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // What is no file, such as a pipe, could keep whoever opens it waiting for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut content = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}
