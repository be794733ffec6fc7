//! The Internet checksum (RFC 1071), its pseudo headers, and its incremental update (RFC 1624).
//!
//! Sums are kept in 32 bits while they are added up and folded once at the end. What [`sum`] and
//! the pseudo headers return is below 2^20, so thousands of them add up without overflow.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The one's complement sum of `bytes` taken as big-endian 16-bit words.
///
/// An odd last byte counts as the high half of a word (RFC 1071 section 4.1), so only the last of
/// several pieces may have an odd length. The result is below 2^16; add it to other sums, then
/// [`finish`].
pub fn sum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    // 64 bits hold the sum of 2^48 words; no slice is that long.
    let mut total: u64 = 0;
    for word in &mut words {
        if let [high, low] = *word {
            total += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    if let [last] = *words.remainder() {
        total += u64::from(last) << 8;
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u32
}

/// A sum with its carries added back in (RFC 1071 section 2, "end-around carry").
#[inline]
pub const fn fold(sum: u32) -> u16 {
    // The first addition leaves at most 0x1fffe, the second at most 0xffff.
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The checksum of what was summed: the folded sum's complement.
#[inline]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The checksum of `bytes` alone, as for an IPv4 header or an ICMPv4 message.
///
/// Zero when the bytes contain a correct checksum.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    finish(sum(bytes))
}

/// The sum of the IPv4 pseudo header (RFC 9293 section 3.1, RFC 768); `length` in bytes is that of
/// the transport header and its payload.
pub fn pseudo_header_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + u32::from(length)
}

/// The sum of the IPv6 pseudo header (RFC 8200 section 8.1); `length` in bytes is that of the
/// upper-layer header and its payload, `next_header` names the upper layer.
pub fn pseudo_header_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    length: u32,
) -> u32 {
    sum(&source.octets())
        + sum(&destination.octets())
        + u32::from(next_header)
        + (length >> 16)
        + (length & 0xffff)
}

/// The checksum after one 16-bit word it covers changed from `old` to `new`
/// (RFC 1624 section 3, equation 3: `HC' = ~(~HC + ~m + m')`).
///
/// The carry goes all the way around; equation 2 of RFC 1141 and "add a constant" shortcuts are
/// wrong for some of the 65,536 checksums. The result differs from a recomputed one only where
/// everything covered is zero, which no packet with a header is: there it says 0x0000 for 0xffff,
/// and both are the same number. For UDP the caller keeps 0 ("no checksum", RFC 768) as it is and
/// sends a result of 0 as 0xffff.
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(!checksum as u32 + !old as u32 + new as u32)
}

/// [`update`] for a 32-bit field at an even offset, such as an IPv4 address.
#[inline]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let high = update(checksum, (old >> 16) as u16, (new >> 16) as u16);
    update(high, old as u16, new as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1's C code, line by line, but with the carry added at each step: slow,
    /// and sharing nothing with the code above.
    fn rfc1071_slow(bytes: &[u8]) -> u16 {
        let mut sum: u16 = 0;
        let mut index = 0;
        while index < bytes.len() {
            let low = if index + 1 < bytes.len() { bytes[index + 1] } else { 0 };
            let word = u16::from(bytes[index]) * 256 + u16::from(low);
            let (added, carry) = sum.overflowing_add(word);
            sum = if carry { added + 1 } else { added };
            index += 2;
        }
        0xffff - sum
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // Equation 2 gives 0xffff here, which is the trap the RFC is about.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    /// Every checksum there is, with words that sit at the carries: header words `[rest, old]`
    /// where `rest` runs over all values.
    #[test]
    fn incremental_update_equals_recomputation_for_all_65536_sums() {
        let words = [
            0x0000u16, 0x0001, 0x0008, 0x00ff, 0x0100, 0x0800, 0x7fff, 0x8000, 0xff00, 0xfffe,
            0xffff,
        ];
        let bytes = |rest: u16, word: u16| {
            let [a, b] = rest.to_be_bytes();
            let [c, d] = word.to_be_bytes();
            [a, b, c, d]
        };
        for rest in 0..=u16::MAX {
            for old in words {
                let before = rfc1071_slow(&bytes(rest, old));
                for new in words {
                    let after = update(before, old, new);
                    let covered = bytes(rest, new);
                    let expected = rfc1071_slow(&covered);
                    if covered == [0; 4] {
                        assert!(after == 0 || after == 0xffff);
                    } else if bytes(rest, old) == [0; 4] {
                        // A header of zeroes is summed as +0, which the update takes for -0.
                        assert!(after == expected || (after, expected) == (0, 0xffff));
                    } else {
                        assert_eq!(after, expected, "{rest:04x} {old:04x} -> {new:04x}");
                    }
                    // What a receiver does: the sum over everything is all ones.
                    let [e, f] = after.to_be_bytes();
                    let [a, b, c, d] = covered;
                    assert_eq!(fold(sum(&[a, b, c, d, e, f])) % 0xffff, 0);
                }
            }
        }
    }

    #[test]
    fn folding_is_right_for_the_largest_sums() {
        for value in [0, 0xffff, 0x1_0000, 0x1_ffff, 0xffff_0000, u32::MAX - 1, u32::MAX] {
            let folded = u64::from(fold(value));
            assert_eq!(folded % 0xffff, u64::from(value) % 0xffff);
            assert_eq!(folded == 0, value == 0, "{value:x} is not zero");
        }
    }

    proptest! {
        #[test]
        fn sums_equal_the_slow_port(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(checksum(&bytes), rfc1071_slow(&bytes));
        }

        #[test]
        fn a_32_bit_update_equals_recomputation(
            mut header in proptest::array::uniform20(any::<u8>()), new: u32,
        ) {
            header[0] = 0x45;
            let before = rfc1071_slow(&header);
            let old = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
            header[16..].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update_u32(before, old, new), rfc1071_slow(&header));
        }

        #[test]
        fn pseudo_headers_equal_their_bytes(
            v4: (u32, u32), v6: (u128, u128), protocol: u8, length: u32,
        ) {
            let (source, destination) = (Ipv4Addr::from(v4.0), Ipv4Addr::from(v4.1));
            let mut bytes = [source.octets(), destination.octets()].concat();
            bytes.extend([0, protocol]);
            bytes.extend((length as u16).to_be_bytes());
            let sum = pseudo_header_v4(source, destination, protocol, length as u16);
            prop_assert_eq!(finish(sum), rfc1071_slow(&bytes));

            let (source, destination) = (Ipv6Addr::from(v6.0), Ipv6Addr::from(v6.1));
            let mut bytes = [source.octets(), destination.octets()].concat();
            bytes.extend(length.to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
            let sum = pseudo_header_v6(source, destination, protocol, length);
            prop_assert_eq!(finish(sum), rfc1071_slow(&bytes));
        }
    }
}
