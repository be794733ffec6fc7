//! What nearly every frame is: untagged, IP without options or extension headers, and in it a whole
//! TCP segment or UDP datagram.
//!
//! Then every field is at a place that is known beforehand: one look at the length, and all of them are
//! read at once. What this says of a frame is what [`parse`](super::parse) says of it step by step; of others it says
//! nothing.

use super::parse::Parsed;
use crate::flow::{Brief, Fragment, Protocol, Segment, TcpFlags};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// As far as the flags of TCP, which are the last that matters.
const TRANSPORT: usize = 14;
/// A datagram may be shorter than that, and a frame with one by IPv6 too.
const UDP: usize = 8;

/// The shortest frame that is one: IPv4, as far as TCP's flags.
pub(crate) const LEAST: usize = ETHERNET + IPV4 + TRANSPORT;

/// Tells what is in `frame` and how long the IP packet there is, if it is such a frame; says whether it is.
///
/// To tell is not to return: that would mean to make one value of two that have little in common.
#[inline(always)]
pub(crate) fn glance(frame: &[u8], mut tell: impl FnMut(Brief, u16)) -> bool {
    let Some(head) = frame.first_chunk::<LEAST>() else { return false };
    let Some(kind) = head.first_chunk::<{ ETHERNET + 2 }>().and_then(|head| head.last_chunk())
    else {
        return false;
    };
    // The type and the first two bytes behind it, as they lie.
    let word = u32::from_le_bytes;
    let kind = word(*kind);
    if kind & word([0xff, 0xff, 0xff, 0]) == word([0x08, 0x00, 0x45, 0]) {
        ipv4(frame, head).map(|(segment, length)| tell(Brief::Ipv4(segment), length)).is_some()
    } else if kind & word([0xff, 0xff, 0xf0, 0]) == word([0x86, 0xdd, 0x60, 0]) {
        ipv6(frame).map(|(segment, length)| tell(Brief::Ipv6(segment), length)).is_some()
    } else {
        false
    }
}

/// The same written out.
#[inline]
pub(super) fn parse_common(frame: &[u8], parsed: &mut Parsed) -> bool {
    glance(frame, |brief, length| {
        let info = brief.info();
        let header = if info.flow.destination.is_ipv4() { IPV4 } else { IPV6 };
        *parsed = Parsed {
            info,
            protocol: info.flow.protocol,
            fragment: Fragment::Whole,
            network: ETHERNET as u16,
            transport: (ETHERNET + header) as u16,
            end: ETHERNET as u32 + u32::from(length),
        };
    })
}

#[inline(always)]
fn ipv4(frame: &[u8], headers: &[u8; LEAST]) -> Option<(Segment<4>, u16)> {
    let (before, transport) = headers.split_last_chunk::<TRANSPORT>()?;
    let (before, addresses) = before.split_last_chunk::<8>()?;
    // By words of two bytes: that is how all of these lie.
    let ([.., length, _, fragment, [_, protocol], _], []) = before.as_chunks::<2>() else {
        return None;
    };
    // Neither "more fragments" nor an offset (RFC 791 section 3.1).
    if u16::from_be_bytes(*fragment) & 0x3fff != 0 {
        return None;
    }
    let (ports, [.., flags]) = transport.split_first_chunk()? else { return None };
    let (length, room) = (u16::from_be_bytes(*length).into(), frame.len() - ETHERNET);
    segment(addresses.as_chunks(), ports, *flags, *protocol, length, IPV4, room)
}

#[inline(always)]
fn ipv6(frame: &[u8]) -> Option<(Segment<16>, u16)> {
    let headers = frame.first_chunk::<{ ETHERNET + IPV6 + UDP }>()?;
    let (before, transport) = headers.split_last_chunk::<UDP>()?;
    let (before, addresses) = before.split_last_chunk::<32>()?;
    let [.., high, low, protocol, _] = before else { return None };
    let length = IPV6 + usize::from(u16::from_be_bytes([*high, *low]));
    // What is there of a segment is more than that if its header is.
    let flags = frame.get(ETHERNET + IPV6 + TRANSPORT - 1).copied().unwrap_or_default();
    let (ports, room) = (transport.first_chunk()?, frame.len() - ETHERNET);
    segment(addresses.as_chunks(), ports, flags, *protocol, length, IPV6, room)
}

/// A segment or datagram, if its header is in a packet of `length` bytes with an IP header of `header` bytes, and that
/// in a frame with `room` for it.
#[inline(always)]
fn segment<const N: usize>(
    addresses: (&[[u8; N]], &[u8]),
    ports: &[u8; 4],
    flags: u8,
    protocol: u8,
    length: usize,
    header: usize,
    room: usize,
) -> Option<(Segment<N>, u16)> {
    let (&[source, destination], []) = addresses else { return None };
    let (&[from, to], []) = ports.as_chunks() else { return None };
    let protocol = Protocol(protocol);
    let (least, flags) = match protocol {
        Protocol::TCP => (20, flags),
        Protocol::UDP => (UDP, 0),
        _ => return None,
    };
    let fits = header + least <= length && length <= room;
    let addresses = [source, destination];
    let segment = Segment { addresses, ports: [from, to], protocol, tcp_flags: TcpFlags(flags) };
    fits.then_some((segment, u16::try_from(length).ok()?))
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
                // Padding is not part of it, and without it a short datagram by IPv4 is too short for this.
                let short = frame(ipv6, protocol, header);
                assert!(compare(&[&short[..], &[0; 18]].concat()));
                assert_eq!(compare(&short), ipv6 || header >= TRANSPORT);
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
