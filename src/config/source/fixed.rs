//! A configuration that never changes.

use super::{Config, ConfigSource, SourceError};
use std::time::Duration;

/// Gives one configuration, once.
#[derive(Debug)]
pub struct StaticSource(Option<Config>);

impl StaticSource {
    /// Will give `config`.
    pub fn new(config: Config) -> Self {
        Self(Some(config))
    }
}

impl ConfigSource for StaticSource {
    /// Does not wait, as nothing will come.
    fn next(&mut self, _: Duration) -> Result<Option<Config>, SourceError> {
        Ok(self.0.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_once() {
        let mut source = StaticSource::new(Config::default());
        assert!(source.next(Duration::MAX).unwrap().is_some());
        assert!(source.next(Duration::MAX).unwrap().is_none());
    }
}
