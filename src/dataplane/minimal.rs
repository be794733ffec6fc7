//! The shortest frame that is of a flow.

use crate::flow::{FiveTuple, Protocol, TcpFlags};
use crate::packet::{EtherType, MacAddress, Transport};
use std::net::IpAddr;

/// A flow that no packet can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} has addresses of two families; expected two of IPv4 or two of IPv6")]
pub struct MixedFamilies(FiveTuple);

const HOP_LIMIT: u8 = 64;
const TCP_DATA_OFFSET: u8 = 5 << 4;

/// A frame to `station` with a packet of the flow as it comes when the flow is under way: with TCP, ACK
/// alone; with ICMP, an echo request; nothing behind the header. It is to be looked at and not to be sent:
/// checksums are zero.
pub(super) fn frame_of(flow: &FiveTuple, station: MacAddress) -> Result<Vec<u8>, MixedFamilies> {
    let protocol = flow.protocol;
    let mut payload = vec![0; Transport::header_length(protocol)];
    let ports = [flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes()];
    if protocol.has_ports() {
        put(&mut payload, 0, ports.as_flattened());
    }
    match protocol {
        Protocol::TCP => put(&mut payload, 12, &[TCP_DATA_OFFSET, TcpFlags::ACK]),
        Protocol::UDP => put(&mut payload, 4, &[0, 8]),
        // Type and code of an echo request (RFC 792, RFC 4443 section 4.1).
        Protocol::ICMP => payload = vec![8, 0, 0, 0, 0, 0, 0, 0],
        Protocol::ICMPV6 => payload = vec![128, 0, 0, 0, 0, 0, 0, 0],
        _ => {}
    }
    let [.., high, low] = payload.len().to_be_bytes();
    let (ether_type, header) = match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // No header here is near 235 bytes long.
            let mut header =
                vec![0x45, 0, high, low + 20, 0, 0, 0x40, 0, HOP_LIMIT, protocol.0, 0, 0];
            header.extend([source.octets(), destination.octets()].as_flattened());
            (EtherType::IPV4, header)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol.0, HOP_LIMIT];
            header.extend([source.octets(), destination.octets()].as_flattened());
            (EtherType::IPV6, header)
        }
        _ => return Err(MixedFamilies(*flow)),
    };
    // From anybody but ourselves: that would have looped.
    let [first, rest @ ..] = station.0;
    let mut frame = station.0.to_vec();
    frame.push(first ^ 4);
    frame.extend(rest);
    frame.extend(ether_type.0.to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    Ok(frame)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(what) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Fragment, PacketKind};
    use crate::packet::{Parse, parse};

    #[test]
    fn the_frame_is_read_as_the_flow_it_was_made_of() {
        let station = MacAddress([2, 0, 0, 0, 0, 1]);
        for number in 0..=255 {
            let protocol = Protocol(number);
            let ends: [[IpAddr; 2]; 2] = [
                [[192, 0, 2, 7].into(), [10, 0, 0, 100].into()],
                [
                    [0x2001_u16, 0xdb8, 0, 0, 0, 0, 0, 7].into(),
                    [0xfd00_u16, 0, 0, 0, 0, 0, 0, 1].into(),
                ],
            ];
            for [source, destination] in ends {
                // Of these a packet is never: more headers follow.
                if destination.is_ipv6() && protocol.is_extension_header() {
                    continue;
                }
                let [source_port, destination_port] =
                    if protocol.has_ports() { [40_000, 443] } else { [0, 0] };
                let flow =
                    FiveTuple { source, destination, source_port, destination_port, protocol };
                let frame = frame_of(&flow, station).unwrap();
                assert!(frame.starts_with(&station.0) && frame[6..12] != station.0);
                let Parse::Ip(parsed) = parse(&frame) else {
                    panic!("{flow}: {:?}", parse(&frame))
                };
                assert_eq!(parsed.info.flow, flow);
                assert_eq!(parsed.end as usize, frame.len());
                assert_eq!(parsed.info.fragment, Fragment::Whole);
                let is_tcp = protocol == Protocol::TCP;
                assert_eq!(parsed.info.tcp_flags.has(TcpFlags::ACK), is_tcp);
                let is_echo = protocol == Protocol::ICMP && destination.is_ipv4()
                    || protocol == Protocol::ICMPV6 && destination.is_ipv6();
                assert_eq!(parsed.info.kind == PacketKind::EchoRequest, is_echo, "{flow}");
            }
        }
        let mixed = FiveTuple {
            source: [192, 0, 2, 7].into(),
            destination: [0xfd00_u16, 0, 0, 0, 0, 0, 0, 1].into(),
            source_port: 1,
            destination_port: 2,
            protocol: Protocol::TCP,
        };
        assert_eq!(frame_of(&mixed, station), Err(MixedFamilies(mixed)));
    }
}
