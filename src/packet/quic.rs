//! The connection ID at the start of a UDP payload, if that is QUIC.

use crate::flow::{ConnectionId, QuicHeader};

/// Set in the first byte of long headers, in every version (RFC 8999 section 5).
const LONG: u8 = 0x80;
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;
/// Header form, version and the length of the destination connection ID (RFC 8999 section 5.1).
const LONG_HEADER: usize = 6;

/// Reads the destination connection ID; none if the payload is none of a QUIC packet's.
///
/// Only what all versions have in common is relied on, and that is little: of three bytes of noise,
/// every second is a short header with an ID of two bytes.
#[inline]
pub fn connection_id(payload: &[u8]) -> Option<ConnectionId> {
    let first = *payload.first()?;
    if first & LONG == 0 {
        return Some(known(QuicHeader::Short, payload.get(1..)?));
    }
    let &[_, a, b, c, d, length] = payload.first_chunk::<LONG_HEADER>()?;
    let rest = payload.get(LONG_HEADER..)?;
    let id = rest.get(..usize::from(length))?;
    // Which of the four types has which number differs (RFC 9000 section 17.2, RFC 9369 section 3.2).
    let header = match (u32::from_be_bytes([a, b, c, d]), first >> 4 & 3) {
        (VERSION_1, 0 | 1) | (VERSION_2, 1 | 2) => QuicHeader::First,
        _ => QuicHeader::Long,
    };
    Some(known(header, id))
}

#[inline]
fn known(header: QuicHeader, id: &[u8]) -> ConnectionId {
    match id.first_chunk() {
        Some(bytes) => ConnectionId::of(header, *bytes, ConnectionId::MAX_LENGTH as u8),
        None => ConnectionId::new(header, id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
        let mut packet = vec![first];
        packet.extend(version.to_be_bytes());
        packet.push(id.len() as u8);
        packet.extend(id);
        packet
    }

    /// Types by version: RFC 9000 section 17.2 and RFC 9369 section 3.2.
    #[test]
    fn what_a_client_may_have_chosen_is_told_from_the_rest() {
        use QuicHeader::{First, Long};
        for (version, headers) in [
            (1, [First, First, Long, Long]),
            (0x6b33_43cf, [Long, First, First, Long]),
            (0, [Long; 4]),
            (0xff00_001d, [Long; 4]),
            (0x1a2a_3a4a, [Long; 4]),
        ] {
            for (kind, header) in (0..4).zip(headers) {
                let packet = long(0xc3 | kind << 4, version, &[1, 2, 3]);
                let expected = ConnectionId::new(header, &[1, 2, 3]);
                assert_eq!(connection_id(&packet), Some(expected), "{version:#x} {kind}");
            }
        }
    }

    #[test]
    fn of_a_short_header_what_there_is_is_known_and_no_more_than_twenty_bytes() {
        let packet: Vec<u8> = (0x40..0x60).collect();
        for length in 0..packet.len() {
            let id = connection_id(&packet[..length]);
            let bytes = id.as_ref().map(ConnectionId::bytes);
            assert_eq!(bytes, packet[..length].get(1..).map(|all| &all[..all.len().min(20)]));
            assert!(id.is_none_or(|id| id.header() == QuicHeader::Short));
        }
    }

    proptest! {
        #[test]
        fn a_long_header_has_the_id_it_says_or_none(
            id in prop::collection::vec(any::<u8>(), 0..=255),
            version: u32,
            cut in 0usize..300,
            behind in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let packet = [long(0xf0, version, &id), behind].concat();
            let read = connection_id(&packet).unwrap();
            prop_assert_eq!(read.bytes(), &id[..id.len().min(20)]);
            let cut = &packet[..cut.min(6 + id.len())];
            prop_assert_eq!(connection_id(cut).is_some(), cut.len() == 6 + id.len());
        }

        #[test]
        fn any_bytes_have_an_id_of_theirs_or_none(bytes: Vec<u8>) {
            if let Some(id) = connection_id(&bytes) {
                let within = bytes.windows(id.bytes().len().max(1)).any(|part| part == id.bytes());
                prop_assert!(within || id.bytes().is_empty());
            }
        }
    }
}
