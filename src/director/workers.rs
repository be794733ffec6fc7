//! The threads that move packets.

use super::control::Shared;
use super::error::StartError;
use crate::balancer::Balancer;
use crate::dataplane::Worker;
use crate::dataplane::af_xdp::XdpQueue;
use crate::dataplane::neighbour::join;
use crate::error::panic_message;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// All workers. Dropping them gives the traffic back to the kernel first, then waits for them to end:
/// while frames are redirected somebody polls for them.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Workers {
    /// None yet.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { threads: Vec::new(), shared: Arc::clone(shared) }
    }

    /// Starts the worker of a queue.
    pub(super) fn start(
        &mut self,
        queue: u32,
        mut worker: Worker<XdpQueue, Box<dyn Balancer>>,
    ) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let work = move || {
            // A balancer is the embedder's code too. If it panics, traffic goes back to the kernel.
            let error = match catch_unwind(AssertUnwindSafe(|| worker.run(shared.stop_flag()))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_message(panic.as_ref())),
            };
            // The socket is closed before anybody hears of it.
            drop(worker);
            shared.worker_failed(queue, error);
        };
        let thread = std::thread::Builder::new().name(format!("dsrlb-queue-{queue}")).spawn(work);
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
