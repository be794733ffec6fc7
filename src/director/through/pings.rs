//! The pings that find out where a probe got lost, and what is heard on the host's own sockets.

use super::exchange::Exchange;
use super::prober::Way;
use crate::flow::Protocol;
use crate::forwarding::Encapsulation;
use crate::packet::icmp::{Quotation, quotation};
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, PacketBuilder,
};
use socket2::{Domain, Protocol as SocketProtocol, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Which way a ping takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ping {
    /// To the VIP, as the probe itself.
    Vip,
    /// To the backend's own address, inside its tunnel.
    Tunnel,
    /// To the backend's own address, by the host's own routes.
    Plain,
}

/// Longer than what is of interest of any message.
const BUFFER_LENGTH: usize = 2048;
const HOP_LIMIT: u8 = 64;
/// Told apart from the probes of monitors, which count their own pings from the process's number on.
const IDENTIFIER: u16 = 0xd5e1;

/// The numbers of a ping, and the exchange that it is.
pub(super) fn exchange(to: IpAddr, sequence: u16) -> Exchange {
    let protocol = if to.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    Exchange { protocol, number: u32::from(IDENTIFIER) << 16 | u32::from(sequence) }
}

/// An echo request as a whole IP packet; none if the addresses are of two families.
pub(super) fn packet(from: IpAddr, to: IpAddr, sequence: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let builder = PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT);
            builder.icmpv4_echo_request(IDENTIFIER, sequence).write(&mut bytes, &[]).ok()?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let builder = PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT);
            builder.icmpv6_echo_request(IDENTIFIER, sequence).write(&mut bytes, &[]).ok()?;
        }
        _ => return None,
    }
    Some(bytes)
}

/// What was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// An answer to a ping.
    Answer(Exchange),
    /// A host refuses what was sent to it.
    Refusal(Refusal),
}

/// "Unreachable" from a host about a packet to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    from: IpAddr,
    quoted: Quotation,
    pub(super) kind: u8,
    pub(super) code: u8,
}

impl Refusal {
    /// Whether this is what the backend at the end of a tunnel says to the tunnel's packets.
    pub(super) fn is_about(&self, way: &Way) -> bool {
        let Quotation { destination, protocol, destination_port } = self.quoted;
        let is_tunnels = match way.tunnel {
            Some(Encapsulation::IpIp) => matches!(protocol, Protocol(4 | 41)),
            Some(Encapsulation::Gue { port, .. }) => {
                protocol == Protocol::UDP && destination_port == Some(port)
            }
            None => false,
        };
        is_tunnels && self.from == way.address && destination == way.address
    }
}

/// Raw ICMP sockets of the host's own namespace, one for each family: they hear beside the kernel,
/// and take nothing from it.
#[derive(Debug)]
pub(super) struct Ears {
    ipv4: UdpSocket,
    /// None on a host without IPv6.
    ipv6: Option<UdpSocket>,
}

impl Ears {
    pub(super) fn open() -> io::Result<Self> {
        let ipv6 = match open(Domain::IPV6, [129, 1]) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            opened => Some(opened?),
        };
        Ok(Self { ipv4: open(Domain::IPV4, [0, 3])?, ipv6 })
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.ipv4.as_fd()].into_iter().chain(self.ipv6.as_ref().map(AsFd::as_fd))
    }

    /// Sends a ping by the host's own routes. One that cannot be sent is one that is not answered.
    pub(super) fn ping(&self, to: IpAddr, sequence: u16) {
        let echo = IcmpEchoHeader { id: IDENTIFIER, seq: sequence };
        let (socket, bytes) = match to {
            IpAddr::V4(_) => {
                let kind = Icmpv4Type::EchoRequest(echo);
                (Some(&self.ipv4), Icmpv4Header::with_checksum(kind, &[]).to_bytes().to_vec())
            }
            // The kernel fills in the checksum (RFC 3542 section 3.1).
            IpAddr::V6(_) => {
                let kind = Icmpv6Type::EchoRequest(echo);
                (self.ipv6.as_ref(), Icmpv6Header::new(kind).to_bytes().to_vec())
            }
        };
        let _ = socket.map(|socket| socket.send_to(&bytes, SocketAddr::new(to, 0)));
    }

    /// Gives what has been heard to `each`, at most so many messages.
    pub(super) fn hear(&self, most: usize, mut each: impl FnMut(Heard)) {
        let mut buffer = [0; BUFFER_LENGTH];
        let sockets = [(&self.ipv4, false)].into_iter();
        for (socket, is_ipv6) in sockets.chain(self.ipv6.as_ref().map(|socket| (socket, true))) {
            for _ in 0..most {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    break;
                };
                let message = buffer.get(..length).unwrap_or_default();
                if let Some(heard) = read(message, from.ip(), is_ipv6) {
                    each(heard);
                }
            }
        }
    }
}

/// IPv4 sockets give the IP header along, IPv6 ones do not.
fn read(received: &[u8], from: IpAddr, is_ipv6: bool) -> Option<Heard> {
    let message = match is_ipv6 {
        true => received,
        false => received.get(usize::from(received.first()? & 0x0f) * 4..)?,
    };
    let &[kind, code, _, _, n0, n1, n2, n3] = message.first_chunk()?;
    Some(match (is_ipv6, kind) {
        (false, 0) | (true, 129) => Heard::Answer(Exchange {
            protocol: if is_ipv6 { Protocol::ICMPV6 } else { Protocol::ICMP },
            number: u32::from_be_bytes([n0, n1, n2, n3]),
        }),
        (false, 3) | (true, 1) => {
            let quoted = quotation(message, is_ipv6)?;
            Heard::Refusal(Refusal { from, quoted, kind, code })
        }
        _ => return None,
    })
}

/// A raw socket that lets only messages of these types through: a host may hear many others.
///
/// In the guise of a UDP socket, of which the standard library reads the sender.
fn open(domain: Domain, kinds: [u8; 2]) -> io::Result<UdpSocket> {
    // Classic BPF, as in `linux/filter.h`.
    const LENGTH_OF_IPV4_HEADER_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const ZERO_TO_X: u16 = 0x01; // BPF_LDX | BPF_IMM
    const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K

    let (protocol, to_x) = match domain {
        Domain::IPV4 => (SocketProtocol::ICMPV4, LENGTH_OF_IPV4_HEADER_TO_X),
        _ => (SocketProtocol::ICMPV6, ZERO_TO_X),
    };
    let [one, other] = kinds;
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.attach_filter(&[
        SockFilter::new(to_x, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_AT_X, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, one.into()),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, other.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
