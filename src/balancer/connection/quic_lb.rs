//! Connection IDs that say which server gave them out: draft-ietf-quic-load-balancers-21.

use super::ConnectionRouter;
use super::config::QuicConfig;
use crate::balancer::policy::{Candidate, Policy, Selector};
use crate::flow::{ConnectionId, QuicHeader};
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

/// The policy for servers that write their ID into their connection IDs by QUIC-LB
/// (draft-ietf-quic-load-balancers-21): a connection keeps its server when the client moves to another
/// address, and when the pool changes. New flows are shared out by another policy.
///
/// By its ID goes every packet but those that a client may have chosen the ID of (Initial and 0-RTT,
/// of versions 1 and 2): else a random ID that happens to be a server's would be a new flow for that
/// server, though it may be draining. Those, and packets whose IDs are of no server, go where their flow
/// does. So do IDs with config rotation 7, which servers without a configuration give out.
///
/// A server gets the packets of its connections for as long as it keeps its flows: also while it drains or
/// has a weight of zero, but not while it is ill or disabled.
///
/// # Example
///
/// ```
/// use dsrlb::balancer::{Maglev, QuicConfig, QuicLb, RealServer, VirtualService};
///
/// // IDs of 8 bytes: the first, then one for the server, then a nonce.
/// let policy = QuicLb::new(Maglev::default())
///     .config(0, QuicConfig::new(1, 6)?)?
///     .server("10.0.0.11", &[1])?
///     .server("10.0.0.12", &[2])?;
/// let service = VirtualService::new("10.0.0.100:443/udp".parse()?)
///     .policy(policy)
///     .backend(RealServer::new("10.0.0.11".parse()?))
///     .backend(RealServer::new("10.0.0.12".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuicLb {
    flows: Arc<dyn Policy>,
    configs: [Option<QuicConfig>; Self::CONFIGS],
    /// By a server's ID, the backend's.
    servers: BTreeMap<Vec<u8>, String>,
}

/// Why a [`QuicLb`] cannot be what it was to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuicLbError {
    /// There is no such configuration.
    #[error("config rotation {0}: expected 0 to 6; 7 marks IDs that name no server")]
    NoSuchRotation(u8),
    /// There is a configuration with these bits.
    #[error("config rotation {0}: there is a configuration with these bits already")]
    RotationTaken(u8),
    /// No configuration has server IDs of this length.
    #[error("server ID {id}: no configuration has server IDs of {length} bytes")]
    LengthUnknown {
        /// The ID, in hexadecimal digits.
        id: String,
        /// Its length, in bytes.
        length: usize,
    },
    /// The ID is another backend's.
    #[error("server ID {id}: backend {backend} has it already")]
    ServerTaken {
        /// The ID, in hexadecimal digits.
        id: String,
        /// Whose it is.
        backend: String,
    },
}

impl QuicLb {
    /// How many configurations there can be at a time.
    pub const CONFIGS: usize = 7;

    /// Without configurations yet; new flows are shared out by `flows`.
    pub fn new(flows: impl Policy + 'static) -> Self {
        Self { flows: Arc::new(flows), configs: Default::default(), servers: BTreeMap::new() }
    }

    /// Adds the configuration that IDs with these config rotation bits (section 3.1) are encoded by.
    /// To change one, give the new one other bits, and take the old one away when the connections of
    /// its time are over.
    ///
    /// # Errors
    ///
    /// Bits that are no configuration's or another one's.
    pub fn config(mut self, rotation: u8, config: QuicConfig) -> Result<Self, QuicLbError> {
        let place = self.configs.get_mut(usize::from(rotation));
        let place = place.ok_or(QuicLbError::NoSuchRotation(rotation))?;
        if place.is_some() {
            return Err(QuicLbError::RotationTaken(rotation));
        }
        *place = Some(config);
        Ok(self)
    }

    /// Says that the server of this ID is the backend of this id. Configurations with server IDs of the
    /// same length share them. A backend may have several, and need not be there yet.
    ///
    /// # Errors
    ///
    /// A length that no configuration has which was added before, or an ID that is another backend's.
    pub fn server(
        mut self,
        backend: impl Into<String>,
        server_id: &[u8],
    ) -> Result<Self, QuicLbError> {
        let backend = backend.into();
        let has_length = |config: &QuicConfig| config.server_id_length() == server_id.len();
        let (id, length) = (hex(server_id), server_id.len());
        if !self.configs.iter().flatten().any(has_length) {
            return Err(QuicLbError::LengthUnknown { id, length });
        }
        match self.servers.get(server_id) {
            Some(other) if *other != backend => {
                Err(QuicLbError::ServerTaken { id, backend: other.clone() })
            }
            _ => {
                self.servers.insert(server_id.to_vec(), backend);
                Ok(self)
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Policy for QuicLb {
    fn build(&self, candidates: &[Candidate<'_>]) -> Box<dyn Selector> {
        self.flows.build(candidates)
    }

    fn most_candidates(&self) -> usize {
        self.flows.most_candidates()
    }

    fn connections(&self, backends: &[&str]) -> Option<Box<dyn ConnectionRouter>> {
        let positions: HashMap<&str, u16> = backends.iter().copied().zip(0u16..).collect();
        let decoder = |config: &QuicConfig| {
            let own = self.servers.iter().filter(|(id, _)| id.len() == config.server_id_length());
            let position = |(id, backend): (&Vec<u8>, &String)| {
                let number = id.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
                Some((number, *positions.get(backend.as_str())?))
            };
            Decoder { config: config.clone(), servers: own.filter_map(position).collect() }
        };
        let decoders = self.configs.each_ref().map(|config| config.as_ref().map(decoder));
        Some(Box::new(Router { decoders }))
    }

    fn fingerprint(&self) -> Option<String> {
        let mut text = format!("dsrlb quic-lb of {}", self.flows.fingerprint()?);
        for (rotation, config) in self.configs.iter().enumerate() {
            if let Some(config) = config {
                text += &format!("; {rotation}: {}", config.fingerprint());
            }
        }
        for (id, backend) in &self.servers {
            text += &format!("; {} {backend:?}", hex(id));
        }
        Some(text)
    }
}

struct Router {
    decoders: [Option<Decoder>; QuicLb::CONFIGS],
}

struct Decoder {
    config: QuicConfig,
    servers: HashMap<u128, u16, FixedState>,
}

impl ConnectionRouter for Router {
    #[inline]
    fn route(&self, id: &ConnectionId) -> Option<u16> {
        if id.header() == QuicHeader::First {
            return None;
        }
        let (first, rest) = id.bytes().split_first()?;
        let decoder = self.decoders.get(usize::from(first >> 5))?.as_ref()?;
        decoder.servers.get(&decoder.config.server_id(rest)?).copied()
    }
}

#[cfg(test)]
#[path = "quic_lb_tests.rs"]
mod tests;
