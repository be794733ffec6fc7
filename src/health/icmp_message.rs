//! Echo requests, and what answers them, as bytes: pure.

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
    Ipv4HeaderSlice, Ipv6HeaderSlice, icmpv4, icmpv6,
};
use std::net::IpAddr;

const PROTOCOL_ICMPV4: u8 = 1;
const NEXT_HEADER_ICMPV6: u8 = 58;

/// What makes one echo request different from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Echo {
    pub(super) identifier: u16,
    pub(super) sequence: u16,
    pub(super) nonce: [u8; 8],
}

/// What was heard in answer to an echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// The reply.
    Reply,
    /// The request did not get there, says a message of this type and code.
    Unreachable { kind: u8, code: u8 },
}

impl Echo {
    /// The ICMP message to send to `target`. The ICMPv6 checksum is the kernel's business, which
    /// alone knows the source address (RFC 3542 section 3.1).
    pub(super) fn request(&self, target: IpAddr) -> Vec<u8> {
        let header = IcmpEchoHeader { id: self.identifier, seq: self.sequence };
        let mut message = Vec::with_capacity(16);
        match target {
            IpAddr::V4(_) => {
                let kind = Icmpv4Type::EchoRequest(header);
                message.extend(Icmpv4Header::with_checksum(kind, &self.nonce).to_bytes());
            }
            IpAddr::V6(_) => {
                let kind = Icmpv6Type::EchoRequest(header);
                message.extend(Icmpv6Header::new(kind).to_bytes());
            }
        }
        message.extend(self.nonce);
        message
    }

    /// What `received`, a packet from `from` as a raw socket gives it, says of this request to
    /// `target`; `None` if it is about something else. An IPv4 packet comes with its IP header, an
    /// ICMPv6 message without.
    pub(super) fn recognise(&self, target: IpAddr, from: IpAddr, received: &[u8]) -> Option<Heard> {
        match target {
            IpAddr::V4(target) => {
                let message = received.get(usize::from(header_length_v4(received)?)..)?;
                let icmp = Icmpv4Slice::from_slice(message).ok()?;
                match icmp.icmp_type() {
                    Icmpv4Type::EchoReply(echo) => {
                        self.reply(target.into(), from, echo, icmp.payload())
                    }
                    // Unreachable, or given up on the way (RFC 792, types 3, 11 and 12). Quoted is
                    // the IP header and at least 8 bytes.
                    Icmpv4Type::DestinationUnreachable(_)
                    | Icmpv4Type::TimeExceeded(_)
                    | Icmpv4Type::ParameterProblem(_) => {
                        let quoted = Ipv4HeaderSlice::from_slice(icmp.payload()).ok()?;
                        let is_ours = quoted.destination_addr() == target
                            && quoted.protocol().0 == PROTOCOL_ICMPV4;
                        let message = icmp.payload().get(quoted.slice().len()..)?;
                        self.unreachable(
                            is_ours,
                            message,
                            icmpv4::TYPE_ECHO_REQUEST,
                            (icmp.type_u8(), icmp.code_u8()),
                        )
                    }
                    _ => None,
                }
            }
            IpAddr::V6(target) => {
                let icmp = Icmpv6Slice::from_slice(received).ok()?;
                match icmp.icmp_type() {
                    Icmpv6Type::EchoReply(echo) => {
                        self.reply(target.into(), from, echo, icmp.payload())
                    }
                    // RFC 4443 section 3: types 1, 3 and 4; 2, "too big", cannot be about 56 bytes.
                    Icmpv6Type::DestinationUnreachable(_)
                    | Icmpv6Type::TimeExceeded(_)
                    | Icmpv6Type::ParameterProblem(_) => {
                        let quoted = Ipv6HeaderSlice::from_slice(icmp.payload()).ok()?;
                        // We send no extension headers, so none are quoted.
                        let is_ours = quoted.destination_addr() == target
                            && quoted.next_header().0 == NEXT_HEADER_ICMPV6;
                        let message = icmp.payload().get(quoted.slice().len()..)?;
                        self.unreachable(
                            is_ours,
                            message,
                            icmpv6::TYPE_ECHO_REQUEST,
                            (icmp.type_u8(), icmp.code_u8()),
                        )
                    }
                    _ => None,
                }
            }
        }
    }

    fn reply(
        &self,
        target: IpAddr,
        from: IpAddr,
        echo: IcmpEchoHeader,
        payload: &[u8],
    ) -> Option<Heard> {
        let is_ours = from == target
            && (echo.id, echo.seq) == (self.identifier, self.sequence)
            && payload == self.nonce;
        is_ours.then_some(Heard::Reply)
    }

    /// Whether a quoted `message`, of which 8 bytes are enough, is our request.
    fn unreachable(
        &self,
        is_ours: bool,
        message: &[u8],
        request: u8,
        (kind, code): (u8, u8),
    ) -> Option<Heard> {
        let &[quoted_kind, 0, _, _, a, b, c, d] = message.first_chunk::<8>()? else {
            return None;
        };
        let echo = IcmpEchoHeader::from_bytes([a, b, c, d]);
        let same =
            quoted_kind == request && (echo.id, echo.seq) == (self.identifier, self.sequence);
        (is_ours && same).then_some(Heard::Unreachable { kind, code })
    }
}

/// The length of the IPv4 header in bytes. Its total length is not looked at: some systems give it
/// in another order of bytes, or without the header, to raw sockets.
fn header_length_v4(packet: &[u8]) -> Option<u8> {
    let first = *packet.first()?;
    let length = (first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const ECHO: Echo = Echo { identifier: 0x1234, sequence: 7, nonce: *b"noncense" };
    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));

    fn ipv4(to: Ipv4Addr, options: usize, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x45 + options as u8 / 4;
        packet[9] = 1;
        packet[16..20].copy_from_slice(&to.octets());
        packet.extend(payload);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet
    }

    fn ipv6(to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[5] = payload.len() as u8;
        packet[6] = 58;
        packet[24..40].copy_from_slice(&to.octets());
        packet.extend(payload);
        packet
    }

    /// A reply made of the request: only the type differs.
    fn reply(kind: u8, target: IpAddr) -> Vec<u8> {
        let mut message = ECHO.request(target);
        message[0] = kind;
        message
    }

    fn error(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
        [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat()
    }

    #[test]
    fn requests_are_well_formed() {
        let message = ECHO.request(V4.into());
        assert_eq!(message[..2], [8, 0]);
        assert_eq!(checksum::checksum(&message), 0);
        assert_eq!(message[4..], *b"\x12\x34\x00\x07noncense");
        assert_eq!(ECHO.request(V6.into())[..2], [128, 0]);
    }

    #[test]
    fn the_reply_is_recognised_and_nothing_that_differs_from_it() {
        for options in [0, 4, 40] {
            let good = ipv4(V4, options, &reply(0, V4.into()));
            assert_eq!(ECHO.recognise(V4.into(), V4.into(), &good), Some(Heard::Reply));
            // Another sender; and each byte of identifier, sequence number and nonce.
            assert_eq!(ECHO.recognise(V4.into(), ROUTER, &good), None);
            let icmp = 20 + options;
            for at in (icmp..icmp + 1).chain(icmp + 4..good.len()) {
                let mut bad = good.clone();
                bad[at] ^= 0x40;
                assert_eq!(ECHO.recognise(V4.into(), V4.into(), &bad), None, "{at}");
            }
            assert_eq!(ECHO.recognise(V4.into(), V4.into(), &good[..good.len() - 1]), None);
        }
        let good = reply(129, V6.into());
        assert_eq!(ECHO.recognise(V6.into(), V6.into(), &good), Some(Heard::Reply));
        let longer = [good, vec![0]].concat();
        assert_eq!(ECHO.recognise(V6.into(), V6.into(), &longer), None);
        // Our own request, which a raw socket hears on the loopback interface, is no reply.
        let request = ipv4(V4, 0, &ECHO.request(V4.into()));
        assert_eq!(ECHO.recognise(V4.into(), V4.into(), &request), None);
    }

    #[test]
    fn an_error_counts_if_it_quotes_our_request() {
        let (v4, v6) = (IpAddr::V4(V4), IpAddr::V6(V6));
        let request = ECHO.request(v4);
        for kind in [3, 11, 12] {
            // The least that RFC 792 asks to be quoted is 8 bytes.
            for quoted in [&request[..8], &request] {
                for options in [0, 8] {
                    let packet = ipv4(V4, 0, &error(kind, 1, &ipv4(V4, options, quoted)));
                    let heard = Some(Heard::Unreachable { kind, code: 1 });
                    assert_eq!(ECHO.recognise(v4, ROUTER, &packet), heard);
                }
            }
        }
        let elsewhere = Ipv4Addr::new(192, 0, 2, 2);
        let other = Echo { sequence: 8, ..ECHO };
        for quoted in [
            ipv4(elsewhere, 0, &request),
            ipv4(V4, 0, &other.request(v4)),
            ipv4(V4, 0, &request[..7]),
            ipv4(V4, 0, &reply(0, v4)),
        ] {
            let packet = ipv4(V4, 0, &error(3, 1, &quoted));
            assert_eq!(ECHO.recognise(v4, ROUTER, &packet), None);
        }
        let request = ECHO.request(v6);
        for (kind, heard) in [(1, true), (3, true), (4, true), (2, false)] {
            let expected = heard.then_some(Heard::Unreachable { kind, code: 0 });
            let message = error(kind, 0, &ipv6(V6, &request));
            assert_eq!(ECHO.recognise(v6, ROUTER, &message), expected);
        }
        let message = error(1, 0, &ipv6(V6, &other.request(v6)));
        assert_eq!(ECHO.recognise(v6, ROUTER, &message), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, kind: u8, options in 0u8..16) {
            for (target, prefix) in [(IpAddr::V4(V4), vec![0x40 + options]), (V6.into(), vec![])] {
                let framed = [prefix, vec![0; 4 * usize::from(options)], vec![kind], bytes.clone()].concat();
                prop_assert_eq!(ECHO.recognise(target, target, &bytes), None);
                let _ = ECHO.recognise(target, target, &framed);
            }
        }
    }
}
