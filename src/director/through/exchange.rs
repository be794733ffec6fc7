//! Telling the packets of one probe from those of another.

use crate::flow::Protocol;
use crate::packet::{Ipv4Header, Ipv6Header};

/// What a packet sent and the answer to it have in common: the protocol, and the sender's port or,
/// of a ping, identifier and sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Exchange {
    pub(crate) protocol: Protocol,
    pub(crate) number: u32,
}

/// Which end of the exchange a packet is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Prober,
    Vip,
}

impl Exchange {
    /// Of an IP packet that a probe sends, and whether that opens a TCP connection.
    pub(crate) fn sent(packet: &[u8]) -> Option<(Self, bool)> {
        let (protocol, payload) = upper_layer(packet)?;
        let exchange = Self::of(protocol, payload, From::Prober)?;
        // RFC 9293 section 3.1: SYN without ACK.
        let opens = protocol == Protocol::TCP && payload.get(13)? & 0x12 == 0x02;
        Some((exchange, opens))
    }

    /// Of an IP packet that comes back: an answer, or an ICMP error about what was sent.
    pub(crate) fn answered(packet: &[u8]) -> Option<Self> {
        let (protocol, payload) = upper_layer(packet)?;
        match (protocol, payload.first()?) {
            // RFC 792, RFC 4443: errors quote what they are about.
            (Protocol::ICMP, 3 | 11 | 12) | (Protocol::ICMPV6, 1..=4) => {
                Self::sent(payload.get(8..)?).map(|(exchange, _)| exchange)
            }
            _ => Self::of(protocol, payload, From::Vip),
        }
    }

    fn of(protocol: Protocol, payload: &[u8], from: From) -> Option<Self> {
        let number = match protocol {
            Protocol::TCP | Protocol::UDP => {
                let at = if from == From::Prober { 0 } else { 2 };
                let port = payload.get(at..)?.first_chunk()?;
                u32::from(u16::from_be_bytes(*port))
            }
            Protocol::ICMP | Protocol::ICMPV6 => {
                let expected = match (protocol, from) {
                    (Protocol::ICMP, From::Prober) => 8,
                    (Protocol::ICMP, From::Vip) => 0,
                    (_, From::Prober) => 128,
                    (_, From::Vip) => 129,
                };
                let numbers = (*payload.first()? == expected).then(|| payload.get(4..))??;
                u32::from_be_bytes(*numbers.first_chunk()?)
            }
            _ => return None,
        };
        Some(Self { protocol, number })
    }
}

/// The protocol of an IP packet and what is behind its headers.
pub(crate) fn upper_layer(packet: &[u8]) -> Option<(Protocol, &[u8])> {
    let (protocol, length) = match packet.first()? >> 4 {
        4 => Ipv4Header::read(packet).ok().map(|header| (header.protocol, header.header_length))?,
        6 => Ipv6Header::read(packet).ok().map(|header| (header.protocol, header.header_length))?,
        _ => return None,
    };
    Some((protocol, packet.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    const PROBER: [u8; 4] = [10, 0, 0, 1];
    const VIP: [u8; 4] = [10, 0, 0, 100];
    const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    macro_rules! packet {
        ($builder:expr) => {{
            let mut bytes = Vec::new();
            $builder.write(&mut bytes, b"payload").unwrap();
            bytes
        }};
    }

    #[test]
    fn answers_belong_to_what_was_sent() {
        let there = || PacketBuilder::ipv4(PROBER, VIP, 64);
        let back = || PacketBuilder::ipv4(VIP, PROBER, 64);
        let syn = packet!(there().tcp(4000, 80, 7, 100).syn());
        let ack = packet!(there().tcp(4000, 80, 8, 100).ack(9));
        let (exchange, opens) = Exchange::sent(&syn).unwrap();
        assert!(opens);
        assert_eq!(Exchange::sent(&ack), Some((exchange, false)));
        let answer = packet!(back().tcp(80, 4000, 9, 100).syn().ack(8));
        assert_eq!(Exchange::answered(&answer), Some(exchange));

        let question = packet!(there().udp(4000, 53));
        let (asked, _) = Exchange::sent(&question).unwrap();
        assert_ne!(asked, exchange, "another protocol");
        assert_eq!(Exchange::answered(&packet!(back().udp(53, 4000))), Some(asked));

        for (request, reply) in [
            (packet!(there().icmpv4_echo_request(7, 9)), packet!(back().icmpv4_echo_reply(7, 9))),
            (
                packet!(PacketBuilder::ipv6(VIP6, VIP6, 64).icmpv6_echo_request(7, 9)),
                packet!(PacketBuilder::ipv6(VIP6, VIP6, 64).icmpv6_echo_reply(7, 9)),
            ),
        ] {
            let (sent, _) = Exchange::sent(&request).unwrap();
            assert_eq!(sent.number, 7 << 16 | 9);
            assert_eq!(Exchange::answered(&reply), Some(sent));
            assert_eq!(Exchange::answered(&request), None);
        }
    }

    #[test]
    fn errors_belong_to_what_they_quote() {
        let question = packet!(PacketBuilder::ipv4(PROBER, VIP, 64).udp(4000, 53));
        let builder = PacketBuilder::ipv4(VIP, PROBER, 64).icmpv4_raw(3, 3, [0; 4]);
        let mut error = Vec::new();
        builder.write(&mut error, &question).unwrap();
        let sent = Exchange::sent(&question).map(|(exchange, _)| exchange);
        assert_eq!(Exchange::answered(&error), sent);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (Exchange::sent(&bytes), Exchange::answered(&bytes));
        }
    }
}
