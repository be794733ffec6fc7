//! Wakes up when something happens to a file.

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Wake-ups that may wait to be heard. More say nothing new, so they are dropped.
const BACKLOG: usize = 64;

/// What happened, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Touch {
    /// Somebody is writing to the file, and has not closed it.
    Writing,
    /// The file is closed, or something else happened to it.
    Other,
    /// Something happened beside it.
    Elsewhere,
}

/// Watches the directory that a file is in: a watch on the file itself would stay with what is
/// renamed away or removed. What it tells are hints; what counts is what is found there.
#[derive(Debug)]
pub(super) struct Watch {
    touches: Receiver<Touch>,
    /// None where there is nothing to watch with: then nothing is told.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn beside(file: &Path) -> Self {
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (sender, touches) = sync_channel(BACKLOG);
        let name = file.file_name().map(OsString::from);
        let tell = move |event: notify::Result<Event>| {
            if let Some(touch) = event.ok().and_then(|event| touch(&event, name.as_deref())) {
                // If there is no room, there is enough to wake up for.
                let _ = sender.try_send(touch);
            }
        };
        let watcher = notify::recommended_watcher(tell).ok().and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive).ok().map(|()| watcher)
        });
        Self { touches, _watcher: watcher }
    }

    /// Waits for the next touch, or until the time is over.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Touch> {
        match self.touches.recv_timeout(timeout) {
            Ok(touch) => Some(touch),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(timeout);
                None
            }
        }
    }
}

fn touch(event: &Event, name: Option<&OsStr>) -> Option<Touch> {
    let is_ours = event.paths.iter().any(|path| path.file_name() == name);
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) if is_ours => Some(Touch::Other),
        // That it is read, as by ourselves, is no news.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) if is_ours => Some(Touch::Writing),
        _ if is_ours => Some(Touch::Other),
        // Perhaps what ours is a link to, or the directory itself: worth a look, and no more.
        _ => Some(Touch::Elsewhere),
    }
}
