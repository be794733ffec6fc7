//! The threads that move packets.

use super::control::Shared;
use super::error::StartError;
use crate::balancer::Balancer;
use crate::dataplane::af_xdp::{XdpQueue, pin_thread};
use crate::dataplane::neighbour::join;
use crate::dataplane::{Answer, MailSender, Question, Worker};
#[cfg(feature = "pcap")]
use crate::dataplane::{Chosen, TapFeed, TapReader};
use crate::error::panic_message;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

/// All workers. Dropping them gives the traffic back to the kernel first, then waits for them to end:
/// while frames are redirected somebody polls for them.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// By queue.
    mail: Vec<(u32, MailSender)>,
    shared: Arc<Shared>,
}

impl Workers {
    /// None yet.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { threads: Vec::new(), mail: Vec::new(), shared: Arc::clone(shared) }
    }

    /// Asks all of them at once.
    pub(super) fn ask(&self, question: &Question) -> Vec<(u32, Receiver<Answer>)> {
        let each = self.mail.iter();
        each.map(|(queue, mail)| (*queue, mail.ask(question.clone()))).collect()
    }

    /// Has all of them feed a capture.
    #[cfg(feature = "pcap")]
    pub(super) fn tap(&self, chosen: &Chosen) -> Vec<TapReader> {
        let each = self.mail.iter().map(|(_, mail)| {
            let (feed, reader) = TapFeed::new(chosen.clone());
            mail.tap(feed);
            reader
        });
        each.collect()
    }

    /// Starts the worker of a queue, which `mail` comes to, on a core if it has one.
    pub(super) fn start(
        &mut self,
        queue: u32,
        core: Option<u32>,
        mail: MailSender,
        mut worker: Worker<XdpQueue, Box<dyn Balancer>>,
    ) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let work = move || {
            // A balancer is the embedder's code too. If it panics, traffic goes back to the kernel.
            let error = match catch_unwind(AssertUnwindSafe(|| {
                core.map_or(Ok(()), pin_thread)?;
                worker.run(shared.stop_flag())
            })) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_message(panic.as_ref())),
            };
            // The socket is closed before anybody hears of it.
            drop(worker);
            shared.worker_failed(queue, error);
        };
        let thread = std::thread::Builder::new().name(format!("dsrlb-queue-{queue}")).spawn(work);
        self.mail.push((queue, mail));
        self.threads
            .push(thread.map_err(|source| StartError::Thread { thread: "worker", source })?);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.detach();
        self.shared.stop_workers();
        for thread in self.threads.drain(..) {
            join(thread);
        }
    }
}
