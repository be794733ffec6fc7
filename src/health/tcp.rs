//! The TCP connect monitor.

use super::{Monitor, ProbeFailure, Target};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Duration;

/// Opens a TCP connection and closes it at once, by a FIN: well is whoever accepts it.
///
/// It tells that something listens, not that it serves: the kernel accepts for a process that is
/// stuck. The closed connection stays in TIME-WAIT for a minute on this side (RFC 9293 section
/// 3.4.1): one local port, and no file descriptor, for each probe of that minute.
///
/// ```
/// use dsrlb::health::{Monitor, ProbeFailure, Target, TcpConnect};
/// use std::net::TcpListener;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let monitor = TcpConnect::new(listener.local_addr()?.port().try_into()?);
/// let target = Target::new("10.0.0.100:80/tcp", "web-1", "127.0.0.1".parse()?);
/// assert_eq!(monitor.probe(&target, Duration::from_secs(1)), Ok(()));
///
/// drop(listener);
/// assert_eq!(monitor.probe(&target, Duration::from_secs(1)), Err(ProbeFailure::Refused));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpConnect {
    port: NonZeroU16,
}

impl TcpConnect {
    /// Connects to this port of each target.
    pub const fn new(port: NonZeroU16) -> Self {
        Self { port }
    }
}

impl Monitor for TcpConnect {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        if timeout.is_zero() {
            return Err(ProbeFailure::Timeout(timeout));
        }
        let to = SocketAddr::new(target.address, self.port.get());
        let stream = TcpStream::connect_timeout(&to, timeout)
            .map_err(|error| ProbeFailure::of_io(error, timeout))?;
        // The other end may be gone again already; it did accept.
        let _ = stream.shutdown(Shutdown::Write);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{IpAddr, TcpListener};
    use std::time::Instant;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn probe(to: SocketAddr, timeout: Duration) -> Result<(), ProbeFailure> {
        let monitor = TcpConnect::new(to.port().try_into().unwrap());
        monitor.probe(&Target::new("s", "b", to.ip()), timeout)
    }

    #[test]
    fn an_accepted_connection_is_a_success_and_ends_cleanly() {
        for address in ["127.0.0.1", "::1"] {
            let ip: IpAddr = address.parse().unwrap();
            let Ok(listener) = TcpListener::bind((ip, 0)) else {
                println!("SKIPPED: no {address}");
                continue;
            };
            assert_eq!(probe(listener.local_addr().unwrap(), TIMEOUT), Ok(()));
            let (mut accepted, _) = listener.accept().unwrap();
            // A FIN, no reset: servers log resets.
            assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(probe(to, TIMEOUT), Err(ProbeFailure::Refused));
    }

    /// A listener whose backlog is full drops further SYNs, as a firewall or a dead host does.
    #[test]
    fn silence_is_a_timeout_that_is_kept_to() {
        use socket2::{Domain, SockAddr, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        listener.listen(0).unwrap();
        let to = listener.local_addr().unwrap().as_socket().unwrap();
        let timeout = Duration::from_millis(150);
        // The backlog holds one or two.
        let _filling: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&to, timeout)).collect();
        let start = Instant::now();
        assert_eq!(probe(to, timeout), Err(ProbeFailure::Timeout(timeout)));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(probe(to, Duration::ZERO), Err(ProbeFailure::Timeout(Duration::ZERO)));
    }
}
