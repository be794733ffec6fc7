//! From a flow to its key in the table.
//!
//! The selector's hash is SipHash, since others have to be able to compute it and a client can see by which
//! backend it is served what came of it. Nobody gets to see this one, so it need not stand up to those who do: that no two
//! flows, chosen by whoever does not know the secret, meet more often than chance has it is enough, can
//! be proven of far fewer steps, and is what is done here:
//!
//! 1. NH (Black and others, *UMAC*, CRYPTO 1999, section 4): each pair of 64-bit words of the message is added to two of
//!    the secret, and multiplied; the sum of the products has 128 bits. Two messages have the same with a
//!    probability of at most 2^-64.
//! 2. Multiply-shift (Thorup, *High Speed Hashing for Integers and Strings*, 2015, section 3.5, here of two words of 64
//!    bits): of different sums, the 64 upper bits that remain are independent of each other and
//!    uniform.
//! 3. The finalizer of MurmurHash3. One-to-one, so what was proven stays; without it, the keys of a client's
//!    ports in a row would lie in a row.
//!
//! A message is: both addresses, the ports, the protocol. Those of IPv4 and IPv6 have words of the secret to
//! themselves.

use super::FlowKey;
use crate::flow::{FiveTuple, HashInput, HashKey};
use std::net::IpAddr;

/// The secret, in as many words as are needed.
#[derive(Clone, Copy)]
pub(super) struct Keying {
    ipv4: [u64; 2],
    ipv6: [u64; 6],
    shift: [u128; 3],
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
        Self {
            ipv4: [0, 1].map(word),
            ipv6: [2, 3, 4, 5, 6, 7].map(word),
            shift: [8, 10, 12].map(long),
            other: *key,
        }
    }

    #[inline]
    pub(super) fn key(&self, flow: &FiveTuple) -> FlowKey {
        let rest = u64::from(flow.source_port)
            | u64::from(flow.destination_port) << 16
            | u64::from(flow.protocol.0) << 32;
        let halves = |address: u128| [address as u64, (address >> 64) as u64];
        let sum = match (flow.source, flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let both = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
                let [a, b] = self.ipv4;
                product(both, a, rest, b)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ([s0, s1], [d0, d1]) =
                    (halves(source.to_bits()), halves(destination.to_bits()));
                let [a, b, c, d, e, f] = self.ipv6;
                product(s0, a, s1, b)
                    .wrapping_add(product(d0, c, d1, d))
                    .wrapping_add(product(rest, e, 0, f))
            }
            _ => return FlowKey(self.other.hash_flow(HashInput::FiveTuple, flow).0),
        };
        let [a, b, c] = self.shift;
        let low = a.wrapping_mul(u128::from(sum as u64));
        let high = b.wrapping_mul(sum >> 64);
        FlowKey(mixed((low.wrapping_add(high).wrapping_add(c) >> 64) as u64))
    }
}

#[inline]
fn product(x: u64, a: u64, y: u64, b: u64) -> u128 {
    u128::from(x.wrapping_add(a)) * u128::from(y.wrapping_add(b))
}

#[inline]
const fn mixed(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ h >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use std::collections::HashSet;

    const ALL: [&str; 2] =
        ["192.0.2.1:40000 > 10.0.0.100:80 tcp", "[2001:db8::1]:40000 > [fd00::100]:80 tcp"];

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
