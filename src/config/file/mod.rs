//! Configuration files: TOML, read with every problem found in one pass.
//!
//! The tables are declared once, in `dataplane.rs`, `service.rs`, `probing.rs`, `quic.rs`, `forward.rs` and `metrics.rs`. Of each
//! declaration are made what reads it and its part of the JSON Schema ([`ConfigFile::json_schema`]).
//! The parser of TOML alone would stop at the first value that is wrong.
//!
//! ```
//! use dsrlb::config::file::ConfigFile;
//!
//! let text = r#"
//!     [dataplane]
//!     interface = "eth0"
//!
//!     [[service]]
//!     vip = "10.0.0.100:80/tcp"
//!
//!     [[service.backend]]
//!     address = "10.0.0.11"
//!     wieght = 2
//! "#;
//! let error = ConfigFile::parse(text).unwrap_err().to_string();
//! assert!(error.starts_with("service[0].backend[0].wieght (service 10.0.0.100:80/tcp, line 10)"));
//! assert!(error.contains("did you mean `weight`?"));
//! ```

mod dataplane;
mod forward;
mod item;
mod leaves;
mod metrics;
mod monitor;
mod place;
mod probing;
mod quic;
mod reader;
mod service;
mod table;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod xdp_options;

pub use dataplane::{Dataplane, Mode};
pub use forward::{ForwardTable, Gue, Ipip, L3dsr};
pub use leaves::{BackendId, InterfaceName, Payload};
pub use metrics::Metrics;
pub use probing::{Monitor, MonitorKind};
pub use quic::{QuicKey, QuicLbConfig, ServerIds};
pub use service::{AllDown, Backend, PolicyName, Service};

use super::{Config, ServiceConfig, check};
use crate::error::{ConfigError, ConfigProblem};
use item::Item;
use place::Place;
use reader::Reader;
use table::{Examine, table};
use toml::de::{DeTable, DeValue};

table! {
    /// A configuration file of a dsrlb director.
    ConfigFile {
        /// What is set once, at start; a change takes a restart.
        "dataplane" dataplane: Option<Dataplane>,
        /// Where the appliance tells how it does; nowhere unless told. A change takes a restart.
        "metrics" metrics: Option<Metrics>,
        /// The virtual services, which may change while the director runs. Of services that overlap
        /// the most specific one gets the packet.
        "service" services: Vec<Service>,
    }
}

impl Examine for ConfigFile {}

impl ConfigFile {
    /// The longest text that is read, in bytes.
    pub const MAX_LENGTH: usize = 16 << 20;

    /// Reads a file's text, and checks all of it that does not depend on the host.
    ///
    /// # Errors
    ///
    /// Every problem there is: what is no TOML, with line and column; keys that are unknown, missing
    /// or wrong, with path, service and line; and what [`check`](super::check()) finds.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if let Some(problem) = too_long(text.len()) {
            return Err(ConfigError::new(vec![problem]));
        }
        let mut reader = Reader::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What could be made of the rest would be found missing in many places.
            errors.iter().for_each(|error| reader.syntax(error));
            return Err(ConfigError::new(reader.finish()));
        }
        let place = Place::root(root.span());
        let file = Self::read(&DeValue::Table(root.into_inner()), &place, &mut reader);
        let mut problems = reader.finish();
        // Of a file with problems, what is well is checked nonetheless: all in one pass.
        if let Some(file) = &file {
            problems.extend(check::without_host(&file.services_alone()));
        }
        match file {
            Some(file) if problems.is_empty() => Ok(file),
            _ => Err(ConfigError::new(problems)),
        }
    }

    /// What a director is given: services and monitors.
    ///
    /// # Errors
    ///
    /// If there is a monitor that this build does not have.
    pub fn to_config(&self) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let mut config = self.services_alone();
        for (service, table) in config.services.iter_mut().zip(&self.services) {
            let binding = table.monitor.as_ref().map(|of| monitor::binding(&table.vip, of));
            match binding.transpose() {
                Ok(binding) => service.monitor = binding,
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
    }

    /// The services without monitors.
    fn services_alone(&self) -> Config {
        self.services.iter().map(|service| ServiceConfig::from(service.to_service())).collect()
    }

    /// The JSON Schema (draft 2020-12) of such files.
    pub fn json_schema() -> schemars::Schema {
        let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), "dsrlb configuration".into());
        schema
    }
}

impl std::str::FromStr for ConfigFile {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// What is said of a text that nobody meant to be read.
pub(super) fn too_long(length: usize) -> Option<ConfigProblem> {
    (length > ConfigFile::MAX_LENGTH).then(|| ConfigProblem {
        path: "the file".to_owned(),
        value: format!("{length} bytes"),
        expected: format!("at most {} bytes", ConfigFile::MAX_LENGTH),
    })
}
