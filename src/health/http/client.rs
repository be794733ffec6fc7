//! One request, by a client that is made for it: where it connects to differs with each.

use super::{Http, Verification};
use crate::health::ProbeFailure;
use crate::health::udp::contains;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Request, StatusCode, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Enough for a request and for what a response begins with; ureq's own are 128 KiB each.
const BUFFER: usize = 8 * 1024;
/// Of all headers of a response together, in bytes.
const MOST_HEADERS: usize = 32 * 1024;

/// Knows one address for all names. So no name is looked up, for which ureq would start a thread.
#[derive(Debug)]
struct Always(SocketAddr);

impl Resolver for Always {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// Makes the request of `http` to `address`: the status of the response, and as much of its body as is
/// looked at.
pub(super) fn fetch(
    http: &Http,
    address: IpAddr,
    timeout: Duration,
) -> Result<(StatusCode, Vec<u8>), ProbeFailure> {
    if timeout.is_zero() {
        return Err(ProbeFailure::Timeout(timeout));
    }
    let failed = |error| failure(error, timeout);
    let mut request = Request::builder().method(http.method.clone()).uri(http.uri(address));
    if let Some(headers) = request.headers_mut() {
        headers.clone_from(&http.headers);
    }
    let request = request.body(()).map_err(|error| failed(error.into()))?;
    let to = SocketAddr::new(address, http.port.get());
    let config = config(http.tls.as_ref(), timeout);
    let agent = Agent::with_parts(config, DefaultConnector::default(), Always(to));
    let mut response = agent.run(request).map_err(failed)?;
    let mut body = Vec::new();
    if !http.body.is_empty() {
        // The status is known already; but what was asked for may be in what is not yet here.
        let reader = response.body_mut().as_reader().take(Http::MOST_BODY);
        read_until(reader, &http.body, &mut body).map_err(|error| failed(error.into()))?;
    }
    Ok((response.status(), body))
}

/// Reads until `wanted` is there, or the end.
fn read_until(mut reader: impl Read, wanted: &[u8], body: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 2048];
    loop {
        let length = match reader.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // It may have begun in what came before.
        let from = body.len().saturating_sub(wanted.len());
        body.extend_from_slice(part.get(..length).unwrap_or_default());
        if body.get(from..).is_some_and(|new| contains(new, wanted)) {
            return Ok(());
        }
    }
}

fn config(tls: Option<&Verification>, timeout: Duration) -> Config {
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Else those of the environment.
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(MOST_HEADERS)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .user_agent(concat!("dsrlb/", env!("CARGO_PKG_VERSION")));
    match tls {
        Some(verification) => config.tls_config(verification.config()).build(),
        None => config.build(),
    }
}

fn failure(error: ureq::Error, timeout: Duration) -> ProbeFailure {
    match error {
        ureq::Error::Timeout(_) => ProbeFailure::Timeout(timeout),
        ureq::Error::Rustls(error) => ProbeFailure::Unexpected(format!("TLS: {error}")),
        // What fails within TLS, or within a body, comes in the guise of an I/O error.
        ureq::Error::Io(error) => match error.downcast::<ureq::Error>() {
            Ok(inner) => failure(inner, timeout),
            Err(error) => of_io(error, timeout),
        },
        other => ProbeFailure::Unexpected(other.to_string()),
    }
}

fn of_io(error: io::Error, timeout: Duration) -> ProbeFailure {
    match error.kind() {
        io::ErrorKind::InvalidData => ProbeFailure::Unexpected(format!("TLS: {error}")),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => ProbeFailure::Unexpected(error.to_string()),
        _ => ProbeFailure::of_io(error, timeout),
    }
}

/// Whether it is a name of letters, digits and hyphens (RFC 1123 section 2.1), or underscores, which
/// are in use.
pub(super) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
