//! Ping: ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4).

use super::{Monitor, ProbeFailure, Target};
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv4HeaderSlice,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Well is who answers a ping: the host is up and reachable, nothing more. It does not tell
/// whether the service runs or the VIP is bound.
///
/// Needs CAP_NET_RAW, as the data path does.
#[derive(Debug, Default)]
pub struct IcmpEcho {
    /// Numbers the probes of this process, so that no two in flight look the same.
    sequence: AtomicU32,
}

impl IcmpEcho {
    /// A ping monitor.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Monitor for IcmpEcho {
    fn probe(&self, target: &Target, timeout: Duration) -> Result<(), ProbeFailure> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let probe = Probe {
            target: target.address,
            echo: IcmpEchoHeader { id: std::process::id() as u16, seq: number as u16 },
            // More than the 16 bits of the sequence number tell one probe from another by.
            payload: (u64::from(std::process::id()) << 32 | u64::from(number)).to_be_bytes(),
        };
        probe.run(timeout)
    }
}

struct Probe {
    target: IpAddr,
    echo: IcmpEchoHeader,
    payload: [u8; 8],
}

impl Probe {
    fn run(&self, timeout: Duration) -> Result<(), ProbeFailure> {
        let deadline = Instant::now() + timeout;
        let mut socket = self.socket().map_err(|error| ProbeFailure::Local {
            doing: "open a raw ICMP socket",
            error: format!("{error}; it takes root or CAP_NET_RAW"),
        })?;
        let to = SocketAddr::new(self.target, 0).into();
        socket.send_to(&self.request(), &to).map_err(|error| unreachable(&error))?;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProbeFailure::NoAnswer(timeout));
            }
            let local = |error: io::Error| ProbeFailure::Local {
                doing: "receive",
                error: error.to_string(),
            };
            // A zero timeout would mean for ever.
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).map_err(local)?;
            match socket.read(&mut buffer) {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    if self.is_answer(packet) {
                        return Ok(());
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => return Err(unreachable(&error)),
                },
            }
        }
    }

    /// A socket that hears the target only.
    fn socket(&self) -> io::Result<Socket> {
        let (domain, protocol) = match self.target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.connect(&SocketAddr::new(self.target, 0).into())?;
        Ok(socket)
    }

    fn request(&self) -> Vec<u8> {
        let mut request = match self.target {
            IpAddr::V4(_) => {
                let kind = Icmpv4Type::EchoRequest(self.echo);
                Icmpv4Header::with_checksum(kind, &self.payload).to_bytes().to_vec()
            }
            // The kernel computes the checksum: it knows the source address (RFC 3542 section 3.1).
            IpAddr::V6(_) => {
                Icmpv6Header::new(Icmpv6Type::EchoRequest(self.echo)).to_bytes().to_vec()
            }
        };
        request.extend(self.payload);
        request
    }

    fn is_answer(&self, packet: &[u8]) -> bool {
        let answered = match self.target {
            // A raw IPv4 socket hands over the IP header too, an IPv6 one does not.
            IpAddr::V4(_) => {
                let Ok(ip) = Ipv4HeaderSlice::from_slice(packet) else {
                    return false;
                };
                let icmp = packet.get(ip.slice().len()..).unwrap_or_default();
                match Icmpv4Header::from_slice(icmp) {
                    Ok((Icmpv4Header { icmp_type: Icmpv4Type::EchoReply(echo), .. }, rest)) => {
                        Some((echo, rest))
                    }
                    _ => None,
                }
            }
            IpAddr::V6(_) => match Icmpv6Header::from_slice(packet) {
                Ok((Icmpv6Header { icmp_type: Icmpv6Type::EchoReply(echo), .. }, rest)) => {
                    Some((echo, rest))
                }
                _ => None,
            },
        };
        answered.is_some_and(|(echo, rest)| echo == self.echo && rest.starts_with(&self.payload))
    }
}

fn unreachable(error: &io::Error) -> ProbeFailure {
    ProbeFailure::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn probe(address: &str) -> Result<(), ProbeFailure> {
        IcmpEcho::new().probe(&Target::new(address.parse().unwrap()), TIMEOUT)
    }

    #[test]
    fn loopback_answers() {
        for address in ["127.0.0.1", "::1"] {
            match probe(address) {
                Err(ProbeFailure::Local { error, .. }) => {
                    println!("SKIPPED: {error}");
                    assert!(error.contains("CAP_NET_RAW"));
                }
                result => assert_eq!(result, Ok(()), "{address}"),
            }
        }
    }

    #[test]
    fn only_the_very_answer_counts() {
        let probe = Probe {
            target: "::1".parse().unwrap(),
            echo: IcmpEchoHeader { id: 7, seq: 9 },
            payload: *b"12345678",
        };
        let answer = |id, seq, payload: &[u8]| {
            let kind = Icmpv6Type::EchoReply(IcmpEchoHeader { id, seq });
            [&Icmpv6Header::new(kind).to_bytes(), payload].concat()
        };
        assert!(probe.is_answer(&answer(7, 9, b"12345678")));
        assert!(!probe.is_answer(&answer(8, 9, b"12345678")));
        assert!(!probe.is_answer(&answer(7, 8, b"12345678")));
        assert!(!probe.is_answer(&answer(7, 9, b"12345679")));
        assert!(!probe.is_answer(&answer(7, 9, b"1234567")));
        assert!(!probe.is_answer(&probe.request()), "our own request is no answer");
        assert!(!probe.is_answer(&[]));
    }
}
