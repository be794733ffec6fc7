//! A route netlink socket: requests with their answers, and the kernel's own messages.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;
use std::io;
use std::time::Duration;

/// How long the kernel may take for an answer. It answers within microseconds; this is for the day
/// it does not, so that nothing hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Larger than any message the kernel packs: a dump fills at most 32 KiB at a time.
const BUFFER_LENGTH: usize = 64 * 1024;
/// How many bytes of events may wait: some thousands of neighbour messages.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How often a dump that was disturbed by a change is begun anew.
const DUMP_ATTEMPTS: usize = 5;

/// What became of an attempt to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// One datagram, with some messages.
    Messages,
    /// Nothing came in time.
    Nothing,
    /// The socket's buffer was full and messages are lost.
    Overrun,
}

/// The kernel's answer to a request.
pub(crate) enum Answer {
    /// A message.
    Message(RouteNetlinkMessage),
    /// Done as asked.
    Done,
    /// Refused, with the kernel's error.
    Refused(io::Error),
}

pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens a socket in the namespace of the calling thread, joined to the multicast `groups`.
    pub(crate) fn open(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        if !groups.is_empty() {
            // Best effort: the kernel may grant less, and an overrun is dealt with.
            let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        }
        for &group in groups {
            socket.add_membership(group)?;
        }
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_LENGTH) })
    }

    /// Waits for at most `wait` for one datagram and gives its messages to `each`.
    pub(crate) fn receive(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<Received> {
        self.receive_raw(wait, |_, payload| {
            if let NetlinkPayload::InnerMessage(message) = payload {
                each(message);
            }
        })
    }

    /// Asks for a whole table and gives its messages to `each`; returns whether no change disturbed
    /// the reading. Repeated readings are up to the caller, who has to forget the half-read table.
    fn dump_once(
        &mut self,
        request: RouteNetlinkMessage,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        let sequence = self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut consistent = true;
        let mut end = None;
        while end.is_none() {
            let received = self.receive_raw(ANSWER_TIMEOUT, |header, payload| {
                if header.sequence_number != sequence {
                    return;
                }
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                match payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Done(_) => end = Some(Ok(())),
                    NetlinkPayload::Error(error) => end = Some(Err(error.to_io())),
                    _ => {}
                }
            })?;
            match received {
                Received::Messages => {}
                Received::Nothing => return Err(io::ErrorKind::TimedOut.into()),
                Received::Overrun => return Ok(false),
            }
        }
        end.unwrap_or(Ok(())).map(|()| consistent)
    }

    /// Reads a whole table into what `each` makes of its messages.
    pub(crate) fn dump<T>(
        &mut self,
        request: RouteNetlinkMessage,
        each: impl Fn(&RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            items.clear();
            if self.dump_once(request.clone(), &mut |message| items.extend(each(&message)))? {
                break;
            }
        }
        // A table that never keeps still is taken as last read: the events tell the rest.
        Ok(items)
    }

    /// Sends one request with further `flags` and waits for its answer.
    pub(crate) fn call(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Answer> {
        let sequence = self.send(request, NLM_F_REQUEST | flags)?;
        let mut answer = None;
        while answer.is_none() {
            let received = self.receive_raw(ANSWER_TIMEOUT, |header, payload| {
                if header.sequence_number != sequence || answer.is_some() {
                    return;
                }
                answer = match payload {
                    NetlinkPayload::InnerMessage(message) => Some(Answer::Message(message)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        Some(Answer::Refused(error.to_io()))
                    }
                    NetlinkPayload::Error(_) => Some(Answer::Done),
                    _ => None,
                };
            })?;
            if received != Received::Messages {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        answer.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Sends one request that the kernel has to confirm.
    pub(crate) fn execute(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Answer> {
        self.call(request, flags | NLM_F_ACK)
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(self.sequence)
    }

    fn receive_raw(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(&NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>),
    ) -> io::Result<Received> {
        let flags = if wait.is_zero() {
            libc::MSG_DONTWAIT
        } else {
            // The kernel counts in ticks and takes a timeout of zero for "for ever".
            let wait = wait.max(Duration::from_millis(1));
            SockRef::from(&self.socket).set_read_timeout(Some(wait))?;
            0
        };
        self.buffer.clear();
        let flags = flags | libc::MSG_TRUNC;
        let (length, sender) = match self.socket.recv_from(&mut self.buffer, flags) {
            Ok(received) => received,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Received::Nothing),
                    _ if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Overrun),
                    _ => Err(error),
                };
            }
        };
        if sender.port_number() != 0 {
            // Not from the kernel: another process may write to our port.
            return Ok(Received::Messages);
        }
        if length > self.buffer.len() {
            return Ok(Received::Overrun);
        }
        let mut rest = self.buffer.as_slice();
        while let Some(message) = split_message(&mut rest) {
            // What this version of the parser does not know is not for us.
            if let Ok(message) = NetlinkMessage::deserialize(message) {
                let (header, payload) = message.into_parts();
                each(&header, payload);
            }
        }
        Ok(Received::Messages)
    }
}

/// Takes the first message off a datagram; `None` at its end or when the rest is no message.
fn split_message<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    const HEADER_LENGTH: usize = 16;
    let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
    if length < HEADER_LENGTH {
        return None;
    }
    let message = rest.get(..length)?;
    // Messages begin at multiples of four bytes; the last need not be padded.
    let next = length.next_multiple_of(4).min(rest.len());
    *rest = rest.get(next..)?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_datagram_is_split_to_the_end(bytes: Vec<u8>, length in 0u32..40) {
            let bytes = [&length.to_ne_bytes()[..], &bytes].concat();
            let mut rest = bytes.as_slice();
            let mut left = rest.len();
            while let Some(message) = split_message(&mut rest) {
                prop_assert!(message.len() >= 16);
                prop_assert!(rest.len() < left);
                left = rest.len();
            }
        }
    }
}
