//! Frames of the director's own, for a worker to send: announcements and probes.

use super::io::Port;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

type Mail = (Port, Vec<u8>);

/// A worker's end.
#[derive(Debug)]
pub struct Mailbox(Receiver<Mail>);

/// The other end; there can be many.
#[derive(Clone)]
pub struct MailSender {
    sender: Sender<Mail>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    /// A mailbox; `wake` is called after each frame, to end the wait of the worker's driver.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> (MailSender, Self) {
        let (sender, receiver) = channel();
        (MailSender { sender, wake: Arc::new(wake) }, Self(receiver))
    }

    /// A mailbox that nobody writes to.
    pub fn empty() -> Self {
        Self(channel().1)
    }

    pub(super) fn next(&self) -> Option<Mail> {
        self.0.try_recv().ok()
    }
}

impl MailSender {
    /// Has a frame sent by `port`. One for a worker that has ended is lost, as it would be on a cable
    /// that is cut.
    pub fn send(&self, port: Port, frame: Vec<u8>) {
        if self.sender.send((port, frame)).is_ok() {
            (self.wake)();
        }
    }
}

impl fmt::Debug for MailSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSender").finish_non_exhaustive()
    }
}
