//! What came of what was asked for.

use std::fmt;

/// Where the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the generic hook.
    Generic,
}

/// What was asked for and what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Granted {
    /// Where the program runs; `None` while it is not attached.
    pub attach: Option<Attached>,
    /// For each queue, whether it shares frames with the driver (zero-copy) or copies them.
    pub zero_copy: Vec<bool>,
    /// For each queue, whether its worker drives the NIC's queue itself
    /// ([`Polling::Busy`](crate::dataplane::Polling::Busy)), as far as was known when it was opened.
    pub busy_polling: Vec<bool>,
    /// For each queue, the core that its worker is to run on.
    pub cores: Vec<Option<u32>>,
    /// How many frames one system call sends in copy mode: what was asked for, or 32 before Linux
    /// 6.18.
    pub transmit_budget: u32,
    /// Where less was granted than would have been best, and why; one sentence each.
    pub fallbacks: Vec<String>,
}

impl fmt::Display for Granted {
    /// As in `native XDP, zero-copy` or `generic XDP, copy mode`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.attach {
            Some(Attached::Native) => "native XDP, ",
            Some(Attached::Generic) => "generic XDP, ",
            None => "not attached, ",
        })?;
        match self.zero_copy.iter().filter(|zero_copy| **zero_copy).count() {
            0 => f.write_str("copy mode"),
            all if all == self.zero_copy.len() => f.write_str("zero-copy"),
            some => write!(f, "zero-copy on {some} of {} queues", self.zero_copy.len()),
        }
    }
}
