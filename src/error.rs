//! Errors that say what was wrong, where, and what was expected.

use std::fmt;

/// Text that is not what it should be: names the thing, the text, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} {text:?} is not valid: expected {expected}")]
pub struct ParseError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str, expected: &'static str) -> Self {
        // Configurations are hostile too: an error never repeats a megabyte of them.
        let text = text.chars().take(80).collect();
        Self { what, text, expected }
    }

    /// The text, or the beginning of it.
    #[cfg(feature = "file")]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What is allowed.
    #[cfg(feature = "file")]
    pub(crate) fn expected(&self) -> &str {
        self.expected
    }
}

/// One thing wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigProblem {
    /// Where: the path of the field, such as `service 10.0.0.100:80/tcp: backend 10.0.0.11`.
    pub path: String,
    /// What: the value found there.
    pub value: String,
    /// Why it is refused and what is allowed.
    pub expected: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path, self.value, self.expected)
    }
}

/// A configuration that was refused as a whole, with every problem found in one pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
}

impl ConfigError {
    pub(crate) fn new(problems: Vec<ConfigProblem>) -> Self {
        Self { problems }
    }

    /// Every problem found, in the order of the configuration.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "{only}"),
            many => {
                write!(f, "{} problems in the configuration:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The message that somebody else's code panicked with.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}
