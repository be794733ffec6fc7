//! The UDP request monitor.

use super::{Monitor, ProbeFailure, Target};
use crate::error::ParseError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

/// What a UDP datagram carries at most over IPv4 (RFC 768 and RFC 791: 65,535 less 28).
const LONGEST_REQUEST: usize = 65_507;
/// Longer answers are cut; what is looked for has to be within.
const LONGEST_ANSWER: usize = 16 * 1024;
/// How much of a wrong answer a failure shows.
const SHOWN: usize = 64;

/// Sends a datagram and waits for an answer.
///
/// Well is whoever sends the [`Answer`] that is expected, from the address and port that were asked.
/// Another answer does not end the wait, since it may be a late one to somebody else; if nothing
/// better comes in time, it is the reason. "Port unreachable" by ICMP is a refusal at once. Nothing is
/// sent twice: a lost datagram is a failure, which the [policy](super::HealthPolicy) forgives.
///
/// ```
/// use dsrlb::health::{Answer, Monitor, Target, UdpRequest};
/// use std::net::UdpSocket;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let port = server.local_addr()?.port().try_into()?;
/// let serving = std::thread::spawn(move || {
///     let mut request = [0; 16];
///     let (length, from) = server.recv_from(&mut request)?;
///     assert_eq!(&request[..length], b"ping");
///     server.send_to(b"pong 42", from)
/// });
/// let monitor = UdpRequest::new(port, "ping")?.expect(Answer::Prefix("pong".into()));
/// let target = Target::new("10.0.0.100:53/udp", "dns-1", "127.0.0.1".parse()?);
/// assert_eq!(monitor.probe(&target, Duration::from_secs(1)), Ok(()));
/// # serving.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpRequest {
    port: NonZeroU16,
    request: Vec<u8>,
    answer: Answer,
}

/// Which answer is the right one; bytes beyond the first 16 KiB are not looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Answer {
    /// Any, also an empty one.
    #[default]
    Any,
    /// These bytes and no others.
    Exact(Vec<u8>),
    /// One that begins with these bytes.
    Prefix(Vec<u8>),
    /// One that has these bytes somewhere.
    Contains(Vec<u8>),
}

impl Answer {
    /// Whether this is the right answer.
    pub fn matches(&self, answer: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => answer == wanted.as_slice(),
            Self::Prefix(wanted) => answer.starts_with(wanted),
            Self::Contains(wanted) => contains(answer, wanted),
        }
    }
}

impl UdpRequest {
    /// Sends `request`, which may be empty, to this port of each target; any answer will do.
    ///
    /// # Errors
    ///
    /// When it is longer than the 65,507 bytes that a datagram can carry.
    pub fn new(port: NonZeroU16, request: impl Into<Vec<u8>>) -> Result<Self, ParseError> {
        let request = request.into();
        if request.len() > LONGEST_REQUEST {
            let length = format!("{} bytes", request.len());
            return Err(ParseError::new("UDP request", &length, "at most 65507 bytes"));
        }
        Ok(Self { port, request, answer: Answer::Any })
    }

    /// Sets which answer is the right one.
    #[must_use]
    pub fn expect(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }
}

impl Monitor for UdpRequest {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let start = Instant::now();
        let any: IpAddr = match target.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Connected: the kernel then lets nobody else answer, and tells of ICMP errors.
        socket.connect(SocketAddr::new(target.address, self.port.get()))?;
        socket.send(&self.request)?;

        let mut buffer = vec![0; LONGEST_ANSWER];
        let mut wrong = None;
        while let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let answer = buffer.get(..length).unwrap_or_default();
            if self.answer.matches(answer) {
                return Ok(());
            }
            wrong.get_or_insert_with(|| shown(answer));
        }
        Err(wrong.map_or(ProbeFailure::Timeout(timeout), ProbeFailure::Unexpected))
    }
}

/// Whether `wanted` is somewhere in `bytes`.
pub(super) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|part| part == wanted)
}

/// The beginning of an answer, readable whatever is in it.
fn shown(answer: &[u8]) -> String {
    let begin = answer.get(..SHOWN).unwrap_or(answer);
    let more = if begin.len() < answer.len() { "…" } else { "" };
    format!("\"{}\"{more}, {} bytes", begin.escape_ascii(), answer.len())
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
    use proptest::prelude::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A server that gives these answers to the first request,
    /// and the result of a probe of it.
    fn probe(
        address: &str,
        answers: &'static [&'static [u8]],
        expect: Answer,
        timeout: Duration,
    ) -> Result<(), ProbeFailure> {
        let ip: IpAddr = address.parse().unwrap();
        let server = UdpSocket::bind((ip, 0)).unwrap();
        let port = server.local_addr().unwrap().port().try_into().unwrap();
        let serving = std::thread::spawn(move || {
            let (length, from) = server.recv_from(&mut [0; 64]).unwrap();
            assert_eq!(length, 5);
            for answer in answers {
                server.send_to(answer, from).unwrap();
            }
            server
        });
        let monitor = UdpRequest::new(port, "hello").unwrap().expect(expect);
        let result = monitor.probe(&Target::new("s", "b", ip), timeout);
        drop(serving.join().unwrap());
        result
    }

    #[test]
    fn any_answer_will_do_unless_told() {
        assert_eq!(probe("127.0.0.1", &[b""], Answer::Any, TIMEOUT), Ok(()));
        if UdpSocket::bind("[::1]:0").is_ok() {
            assert_eq!(probe("::1", &[b"x"], Answer::Any, TIMEOUT), Ok(()));
        }
    }

    #[test]
    fn a_wrong_answer_is_the_reason_if_no_right_one_follows() {
        let expect = Answer::Exact(b"fine".to_vec());
        let late: &[&[u8]] = &[b"not\0fine", b"fine"];
        assert_eq!(probe("127.0.0.1", late, expect.clone(), TIMEOUT), Ok(()));
        let short = Duration::from_millis(100);
        let wrong = probe("127.0.0.1", &[b"not\0fine"], expect, short).unwrap_err();
        assert_eq!(wrong.to_string(), r#"unexpected answer: "not\x00fine", 8 bytes"#);
    }

    #[test]
    fn silence_is_a_timeout_that_is_kept_to() {
        let start = Instant::now();
        let timeout = Duration::from_millis(100);
        let result = probe("127.0.0.1", &[], Answer::Any, timeout);
        assert_eq!(result, Err(ProbeFailure::Timeout(timeout)));
        assert!((timeout..timeout * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[test]
    fn a_port_that_nobody_listens_on_refuses_at_once() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let monitor = UdpRequest::new(free.port().try_into().unwrap(), "hello").unwrap();
        let start = Instant::now();
        let result = monitor.probe(&Target::new("s", "b", free.ip()), TIMEOUT);
        assert_eq!(result, Err(ProbeFailure::Refused));
        assert!(start.elapsed() < TIMEOUT / 2);
    }

    #[test]
    fn a_request_that_fits_no_datagram_is_refused() {
        let error = UdpRequest::new(NonZeroU16::MIN, vec![0; 65_508]).unwrap_err();
        let text = "UDP request \"65508 bytes\" is not valid: expected at most 65507 bytes";
        assert_eq!(error.to_string(), text);
    }

    proptest! {
        #[test]
        fn answers_match_as_they_say(before: Vec<u8>, wanted: Vec<u8>, after: Vec<u8>) {
            let whole = [before.as_slice(), &wanted, &after].concat();
            prop_assert!(Answer::Contains(wanted.clone()).matches(&whole));
            prop_assert!(Answer::Prefix(before.clone()).matches(&whole));
            prop_assert!(Answer::Exact(whole.clone()).matches(&whole));
            let longer = [whole.as_slice(), b"x"].concat();
            prop_assert!(!Answer::Exact(longer.clone()).matches(&whole));
            prop_assert!(!Answer::Prefix(longer.clone()).matches(&whole));
            prop_assert!(!Answer::Contains(longer).matches(&whole));
        }
    }
}
