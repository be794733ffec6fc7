//! The services of single addresses by port, for the look-up of nearly every packet.
//!
//! They go before all others, so one that is found needs no look at prefixes and wider scopes: one word
//! is hashed for IPv4, three for IPv6.

use super::service::{Scope, VipKey};
use crate::flow::{FiveTuple, Protocol};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::net::IpAddr;

/// From address, port and protocol to the service's position.
#[derive(Debug, Default)]
pub(super) struct ExactServices {
    ipv4: HashMap<u64, u32, FixedState>,
    ipv6: HashMap<(u64, u64, u32), u32, FixedState>,
}

fn rest(protocol: Protocol, port: u16) -> u32 {
    u32::from(protocol.0) << 16 | u32::from(port)
}

fn ipv4(address: u32, rest: u32) -> u64 {
    u64::from(address) << 32 | u64::from(rest)
}

fn ipv6(address: u128, rest: u32) -> (u64, u64, u32) {
    ((address >> 64) as u64, address as u64, rest)
}

impl ExactServices {
    /// Takes in a service, if it is one of these; of two with the same key the later one wins.
    pub(super) fn insert(&mut self, key: VipKey, position: u32) {
        let prefix = key.prefix();
        let Scope::Port(protocol, port) = key.scope() else { return };
        if prefix.prefix_len() == prefix.max_prefix_len() {
            match prefix.addr() {
                IpAddr::V4(ip) => {
                    self.ipv4.insert(ipv4(ip.to_bits(), rest(protocol, port)), position)
                }
                IpAddr::V6(ip) => {
                    self.ipv6.insert(ipv6(ip.to_bits(), rest(protocol, port)), position)
                }
            };
        }
    }

    /// The service that a flow belongs to by address, protocol and port.
    #[inline]
    pub(super) fn find(&self, flow: &FiveTuple) -> Option<u32> {
        let rest = rest(flow.protocol, flow.destination_port);
        match flow.destination {
            IpAddr::V4(ip) => self.ipv4.get(&ipv4(ip.to_bits(), rest)).copied(),
            IpAddr::V6(ip) => self.ipv6.get(&ipv6(ip.to_bits(), rest)).copied(),
        }
    }
}
