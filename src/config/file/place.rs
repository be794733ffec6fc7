//! Where in a file something is, for people who have to find it.

use std::fmt;
use std::ops::Range;

/// A value's place: a chain from it to the root, as long as the reading of its parents lasts.
#[derive(Clone)]
pub(super) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
    /// What the table at this place is known by, such as the VIP of a service.
    about: Option<&'a str>,
    /// The bytes of the text.
    pub(super) span: Range<usize>,
}

#[derive(Clone)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Place<'a> {
    pub(super) fn root(span: Range<usize>) -> Self {
        Self { parent: None, step: Step::Root, about: None, span }
    }

    pub(super) fn key(&'a self, key: &'a str, span: Range<usize>) -> Place<'a> {
        Place { parent: Some(self), step: Step::Key(key), about: None, span }
    }

    pub(super) fn index(
        &'a self,
        index: usize,
        about: Option<&'a str>,
        span: Range<usize>,
    ) -> Place<'a> {
        Place { parent: Some(self), step: Step::Index(index), about, span }
    }

    /// The outermost name on the way: that of the service, rather than that of its backend.
    pub(super) fn about(&self) -> Option<&'a str> {
        self.parent.and_then(Place::about).or(self.about)
    }
}

impl fmt::Display for Place<'_> {
    /// As in `service[2].backend[0].weight`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => {
                let dot = if matches!(parent.step, Step::Root) { "" } else { "." };
                write!(f, "{dot}{}", clip(key))
            }
        }
    }
}

/// The beginning of what a file holds, without line breaks and control characters: files are hostile
/// too, and an error never repeats a megabyte of them.
pub(super) fn clip(text: &str) -> String {
    const LONGEST: usize = 60;
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut clipped: String = text.chars().take(LONGEST).map(printable).collect();
    if clipped.len() < text.len() && text.chars().nth(LONGEST).is_some() {
        clipped.push('…');
    }
    clipped
}
