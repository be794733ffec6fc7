//! What a queue does until there is something to receive.

use super::XdpQueue;
use crate::dataplane::Polling;
use crate::dataplane::af_xdp::rings::Waited;
use crate::dataplane::af_xdp::sockopt;
use crate::dataplane::af_xdp::tx_port::TxPort;
use socket2::SockRef;
use std::io;
use std::time::{Duration, Instant};

/// How long to wait at first while the TX ring is not empty, for the kernel must be told again.
/// Each further wait is twice as long: a busy device takes frames soon, one that is down may not.
const RETRY_TRANSMIT: Duration = Duration::from_millis(1);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_millis(50);
/// How often the rings are looked at between two system calls, while a queue is waited for without
/// sleep: some ten microseconds.
const LOOKS: u32 = 256;

impl XdpQueue {
    /// Whether the worker drives the NIC's queue.
    pub(in crate::dataplane::af_xdp) fn is_busy_polling(&mut self) -> bool {
        if self.polling == Polling::Busy && !self.has_napi {
            self.has_napi = sockopt::has_napi(self.socket());
        }
        self.has_napi
    }

    /// Has a driver that ran out of frames look for new ones, and finds out whether the interface
    /// is still there: poll(2) does not report that.
    pub(super) fn wake_receive(&self) -> io::Result<()> {
        match SockRef::from(&self.socket()).recv_with_flags(&mut [], libc::MSG_DONTWAIT) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                self.ports.first().map_or(Ok(()), |port| port.explain(error))
            }
            // Down for now, or busy; a socket without a message is no failure either.
            _ => Ok(()),
        }
    }

    /// Waits for something to receive, and goes on sending meanwhile.
    pub(super) fn wait(&mut self, wait: Duration) -> io::Result<()> {
        if self.polling == Polling::Spin || self.is_busy_polling() {
            self.look(wait)
        } else {
            self.sleep(wait)
        }
    }

    /// Waits without giving up the core.
    fn look(&mut self, wait: Duration) -> io::Result<()> {
        let deadline = Instant::now().checked_add(wait);
        loop {
            for _ in 0..LOOKS {
                if self.has_napi || self.rings.fill_needs_wakeup() {
                    self.wake_receive()?;
                }
                self.rings.receive(&mut self.lent);
                if !self.lent.is_empty() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            self.recycle();
            self.kick()?;
            let over = deadline.is_some_and(|at| Instant::now() >= at);
            match self.rings.wait_readable(Duration::ZERO, &self.waker)? {
                Waited::Readable => return Ok(()),
                Waited::Over if !over => {}
                Waited::Over | Waited::Interrupted => return self.wake_receive(),
            }
        }
    }

    /// Waits in poll(2).
    fn sleep(&mut self, wait: Duration) -> io::Result<()> {
        let deadline = Instant::now().checked_add(wait);
        let mut retry = RETRY_TRANSMIT;
        loop {
            let left =
                deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let pending = self.ports.iter().any(TxPort::is_pending);
            let slice = if pending { left.min(retry) } else { left };
            retry = (retry * 2).min(LONGEST_RETRY);
            let waited = self.rings.wait_readable(slice, &self.waker)?;
            if waited == Waited::Readable {
                return Ok(());
            }
            self.recycle();
            self.kick()?;
            if waited == Waited::Interrupted || left <= slice {
                return self.wake_receive();
            }
        }
    }
}
