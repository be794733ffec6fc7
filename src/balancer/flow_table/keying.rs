//! From a flow to its key in the table.
//!
//! The selector's hash is SipHash, since others have to be able to compute it and a client can see by which
//! backend it is served what came of it. Nobody gets to see this one, so it need not stand up to those who do: that no two
//! flows, chosen by whoever does not know the secret, meet more often than chance has it is enough, can
//! be proven of far fewer steps, and is what is done here:
//!
//! 1. Multilinear hashing with multiply-shift (Thorup, *High Speed Hashing for Integers and Strings*, 2015, section 3.5,
//!    here of words of 64 bits): each word of the message times one of the secret, of 128 bits, and one more added.
//!    Of two different messages, the 64 upper bits of the sums are independent of each other and uniform.
//! 2. A finalizer as that of MurmurHash3. One-to-one, so what was proven stays; without it, the keys of a client's
//!    ports in a row would lie in a row.
//!
//! A message is: both addresses, the ports, the protocol, as on the wire. Those of IPv4 and IPv6 have words of the secret
//! to themselves. Directors that share flows tell each other keys: whoever changes what is here makes another version of
//! [`SharedFlow`](crate::balancer::SharedFlow).

use super::FlowKey;
use crate::flow::{Brief, FiveTuple, HashInput, HashKey, Protocol};
use std::net::IpAddr;

/// The secret, in as many words as are needed.
#[derive(Clone, Copy)]
pub(super) struct Keying {
    ipv4: [u128; 3],
    ipv6: [u128; 6],
    /// For what has addresses of two families, which no packet has.
    other: HashKey,
}

impl std::fmt::Debug for Keying {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keying(..)")
    }
}

impl Keying {
    /// All words are drawn from the key by SipHash.
    pub(super) fn new(key: &HashKey) -> Self {
        let word = |number: u8| key.hash_bytes(&[number]);
        let long = |number| u128::from(word(number)) << 64 | u128::from(word(number + 1));
        Self { ipv4: [0, 2, 4].map(long), ipv6: [6, 8, 10, 12, 14, 16].map(long), other: *key }
    }

    #[inline]
    pub(super) fn key(&self, flow: &FiveTuple) -> FlowKey {
        let ports = [flow.source_port, flow.destination_port].map(u16::to_be_bytes);
        match (flow.source, flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.ipv4([source.octets(), destination.octets()], ports, flow.protocol)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.ipv6([source.octets(), destination.octets()], ports, flow.protocol)
            }
            _ => FlowKey(self.other.hash_flow(HashInput::FiveTuple, flow).0),
        }
    }

    /// The key of a packet's flow.
    #[inline(always)]
    pub(super) fn key_of(&self, packet: &Brief) -> FlowKey {
        match packet {
            Brief::Ipv4(segment) => self.ipv4(segment.addresses, segment.ports, segment.protocol),
            Brief::Ipv6(segment) => self.ipv6(segment.addresses, segment.ports, segment.protocol),
            Brief::Other(info) => self.key(&info.flow),
        }
    }

    #[inline(always)]
    fn ipv4(&self, ip: [[u8; 4]; 2], ports: [[u8; 2]; 2], protocol: Protocol) -> FlowKey {
        let [a, b, c] = self.ipv4;
        let [[s0, s1, s2, s3], [d0, d1, d2, d3]] = ip;
        let both = u64::from_le_bytes([s0, s1, s2, s3, d0, d1, d2, d3]);
        finish(c.wrapping_add(product(a, both)).wrapping_add(product(b, rest(ports, protocol))))
    }

    #[inline(always)]
    fn ipv6(&self, ip: [[u8; 16]; 2], ports: [[u8; 2]; 2], protocol: Protocol) -> FlowKey {
        let [a, b, c, d, e, f] = self.ipv6;
        let [source, destination] = ip.map(u128::from_le_bytes);
        let sum = f
            .wrapping_add(product(a, source as u64))
            .wrapping_add(product(b, (source >> 64) as u64))
            .wrapping_add(product(c, destination as u64))
            .wrapping_add(product(d, (destination >> 64) as u64))
            .wrapping_add(product(e, rest(ports, protocol)));
        finish(sum)
    }
}

#[inline(always)]
fn rest(ports: [[u8; 2]; 2], protocol: Protocol) -> u64 {
    let [[a, b], [c, d]] = ports;
    u64::from(u32::from_le_bytes([a, b, c, d])) | u64::from(protocol.0) << 32
}

#[inline(always)]
fn product(secret: u128, word: u64) -> u128 {
    secret.wrapping_mul(u128::from(word))
}

#[inline(always)]
const fn finish(sum: u128) -> FlowKey {
    let mut h = (sum >> 64) as u64;
    h ^= h >> 32;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    FlowKey(h ^ h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ALL: [&str; 2] =
        ["192.0.2.1:40000 > 10.0.0.100:80 tcp", "[2001:db8::1]:40000 > [fd00::100]:80 tcp"];

    /// Directors that share flows have to have the same, whatever machine each runs on. These were worked out by another
    /// program, in Python.
    #[test]
    fn keys_are_the_same_everywhere() {
        let keying = Keying::new(&HashKey::default());
        let keys = ALL.map(|flow| keying.key(&flow.parse().unwrap()).0);
        assert_eq!(keys, [0x459d_25b0_ca36_0ab2, 0x5109_0220_b203_fbcd], "{keys:#x?}");
    }

    #[test]
    fn every_bit_of_a_flow_and_of_the_secret_counts() {
        for flow in ALL {
            let flow: FiveTuple = flow.parse().unwrap();
            let mut keys = HashSet::from([Keying::new(&HashKey::default()).key(&flow)]);
            let mut note = |keying: &HashKey, flow: &FiveTuple| {
                assert!(keys.insert(Keying::new(keying).key(flow)), "{flow}");
            };
            for bit in 0..128 {
                let secret = u128::from_le_bytes(*b"dsrlb default 01") ^ 1 << bit;
                note(&HashKey::new(secret.to_le_bytes()), &flow);
                let flip = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) if bit < 32 => {
                        Some(IpAddr::from((ip.to_bits() ^ 1 << bit).to_be_bytes()))
                    }
                    IpAddr::V4(_) => None,
                    IpAddr::V6(ip) => Some(IpAddr::from((ip.to_bits() ^ 1 << bit).to_be_bytes())),
                };
                let key = HashKey::default();
                if let (Some(source), Some(destination)) =
                    (flip(flow.source), flip(flow.destination))
                {
                    note(&key, &FiveTuple { source, ..flow });
                    note(&key, &FiveTuple { destination, ..flow });
                }
                if bit < 16 {
                    note(&key, &FiveTuple { source_port: flow.source_port ^ 1 << bit, ..flow });
                    let destination_port = flow.destination_port ^ 1 << bit;
                    note(&key, &FiveTuple { destination_port, ..flow });
                }
                if bit < 8 {
                    note(
                        &key,
                        &FiveTuple { protocol: Protocol(flow.protocol.0 ^ 1 << bit), ..flow },
                    );
                }
            }
            let swapped = FiveTuple {
                source: flow.destination,
                destination: flow.source,
                source_port: flow.destination_port,
                destination_port: flow.source_port,
                ..flow
            };
            note(&HashKey::default(), &swapped);
        }
    }

    /// What clients send: ports in a row, addresses in a row, both, and steps that are powers of two. Of keys that are
    /// spread at random over as many places as there are flows, the place with most has next to never more than
    /// eleven.
    #[test]
    fn flows_in_a_row_are_spread_as_if_at_random() {
        const COUNT: usize = 1 << 16;
        for text in ALL {
            let flow: FiveTuple = text.parse().unwrap();
            let moved = |ip: IpAddr, by: usize| match ip {
                IpAddr::V4(ip) => {
                    IpAddr::from((ip.to_bits().wrapping_add(by as u32)).to_be_bytes())
                }
                IpAddr::V6(ip) => IpAddr::from((ip.to_bits() + by as u128).to_be_bytes()),
            };
            let port = |number: usize| FiveTuple { source_port: number as u16, ..flow };
            let address = |number: usize, step: usize| FiveTuple {
                source: moved(flow.source, number * step),
                ..flow
            };
            let both = |number: usize| FiveTuple {
                source_port: number as u16 % 64,
                ..address(number / 64, 1)
            };
            for secret in 0..20 {
                let keying = Keying::new(&HashKey::new([secret; 16]));
                let rows: [&dyn Fn(usize) -> FiveTuple; 5] = [
                    &port,
                    &|number| address(number, 1),
                    &|number| address(number, 256),
                    &|number| address(number, 1 << 16),
                    &both,
                ];
                for (row, flow) in rows.into_iter().enumerate() {
                    // By the upper bits, which choose a flow's first set, and by those that choose its second.
                    for turn in [0, 32] {
                        let mut places = vec![0u8; COUNT];
                        (0..COUNT).for_each(|number| {
                            places
                                [(keying.key(&flow(number)).0.rotate_left(turn) >> 48) as usize] +=
                                1;
                        });
                        let empty = places.iter().filter(|count| **count == 0).count();
                        let most = places.iter().max().unwrap();
                        // 1 / e of them, with a standard deviation of 0.0012.
                        assert!(
                            (0.360..0.376).contains(&(empty as f64 / COUNT as f64)),
                            "{text} {row}: {empty}"
                        );
                        assert!(*most <= 12, "{text} {row}: {most}");
                    }
                }
            }
        }
    }
}
