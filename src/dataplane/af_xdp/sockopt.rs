//! Socket options without a safe wrapper, each a 32-bit word.

use super::options::XdpOptions;
use crate::dataplane::Polling;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Of linux/if_xdp.h: `XDP_OPTIONS` and its `XDP_OPTIONS_ZEROCOPY`; since Linux 6.18 the last.
const XDP_OPTIONS: libc::c_int = 8;
const OPTION_ZERO_COPY: u32 = 1;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// For how many microseconds a call may busily poll. AF_XDP sockets are polled once a call whatever it
/// is (they do not block), but zero is "not at all".
const BUSY_MICROSECONDS: u32 = 20;

/// What one call sends in copy mode unless told otherwise (`TX_BATCH_SIZE`), in frames.
pub(super) const USUAL_TRANSMIT_BUDGET: u32 = 32;

/// Whether frames are shared with the driver. Where the kernel cannot say, they are not.
pub(super) fn is_zero_copy(socket: BorrowedFd<'_>) -> bool {
    get(socket, libc::SOL_XDP, XDP_OPTIONS).is_ok_and(|options| options & OPTION_ZERO_COPY != 0)
}

/// Whether the kernel knows which NAPI instance feeds the socket, without which there is no busy
/// polling. Some kernels know only after the first packet.
pub(super) fn has_napi(socket: BorrowedFd<'_>) -> bool {
    get(socket, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID).is_ok_and(|napi| napi != 0)
}

/// Sets how many frames one call sends in copy mode; returns what is in force.
pub(super) fn set_transmit_budget(socket: BorrowedFd<'_>, budget: u32) -> u32 {
    match set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget) {
        Ok(()) => budget,
        Err(_) => USUAL_TRANSMIT_BUDGET,
    }
}

/// Has the kernel leave the queue to whoever calls it by `socket`, if that is wanted.
pub(super) fn set_polling(socket: BorrowedFd<'_>, options: &XdpOptions) -> io::Result<()> {
    if options.polling != Polling::Busy {
        return Ok(());
    }
    set(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_MICROSECONDS)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, options.busy_poll_budget.into())
}

fn get(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<u32> {
    let mut value = 0_u32;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open, as it is borrowed; the kernel writes at most `length` bytes to
    // `value`, which is that long.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: u32,
) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open, as it is borrowed; the kernel reads at most `length` bytes of
    // `value`, which is that long, before the call returns.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
