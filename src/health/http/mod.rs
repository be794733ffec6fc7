//! The HTTP and HTTPS monitor.

mod client;
mod verification;

pub use verification::Verification;

use super::udp::contains;
use super::{Monitor, ProbeFailure, Target};
use crate::error::ParseError;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

/// Makes an HTTP/1.1 request (RFC 9112), in clear or by TLS, and judges the response.
///
/// Well is who answers with a status in the expected range, 200 to 399 unless told, and with the
/// expected text within the first 64 KiB of the body, if one is set. The connection goes to the
/// target's address, whatever the host is; no name is looked up, no proxy is used, no redirect
/// followed and no connection kept. Everything is done on the calling thread.
///
/// ```
/// use dsrlb::health::{Http, Verification};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let plain = Http::new(80_u16.try_into()?).path("/healthz")?.body_contains("ok");
/// let by_tls = Http::https(443_u16.try_into()?)
///     .host("shop.example")?
///     .method("HEAD")?
///     .header("x-probe", "dsrlb")?
///     .status(200..=204)?
///     .verify(Verification::WebRoots);
/// # let _ = (plain, by_tls);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Http {
    port: NonZeroU16,
    /// None: in clear.
    tls: Option<Verification>,
    /// As in a URI; the target's address if none.
    host: Option<String>,
    path: String,
    method: Method,
    headers: HeaderMap,
    status: RangeInclusive<u16>,
    body: Vec<u8>,
}

impl Http {
    /// How much of a body is read, in bytes. What is beyond is not looked at, and the connection closed.
    pub const MOST_BODY: u64 = 64 * 1024;

    /// `GET /` in clear, from this port of each target.
    pub fn new(port: NonZeroU16) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Self {
            port,
            tls: None,
            host: None,
            path: "/".to_owned(),
            method: Method::GET,
            headers,
            status: 200..=399,
            body: Vec::new(),
        }
    }

    /// `GET /` by TLS, from this port of each target. Certificates are
    /// [verified](Verification::WebRoots) unless told otherwise.
    pub fn https(port: NonZeroU16) -> Self {
        Self { tls: Some(Verification::default()), ..Self::new(port) }
    }

    /// Sets the host: for the `Host` header and, by TLS, for the server name indication (RFC 6066
    /// section 3) and the name that the certificate is for. Unless told, it is the target's address.
    ///
    /// # Errors
    ///
    /// When it is not a host name, or an IP address, alone: a port does not belong here.
    pub fn host(mut self, host: &str) -> Result<Self, ParseError> {
        let refused = || {
            let expected = "a host name such as shop.example, or an IP address, without a port";
            ParseError::new("host", host, expected)
        };
        let host = match host.parse::<IpAddr>() {
            Ok(address) => bracketed(address),
            Err(_) if client::is_dns_name(host) => host.to_owned(),
            Err(_) => return Err(refused()),
        };
        self.host = Some(host);
        Ok(self)
    }

    /// Sets the path, and the query if there is one.
    ///
    /// # Errors
    ///
    /// When it does not begin with `/`, or has characters that have to be percent-encoded (RFC 3986
    /// section 3.3), or a fragment.
    pub fn path(mut self, path: &str) -> Result<Self, ParseError> {
        let parsed = path.parse::<Uri>();
        // A URI is more than a path, and its parser leaves out fragments.
        let same = parsed
            .is_ok_and(|uri| uri.path_and_query().is_some_and(|parsed| parsed.as_str() == path));
        if !path.starts_with('/') || !same {
            let expected = "a path that begins with /, percent-encoded, with a query or without";
            return Err(ParseError::new("path", path, expected));
        }
        path.clone_into(&mut self.path);
        Ok(self)
    }

    /// Sets the method; no request has a body.
    ///
    /// # Errors
    ///
    /// When it is not one of `GET`, `HEAD` and `OPTIONS`: others may change what they are sent to.
    pub fn method(mut self, method: &str) -> Result<Self, ParseError> {
        self.method = match method {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            "OPTIONS" => Method::OPTIONS,
            _ => return Err(ParseError::new("method", method, "GET, HEAD or OPTIONS")),
        };
        Ok(self)
    }

    /// Adds a header; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// When name or value are not allowed in a header (RFC 9110 section 5.5), or it is one of those that
    /// say where the message ends.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ParseError> {
        let expected = "letters, digits and hyphens, and none of content-length, transfer-encoding, \
                        host (set the host instead)";
        let parsed = HeaderName::try_from(name).ok().filter(|name| {
            ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST].contains(name)
        });
        let name = parsed.ok_or_else(|| ParseError::new("header name", name, expected))?;
        let parsed = HeaderValue::try_from(value);
        let expected = "visible characters, spaces and tabs";
        let mut value = parsed.map_err(|_| ParseError::new("header value", value, expected))?;
        // It may be a password, which is not to be seen in a log.
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Sets which statuses are good ones.
    ///
    /// # Errors
    ///
    /// When the range is empty or not within 100 to 999 (RFC 9110 section 15 has those up to 599).
    pub fn status(mut self, status: RangeInclusive<u16>) -> Result<Self, ParseError> {
        if status.is_empty() || *status.start() < 100 || *status.end() > 999 {
            let text = format!("{}-{}", status.start(), status.end());
            let expected = "a first and a last status, from 100 to 999";
            return Err(ParseError::new("status range", &text, expected));
        }
        self.status = status;
        Ok(self)
    }

    /// Sets what has to be in the body, as sent: no encoding is undone. Not for `HEAD`, whose
    /// responses have none.
    #[must_use]
    pub fn body_contains(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.body = text.into();
        self
    }

    /// Sets whom to believe by TLS; nothing, in clear.
    #[must_use]
    pub fn verify(mut self, verification: Verification) -> Self {
        self.tls = self.tls.map(|_| verification);
        self
    }

    fn uri(&self, address: IpAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = self.host.clone().unwrap_or_else(|| bracketed(address));
        format!("{scheme}://{host}:{}{}", self.port, self.path)
    }

    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<(), ProbeFailure> {
        if !self.status.contains(&status.as_u16()) {
            let (first, last) = (self.status.start(), self.status.end());
            let text = format!("status {status}, expected {first} to {last}");
            return Err(ProbeFailure::Unexpected(text));
        }
        if !contains(body, &self.body) {
            let (wanted, length) = (self.body.escape_ascii(), body.len());
            let text = format!("status {status}, without \"{wanted}\" in {length} bytes of body");
            return Err(ProbeFailure::Unexpected(text));
        }
        Ok(())
    }
}

/// As in a URI (RFC 3986 section 3.2.2).
fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

impl Monitor for Http {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let (status, body) = client::fetch(self, target.address, timeout)?;
        self.judge(status, &body)
    }
}

#[cfg(test)]
mod tests;
