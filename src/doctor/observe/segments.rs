//! The TCP segments that ask a VIP, and what is read of the answers. Pure.

use crate::director::through::upper_layer;
use crate::flow::Protocol;
use crate::packet::{Ipv4Header, Ipv6Header};
use etherparse::{PacketBuilder, TcpHeaderSlice, TcpOptionElement};
use socket2::SockFilter;
use std::net::{IpAddr, SocketAddr};

const HOP_LIMIT: u8 = 64;
const WINDOW: u16 = 65_535;
/// Any number will do: nothing is ever sent on these connections.
const SEQUENCE: u32 = 1;

/// What is to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Say {
    Open,
    Reset,
}

/// A segment from one to the other as a whole IP packet; none if they are of two families.
pub(super) fn segment(from: SocketAddr, to: SocketAddr, say: Say) -> Option<Vec<u8>> {
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT)
        }
        _ => return None,
    };
    let sequence = if say == Say::Open { SEQUENCE } else { SEQUENCE + 1 };
    let builder = builder.tcp(from.port(), to.port(), sequence, WINDOW);
    let builder = if say == Say::Open { builder.syn() } else { builder.rst() };
    let mut bytes = Vec::with_capacity(64);
    builder.write(&mut bytes, &[]).ok()?;
    Some(bytes)
}

/// What the VIP says to a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// It takes the connection, and asks for segments of at most so many bytes, if it says so.
    Accepts(Option<u16>),
    Refuses,
}

/// What a TCP packet says to a SYN of ours; none if it is something else.
pub(super) fn answer(packet: &[u8]) -> Option<Heard> {
    let (protocol, payload) = upper_layer(packet)?;
    if protocol != Protocol::TCP {
        return None;
    }
    let header = TcpHeaderSlice::from_slice(payload).ok()?;
    if header.rst() {
        return Some(Heard::Refuses);
    }
    if !(header.syn() && header.ack()) {
        return None;
    }
    let mss = header.options_iterator().flatten().find_map(|option| match option {
        TcpOptionElement::MaximumSegmentSize(bytes) => Some(bytes),
        _ => None,
    });
    Some(Heard::Accepts(mss))
}

/// Who an IP packet is from.
pub(super) fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Ipv4Header::read(packet).ok().map(|header| header.source.into()),
        6 => Ipv6Header::read(packet).ok().map(|header| header.source.into()),
        _ => None,
    }
}

/// Lets frames through that carry an IP packet to this address. Classic BPF, as in `linux/filter.h`; the
/// kernel has taken a VLAN tag out of the frame by then.
pub(super) fn filter(destination: IpAddr) -> Vec<SockFilter> {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ETHERNET: u32 = 14;
    let (at, words): (u32, Vec<u32>) = match destination {
        IpAddr::V4(address) => (ETHERNET + 16, vec![address.to_bits()]),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (ETHERNET + 24, [96, 64, 32, 0].map(|shift| (bits >> shift) as u32).to_vec())
        }
    };
    let mut program = Vec::new();
    let mut left = words.len() as u8;
    for (offset, word) in (at..).step_by(4).zip(words) {
        left -= 1;
        program.push(SockFilter::new(LOAD_WORD, 0, 0, offset));
        // To the last instruction, over the other words and the one that lets it through.
        program.push(SockFilter::new(JUMP_IF_EQUAL, 0, 2 * left + 1, word));
    }
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_told_from_each_other_and_their_mss_is_read() {
        let to = |options: &[TcpOptionElement]| {
            let builder = PacketBuilder::ipv4([10, 0, 0, 9], [10, 0, 0, 1], 64);
            let builder = builder.tcp(80, 61_000, 7, 100).syn().ack(2);
            let mut bytes = Vec::new();
            builder.options(options).unwrap().write(&mut bytes, &[]).unwrap();
            bytes
        };
        let mss = TcpOptionElement::MaximumSegmentSize(1440);
        let answered = to(&[TcpOptionElement::Noop, mss]);
        assert_eq!(answer(&answered), Some(Heard::Accepts(Some(1440))));
        assert_eq!(answer(&to(&[])), Some(Heard::Accepts(None)));
        assert_eq!(source(&answered), Some(IpAddr::from([10, 0, 0, 9])));
        for (from, to) in [("10.0.0.1:61000", "10.0.0.9:80"), ("[fd00::1]:61000", "[fd00::9]:80")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let open = segment(from, to, Say::Open).unwrap();
            assert_eq!((answer(&open), source(&open)), (None, Some(from.ip())));
            let reset = segment(from, to, Say::Reset).unwrap();
            assert_eq!(answer(&reset), Some(Heard::Refuses));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (answer(&bytes), source(&bytes));
        }
    }
}
