//! What the kernel lets through to a probe's socket.
//!
//! A raw socket hears every ICMP message that the host receives. A host that is pinged a lot, or
//! that probes many backends at once, would fill the socket's buffer with what is for others, and
//! the one reply that counts would be lost: a healthy backend would seem dead.

use super::icmp_message::Echo;
use std::io;
use std::net::IpAddr;

/// Lets through the reply to `echo` and errors only. Elsewhere than on Linux it does nothing.
#[cfg(target_os = "linux")]
pub(super) fn attach(socket: &socket2::Socket, target: IpAddr, echo: &Echo) -> io::Result<()> {
    use etherparse::{icmpv4, icmpv6};
    use socket2::SockFilter;

    // Classic BPF, as in `linux/filter.h`.
    const LENGTH_OF_IPV4_HEADER_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const ZERO_TO_X: u16 = 0x01; // BPF_LDX | BPF_IMM
    const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
    const LOAD_WORD_AT_X: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K

    // IPv4 comes with its header, ICMPv6 without.
    let (to_x, reply, errors) = match target {
        IpAddr::V4(_) => (
            LENGTH_OF_IPV4_HEADER_TO_X,
            icmpv4::TYPE_ECHO_REPLY,
            [icmpv4::TYPE_DEST_UNREACH, icmpv4::TYPE_TIME_EXCEEDED, icmpv4::TYPE_PARAMETER_PROBLEM],
        ),
        IpAddr::V6(_) => (
            ZERO_TO_X,
            icmpv6::TYPE_ECHO_REPLY,
            [icmpv6::TYPE_DST_UNREACH, icmpv6::TYPE_TIME_EXCEEDED, icmpv6::TYPE_PARAMETER_PROBLEM],
        ),
    };
    let identity = (u32::from(echo.identifier) << 16) | u32::from(echo.sequence);
    let [first, second, third] = errors.map(u32::from);
    // A jump's numbers say how many instructions are skipped if equal, and if not.
    socket.attach_filter(&[
        SockFilter::new(to_x, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_AT_X, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 2, reply.into()),
        SockFilter::new(LOAD_WORD_AT_X, 0, 0, 4),
        SockFilter::new(JUMP_IF_EQUAL, 3, 4, identity),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, first),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, second),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, third),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])
}

#[cfg(not(target_os = "linux"))]
pub(super) fn attach(_: &socket2::Socket, _: IpAddr, _: &Echo) -> io::Result<()> {
    Ok(())
}
