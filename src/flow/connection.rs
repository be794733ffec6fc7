//! The connection ID of a QUIC packet.

/// What kind of header a [`ConnectionId`] was read from, as far as it says who chose the ID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum QuicHeader {
    /// A short header: the server chose the ID. How long it is the packet does not tell, so the bytes
    /// go on beyond its end.
    Short,
    /// A long header of an Initial or 0-RTT packet of version 1 (RFC 9000) or 2 (RFC 9369): until the
    /// client has heard from a server, the ID is its own, random choice.
    First,
    /// Any other long header.
    Long,
}

/// The destination connection ID of a QUIC packet (RFC 8999 section 5): its first 20 bytes at most,
/// which is all that versions 1 and 2 allow (RFC 9000 section 17.2).
///
/// Which UDP datagrams are QUIC nobody can tell by looking at them: nearly all have something that may
/// be an ID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    bytes: [u8; Self::MAX_LENGTH],
    length: u8,
    header: QuicHeader,
}

impl ConnectionId {
    /// The most bytes that are kept.
    pub const MAX_LENGTH: usize = 20;

    /// An ID of these bytes; those beyond the 20th are left away.
    pub fn new(header: QuicHeader, id: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX_LENGTH];
        for (to, from) in bytes.iter_mut().zip(id) {
            *to = *from;
        }
        Self { bytes, length: id.len().min(Self::MAX_LENGTH) as u8, header }
    }

    /// The same from 20 bytes that are there, of which `length` are the ID's: without a loop.
    #[inline]
    pub(crate) const fn of(header: QuicHeader, bytes: [u8; Self::MAX_LENGTH], length: u8) -> Self {
        Self { bytes, length, header }
    }

    /// What it was read from.
    #[inline]
    pub const fn header(&self) -> QuicHeader {
        self.header
    }

    /// The bytes that are known: of a long header the whole ID, of a short one the ID and what may be
    /// behind it, as far as the packet goes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

impl std::fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ", self.header)?;
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
