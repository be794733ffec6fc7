//! A source that follows a file.

use super::glance::{self, Glance};
use super::watch::{Touch, Watch};
use super::{Config, ConfigSource, SourceError};
use crate::config::file::{ConfigFile, Dataplane, Metrics};
use crate::error::{ConfigError, ConfigProblem};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file has to be as it is before it is read: whoever writes it may not be done.
const QUIET: Duration = Duration::from_millis(100);
/// The same for one that somebody has begun to write and not closed, and for one that is not there:
/// it may be about to be put in place.
const LONG_QUIET: Duration = Duration::from_secs(1);
/// How often it is looked at in any case. Not every file system tells of changes, and nothing tells
/// that a directory has been put in the place of the one that is watched.
const PATROL: Duration = Duration::from_millis(500);

/// Gives the configuration of a TOML file, and again whenever the file has another content.
///
/// The file may be written in place, replaced by another, or be a symbolic link whose target changes
/// (as in a Kubernetes `ConfigMap`). It is read when it has been left alone for 100 ms, or one second
/// while it is open for writing. What is not valid is reported once; the same content again is
/// nothing new. A file that is gone is reported after a second, and empty ones are refused, as they
/// are met while a file is written; the configuration in force stays.
///
/// What `[dataplane]` and `[metrics]` say is set at start: a change of it is refused.
pub struct FileSource {
    path: PathBuf,
    watch: Watch,
    dataplane: Option<Dataplane>,
    metrics: Option<Metrics>,
    /// Read when it was opened, and not given yet.
    first: Option<Config>,
    /// What has been looked into last, good or bad.
    content: Vec<u8>,
    /// What was seen of the file last, since when, and whether it has been looked into since.
    seen: Option<Glance>,
    since: Instant,
    settled: bool,
    /// Whether somebody has begun to write it, and not closed it as far as is known.
    is_open: bool,
}

impl fmt::Debug for FileSource {
    /// Without the content, which may have a hash key in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileSource {
    /// Reads a file, and follows it from then on.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is not valid.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SourceError> {
        let path = path.into();
        // First the watch, then the glance, then the content: what changes in between is met again.
        let watch = Watch::beside(&path);
        let seen = Glance::at(&path);
        let content = read(&path)?;
        let file = parse(&content)?;
        let first = Some(file.to_config()?);
        let (since, dataplane, metrics) = (Instant::now(), file.dataplane, file.metrics);
        let (settled, is_open) = (true, false);
        Ok(Self { path, watch, dataplane, metrics, first, content, seen, since, settled, is_open })
    }

    /// What the file said of the data plane when it was opened.
    pub fn dataplane(&self) -> Option<&Dataplane> {
        self.dataplane.as_ref()
    }

    /// What the file said of metrics when it was opened.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    /// Looks whether the file has changed, without reading it.
    fn look(&mut self) {
        let glance = Glance::at(&self.path);
        if glance != self.seen {
            (self.seen, self.since, self.settled) = (glance, Instant::now(), false);
        }
    }

    /// How long the file still has to be left alone; none if there is nothing to look into.
    fn due(&self) -> Option<Duration> {
        let quiet = if self.is_open || self.seen.is_none() { LONG_QUIET } else { QUIET };
        (!self.settled).then(|| quiet.saturating_sub(self.since.elapsed()))
    }

    /// Looks into the file. None if there is nothing new in it.
    fn settle(&mut self) -> Result<Option<Config>, SourceError> {
        (self.settled, self.is_open) = (true, false);
        let content = read(&self.path);
        // What was written while it was read may be in it by half: it will be looked into again.
        self.look();
        if !self.settled {
            return Ok(None);
        }
        let content = content?;
        if content == self.content {
            return Ok(None);
        }
        self.content = content;
        let file = parse(&self.content)?;
        unchanged(&file, self)?;
        Ok(Some(file.to_config()?))
    }
}

impl ConfigSource for FileSource {
    fn next(&mut self, timeout: Duration) -> Result<Option<Config>, SourceError> {
        let start = Instant::now();
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            self.look();
            let mut wait = PATROL;
            match self.due() {
                Some(Duration::ZERO) => {
                    if let Some(config) = self.settle()? {
                        return Ok(Some(config));
                    }
                }
                Some(due) => wait = due,
                None => {}
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            match self.watch.wait(wait.min(left)) {
                Some(Touch::Writing) => self.is_open = true,
                Some(Touch::Other) => self.is_open = false,
                Some(Touch::Elsewhere) | None => {}
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    glance::read(path, ConfigFile::MAX_LENGTH).map_err(|error| {
        let path = path.display();
        SourceError::Unreadable(format!("{path} cannot be read: {error}"))
    })
}

fn parse(content: &[u8]) -> Result<ConfigFile, ConfigError> {
    let whole = |value: &str, expected: &str| {
        let (path, value) = ("the file".to_owned(), value.to_owned());
        ConfigError::new(vec![ConfigProblem { path, value, expected: expected.to_owned() }])
    };
    if let Some(problem) = crate::config::file::too_long(content.len()) {
        return Err(ConfigError::new(vec![problem]));
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = content.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
        whole(&format!("line {}", line + 1), "is not UTF-8, which TOML is")
    })?;
    // A file that is written is empty for a moment, and must not take all services away.
    if text.trim().is_empty() {
        return Err(whole("empty", "a configuration; one without services has at least a comment"));
    }
    ConfigFile::parse(text)
}

/// That what is set once, at start, is as it was.
fn unchanged(file: &ConfigFile, source: &FileSource) -> Result<(), ConfigError> {
    let of = |path: String, value: String, was: String| ConfigProblem {
        path,
        value,
        expected: format!("was \"{was}\" at the start; a change takes a restart"),
    };
    let there = |is: bool| if is { "there" } else { "not there" }.to_owned();
    let mut problems = Vec::new();
    match (&file.dataplane, &source.dataplane) {
        (Some(is), Some(was)) => {
            let differences = is.differences(was).into_iter();
            problems
                .extend(differences.map(|(key, is, was)| of(format!("dataplane.{key}"), is, was)));
        }
        (None, None) => {}
        (is, was) => {
            problems.push(of("dataplane".to_owned(), there(is.is_some()), there(was.is_some())));
        }
    }
    let listen = |metrics: &Option<Metrics>| {
        metrics.as_ref().map_or("not there".to_owned(), |metrics| metrics.listen.to_string())
    };
    if file.metrics != source.metrics {
        let (is, was) = (listen(&file.metrics), listen(&source.metrics));
        problems.push(of("metrics.listen".to_owned(), is, was));
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
}
