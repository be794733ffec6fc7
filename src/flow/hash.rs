//! The flow hash: keyed, specified, and the same on every machine.

use super::FiveTuple;
use std::net::IpAddr;

/// Which parts of a flow decide where it goes.
///
/// | here | Azure | NetScaler | IPVS |
/// |---|---|---|---|
/// | `FiveTuple` | default (5-tuple hash) | | |
/// | `ThreeTuple` | SourceIPProtocol | | |
/// | `TwoTuple` | SourceIP | SOURCEIPDESTIPHASH | |
/// | `SourceIp` | | SOURCEIPHASH | `sh` |
/// | `DestinationIp` | | DESTINATIONIPHASH | `dh` |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum HashInput {
    /// Source address: a client always reaches the same backend.
    SourceIp,
    /// Destination address: useful for services that cover a prefix of VIPs.
    DestinationIp,
    /// Source and destination address.
    TwoTuple,
    /// Source and destination address, and protocol.
    ThreeTuple,
    /// Source and destination address, source and destination port, and protocol.
    #[default]
    FiveTuple,
}

impl HashInput {
    /// Whether the ports take part, so that a fragment without them cannot be placed.
    pub const fn uses_ports(self) -> bool {
        matches!(self, Self::FiveTuple)
    }

    /// The bytes of `flow` that are hashed, as [specified](HashKey#specification); at most 37.
    pub fn message(self, flow: &FiveTuple) -> Vec<u8> {
        Message::new(self, flow).bytes().to_vec()
    }
}

named!(
    HashInput,
    "hash input",
    "source-ip, destination-ip, 2-tuple, 3-tuple or 5-tuple",
    [
        "source-ip" => SourceIp,
        "destination-ip" => DestinationIp,
        "2-tuple" => TwoTuple,
        "3-tuple" => ThreeTuple,
        "5-tuple" => FiveTuple,
    ]
);

/// The hash of a flow: 64 uniformly distributed bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// Maps the hash to one of `slots` slots, uniformly. With zero slots the answer is zero.
    pub const fn slot(self, slots: usize) -> usize {
        ((self.0 as u128 * slots as u128) >> 64) as usize
    }
}

/// The 128-bit key of the flow hash.
///
/// Directors that share a VIP must share the key to agree on the backend of a flow. The default
/// key is public: it protects nobody from an attacker who wants all flows on one backend. Set
/// your own where that matters.
///
/// # Specification
///
/// The hash of a flow is SipHash-1-3 (Aumasson and Bernstein, 2012; one compression and three
/// finalisation rounds) under a 128-bit key, over the concatenation, without separators, of the
/// fields that the [`HashInput`] names, in the order of [`FiveTuple`]:
///
/// | field | bytes |
/// |---|---|
/// | source address | 4 or 16, as on the wire |
/// | destination address | 4 or 16, as on the wire |
/// | source port | 2, big-endian |
/// | destination port | 2, big-endian |
/// | protocol | 1 |
///
/// The message length is part of SipHash, so an IPv4 and an IPv6 flow never share a message. The
/// result is a 64-bit number; a table of `n` slots is indexed by the upper half of the 128-bit
/// product of hash and `n` ([`FlowHash::slot`]), which needs no division and is exact on every
/// architecture.
///
/// SipHash is chosen over faster multiplicative hashes because it is keyed in earnest: who does not
/// know the key cannot choose flows that all land on one backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKey {
    k0: u64,
    k1: u64,
}

impl Default for HashKey {
    fn default() -> Self {
        Self::new(*b"dsrlb default 01")
    }
}

impl std::fmt::Debug for HashKey {
    /// The key is a secret: its bytes are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl std::str::FromStr for HashKey {
    type Err = crate::error::ParseError;

    /// Reads 32 hexadecimal digits, the first two being the first byte.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        // What is nearly a key is a secret too.
        let error =
            || crate::error::ParseError::new("hash key", "(not shown)", "32 hexadecimal digits");
        key.map(|key| Self::new(key.to_be_bytes())).ok_or_else(error)
    }
}

/// Writes the key itself: whoever writes a configuration has to.
#[cfg(feature = "serde")]
impl serde::Serialize for HashKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = (u128::from(self.k1) << 64 | u128::from(self.k0)).swap_bytes();
        serializer.collect_str(&format_args!("{key:032x}"))
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for HashKey {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(input)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl HashKey {
    /// A key from 16 bytes, the first eight being SipHash's `k0`, both halves little-endian.
    pub const fn new(key: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(key);
        Self { k0: key as u64, k1: (key >> 64) as u64 }
    }

    /// Hashes the parts of `flow` that `input` names, as [specified](HashKey#specification).
    #[inline(always)]
    pub fn hash_flow(&self, input: HashInput, flow: &FiveTuple) -> FlowHash {
        if let HashInput::FiveTuple = input {
            // The common case: whole words of addresses, and a tail of five bytes; no buffer.
            let tail = u64::from(flow.source_port.swap_bytes())
                | u64::from(flow.destination_port.swap_bytes()) << 16
                | u64::from(flow.protocol.0) << 32;
            match (flow.source, flow.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    let word = u64::from(u32::from_le_bytes(source.octets()))
                        | u64::from(u32::from_le_bytes(destination.octets())) << 32;
                    return FlowHash(self.siphash_words([word], tail, 13));
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    let halves = |ip: u128| [ip as u64, (ip >> 64) as u64];
                    let [a, b] = halves(u128::from_le_bytes(source.octets()));
                    let [c, d] = halves(u128::from_le_bytes(destination.octets()));
                    return FlowHash(self.siphash_words([a, b, c, d], tail, 37));
                }
                _ => {}
            }
        }
        self.hash_message(input, *flow)
    }

    /// By the [specification](HashKey#specification), word for word. Apart, as few flows come here.
    #[inline(never)]
    fn hash_message(&self, input: HashInput, flow: FiveTuple) -> FlowHash {
        FlowHash(self.hash_bytes(Message::new(input, &flow).bytes()))
    }

    /// SipHash-1-3 of any bytes under this key.
    pub fn hash_bytes(&self, bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut sip = Sip::new(self);
        for word in words {
            sip.absorb(u64::from_le_bytes(*word));
        }
        let mut tail = [0; 8];
        for (to, from) in tail.iter_mut().zip(rest) {
            *to = *from;
        }
        sip.finish(u64::from_le_bytes(tail), bytes.len())
    }

    /// SipHash-1-3 of whole words and a tail of less than eight bytes; `length` in bytes.
    #[inline(always)]
    pub(crate) fn siphash_words<const N: usize>(
        &self,
        words: [u64; N],
        tail: u64,
        length: usize,
    ) -> u64 {
        let mut sip = Sip::new(self);
        for word in words {
            sip.absorb(word);
        }
        sip.finish(tail, length)
    }
}

/// Bytes to hash: at most two IPv6 addresses, two ports and a protocol.
#[derive(Default)]
struct Message {
    buffer: MessageBuffer,
    length: usize,
}

/// 37 bytes are needed; `[u8; 40]` has no `Default`, five words do.
type MessageBuffer = [[u8; 8]; 5];

impl Message {
    /// As [specified](HashKey#specification).
    fn new(input: HashInput, flow: &FiveTuple) -> Self {
        let mut message = Message::default();
        let (source, destination) = match input {
            HashInput::SourceIp => (true, false),
            HashInput::DestinationIp => (false, true),
            _ => (true, true),
        };
        if source {
            message.push_address(flow.source);
        }
        if destination {
            message.push_address(flow.destination);
        }
        if input.uses_ports() {
            message.push(&flow.source_port.to_be_bytes());
            message.push(&flow.destination_port.to_be_bytes());
        }
        if matches!(input, HashInput::ThreeTuple | HashInput::FiveTuple) {
            message.push(&[flow.protocol.0]);
        }
        message
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.buffer.as_flattened_mut().iter_mut().skip(self.length);
        for (to, from) in room.zip(bytes) {
            *to = *from;
        }
        self.length += bytes.len();
    }

    fn push_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }

    fn bytes(&self) -> &[u8] {
        let all = self.buffer.as_flattened();
        all.get(..self.length).unwrap_or(all)
    }
}

/// The four words of SipHash state.
struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    #[inline(always)]
    fn new(key: &HashKey) -> Self {
        Self {
            v0: key.k0 ^ 0x736f_6d65_7073_6575,
            v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: key.k0 ^ 0x6c79_6765_6e65_7261,
            v3: key.k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn finish(mut self, tail: u64, length: usize) -> u64 {
        self.absorb(tail | (length as u64) << 56);
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;
    use std::hash::Hasher;

    /// The specification, read literally, with another crate's SipHash.
    fn witness(key: [u8; 16], input: HashInput, flow: &FiveTuple) -> u64 {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (source, destination) = (octets(flow.source), octets(flow.destination));
        let ports = [flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes()].concat();
        let protocol = vec![flow.protocol.0];
        let message = match input {
            HashInput::SourceIp => source,
            HashInput::DestinationIp => destination,
            HashInput::TwoTuple => [source, destination].concat(),
            HashInput::ThreeTuple => [source, destination, protocol].concat(),
            HashInput::FiveTuple => [source, destination, ports, protocol].concat(),
        };
        let mut hasher = SipHasher13::new_with_key(&key);
        hasher.write(&message);
        hasher.finish()
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
            any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        ]
    }

    proptest! {
        #[test]
        fn is_siphash_1_3_of_the_specified_bytes(
            key: [u8; 16], source in address(), destination in address(),
            source_port: u16, destination_port: u16, protocol: u8,
        ) {
            let flow = FiveTuple {
                source, destination, source_port, destination_port, protocol: Protocol(protocol),
            };
            for (_, input) in HashInput::NAMES {
                let (expected, key) = (witness(key, input, &flow), HashKey::new(key));
                prop_assert_eq!(key.hash_flow(input, &flow).0, expected);
                prop_assert_eq!(key.hash_bytes(&input.message(&flow)), expected);
            }
        }

        #[test]
        fn slots_are_in_range(hash: u64, slots in 1usize..1 << 20) {
            prop_assert!(FlowHash(hash).slot(slots) < slots);
        }
    }

    #[test]
    fn known_answers_do_not_change() {
        let flow = FiveTuple {
            source: "192.0.2.1".parse().unwrap(),
            destination: "198.51.100.7".parse().unwrap(),
            source_port: 40_000,
            destination_port: 443,
            protocol: Protocol::TCP,
        };
        let flow6 = FiveTuple {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::7".parse().unwrap(),
            ..flow
        };
        // From a port of the specification to another language.
        let known: [(HashInput, u64, u64); 5] = [
            (HashInput::SourceIp, 0x0178_9f8a_e6fe_dc84, 0xe38d_e85c_9c94_93bd),
            (HashInput::DestinationIp, 0x51e9_9ff3_f11f_d91e, 0xd650_ab1d_0c83_1400),
            (HashInput::TwoTuple, 0x44b3_e3a9_584a_c01c, 0x1747_279b_e46b_4232),
            (HashInput::ThreeTuple, 0x70cc_e9bb_77af_d5a0, 0xd3ce_779b_799c_65e8),
            (HashInput::FiveTuple, 0x9eb8_5775_6396_bda4, 0x1762_bc57_6553_b7f9),
        ];
        for (input, v4, v6) in known {
            let hash = |flow| HashKey::default().hash_flow(input, flow).0;
            assert_eq!((hash(&flow), hash(&flow6)), (v4, v6), "{input:?}");
        }
        assert_eq!(FlowHash(u64::MAX).slot(65_537), 65_536);
        assert_eq!(FlowHash(0).slot(65_537), 0);
        assert_eq!(FlowHash(u64::MAX).slot(0), 0);
    }
}
