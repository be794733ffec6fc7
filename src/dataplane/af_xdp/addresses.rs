//! The set of addresses that are redirected: as given, as map keys, and the way from one set to
//! the next.

use super::error::XdpError;
use super::program::Program;
use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::collections::BTreeMap;

/// Who answers when the MAC of a redirected address is asked for, by ARP (RFC 826) or neighbour
/// solicitation (RFC 4861).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Answer {
    /// The kernel, which does so if it holds the address or is asked to be its proxy.
    #[default]
    Kernel,
    /// The handler: such requests are redirected to it.
    Handler,
}

/// Addresses by map, each with its flags; a key is what the map takes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct AddressSet {
    vip4: BTreeMap<Vec<u8>, Answer>,
    vip6: BTreeMap<Vec<u8>, Answer>,
    prefixes4: BTreeMap<Vec<u8>, Answer>,
    prefixes6: BTreeMap<Vec<u8>, Answer>,
}

impl AddressSet {
    /// Sorts `addresses` into the maps. Of an address given twice, [`Answer::Handler`] wins.
    pub(super) fn new(addresses: &[(IpNet, Answer)]) -> Self {
        let mut set = Self::default();
        for &(network, answer) in addresses {
            let exact = network.prefix_len() == network.max_prefix_len();
            let address = match network.trunc() {
                IpNet::V4(network) => network.network().octets().to_vec(),
                IpNet::V6(network) => network.network().octets().to_vec(),
            };
            // The kernel's tries take the length first, in the byte order of the host.
            let length = u32::from(network.prefix_len()).to_ne_bytes();
            let prefix = || [&length, address.as_slice()].concat();
            let (map, key) = match (network, exact) {
                (IpNet::V4(_), true) => (&mut set.vip4, address),
                (IpNet::V6(_), true) => (&mut set.vip6, address),
                (IpNet::V4(_), false) => (&mut set.prefixes4, prefix()),
                (IpNet::V6(_), false) => (&mut set.prefixes6, prefix()),
            };
            let known = map.entry(key).or_insert(answer);
            *known = answer.max(*known);
        }
        set
    }

    pub(super) fn has_prefixes4(&self) -> bool {
        !self.prefixes4.is_empty()
    }

    pub(super) fn has_prefixes6(&self) -> bool {
        !self.prefixes6.is_empty()
    }

    /// Refuses a set the maps have no room for, before anything is changed.
    pub(super) fn check(&self, interface: &str, program: &Program) -> Result<(), XdpError> {
        let maps = [
            (&self.vip4, &program.vip4, "IPv4 addresses", "max_addresses"),
            (&self.vip6, &program.vip6, "IPv6 addresses", "max_addresses"),
            (&self.prefixes4, &program.prefixes4, "IPv4 prefixes", "max_prefixes"),
            (&self.prefixes6, &program.prefixes6, "IPv6 prefixes", "max_prefixes"),
        ];
        for (wanted, map, what, option) in maps {
            let limit = map.max_entries();
            if wanted.len() > limit as usize {
                return Err(XdpError::TooManyAddresses {
                    interface: interface.to_owned(),
                    what,
                    count: wanted.len(),
                    limit,
                    option,
                });
            }
        }
        Ok(())
    }

    /// Makes the maps hold `wanted`, given that they hold `self`, touching only what differs.
    /// `self` follows step by step, so that after an error it still says what the maps hold.
    pub(super) fn become_set(&mut self, wanted: &Self, program: &Program) -> libbpf_rs::Result<()> {
        step(&mut self.vip4, &wanted.vip4, &program.vip4)?;
        step(&mut self.vip6, &wanted.vip6, &program.vip6)?;
        step(&mut self.prefixes4, &wanted.prefixes4, &program.prefixes4)?;
        step(&mut self.prefixes6, &wanted.prefixes6, &program.prefixes6)
    }
}

/// Removes before it adds, so that a full map can change its content.
fn step(
    current: &mut BTreeMap<Vec<u8>, Answer>,
    wanted: &BTreeMap<Vec<u8>, Answer>,
    map: &MapHandle,
) -> libbpf_rs::Result<()> {
    let obsolete: Vec<_> =
        current.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
    for key in obsolete {
        map.delete(&key)?;
        current.remove(&key);
    }
    for (key, &answer) in wanted {
        if current.get(key) != Some(&answer) {
            let flags = u32::from(answer == Answer::Handler);
            map.update(key, &flags.to_ne_bytes(), MapFlags::ANY)?;
            current.insert(key.clone(), answer);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[(&str, Answer)]) -> AddressSet {
        let parsed: Vec<_> =
            addresses.iter().map(|(text, answer)| (text.parse().unwrap(), *answer)).collect();
        AddressSet::new(&parsed)
    }

    #[test]
    fn addresses_and_prefixes_go_to_their_maps() {
        let set = set(&[
            ("192.0.2.1/32", Answer::Kernel),
            ("2001:db8::1/128", Answer::Handler),
            ("198.51.100.77/24", Answer::Kernel),
            ("2001:db8:1::/48", Answer::Kernel),
        ]);
        assert_eq!(set.vip4[&vec![192, 0, 2, 1]], Answer::Kernel);
        assert_eq!(set.vip6.values().next(), Some(&Answer::Handler));
        let key = [&24_u32.to_ne_bytes(), &[198, 51, 100, 0][..]].concat();
        assert!(set.prefixes4.contains_key(&key), "host bits are cleared");
        assert_eq!(set.prefixes6.keys().next().unwrap().len(), 20);
        assert!(set.has_prefixes4() && set.has_prefixes6());
    }

    #[test]
    fn the_order_of_duplicates_does_not_matter() {
        let one = ("192.0.2.1/32", Answer::Kernel);
        let other = ("192.0.2.1/32", Answer::Handler);
        assert_eq!(set(&[one, other]), set(&[other, one]));
        assert_eq!(set(&[one, other]), set(&[other]));
    }
}
