//! Counting the director as a hop.

use super::checksum;
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
    let left = hop_limit(packet).saturating_sub(1);
    if left == 0 {
        return Err(DropReason::HopLimitExceeded);
    }
    match packet {
        [first, _, _, _, _, _, _, _, ttl, protocol, c0, c1, ..] if *first >> 4 == 4 => {
            let old = u16::from_be_bytes([*ttl, *protocol]);
            *ttl = left;
            let new = u16::from_be_bytes([*ttl, *protocol]);
            let updated = checksum::update(u16::from_be_bytes([*c0, *c1]), old, new);
            [*c0, *c1] = updated.to_be_bytes();
            Ok(())
        }
        [first, _, _, _, _, _, _, hops, ..] if *first >> 4 == 6 => {
            *hops = left;
            Ok(())
        }
        _ => Err(DropReason::HopLimitExceeded),
    }
}

#[cfg(test)]
mod tests {
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
        }
        // 0xffff would be the checksum of nothing but zeros.
        assert_eq!(seen.iter().filter(|seen| !**seen).count(), 1);
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
