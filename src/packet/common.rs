//! What nearly every frame is: untagged, IP without options or extension headers, and in it a whole
//! TCP segment or UDP datagram.
//!
//! Then every field is at a place that is known beforehand: one look at the length, and all of them are
//! read and written at once. What this says of a frame is what [`parse`](super::parse) says of it step
//! by step; of others it says nothing.

use super::parse::Parsed;
use crate::flow::{FiveTuple, Fragment, PacketInfo, PacketKind, Protocol, Routed, TcpFlags};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// As far as the flags of TCP, which are the last that matters.
const TRANSPORT: usize = 14;

/// Parses `frame` into `parsed`, if it is such a frame; says whether it is.
#[inline(always)]
pub(crate) fn parse_common(frame: &[u8], parsed: &mut Parsed) -> bool {
    match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, 0x45, ..] => parse_ipv4(frame, parsed),
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, 0x60..=0x6f, ..] => {
            parse_ipv6(frame, parsed)
        }
        _ => false,
    }
}

#[inline(always)]
fn parse_ipv4(frame: &[u8], parsed: &mut Parsed) -> bool {
    let Some(headers) = frame.first_chunk::<{ ETHERNET + IPV4 + TRANSPORT }>() else {
        return false;
    };
    // By words of two bytes: that is how all of these lie.
    let (
        [.., length, _, fragment, [_, protocol], _, s0, s1, d0, d1, from, to, _, _, _, _, last],
        [],
    ) = headers.as_chunks::<2>()
    else {
        return false;
    };
    // Neither "more fragments" nor an offset (RFC 791 section 3.1).
    if u16::from_be_bytes(*fragment) & 0x3fff != 0 {
        return false;
    }
    let address = |high: &[u8; 2], low: &[u8; 2]| Ipv4Addr::new(high[0], high[1], low[0], low[1]);
    let segment = Segment {
        source: IpAddr::V4(address(s0, s1)),
        destination: IpAddr::V4(address(d0, d1)),
        protocol: Protocol(*protocol),
        header: IPV4,
        length: usize::from(u16::from_be_bytes(*length)),
        ports: [*from, *to],
        flags: last[1],
    };
    segment.note(frame.len(), parsed)
}

#[inline(always)]
fn parse_ipv6(frame: &[u8], parsed: &mut Parsed) -> bool {
    let Some(headers) = frame.first_chunk::<{ ETHERNET + IPV6 + TRANSPORT }>() else {
        return false;
    };
    let Some((before, [from, to, _, _, _, _, last])) = headers
        .split_last_chunk::<TRANSPORT>()
        .map(|(before, transport)| (before, transport.as_chunks::<2>().0))
    else {
        return false;
    };
    let Some((before, destination)) = before.split_last_chunk::<16>() else { return false };
    let Some((before, source)) = before.split_last_chunk::<16>() else { return false };
    let [.., high, low, protocol, _] = before else { return false };
    let segment = Segment {
        source: IpAddr::V6(Ipv6Addr::from_octets(*source)),
        destination: IpAddr::V6(Ipv6Addr::from_octets(*destination)),
        protocol: Protocol(*protocol),
        header: IPV6,
        length: IPV6 + usize::from(u16::from_be_bytes([*high, *low])),
        ports: [*from, *to],
        flags: last[1],
    };
    segment.note(frame.len(), parsed)
}

/// What was read, from where it has to be.
struct Segment {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    /// Bytes of the IP header.
    header: usize,
    /// Bytes of the IP packet, by its own account.
    length: usize,
    ports: [[u8; 2]; 2],
    flags: u8,
}

impl Segment {
    /// Writes it down, if it is of TCP or UDP and its header and all that it claims is in a frame of so many
    /// bytes.
    #[inline(always)]
    fn note(self, frame: usize, parsed: &mut Parsed) -> bool {
        let Self { source, destination, protocol, header, length, ports: [from, to], flags } = self;
        let (least, flags) = match protocol {
            Protocol::TCP => (20, flags),
            Protocol::UDP => (8, 0),
            _ => return false,
        };
        if length < header + least || ETHERNET + length > frame {
            return false;
        }
        *parsed = Parsed {
            info: PacketInfo {
                flow: FiveTuple {
                    source,
                    destination,
                    source_port: u16::from_be_bytes(from),
                    destination_port: u16::from_be_bytes(to),
                    protocol,
                },
                fragment: Fragment::Whole,
                tcp_flags: TcpFlags(flags),
                kind: PacketKind::Ordinary,
                identification: 0,
                routed: Routed::NONE,
            },
            protocol,
            fragment: Fragment::Whole,
            network: ETHERNET as u16,
            transport: (ETHERNET + header) as u16,
            end: (ETHERNET + length) as u32,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Content, parse_any};
    use super::*;
    use proptest::prelude::*;

    /// What both say, if this one says anything.
    fn compare(frame: &[u8]) -> bool {
        let (mut quick, mut thorough) = (Parsed::EMPTY, Parsed::EMPTY);
        let is_common = parse_common(frame, &mut quick);
        if is_common {
            assert!(matches!(parse_any(frame, &mut thorough), Content::Ip), "{frame:02x?}");
            assert_eq!(quick, thorough, "{frame:02x?}");
        }
        is_common
    }

    fn frame(ipv6: bool, protocol: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0x11; 12];
        if ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload as u8, protocol, 64]);
            frame.resize(ETHERNET + IPV6, 0x22);
        } else {
            frame.extend([8, 0, 0x45, 0, 0, (IPV4 + payload) as u8, 0, 0, 0x40, 0, 64, protocol]);
            frame.resize(ETHERNET + IPV4, 0x22);
        }
        frame.extend((0..payload as u8).map(|byte| byte ^ 0x5a));
        frame
    }

    #[test]
    fn segments_and_datagrams_are_common_and_what_is_around_them_is_not() {
        for ipv6 in [false, true] {
            for (protocol, header) in [(6, 20), (17, 8)] {
                assert!(compare(&frame(ipv6, protocol, 60)), "{protocol}");
                // Padding is not part of it, and without it a short datagram is too short for this.
                let short = frame(ipv6, protocol, header);
                assert!(compare(&[&short[..], &[0; 18]].concat()));
                assert_eq!(compare(&short), header >= TRANSPORT);
                assert!(!compare(&[&frame(ipv6, protocol, header - 1)[..], &[0; 18]].concat()));
                assert!(!compare(&frame(ipv6, protocol, 60)[..80]));
            }
            assert!(!compare(&frame(ipv6, 132, 60)));
            assert!(!compare(&frame(ipv6, 1, 60)));
        }
        let mut fragment = frame(false, 6, 60);
        fragment[20] = 0x20;
        assert!(!compare(&fragment));
        let mut options = frame(false, 6, 60);
        options[14] = 0x46;
        assert!(!compare(&options));
    }

    proptest! {
        #[test]
        fn says_what_the_parser_says(
            ipv6: bool,
            protocol in prop::sample::select(vec![6u8, 17, 1, 58, 44, 132]),
            payload in 0usize..80,
            length in 0usize..200,
            changes in prop::collection::vec((0usize..70, any::<u8>()), 0..4),
        ) {
            let mut bytes = frame(ipv6, protocol, payload);
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.resize(length, 0);
            compare(&bytes);
        }
    }
}
