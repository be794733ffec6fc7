//! The ICMP echo monitor: "ping".

use super::icmp_filter;
use super::icmp_message::{Echo, Heard};
use super::{Monitor, ProbeFailure, Target};
use socket2::{Domain, Protocol, Socket, Type};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than an echo reply or the error that quotes an echo; longer packets are cut.
const BUFFER_LENGTH: usize = 2048;

/// Sends one ICMP echo request (RFC 792, RFC 4443 section 4.1) and waits for its reply.
///
/// Needs raw sockets: root or `CAP_NET_RAW`. Each probe opens a socket of its own, in the network
/// namespace of the thread that probes, so nothing is shared and any number may run at once. A
/// reply counts only with the address, identifier, sequence number and nonce that were sent. A
/// message that the backend is unreachable ends the probe at once if it quotes that very request.
///
/// It tells that the host answers, not that the service does. Link-local IPv6 addresses cannot be
/// probed, since an address alone does not name their interface.
#[derive(Debug)]
pub struct IcmpEcho {
    /// Makes nonces that others cannot guess.
    secret: RandomState,
}

/// Counts the probes of the process, so that no two that run at once are alike.
static PROBES: AtomicU32 = AtomicU32::new(0);

impl IcmpEcho {
    /// A monitor; it holds no socket.
    pub fn new() -> Self {
        Self { secret: RandomState::new() }
    }

    fn next_echo(&self) -> Echo {
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        // The process's number keeps apart processes, the upper half of the counter the rounds.
        let identifier = (std::process::id() as u16).wrapping_add((number >> 16) as u16);
        Echo {
            identifier,
            sequence: number as u16,
            nonce: self.secret.hash_one(number).to_be_bytes(),
        }
    }
}

impl Default for IcmpEcho {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor for IcmpEcho {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let start = Instant::now();
        let echo = self.next_echo();
        let socket = open(target.address, &echo)?;
        let request = echo.request(target.address);
        socket.send_to(&request, SocketAddr::new(target.address, 0))?;

        let mut buffer = [0; BUFFER_LENGTH];
        // The deadline counts, not the single wait: a busy host hears many other ICMP messages.
        while let Some(left) = timeout.checked_sub(start.elapsed()) {
            // Zero would mean to wait for ever.
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let (length, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(message) = buffer.get(..length) else {
                continue;
            };
            match echo.recognise(target.address, from.ip(), message) {
                Some(Heard::Reply) => return Ok(()),
                Some(Heard::Unreachable { kind, code }) => {
                    let from = from.ip();
                    return Err(ProbeFailure::Unreachable { from, kind, code });
                }
                None => {}
            }
        }
        Err(ProbeFailure::Timeout(timeout))
    }
}

/// A raw socket, in the guise of a UDP socket: the standard library then reads the sender's address
/// without unsafe code.
fn open(address: IpAddr, echo: &Echo) -> Result<UdpSocket, ProbeFailure> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            let text = "ICMP echo needs raw sockets: run as root or with CAP_NET_RAW";
            ProbeFailure::NotPermitted(text.to_owned())
        } else {
            error.into()
        }
    })?;
    // Before anything is sent, so before anything can fill the buffer.
    icmp_filter::attach(&socket, address, echo)?;
    Ok(socket.into())
}

/// Errors after which waiting goes on, if there is time left.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    const TIMEOUT: Duration = Duration::from_secs(2);

    /// A flood fills the backlog of the loopback device, which then drops what others send: these
    /// tests run one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// The result of a probe; `None`, and says so, if raw sockets are not to be had.
    fn probe(address: &str, timeout: Duration) -> Option<Result<(), ProbeFailure>> {
        let target = Target::new("service", "test", address.parse().unwrap());
        let result = IcmpEcho::new().probe(&target, timeout);
        if let Err(ProbeFailure::NotPermitted(why)) = &result {
            println!("SKIPPED: {why}");
            return None;
        }
        Some(result)
    }

    #[test]
    fn the_own_host_answers_in_both_families() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for address in ["127.0.0.1", "::1"] {
            if let Some(result) = probe(address, TIMEOUT) {
                assert_eq!(result, Ok(()), "{address}");
            }
        }
    }

    #[test]
    fn many_at_once_hear_their_own_replies_only() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let monitor = IcmpEcho::new();
        if probe("127.0.0.1", TIMEOUT).is_none() {
            return;
        }
        std::thread::scope(|scope| {
            for last in 1..=16 {
                let monitor = &monitor;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let target =
                            Target::new("service", "test", IpAddr::from([127, 0, 0, last]));
                        // Another process may flood the loopback device meanwhile: one reply in
                        // three tries is enough, none of them means that it was not recognised.
                        let mut tries = (0..3).map(|_| monitor.probe(&target, TIMEOUT));
                        assert!(tries.any(|result| result == Ok(())));
                    }
                });
            }
        });
    }

    /// More messages for others than the socket's buffer holds, and then the reply.
    #[test]
    fn the_reply_is_heard_through_a_flood_of_others() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for address in ["127.0.0.1", "::1"] {
            if probe(address, TIMEOUT).is_none() {
                return;
            }
            let address: IpAddr = address.parse().unwrap();
            let to = SocketAddr::new(address, 0);
            let monitor = IcmpEcho::new();
            let (ours, others) = (monitor.next_echo(), monitor.next_echo());
            let socket = open(address, &ours).unwrap();
            let noise = open(address, &others).unwrap();
            for _ in 0..3000 {
                noise.send_to(&others.request(address), to).unwrap();
            }
            socket.send_to(&ours.request(address), to).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            let mut buffer = [0; BUFFER_LENGTH];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            // The very first that is let through.
            let heard = ours.recognise(address, from.ip(), &buffer[..length]);
            assert_eq!(heard, Some(Heard::Reply), "{address}");
        }
    }

    #[test]
    fn no_two_echoes_of_a_process_are_alike() {
        let (one, other) = (IcmpEcho::new(), IcmpEcho::new());
        let alike = |a: &Echo, b: &Echo| (a.identifier, a.sequence) == (b.identifier, b.sequence);
        let (a, b, c) = (one.next_echo(), other.next_echo(), one.next_echo());
        assert!(!alike(&a, &b) && !alike(&b, &c) && !alike(&a, &c));
        assert!(a.nonce != c.nonce);
    }
}
