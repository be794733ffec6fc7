//! What the scheduler has counted.

use std::fs;
use std::io;
use std::iter::Sum;
use std::ops::Sub;
use std::time::Duration;

/// Of a thread, or of all threads of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Schedule {
    /// On a CPU, in user space and in the kernel.
    pub computed: Duration,
    /// Ready, while another had its CPU.
    pub waited: Duration,
}

impl Schedule {
    pub fn of_thread(process: u32, thread: u32) -> io::Result<Self> {
        Self::read(&format!("/proc/{process}/task/{thread}"))
    }

    pub fn of_process(process: u32) -> io::Result<Self> {
        let threads = fs::read_dir(format!("/proc/{process}/task"))?;
        threads.map(|thread| Self::read(&thread?.path().to_string_lossy())).sum()
    }

    fn read(directory: &str) -> io::Result<Self> {
        let text = fs::read_to_string(format!("{directory}/schedstat"))?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let mut next = || match numbers.next() {
            Some(Ok(nanoseconds)) => Ok(Duration::from_nanos(nanoseconds)),
            _ => Err(io::Error::other(format!("{directory}/schedstat has no two numbers"))),
        };
        Ok(Self { computed: next()?, waited: next()? })
    }
}

impl Sum for Schedule {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            computed: sum.computed + one.computed,
            waited: sum.waited + one.waited,
        })
    }
}

impl Sub for Schedule {
    type Output = Self;

    /// A thread that has ended in between takes its share along.
    fn sub(self, earlier: Self) -> Self {
        Self {
            computed: self.computed.saturating_sub(earlier.computed),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}
