use super::*;
use crate::packet::{Ipv4Header, Ipv6Header};
use proptest::prelude::*;

fn ipv4(options: &[u8], field: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let length = (header + payload.len()) as u16;
    let mut packet = vec![0x40 | (header / 4) as u8, 0xb8];
    packet.extend(length.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(field.to_be_bytes());
    packet.extend([64, 17, 0, 0, 192, 0, 2, 7, 10, 0, 0, 100]);
    packet.extend(options);
    let sum = checksum::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([41, 64]);
    packet.extend([[1; 16], [2; 16]].concat());
    packet.extend(payload);
    packet
}

fn pieces(packet: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let cut = Cut::new(packet, mtu, 0x0102_0304)?;
    let piece = |number| {
        let mut out = vec![0xa5; cut.length(number)];
        assert!(cut.write(packet, number, &mut out));
        assert!(out.len() <= mtu);
        out
    };
    Some((0..cut.count()).map(piece).collect())
}

/// The payload put together again from where the pieces say it belongs, and whether more follows.
fn reassemble(pieces: &[Vec<u8>], base: usize) -> (Vec<u8>, bool) {
    let mut payload = Vec::new();
    let mut more = true;
    for piece in pieces {
        let (header, offset, follows) = match piece[0] >> 4 {
            4 => {
                let read = Ipv4Header::read(piece).unwrap();
                assert_eq!(checksum::checksum(&piece[..read.header_length]), 0);
                assert_eq!((read.total_length, &piece[4..6]), (piece.len(), &[0x12, 0x34][..]));
                let field = u16::from_be_bytes([piece[6], piece[7]]);
                (
                    read.header_length,
                    usize::from(field & OFFSET) * 8 - base,
                    field & MORE_FRAGMENTS != 0,
                )
            }
            _ => {
                let read = Ipv6Header::read(piece).unwrap();
                assert_eq!(read.total_length, piece.len());
                assert_eq!(piece[40..42], [41, 0]);
                assert_eq!(piece[44..48], [1, 2, 3, 4]);
                let field = u16::from_be_bytes([piece[42], piece[43]]);
                (48, usize::from(field & !7), field & 1 != 0)
            }
        };
        assert_eq!(offset, payload.len(), "pieces follow each other");
        assert!(more, "nothing follows the last piece");
        payload.extend(&piece[header..]);
        more = follows;
    }
    (payload, more)
}

#[test]
fn a_packet_that_fits_is_one_piece_and_one_byte_more_are_two() {
    let payload = vec![7; 1480];
    assert_eq!(pieces(&ipv4(&[], 0, &payload), 1500).unwrap(), [ipv4(&[], 0, &payload)]);
    let two = pieces(&ipv4(&[], 0, &payload), 1480).unwrap();
    assert_eq!(two.iter().map(Vec::len).collect::<Vec<_>>(), [20 + 1456, 20 + 24]);
    let two = pieces(&ipv6(&[7; 1300]), 1280).unwrap();
    assert_eq!(two.iter().map(Vec::len).collect::<Vec<_>>(), [48 + 1232, 48 + 68]);
}

#[test]
fn what_must_not_or_cannot_be_cut_is_not() {
    assert_eq!(pieces(&ipv4(&[], DONT_FRAGMENT, &[0; 100]), 80), None);
    assert_eq!(pieces(&ipv4(&[], 0, &[0; 100]), 67), None);
    assert!(pieces(&ipv4(&[], 0, &[0; 100]), 68).is_some());
    for garbage in [&[][..], &[0x45], &[0x41; 100], &[0x75; 100], &[0x60; 39]] {
        assert_eq!(pieces(garbage, 1500), None);
    }
}

/// RFC 791 section 3.1: the first bit of an option's type says whether it is in all fragments.
#[test]
fn options_that_are_not_copied_become_no_operations_in_later_pieces() {
    let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0, 1, 1, 1, 0];
    let all = pieces(&ipv4(&options, 0, &[9; 400]), 200).unwrap();
    assert!(all.len() > 2);
    assert_eq!(all[0][20..36], options);
    for piece in &all[1..] {
        assert_eq!(piece[20..36], [1, 1, 1, 1, 1, 1, 1, 1, 0x94, 4, 0, 0, 1, 1, 1, 0]);
    }
}

proptest! {
    #[test]
    fn pieces_make_up_the_packet_again(
        payload in prop::collection::vec(any::<u8>(), 0..3000), mtu in 128usize..1600,
        words in 0usize..10, base in 0u16..4000, more: bool, is_ipv6: bool,
    ) {
        let (packet, base, more) = if is_ipv6 {
            (ipv6(&payload), 0, false)
        } else {
            let field = base | if more { MORE_FRAGMENTS } else { 0 };
            (ipv4(&vec![1; words * 4], field, &payload), usize::from(base) * 8, more)
        };
        let pieces = pieces(&packet, mtu).unwrap();
        prop_assert_eq!(reassemble(&pieces, base), (payload, more));
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..200), mtu in 0usize..300, number in 0usize..9,
        length in 0usize..300,
    ) {
        if let Some(cut) = Cut::new(&bytes, mtu, 0) {
            prop_assert!(cut.count() >= 1);
            let _ = cut.write(&bytes, number, &mut vec![0; length]);
        }
    }

    #[test]
    fn any_options_are_survived(options in prop::collection::vec(any::<u8>(), 40)) {
        let packet = ipv4(&options, 0, &[9; 300]);
        for piece in pieces(&packet, 200).unwrap() {
            prop_assert_eq!(checksum::checksum(&piece[..60]), 0);
        }
    }
}
