//! Frames for tests, built by etherparse so that our own code is not its own witness.

use etherparse::{IpNumber, Ipv4Options, PacketBuilder, SingleVlanHeader, VlanId, VlanPcp};

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xd1];

/// Outer tags first; the EtherTypes are 802.1ad and 802.1Q for two, 802.1Q for one.
pub fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for (i, tag) in tags.iter().enumerate() {
        let outer = tags.len() > 1 && i + 1 < tags.len();
        out.extend(if outer { [0x88, 0xa8] } else { [0x81, 0x00] });
        let header = SingleVlanHeader {
            pcp: VlanPcp::ZERO,
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(*tag).unwrap(),
            ether_type: 0.into(),
        };
        out.extend(&header.to_bytes()[..2]);
    }
    out.extend(&frame[12..]);
    out
}

fn build(
    builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>,
    protocol: Protocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    match protocol {
        Protocol::Tcp(from, to) => builder.tcp(from, to, 1, 64).ack(1).write(&mut out, payload),
        Protocol::Udp(from, to) => builder.udp(from, to).write(&mut out, payload),
        Protocol::Echo => builder.icmpv4_echo_request(7, 1).write(&mut out, payload),
        Protocol::Echo6 => builder.icmpv6_echo_request(7, 1).write(&mut out, payload),
        Protocol::Other(number) => builder.write(&mut out, IpNumber(number), payload),
    }
    .unwrap();
    out
}

#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    Tcp(u16, u16),
    Udp(u16, u16),
    Echo,
    Echo6,
    Other(u8),
}

/// From the client to the director, IPv4.
pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC).ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header::new(0, 64, IpNumber(0), from, to).unwrap(),
            Default::default(),
        ));
    build(builder, protocol, payload)
}

/// The same with IPv4 options, a multiple of four bytes.
pub fn ipv4_options(
    from: [u8; 4],
    to: [u8; 4],
    options: &[u8],
    protocol: Protocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = etherparse::Ipv4Header::new(0, 64, IpNumber(0), from, to).unwrap();
    header.options = Ipv4Options::try_from(options).unwrap();
    let headers = etherparse::IpHeaders::Ipv4(header, Default::default());
    build(PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC).ip(headers), protocol, payload)
}

/// From the client to the director, IPv6.
pub fn ipv6(from: [u8; 16], to: [u8; 16], protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC).ipv6(from, to, 64);
    let builder = match protocol {
        Protocol::Other(_) => return build_v6_other(from, to, protocol, payload),
        _ => builder,
    };
    let mut out = Vec::new();
    match protocol {
        Protocol::Tcp(a, b) => builder.tcp(a, b, 1, 64).ack(1).write(&mut out, payload),
        Protocol::Udp(a, b) => builder.udp(a, b).write(&mut out, payload),
        Protocol::Echo | Protocol::Echo6 => {
            builder.icmpv6_echo_request(7, 1).write(&mut out, payload)
        }
        Protocol::Other(_) => unreachable!("returned above"),
    }
    .unwrap();
    out
}

fn build_v6_other(from: [u8; 16], to: [u8; 16], protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let Protocol::Other(number) = protocol else { unreachable!("called for others only") };
    let mut out = [DIRECTOR_MAC, CLIENT_MAC].concat();
    out.extend([0x86, 0xdd]);
    let header = etherparse::Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(number),
        hop_limit: 64,
        source: from,
        destination: to,
        ..Default::default()
    };
    out.extend(header.to_bytes());
    out.extend(payload);
    out
}

/// Puts IPv6 extension headers, given as (own number, whole bytes), behind the fixed header of an
/// untagged frame. Each one's first byte is overwritten with the number of what follows.
pub fn with_extensions(frame: &[u8], extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = frame[..54].to_vec();
    let upper = out[20];
    let mut bytes = Vec::new();
    for (i, (_, extension)) in extensions.iter().enumerate() {
        let next = extensions.get(i + 1).map_or(upper, |(number, _)| *number);
        bytes.push(next);
        bytes.extend(&extension[1..]);
    }
    if let Some((number, _)) = extensions.first() {
        out[20] = *number;
    }
    let length = (frame.len() - 54 + bytes.len()) as u16;
    out[18..20].copy_from_slice(&length.to_be_bytes());
    out.extend(bytes);
    out.extend(&frame[54..]);
    out
}

/// Sets the IPv4 fragment field of an untagged frame and mends the header checksum.
pub fn fragment(frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    with_ipv4(frame, |header| {
        header.dont_fragment = false;
        header.fragment_offset = (offset / 8).try_into().unwrap();
        header.more_fragments = more;
    })
}

/// Changes the IPv4 header of an untagged frame and mends its checksum.
pub fn with_ipv4(mut frame: Vec<u8>, change: impl FnOnce(&mut etherparse::Ipv4Header)) -> Vec<u8> {
    let (mut header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    frame[14..14 + header.header_len()].copy_from_slice(&header.to_bytes());
    frame
}

/// Changes the IPv6 header of an untagged frame.
pub fn with_ipv6(mut frame: Vec<u8>, change: impl FnOnce(&mut etherparse::Ipv6Header)) -> Vec<u8> {
    let (mut header, _) = etherparse::Ipv6Header::from_slice(&frame[14..]).unwrap();
    change(&mut header);
    frame[14..54].copy_from_slice(&header.to_bytes());
    frame
}
