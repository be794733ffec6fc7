//! Questions about one interface, and what is said of those that could not be asked.

use super::{RIGHTS, unseen};
use crate::doctor::observed::Unseen;
use std::io;

/// Of what fails for one reason there is one entry, whatever it is: a driver that cannot be asked has no answer to any
/// question.
pub(super) struct Questions<'a> {
    interface: &'a str,
    failed: Vec<Failed>,
}

struct Failed {
    why: String,
    /// Of what, each with a command that shows it.
    what: Vec<(&'static str, String)>,
    is_refused: bool,
}

impl<'a> Questions<'a> {
    pub(super) fn about(interface: &'a str) -> Self {
        Self { interface, failed: Vec::new() }
    }

    /// What the driver says, if it has anything to say of that; `ethtool` shows it with this option.
    pub(super) fn driver<T>(
        &mut self,
        what: &'static str,
        option: &str,
        answer: io::Result<Option<T>>,
    ) -> Option<T> {
        let show = format!("ethtool {option} {}", self.interface);
        self.ask("its driver cannot be asked", what, show, answer)
    }

    /// What the kernel says, if it has anything to say of that; `show` is a command that shows it.
    pub(super) fn kernel<T>(
        &mut self,
        what: &'static str,
        show: String,
        answer: io::Result<Option<T>>,
    ) -> Option<T> {
        self.ask("the kernel does not tell", what, show, answer)
    }

    fn ask<T>(
        &mut self,
        failure: &str,
        what: &'static str,
        show: String,
        answer: io::Result<Option<T>>,
    ) -> Option<T> {
        let error = match answer {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        let why = format!("{failure}: {error}");
        let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
        match self.failed.iter_mut().find(|failed| failed.why == why) {
            Some(failed) => failed.what.push((what, show)),
            None => self.failed.push(Failed { why, what: vec![(what, show)], is_refused }),
        }
        None
    }

    /// What could not be asked.
    pub(super) fn unanswered(self) -> impl Iterator<Item = Unseen> + use<> {
        let interface = self.interface.to_owned();
        self.failed.into_iter().map(move |Failed { why, what, is_refused }| {
            let (names, mut commands): (Vec<_>, Vec<_>) = what.into_iter().unzip();
            commands.dedup();
            let remedy = if is_refused { RIGHTS.to_owned() } else { commands.join("; ") };
            unseen(format!("{} of {interface}", names.join(", ")), why, &remedy)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_entry_for_each_reason_and_none_for_what_there_is_not() {
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let mut questions = Questions::about("eth0");
        assert_eq!(questions.driver("LRO", "-k", Ok(Some(true))), Some(true));
        assert_eq!(questions.driver::<u32>("rings", "-g", Ok(None)), None);
        assert_eq!(questions.driver::<u32>("queues", "-l", Err(gone())), None);
        assert_eq!(questions.driver::<bool>("GRO", "-k", Err(gone())), None);
        assert_eq!(questions.driver::<bool>("GRO in hardware", "-k", Err(gone())), None);
        let refused = io::ErrorKind::PermissionDenied.into();
        assert_eq!(questions.kernel::<u32>("rp_filter", "sysctl x".to_owned(), Err(refused)), None);
        let all: Vec<Unseen> = questions.unanswered().collect();
        let [driver, kernel] = &all[..] else { panic!("{all:?}") };
        assert_eq!(driver.what, "queues, GRO, GRO in hardware of eth0");
        assert!(driver.why.starts_with("its driver cannot be asked: No such device"), "{driver:?}");
        assert_eq!(driver.remedy, "ethtool -l eth0; ethtool -k eth0");
        assert_eq!((kernel.what.as_str(), kernel.remedy.as_str()), ("rp_filter of eth0", RIGHTS));
    }
}
