//! The text format of Prometheus, as far as the appliance writes it: without times.

use std::borrow::Cow;
use std::fmt;

/// One line that is not a comment.
#[derive(PartialEq, Debug)]
pub struct Series<'a> {
    pub name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    pub value: f64,
}

impl Series<'_> {
    /// The value of a label; empty if it is not there, which is the same to Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value)
    }
}

/// A line that is none of the format.
#[derive(PartialEq, Debug)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/metrics: not a series with its value: {:?}", self.0)
    }
}

pub fn parse(text: &str) -> impl Iterator<Item = Result<Series<'_>, Malformed>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| series(line).ok_or_else(|| Malformed(line.chars().take(60).collect())))
}

fn series(line: &str) -> Option<Series<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (label, quoted) = inner.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.push((label, value));
            inner = after.strip_prefix(',').unwrap_or(after);
        }
        rest = inner.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    Some(Series { name, labels, value })
}

/// The value of a label, and what comes after its closing quote.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    let (plain, rest) = text.split_at(end);
    if let Some(after) = rest.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), after));
    }
    let mut value = String::from(plain);
    let mut rest = rest.chars();
    loop {
        match rest.next()? {
            '"' => return Some((Cow::Owned(value), rest.as_str())),
            '\\' => value.push(match rest.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_what_is_escaped_in_them() {
        let text = "# HELP a b\na 1\n\nb{x=\"\",y=\"q\\\"\\\\\\n},{z\"} 0.0015\n";
        let all: Vec<_> = parse(text).map(|series| series.unwrap()).collect();
        assert_eq!((all[0].name, all[0].value, all[0].label("x")), ("a", 1.0, ""));
        assert_eq!((all[1].name, all[1].value), ("b", 0.0015));
        assert_eq!((all[1].label("x"), all[1].label("y")), ("", "q\"\\\n},{z"));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for line in ["a", "a{x=\"1\" 2", "a{x=1} 2", "a{x=\"1\"}", "a 1,5", "a{x=\"\\", "{", "a{"] {
            let error = parse(line).next().unwrap().unwrap_err();
            assert!(error.to_string().contains(&format!("{line:?}")), "{error}");
        }
    }
}
