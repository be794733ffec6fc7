//! One way of encoding a server's ID in connection IDs: draft-ietf-quic-load-balancers-21, section 5.

use std::fmt;
#[cfg(feature = "quic")]
use {
    aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
    aes::{Aes128Dec, Aes128Enc},
    std::sync::Arc,
};

/// Where servers write their ID into the connection IDs that they give out, and by which key they
/// encrypt it.
///
/// What the draft calls a configuration, without the config rotation bits by which it is found. The
/// ID begins behind the first byte; behind the server's ID is a nonce, and behind that may be more.
#[derive(Clone)]
pub struct QuicConfig {
    server_id_length: u8,
    nonce_length: u8,
    cipher: Cipher,
    /// Tells keys apart, and tells nothing of them.
    digest: u128,
}

/// How what is behind the first byte is encrypted.
#[derive(Clone)]
enum Cipher {
    None,
    /// One block of AES-128.
    #[cfg(feature = "quic")]
    SinglePass(Arc<Aes128Dec>),
    /// A Feistel network of four rounds, each a block of AES-128.
    #[cfg(feature = "quic")]
    FourPass(Arc<Aes128Enc>),
}

/// Lengths that no configuration can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "server IDs of {server_id} bytes with nonces of {nonce}: expected server IDs of 1 to 15 bytes and nonces \
     of 4 to 18, which are 19 together at most, as a connection ID has 20"
)]
pub struct LengthError {
    server_id: u8,
    nonce: u8,
}

impl QuicConfig {
    /// Server IDs in plain text, of so many bytes, before a nonce of so many. Whoever sees the
    /// packets of a client sees which server it is at, also after it has moved to another address.
    ///
    /// # Errors
    ///
    /// Lengths beyond those of the draft, section 5.3.
    pub const fn new(server_id_length: u8, nonce_length: u8) -> Result<Self, LengthError> {
        let (server_id, nonce) = (server_id_length, nonce_length);
        if server_id < 1 || server_id > 15 || nonce < 4 || nonce > 18 || server_id + nonce > 19 {
            return Err(LengthError { server_id, nonce });
        }
        Ok(Self { server_id_length, nonce_length, cipher: Cipher::None, digest: 0 })
    }

    /// Encrypted by this key: in a single pass if both lengths are 16 bytes together, in four
    /// otherwise. Lengths of 16 cost least: one block of AES a packet instead of three or four.
    #[cfg(feature = "quic")]
    #[must_use]
    pub fn encrypted(mut self, key: &[u8; 16]) -> Self {
        let aes = Aes128Enc::new(key.into());
        // What AES makes of a text that is known says nothing of the key.
        self.digest = encrypt(&aes, u128::from_be_bytes(*b"dsrlb which key?"));
        self.cipher = match self.length() {
            16 => Cipher::SinglePass(Arc::new(Aes128Dec::new(key.into()))),
            _ => Cipher::FourPass(Arc::new(aes)),
        };
        self
    }

    /// Bytes of a server's ID.
    pub const fn server_id_length(&self) -> usize {
        self.server_id_length as usize
    }

    const fn length(&self) -> usize {
        self.server_id_length as usize + self.nonce_length as usize
    }

    /// All that it depends on, without the key.
    pub(super) fn fingerprint(&self) -> String {
        format!("{}+{} {:032x}", self.server_id_length, self.nonce_length, self.digest)
    }

    /// The server's ID, as a number, in a connection ID from its second byte on; none if that is too
    /// short.
    #[inline]
    pub(super) fn server_id(&self, behind_first: &[u8]) -> Option<u128> {
        let block = behind_first.get(..self.length())?;
        let plain = match &self.cipher {
            Cipher::None => leading(block),
            #[cfg(feature = "quic")]
            Cipher::SinglePass(aes) => {
                let mut block = leading(block).to_be_bytes().into();
                aes.decrypt_block(&mut block);
                u128::from_be_bytes(block.into())
            }
            #[cfg(feature = "quic")]
            Cipher::FourPass(aes) => four_passes(aes, block, 8 * self.server_id_length()),
        };
        Some(plain >> (128 - 8 * self.server_id_length()))
    }
}

impl fmt::Debug for QuicConfig {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConfig")
            .field("server_id_length", &self.server_id_length)
            .field("nonce_length", &self.nonce_length)
            .field("is_encrypted", &!matches!(self.cipher, Cipher::None))
            .finish()
    }
}

/// The first sixteen bytes, the first one on top; zeros behind those that are fewer.
#[inline]
fn leading(bytes: &[u8]) -> u128 {
    let mut word = [0; 16];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u128::from_be_bytes(word)
}

#[cfg(feature = "quic")]
#[inline]
fn encrypt(aes: &Aes128Enc, block: u128) -> u128 {
    let mut block = block.to_be_bytes().into();
    aes.encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

/// The plain text, its first byte on top, of which as many bits count as are asked for (section 5.5.2).
///
/// Halves are kept as the draft has them, at the top of a word: the left one begins with the first
/// bit, the right one ends with a whole byte, so that of an odd length it begins with four bits of zero.
#[cfg(feature = "quic")]
#[inline]
fn four_passes(aes: &Aes128Enc, block: &[u8], wanted: usize) -> u128 {
    // Of 5 to 19 bytes. A half has 20 to 76 bits, and half a byte in front of the right one if odd.
    let (length, bits) = (block.len(), 4 * block.len());
    let gap = bits % 8;
    let left_mask = !(u128::MAX >> bits);
    let right_mask = left_mask >> gap;
    let mut left = leading(block) & left_mask;
    let mut right = leading(block.get(length / 2..).unwrap_or_default()) & right_mask;

    let pass = |number: u128, half: u128| encrypt(aes, half | (length as u128) << 8 | number);
    left ^= pass(4, right) & left_mask;
    right ^= pass(3, left) & right_mask;
    left ^= pass(2, right) & left_mask;
    // The left half is all there is to know if the server's ID ends in it.
    if wanted > bits {
        right ^= pass(1, left) & right_mask;
    }
    left | right << gap >> bits
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
