//! What others have a worker do: send frames of the director's own, explain what it would do, and let
//! what it does be captured.

use super::explanation::Explanation;
use super::io::Port;
use super::minimal::MixedFamilies;
#[cfg(feature = "pcap")]
use super::tap::TapFeed;
use crate::flow::FiveTuple;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

pub(super) enum Mail {
    /// To be sent by this port.
    Frame(Port, Vec<u8>),
    /// To be explained, and where to.
    Question(Question, Sender<Answer>),
    /// To be fed until nobody reads any more.
    #[cfg(feature = "pcap")]
    Tap(Box<TapFeed>),
}

/// What a worker can be asked to explain.
#[derive(Clone, Debug)]
pub enum Question {
    /// What it would do with this frame.
    Frame(Vec<u8>),
    /// What it would do with the next packet of this flow.
    Flow(FiveTuple),
}

/// What a worker answers to a [`Question`].
pub type Answer = Result<Explanation, MixedFamilies>;

/// A worker's end.
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
        self.mail(Mail::Frame(port, frame));
    }

    /// Asks the worker, between two of its batches. The answer comes by what this returns, which is
    /// closed without one if the worker has ended.
    pub fn ask(&self, question: Question) -> Receiver<Answer> {
        let (sender, receiver) = channel();
        self.mail(Mail::Question(question, sender));
        receiver
    }

    /// Has the worker feed a capture from its next batch on, until the [reader](super::TapReader) is
    /// dropped.
    #[cfg(feature = "pcap")]
    pub fn tap(&self, feed: TapFeed) {
        self.mail(Mail::Tap(Box::new(feed)));
    }

    fn mail(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() {
            (self.wake)();
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl fmt::Debug for MailSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSender").finish_non_exhaustive()
    }
}
