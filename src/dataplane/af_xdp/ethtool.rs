//! The two things only the driver knows: its queues in use and whether it strips VLAN tags.

use super::link::MAX_NAME;
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;

/// `SIOCETHTOOL`, linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GFLAGS` and its `ETH_FLAG_RXVLAN`, linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
const FLAG_RX_VLAN: u32 = 1 << 8;
/// `ETHTOOL_GCHANNELS`; the indices are fields of `struct ethtool_channels`.
const GET_CHANNELS: u32 = 0x3c;
const RX_COUNT: usize = 5;
const TX_COUNT: usize = 6;
const COMBINED_COUNT: usize = 8;

/// How many queues are in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queues {
    pub(super) receive: u32,
    pub(super) transmit: u32,
}

/// How many queues are in use, or `None` where the driver cannot tell.
pub(super) fn queues(interface: &str) -> io::Result<Option<Queues>> {
    let mut channels = [0; 9];
    channels[0] = GET_CHANNELS;
    match ask(interface, &mut channels) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
        // A channel is a queue of its own kind or one for both directions.
        Ok(()) => {
            let queues = Queues {
                receive: channels[RX_COUNT].saturating_add(channels[COMBINED_COUNT]),
                transmit: channels[TX_COUNT].saturating_add(channels[COMBINED_COUNT]),
            };
            Ok(Some(queues).filter(|queues| queues.receive > 0))
        }
    }
}

/// Whether the driver takes VLAN tags out of received frames; a driver that cannot tell does not.
pub(super) fn strips_vlan_tags(interface: &str) -> bool {
    let mut flags = [GET_FLAGS, 0];
    ask(interface, &mut flags).is_ok() && flags[1] & FLAG_RX_VLAN != 0
}

/// One ethtool command: `words[0]` is the command, the answer is written over the rest.
///
/// `N` must be the size of that command's structure in 32-bit words; both callers above use
/// commands whose structures are nothing but such words, and of fixed size.
fn ask<const N: usize>(interface: &str, words: &mut [u32; N]) -> io::Result<()> {
    if interface.len() > MAX_NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() },
    };
    // SAFETY: SIOCETHTOOL takes an `ifreq`, which lives until the call returns, with a name ended
    // by a zero (it is shorter than the array) and a pointer to the command's structure, which is
    // `words`: exclusively borrowed, and as long as the kernel writes (see above).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
