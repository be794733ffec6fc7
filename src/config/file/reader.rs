//! Notes what is wrong in a file and goes on.

use super::place::{Place, clip};
use crate::error::ConfigProblem;
use toml::de::{DeTable, DeValue};

/// More would tell nobody more, and a file can be wrong a million times.
const MOST_PROBLEMS: usize = 1_000;

/// Collects problems while a file is read.
pub(super) struct Reader<'t> {
    lines: Lines<'t>,
    problems: Vec<ConfigProblem>,
    left_out: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { lines: Lines::new(text), problems: Vec::new(), left_out: 0 }
    }

    /// How many problems have been found.
    pub(super) fn count(&self) -> usize {
        self.problems.len() + self.left_out
    }

    /// Notes that a value is not as it should be; the remedy is only made if there is room for it.
    pub(super) fn problem(
        &mut self,
        at: &Place<'_>,
        value: impl Into<String>,
        expected: impl FnOnce() -> String,
    ) {
        if self.problems.len() >= MOST_PROBLEMS {
            self.left_out += 1;
            return;
        }
        let line = self.lines.position(at.span.start).0;
        let path = match (at.to_string(), at.about()) {
            (path, None) => format!("{path} (line {line})"),
            (path, Some(about)) => format!("{path} (service {}, line {line})", clip(about)),
        };
        self.problems.push(ConfigProblem { path, value: value.into(), expected: expected() });
    }

    /// Notes a value that is of the wrong type or out of its range.
    pub(super) fn refuse(&mut self, value: &DeValue<'_>, at: &Place<'_>, allowed: &str) {
        self.problem(at, show(value), || format!("expected {allowed}"));
    }

    /// Notes what is no TOML at all.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        if self.problems.len() >= MOST_PROBLEMS {
            self.left_out += 1;
            return;
        }
        let (line, column) = self.lines.position(error.span().map_or(0, |span| span.start));
        let value = match self.lines.line(line).trim() {
            "" => "an empty line".to_owned(),
            secret if secret.contains("key") => "(not shown)".to_owned(),
            found => format!("`{}`", clip(found)),
        };
        let path = format!("line {line}, column {column}");
        let expected = format!("is not TOML: {}", error.message().trim().replace('\n', ", "));
        self.problems.push(ConfigProblem { path, value, expected });
    }

    /// All problems, in the order in which they were found.
    pub(super) fn finish(self) -> Vec<ConfigProblem> {
        let mut problems = self.problems;
        if self.left_out > 0 {
            problems.push(ConfigProblem {
                path: "the file".to_owned(),
                value: format!("{} more problems", self.left_out),
                expected: format!("the first {MOST_PROBLEMS} are listed"),
            });
        }
        problems
    }
}

/// A value as a problem names it.
pub(super) fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", clip(text)),
        DeValue::Integer(number) => clip(&number.to_string()),
        DeValue::Float(number) => clip(&number.to_string()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(array) => format!("an array of {}", array.len()),
        DeValue::Table(table) => format!("a table of {}", keys(table)),
    }
}

fn keys(table: &DeTable<'_>) -> String {
    let names: Vec<String> = table.keys().take(4).map(|key| clip(key.get_ref())).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { text, starts: std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect() }
    }

    /// Line and column of a byte, both from 1; columns are characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..byte).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    fn line(&self, line: usize) -> &'t str {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default()
    }
}
