//! What devices have counted themselves: packets that were lost before the XDP program saw them, or
//! after they had been sent.

use crate::dataplane::netlink::{Answer, NetlinkSocket};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

/// What one interface has counted of all its traffic, in packets, since it was made (`ip -s link`).
/// Drivers differ in what they count where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DeviceStats {
    /// Received.
    pub received: u64,
    /// Not received: the NIC had no room, as nobody emptied its ring in time.
    pub receive_missed: u64,
    /// Received and dropped, by the driver or by the kernel. On veth also what the XDP program
    /// redirected and the socket's ring had no room for, which
    /// [`IoStats`](crate::dataplane::IoStats) counts too.
    pub receive_dropped: u64,
    /// Received in error, such as with a wrong check sequence.
    pub receive_errors: u64,
    /// Sent.
    pub transmitted: u64,
    /// Dropped instead of being sent.
    pub transmit_dropped: u64,
    /// Not sent in error.
    pub transmit_errors: u64,
}

impl DeviceStats {
    /// Those that the kernel tells along with an interface.
    pub(crate) fn of(link: &LinkMessage) -> Option<Self> {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(Self {
                received: stats.rx_packets,
                receive_missed: stats.rx_missed_errors,
                receive_dropped: stats.rx_dropped,
                receive_errors: stats.rx_errors,
                transmitted: stats.tx_packets,
                transmit_dropped: stats.tx_dropped,
                transmit_errors: stats.tx_errors,
            }),
            _ => None,
        })
    }
}

/// Asks the kernel in the network namespace it was made in, whoever calls.
pub(super) struct Devices(Mutex<NetlinkSocket>);

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").finish_non_exhaustive()
    }
}

impl Devices {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(Mutex::new(NetlinkSocket::open(&[])?)))
    }

    /// What the interface of this index has counted.
    pub(super) fn stats(&self, index: u32) -> io::Result<DeviceStats> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let request = RouteNetlinkMessage::GetLink(link);
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = match socket.call(request, 0)? {
            Answer::Message(RouteNetlinkMessage::NewLink(link)) => link,
            Answer::Refused(error) => return Err(error),
            _ => return Err(io::Error::other("the answer is about something else")),
        };
        DeviceStats::of(&link).ok_or_else(|| io::Error::other("the answer has no counters"))
    }
}
