//! Ending a queue's wait from another thread.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Ends the wait of a queue's [`poll`](super::PacketIo::poll), so that its worker looks at what else
/// there is to do.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Ends the present wait, or the next one.
    pub fn wake(&self) {
        // Fails only if nobody has looked for 2^64 - 1 calls, and then it will be seen all the same.
        let _ = self.0.write(1);
    }

    /// Forgets that it was called.
    pub(crate) fn clear(&self) {
        let _ = self.0.read();
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
