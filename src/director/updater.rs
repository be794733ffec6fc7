//! Changes of the configuration, and who has to know of them.

use super::control::{Shared, addresses};
use super::error::UpdateError;
use super::health::{Health, Probes};
use super::status::Applied;
use crate::config::Config;
use crate::dataplane::neighbour::ResolverThread;
use crate::error::ConfigError;
use std::sync::Arc;

/// Puts configurations into force, whoever they come from.
#[derive(Debug)]
pub(super) struct Updater {
    // Dropped in this order: the monitors need what is shared to the end.
    health: Health,
    resolver: ResolverThread,
    shared: Arc<Shared>,
}

impl Updater {
    pub(super) fn new(shared: Arc<Shared>, resolver: ResolverThread, health: Health) -> Self {
        Self { health, resolver, shared }
    }

    /// Has drains that are new ended in time.
    pub(super) fn watch_deadlines(&self) {
        self.health.look_at_deadlines();
    }

    /// How the probes of each backend went, by service and identifier.
    pub(super) fn probes(&self) -> Probes {
        self.health.probes()
    }

    /// Changes the configuration as a whole, or not at all.
    pub(super) fn update(
        &self,
        change: impl FnOnce(&mut Config) -> Result<(), ConfigError>,
    ) -> Result<Applied, UpdateError> {
        let changing = self.shared.changing();
        let changed = self.shared.update(change, || self.health.prepare());
        if let Ok((config, _)) = &changed {
            self.resolver.want(addresses(config));
            self.health.set_targets(config);
        }
        // The handler may want to change something as well.
        drop(changing);
        self.shared.tell();
        changed.map(|(_, applied)| applied)
    }
}
