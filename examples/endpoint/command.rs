//! What an operator may tell the appliance, and who is one: a pure function of the request.
//!
//! Nobody proves here who they are, so commands are taken only where they are switched on, and only from programs
//! of this host. A browser on it runs the programs of whoever it shows; what tells those apart is checked one by one.

use super::request::Request;
use dsrlb::balancer::{AdminState, VipKey};
use serde::Deserialize;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What is wanted of a backend from now on.
#[derive(PartialEq, Debug)]
pub struct Command {
    pub service: VipKey,
    pub backend: String,
    /// None: what the configuration says.
    pub admin: Option<AdminState>,
}

/// Why a command is not taken.
#[derive(Debug)]
pub struct Refusal {
    pub status: &'static str,
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    service: String,
    backend: String,
}

impl Command {
    /// The command that a request is, if it is one; `is_local` says whether it comes from this host.
    pub fn of(request: &Request, is_local: bool, enabled: bool) -> Result<Self, Refusal> {
        let refuse = |status, why: &str| Err(Refusal { status, why: format!("{why}\n") });
        let admin = match request.path.as_str() {
            "/drain" => Some(AdminState::Draining),
            "/undrain" => None,
            "/metrics" | "/health" => return refuse("405 Method Not Allowed", "GET or HEAD"),
            _ => return refuse("404 Not Found", "there are POST /drain and /undrain"),
        };
        if !enabled {
            let why = "no commands are taken here; `commands = true` in [metrics] changes that";
            return refuse("403 Forbidden", why);
        }
        if !is_local {
            return refuse("403 Forbidden", "commands are taken from this host alone");
        }
        // Browsers say of every POST which page it comes from (Fetch standard, "append a request `Origin` header").
        if request.has_header("origin") {
            return refuse("403 Forbidden", "commands are not taken from web pages (Origin)");
        }
        // A page whose name was made to lead here (DNS rebinding) is asked for by that name.
        if !request.header("host").is_some_and(is_literal) {
            let why = "the header Host has to be an IP address or localhost, and there once";
            return refuse("403 Forbidden", why);
        }
        // What forms send of themselves is none of this type.
        let kind = request.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let why = "the header Content-Type has to be application/json";
            return refuse("415 Unsupported Media Type", why);
        }
        let body: Result<Body, _> = serde_json::from_slice(&request.body);
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                let why = format!(
                    r#"expected {{"service": "10.0.0.100:80/tcp", "backend": "web-1"}}: {error}"#
                );
                return refuse("400 Bad Request", &why);
            }
        };
        match body.service.parse() {
            Ok(service) => Ok(Self { service, backend: body.backend, admin }),
            Err(error) => refuse("400 Bad Request", &format!("service: {error}")),
        }
    }
}

/// Whether who has the first address is on the host that was reached by the second one. The kernel takes no packet from
/// elsewhere whose source is an address of its own.
pub fn is_of_this_host(peer: IpAddr, reached: IpAddr) -> bool {
    peer.to_canonical().is_loopback() || peer == reached
}

/// Whether this is no name that somebody else may give to an address.
fn is_literal(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || host.parse::<IpAddr>().is_ok()
        || in_brackets(host).is_some_and(|name| name.parse::<Ipv6Addr>().is_ok())
}

fn in_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"service": "10.0.0.100:80/tcp", "backend": "web-1"}"#;

    fn request(path: &str, headers: &[(&str, &str)], body: &str) -> Request {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    const HOST: (&str, &str) = ("Host", "127.0.0.1:9100");
    const KIND: (&str, &str) = ("Content-Type", "application/json");

    fn status(path: &str, headers: &[(&str, &str)], body: &str) -> &'static str {
        let command = Command::of(&request(path, headers, body), true, true);
        command.map_or_else(|refusal| refusal.status, |_| "taken")
    }

    #[test]
    fn a_command_of_this_host_is_taken() {
        for (path, admin) in [("/drain", Some(AdminState::Draining)), ("/undrain", None)] {
            let request = request(path, &[HOST, KIND], BODY);
            let service = "10.0.0.100:80/tcp".parse().unwrap();
            let command = Command { service, backend: "web-1".to_owned(), admin };
            assert_eq!(Command::of(&request, true, true).unwrap(), command);
        }
    }

    #[test]
    fn who_is_not_of_this_host_or_not_wanted_is_refused() {
        let request = request("/drain", &[HOST, KIND], BODY);
        for (is_local, enabled) in [(true, false), (false, true)] {
            let refusal = Command::of(&request, is_local, enabled).unwrap_err();
            assert_eq!(refusal.status, "403 Forbidden");
        }
        for (peer, reached, is_local) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::ffff:127.0.0.9", "::ffff:127.0.0.1", true),
            ("::1", "::1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.7", "10.0.0.1", false),
            ("::ffff:10.0.0.7", "::ffff:10.0.0.1", false),
            ("2001:db8::7", "2001:db8::1", false),
        ] {
            let [peer, reached] = [peer, reached].map(|ip| ip.parse().unwrap());
            assert_eq!(is_of_this_host(peer, reached), is_local, "{peer} {reached}");
        }
    }

    #[test]
    fn web_pages_are_refused_whatever_they_say() {
        for headers in [
            &[HOST, KIND, ("origin", "http://127.0.0.1:9100")][..],
            &[HOST, KIND, ("Origin", "null")],
            &[("Host", "rebound.example:9100"), KIND],
            &[("Host", "127.0.0.1.example"), KIND],
            &[("Host", "localhost.example:9100"), KIND],
            &[HOST, ("Host", "rebound.example"), KIND],
            &[("Host", ""), KIND],
            &[KIND],
        ] {
            assert_eq!(status("/drain", headers, BODY), "403 Forbidden", "{headers:?}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            let headers = [HOST, ("Content-Type", kind)];
            assert_eq!(status("/drain", &headers, BODY), "415 Unsupported Media Type");
        }
        for host in ["localhost", "LOCALHOST:9100", "[::1]:9100", "[::1]", "127.0.0.1"] {
            assert_eq!(status("/drain", &[("Host", host), KIND], BODY), "taken", "{host}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_words() {
        for (path, body, expected) in [
            ("/metrics", BODY, "GET or HEAD"),
            ("/other", BODY, "there are POST /drain"),
            ("/drain", "", "EOF"),
            ("/drain", r#"{"service": "10.0.0.100:80/tcp"}"#, "missing field `backend`"),
            ("/drain", r#"{"service": "web", "backend": "web-1"}"#, "service: "),
            (
                "/drain",
                r#"{"service": "10.0.0.100:80/tcp", "backend": "a", "deadline": 3}"#,
                "unknown field `deadline`",
            ),
        ] {
            let request = request(path, &[HOST, KIND], body);
            let refusal = Command::of(&request, true, true).unwrap_err();
            assert!(refusal.why.contains(expected), "{path} {body}: {refusal:?}");
        }
    }
}
