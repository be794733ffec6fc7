//! Raw ICMP sockets of the host: they hear beside the kernel, and take nothing from it.

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;

/// Opens a socket that does not wait and lets only messages of these two types through, for a host
/// may hear many others. None on a host without this family.
pub(super) fn open(domain: Domain, kinds: [u8; 2]) -> io::Result<Option<Socket>> {
    // Classic BPF, as in `linux/filter.h`.
    const LENGTH_OF_IPV4_HEADER_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const ZERO_TO_X: u16 = 0x01; // BPF_LDX | BPF_IMM
    const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K

    // IPv4 sockets give the IP header along, IPv6 ones do not.
    let (protocol, to_x) = match domain {
        Domain::IPV4 => (Protocol::ICMPV4, LENGTH_OF_IPV4_HEADER_TO_X),
        _ => (Protocol::ICMPV6, ZERO_TO_X),
    };
    let [one, other] = kinds;
    let socket = match Socket::new(domain, Type::RAW, Some(protocol)) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        opened => opened?,
    };
    socket.attach_filter(&[
        SockFilter::new(to_x, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_AT_X, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, one.into()),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, other.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// The ICMP message of what such a socket has received.
pub(super) fn message(received: &[u8], is_ipv6: bool) -> Option<&[u8]> {
    if is_ipv6 {
        return Some(received);
    }
    let header_length = usize::from(received.first()? & 0x0f) * 4;
    received.get(header_length..)
}
