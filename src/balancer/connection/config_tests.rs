use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// The draft, appendix B.1. In its second line server ID and nonce are 350d28b420 and 3487d970b: its
/// connection ID, read from half a byte too late.
#[test]
fn the_plain_test_vectors_of_the_draft() {
    for (server_id, nonce, id) in [
        ("c4605e", "4504cc4f", "07c4605e4504cc4f"),
        ("a350d28b42", "03487d970b", "20a350d28b4203487d970b"),
    ] {
        let (server_id, nonce, id) = (hex(server_id), hex(nonce), hex(id));
        let config = QuicConfig::new(server_id.len() as u8, nonce.len() as u8).unwrap();
        assert_eq!(config.server_id(&id[1..]), Some(number(&server_id)));
    }
}

#[test]
fn lengths_are_those_of_the_draft() {
    for server_id in 0..=u8::MAX {
        for nonce in 0..=u8::MAX {
            let sum = u32::from(server_id) + u32::from(nonce);
            let allowed = server_id >= 1 && nonce >= 4 && sum <= 19;
            let config = QuicConfig::new(server_id, nonce);
            assert_eq!(config.is_ok(), allowed, "{server_id} {nonce}");
        }
    }
    let says = QuicConfig::new(10, 10).unwrap_err().to_string();
    assert!(says.starts_with("server IDs of 10 bytes with nonces of 10: expected"), "{says}");
}

proptest! {
    #[test]
    fn plain_ids_are_read_and_short_ones_are_not(
        server_id in prop::collection::vec(any::<u8>(), 1..=15),
        behind in prop::collection::vec(any::<u8>(), 4..=19),
    ) {
        let nonce = behind.len().min(19 - server_id.len());
        let config = QuicConfig::new(server_id.len() as u8, nonce as u8).unwrap();
        let block = [&server_id[..], &behind].concat();
        prop_assert_eq!(config.server_id(&block), Some(number(&server_id)));
        for length in 0..server_id.len() + nonce {
            prop_assert_eq!(config.server_id(&block[..length]), None);
        }
    }
}

#[cfg(feature = "quic")]
mod encrypted {
    use super::*;

    fn aes(key: &[u8; 16], block: [u8; 16]) -> [u8; 16] {
        let mut block = block.into();
        Aes128Enc::new(key.into()).encrypt_block(&mut block);
        block.into()
    }

    /// A server's part, step by step as in the draft, section 5.4: bytes, and no shifting of words.
    fn encode(key: &[u8; 16], server_id: &[u8], nonce: &[u8]) -> Vec<u8> {
        let plain = [server_id, nonce].concat();
        if plain.len() == 16 {
            return aes(key, plain.try_into().unwrap()).to_vec();
        }
        let (length, half) = (plain.len(), plain.len().div_ceil(2));
        let is_odd = length % 2 == 1;
        let clear = |side: &mut [u8], is_left: bool| {
            if is_odd {
                let at = if is_left { side.len() - 1 } else { 0 };
                side[at] &= if is_left { 0xf0 } else { 0x0f };
            }
        };
        let mut left = plain[..half].to_vec();
        let mut right = plain[length - half..].to_vec();
        clear(&mut left, true);
        clear(&mut right, false);
        for pass in 1..=4 {
            let (from, to) = if pass % 2 == 1 { (&left, &mut right) } else { (&right, &mut left) };
            let mut block = [0; 16];
            block[..half].copy_from_slice(from);
            (block[14], block[15]) = (length as u8, pass);
            for (to, from) in to.iter_mut().zip(aes(key, block)) {
                *to ^= from;
            }
            clear(to, pass % 2 == 0);
        }
        if !is_odd {
            return [left, right].concat();
        }
        let middle = left[half - 1] | right[0];
        [&left[..half - 1], &[middle], &right[1..]].concat()
    }

    /// The draft, appendix B.2, and the example of section 5.4.2.4.
    #[test]
    fn the_test_vectors_of_the_draft() {
        const KEY: &str = "8f95f09245765f80256934e50c66207f";
        for (key, server_id, nonce, id) in [
            (KEY, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
            (KEY, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
            (KEY, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
            (
                KEY,
                "ed793a51d49b8f5fab",
                "ee080dbf48c0d1e55d",
                "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc",
            ),
            ("fdf726a9893ec05c0632d3956680baf0", "31441a", "9c69c275", "0767947d29be054a"),
        ] {
            let [server_id, nonce, id] = [server_id, nonce, id].map(hex);
            let key = hex(key).try_into().unwrap();
            let config = QuicConfig::new(server_id.len() as u8, nonce.len() as u8).unwrap();
            let config = config.encrypted(&key);
            assert_eq!(config.server_id(&id[1..]), Some(number(&server_id)));
            assert_eq!(encode(&key, &server_id, &nonce), id[1..]);
        }
    }

    proptest! {
        #[test]
        fn what_a_server_encodes_is_read(
            key: [u8; 16],
            server_id in prop::collection::vec(any::<u8>(), 1..=15),
            nonce in prop::collection::vec(any::<u8>(), 4..=18),
            behind in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let nonce = &nonce[..nonce.len().min(19 - server_id.len())];
            let config = QuicConfig::new(server_id.len() as u8, nonce.len() as u8).unwrap();
            let config = config.encrypted(&key);
            let block = encode(&key, &server_id, nonce);
            let whole = [&block[..], &behind].concat();
            prop_assert_eq!(config.server_id(&whole), Some(number(&server_id)));
            prop_assert_eq!(config.server_id(&block[..block.len() - 1]), None);
        }
    }

    #[test]
    fn a_key_is_told_from_others_and_never_shown() {
        let key = *b"0123456789abcdef";
        let config = QuicConfig::new(3, 13).unwrap();
        let with = |key: &[u8; 16]| config.clone().encrypted(key).fingerprint();
        assert_eq!(with(&key), with(&key));
        assert_ne!(with(&key), config.fingerprint());
        for bit in 0..128 {
            let mut other = key;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(with(&key), with(&other));
        }
        let shown = format!("{:?} {}", config.clone().encrypted(&key), with(&key));
        assert!(!shown.contains("0123456789") && !shown.contains("30313233"), "{shown}");
        assert!(shown.contains("is_encrypted: true"), "{shown}");
    }
}
