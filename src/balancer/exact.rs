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
    #[inline(always)]
    pub(super) fn find(&self, flow: &FiveTuple) -> Option<u32> {
        let rest = rest(flow.protocol, flow.destination_port);
        match flow.destination {
            IpAddr::V4(ip) => self.ipv4.get(&ipv4(ip.to_bits(), rest)).copied(),
            IpAddr::V6(ip) => self.ipv6.get(&ipv6(ip.to_bits(), rest)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_counts_and_wider_services_are_not_here() {
        let keys = [
            "10.0.0.1:80/tcp",
            "10.0.0.2:80/tcp",
            "10.0.0.1:81/tcp",
            "10.0.0.1:80/udp",
            "[2001:db8::1]:80/tcp",
            "[2001:db8::2]:80/tcp",
            "[2001:db9::1]:80/tcp",
            "[2001:db8::1]:81/tcp",
            "[2001:db8::1]:80/udp",
        ];
        let mut exact = ExactServices::default();
        for (position, key) in (0..).zip(keys) {
            exact.insert(key.parse().unwrap(), position);
        }
        let wider = ["10.0.0.3", "10.0.0.3:any/tcp", "10.0.0.0/31:80/tcp", "2001:db8::/64"];
        wider.into_iter().for_each(|key| exact.insert(key.parse().unwrap(), 99));
        for (position, key) in (0..).zip(keys) {
            let key: VipKey = key.parse().unwrap();
            let Scope::Port(protocol, destination_port) = key.scope() else { panic!("{key}") };
            let destination = key.prefix().addr();
            let flow = FiveTuple {
                source: destination,
                destination,
                source_port: 9,
                destination_port,
                protocol,
            };
            assert_eq!(exact.find(&flow), Some(position), "{key}");
            let elsewhere = FiveTuple { destination_port: 82, ..flow };
            assert_eq!(exact.find(&elsewhere), None);
        }
        assert_eq!((exact.ipv4.len(), exact.ipv6.len()), (4, 5));
    }
}
