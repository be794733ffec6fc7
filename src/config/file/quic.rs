//! `[[service.quic-lb]]` and `quic-server-id`: routing by connection ID.

use super::item::Item;
use super::leaves::hex;
use super::place::Place;
use super::reader::Reader;
use super::service::Backend;
use super::table::{Examine, Keys, table};
use crate::balancer::{self, Policy, QuicConfig, QuicLb, QuicLbError};
use schemars::{Schema, SchemaGenerator, json_schema};
use std::fmt;
use std::sync::Arc;
use toml::de::DeValue;

table! {
    /// How servers encode their ID in connection IDs (draft-ietf-quic-load-balancers). Several, with
    /// other config rotation bits each, while a change of the key or of lengths is under way.
    QuicLbConfig {
        /// The first three bits of the connection IDs that are encoded so, 0 to 6.
        "config-rotation" config_rotation: u8,
        /// Bytes of a server ID, 1 to 15.
        "server-id-length" server_id_length: u8,
        /// Bytes of the nonce behind it, 4 to 18; together with the server ID 19 at most, and 16 cost
        /// least if there is a key.
        "nonce-length" nonce_length: u8,
        /// The key that they are encrypted by, 32 hexadecimal digits; not encrypted unless told.
        "key" key: Option<QuicKey>,
    }
}

impl Examine for QuicLbConfig {
    fn examine(&self, keys: &mut Keys<'_, '_, '_>) {
        if usize::from(self.config_rotation) >= QuicLb::CONFIGS {
            let expected = "0 to 6; 7 marks connection IDs that name no server";
            keys.problem("config-rotation", expected);
        }
        if let Err(error) = QuicConfig::new(self.server_id_length, self.nonce_length) {
            keys.problem("nonce-length", error.to_string());
        }
    }
}

impl QuicLbConfig {
    fn config(&self) -> Option<QuicConfig> {
        let config = QuicConfig::new(self.server_id_length, self.nonce_length).ok()?;
        Some(match &self.key {
            Some(QuicKey(key)) => config.encrypted(key),
            None => config,
        })
    }
}

/// What does not go together in a service.
pub(super) enum Conflict {
    Configs(QuicLbError),
    /// With the name of the backend.
    Server(String, QuicLbError),
}

/// The policy that routes by these configurations to these backends, and shares out new flows by
/// `flows`; that one alone if there are no configurations.
pub(super) fn policy<'a>(
    flows: Arc<dyn Policy>,
    configs: &[QuicLbConfig],
    backends: impl IntoIterator<Item = &'a Backend>,
) -> Result<Arc<dyn Policy>, Conflict> {
    if configs.is_empty() {
        return Ok(flows);
    }
    let mut policy = QuicLb::new(flows);
    for table in configs {
        // One with lengths that cannot be has been noted.
        if let Some(config) = table.config() {
            policy = policy.config(table.config_rotation, config).map_err(Conflict::Configs)?;
        }
    }
    for backend in backends {
        let server = backend.to_server();
        let name = balancer::Backend::id(&server);
        for id in backend.quic_server_id.iter().flat_map(|ids| &ids.0) {
            let added = policy.server(name, id);
            policy = added.map_err(|error| Conflict::Server(name.to_owned(), error))?;
        }
    }
    Ok(Arc::new(policy))
}

/// The key of a configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct QuicKey(pub [u8; 16]);

impl fmt::Debug for QuicKey {
    /// Without its bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicKey(..)")
    }
}

impl Item for QuicKey {
    const ALLOWED: &'static str = "32 hexadecimal digits";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let key = value.as_str().and_then(hex).and_then(|key| key.try_into().ok());
        if key.is_none() {
            // What is nearly a key is a secret too.
            reader.problem(at, "(not shown)", || format!("expected {}", Self::ALLOWED));
        }
        key.map(Self)
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{32}$" })
    }
}

/// The IDs of a server, each of 1 to 15 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerIds(pub Vec<Vec<u8>>);

impl Item for ServerIds {
    const ALLOWED: &'static str =
        "2 to 30 hexadecimal digits, two for each byte, as in \"0a1b\", or an array of such";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let id = |value: &DeValue<'_>| {
            value.as_str().and_then(hex).filter(|id| (1..=15).contains(&id.len()))
        };
        let ids = match value {
            DeValue::Array(ids) => ids.iter().map(|value| id(value.get_ref())).collect(),
            value => id(value).map(|id| vec![id]),
        };
        if ids.is_none() {
            reader.refuse(value, at, Self::ALLOWED);
        }
        ids.map(Self)
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        let id = || json_schema!({ "type": "string", "pattern": "^([0-9a-fA-F]{2}){1,15}$" });
        json_schema!({ "anyOf": [id(), { "type": "array", "items": id() }] })
    }
}
