//! The pings that find out where a probe got lost, and what is heard on the host's own sockets.

use super::exchange::Exchange;
use super::prober::Way;
use crate::director::icmp_socket;
use crate::flow::Protocol;
use crate::forwarding::Encapsulation;
use crate::packet::icmp::{Quotation, quotation};
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, PacketBuilder,
};
use socket2::Domain;
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
pub(crate) fn exchange(to: IpAddr, sequence: u16) -> Exchange {
    let protocol = if to.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    Exchange { protocol, number: u32::from(IDENTIFIER) << 16 | u32::from(sequence) }
}

/// An echo request as a whole IP packet; none if the addresses are of two families.
pub(crate) fn packet(from: IpAddr, to: IpAddr, sequence: u16) -> Option<Vec<u8>> {
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
pub(crate) enum Heard {
    /// An answer to a ping.
    Answer(Exchange),
    /// A host refuses what was sent to it.
    Refusal(Refusal),
}

/// "Unreachable" from a host about a packet to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    from: IpAddr,
    quoted: Quotation,
    pub(crate) kind: u8,
    pub(crate) code: u8,
}

impl Refusal {
    /// Whether this is what the backend at the end of a tunnel says to the tunnel's packets.
    pub(crate) fn is_about(&self, way: &Way) -> bool {
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
pub(crate) struct Ears {
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
}

impl Ears {
    pub(crate) fn open() -> io::Result<Self> {
        // In the guise of UDP sockets, of which the standard library reads the sender.
        Ok(Self {
            ipv4: icmp_socket::open(Domain::IPV4, [0, 3])?.map(Into::into),
            ipv6: icmp_socket::open(Domain::IPV6, [129, 1])?.map(Into::into),
        })
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ipv4.iter().chain(&self.ipv6).map(AsFd::as_fd)
    }

    /// Sends a ping by the host's own routes. One that cannot be sent is one that is not answered.
    pub(crate) fn ping(&self, to: IpAddr, sequence: u16) {
        let echo = IcmpEchoHeader { id: IDENTIFIER, seq: sequence };
        let (socket, bytes) = match to {
            IpAddr::V4(_) => {
                let kind = Icmpv4Type::EchoRequest(echo);
                (&self.ipv4, Icmpv4Header::with_checksum(kind, &[]).to_bytes().to_vec())
            }
            // The kernel fills in the checksum (RFC 3542 section 3.1).
            IpAddr::V6(_) => {
                let kind = Icmpv6Type::EchoRequest(echo);
                (&self.ipv6, Icmpv6Header::new(kind).to_bytes().to_vec())
            }
        };
        let _ = socket.as_ref().map(|socket| socket.send_to(&bytes, SocketAddr::new(to, 0)));
    }

    /// Gives what has been heard to `each`, at most so many messages.
    pub(crate) fn hear(&self, most: usize, mut each: impl FnMut(Heard)) {
        let mut buffer = [0; BUFFER_LENGTH];
        for (socket, is_ipv6) in [(&self.ipv4, false), (&self.ipv6, true)] {
            let Some(socket) = socket else {
                continue;
            };
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

fn read(received: &[u8], from: IpAddr, is_ipv6: bool) -> Option<Heard> {
    let message = icmp_socket::message(received, is_ipv6)?;
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
