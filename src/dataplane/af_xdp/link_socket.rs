//! A packet socket on one interface: whole frames out, and in what a filter lets through.

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use std::io::{self, Read};

/// Sends and hears beside the kernel, whose own traffic it leaves as it is.
#[derive(Debug)]
pub(crate) struct LinkSocket(Socket);

impl LinkSocket {
    /// Opens a socket on the interface with this index, in the network namespace of the calling thread. It
    /// hears frames of this EtherType that pass `filter`; with EtherType zero none at all.
    pub(crate) fn open(index: u32, ether_type: u16, filter: &[SockFilter]) -> io::Result<Self> {
        // Not yet of the protocol: until it is bound it would hear every interface.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        if !filter.is_empty() {
            socket.attach_filter(filter)?;
        }
        socket.bind(&address(index, ether_type)?)?;
        Ok(Self(socket))
    }

    /// Sends a whole frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }

    /// The next frame that has come, as far as there is room; none if there is none.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let length = Read::read(&mut &self.0, buffer).ok()?;
        buffer.get(..length)
    }
}

fn address(index: u32, ether_type: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the kinds of address that a `sockaddr_storage` is made to hold, and all
    // zeros, which are there, are a value of it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = ether_type.to_be();
    link.sll_ifindex = index;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds an address of this family, which is as long as is said here.
    Ok(unsafe { SockAddr::new(storage, length) })
}
