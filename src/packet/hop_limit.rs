//! Counting the director as a hop.

use crate::verdict::DropReason;

/// The time to live of an IPv4 packet, or the hop limit of an IPv6 one; zero of anything else.
#[inline]
pub fn hop_limit(packet: &[u8]) -> u8 {
    let at = match packet.first().map(|first| first >> 4) {
        Some(4) => 8,
        Some(6) => 7,
        _ => return 0,
    };
    packet.get(at).copied().unwrap_or(0)
}

/// Takes one off the time to live (RFC 1812 section 5.3.1, and RFC 2003 section 3.1 for tunnels) or
/// hop limit (RFC 8200 section 3), and corrects the IPv4 header checksum for it.
///
/// A loop of tunnels or routes thus ends, whatever else is wrong.
///
/// # Errors
///
/// If none is left afterwards; nothing has changed then.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) -> Result<(), DropReason> {
    let is_done = match packet {
        [first, _, _, _, _, _, _, _, ttl @ ..] if *first >> 4 == 4 => {
            ttl.first_chunk_mut().is_some_and(decrement_ttl)
        }
        [first, _, _, _, _, _, _, hops, ..] if *first >> 4 == 6 && *hops > 1 => {
            *hops -= 1;
            true
        }
        _ => false,
    };
    if is_done { Ok(()) } else { Err(DropReason::HopLimitExceeded) }
}

/// The same for the word of an IPv4 header that has time to live, protocol and checksum; says whether any is left.
#[inline(always)]
pub(crate) fn decrement_ttl(word: &mut [u8; 4]) -> bool {
    let [ttl, protocol, c0, c1] = *word;
    if ttl <= 1 {
        return false;
    }
    // RFC 1624 equation 3, where the sum of the new value and the complement of the old one is the same for each: one is
    // added to the checksum, and the carry. Byte order does not matter (RFC 1071 section 2 (B)), so it is that in which one
    // is taken off the lower byte.
    let sum = u16::from_le_bytes([c0, c1]).wrapping_add(1);
    let [c0, c1] = sum.wrapping_add(u16::from(sum == 0 || sum == u16::MAX)).to_le_bytes();
    *word = [ttl - 1, protocol, c0, c1];
    true
}

#[cfg(test)]
mod tests {
    use super::super::checksum;
    use super::*;

    /// Every checksum there can be, by way of the identification field.
    #[test]
    fn the_checksum_stays_right_for_each_of_its_values() {
        let mut seen = vec![false; 1 << 16];
        for identification in 0..=u16::MAX {
            let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            packet[4..6].copy_from_slice(&identification.to_be_bytes());
            let sum = checksum::checksum(&packet);
            seen[usize::from(sum)] = true;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            decrement_hop_limit(&mut packet).unwrap();
            assert_eq!((packet[8], checksum::checksum(&packet)), (63, 0), "{identification:04x}");
            // And it is what whoever works it out anew has: never the other zero.
            let corrected = [packet[10], packet[11]];
            packet[10..12].fill(0);
            assert_eq!(
                corrected,
                checksum::checksum(&packet).to_be_bytes(),
                "{identification:04x}"
            );
        }
        // 0xffff would be the checksum of nothing but zeros.
        assert_eq!(seen.iter().filter(|seen| !**seen).count(), 1);
    }

    #[test]
    fn the_checksum_stays_right_for_each_time_and_protocol() {
        for (ttl, protocol) in (2..=255).flat_map(|ttl| (0..=255).map(move |of| (ttl, of))) {
            let mut packet =
                [0x45, 0, 0, 20, 0, 0, 0, 0, ttl, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            let sum = checksum::checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            decrement_hop_limit(&mut packet).unwrap();
            assert_eq!((packet[8], checksum::checksum(&packet)), (ttl - 1, 0), "{ttl} {protocol}");
        }
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        let mut v4 = [0x45, 0, 0, 20, 0, 0, 0, 0, 2, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut v6 = [0x60, 0, 0, 0, 0, 0, 59, 2];
        for packet in [&mut v4[..], &mut v6[..]] {
            assert_eq!(decrement_hop_limit(packet), Ok(()));
            assert_eq!(hop_limit(packet), 1);
            let before = packet.to_vec();
            assert_eq!(decrement_hop_limit(packet), Err(DropReason::HopLimitExceeded));
            assert_eq!(packet, before);
        }
        for garbage in [&mut [][..], &mut [0x45], &mut [0x60, 0, 0], &mut [0x50; 40]] {
            assert!(decrement_hop_limit(garbage).is_err());
        }
    }
}
