//! Tests of the HTTP monitor against servers on loopback that say what they are told to.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(5);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nall is well";

/// A server for one connection; ends with the request that it has heard.
struct Server {
    port: NonZeroU16,
    thread: JoinHandle<String>,
}

impl Server {
    fn start(serve: impl FnOnce(TcpStream) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().try_into().unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        Self { port, thread }
    }

    fn answering(response: &'static str) -> Self {
        Self::start(move |mut stream| {
            let request = request(&mut stream);
            let _ = stream.write_all(response.as_bytes());
            request
        })
    }

    fn heard(self) -> String {
        self.thread.join().unwrap()
    }
}

fn request(stream: &mut impl Read) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    head.join("\n")
}

fn probe(http: &Http, timeout: Duration) -> Result<(), ProbeFailure> {
    // With little more stack than half of what the runner gives, in a debug build.
    let http = http.clone();
    let probe = move || http.probe(&Target::new("s", "b", [127, 0, 0, 1].into()), timeout);
    std::thread::Builder::new().stack_size(160 * 1024).spawn(probe).unwrap().join().unwrap()
}

fn reason(http: &Http) -> String {
    probe(http, TIMEOUT).unwrap_err().to_string()
}

#[test]
fn the_request_is_as_configured_and_goes_to_the_target() {
    let server = Server::answering(OK);
    let http = Http::new(server.port)
        .host("shop.example")
        .and_then(|http| http.path("/health/check?deep=1"))
        .and_then(|http| http.header("X-Probe", "dsrlb"))
        .unwrap()
        .body_contains("is well");
    assert_eq!(probe(&http, TIMEOUT), Ok(()));
    let port = server.port;
    let heard = server.heard().to_lowercase();
    for line in [
        "get /health/check?deep=1 http/1.1",
        &format!("host: shop.example:{port}"),
        "x-probe: dsrlb",
        "connection: close",
        "user-agent: dsrlb/0.1.0",
    ] {
        assert!(heard.lines().any(|heard| heard == line), "{line} is not in {heard}");
    }

    let server = Server::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let http = Http::new(server.port).method("HEAD").unwrap();
    assert_eq!(probe(&http, TIMEOUT), Ok(()));
    let (port, heard) = (server.port, server.heard());
    assert!(heard.starts_with("HEAD / HTTP/1.1\n"), "{heard}");
    assert!(heard.to_lowercase().contains(&format!("host: 127.0.0.1:{port}")), "{heard}");
}

#[test]
fn status_and_body_have_to_be_the_expected_ones() {
    let server = Server::answering("HTTP/1.1 500 Internal Server Error\r\n\r\n");
    let text = "unexpected answer: status 500 Internal Server Error, expected 200 to 399";
    assert_eq!(reason(&Http::new(server.port)), text);

    // Not followed: the place that it names refuses connections.
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let server = Server::answering(moved);
    assert_eq!(probe(&Http::new(server.port), TIMEOUT), Ok(()));
    let server = Server::answering(moved);
    let http = Http::new(server.port).status(200..=299).unwrap();
    assert_eq!(reason(&http), "unexpected answer: status 302 Found, expected 200 to 299");

    let server = Server::answering(OK);
    let text = "unexpected answer: status 200 OK, without \"on fire\" in 11 bytes of body";
    assert_eq!(reason(&Http::new(server.port).body_contains("on fire")), text);

    for garbage in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "", "HTTP/1.1 2\r\n\r\n"] {
        let server = Server::answering(garbage);
        let failure = probe(&Http::new(server.port), TIMEOUT).unwrap_err();
        assert!(matches!(failure, ProbeFailure::Unexpected(_)), "{garbage:?}: {failure}");
    }
}

#[test]
fn bodies_and_headers_without_end_are_read_to_a_bound_only() {
    let endless = |begin: &'static str, part: &'static [u8]| {
        Server::start(move |mut stream| {
            request(&mut stream);
            let _ = stream.write_all(begin.as_bytes());
            // Until the other end has had enough.
            while stream.write_all(part).is_ok() {}
            String::new()
        })
    };
    let server = endless("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096]);
    let failure = reason(&Http::new(server.port).body_contains("ok"));
    assert!(failure.ends_with("without \"ok\" in 65536 bytes of body"), "{failure}");
    server.heard();
    let server = endless("HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n");
    let failure = probe(&Http::new(server.port), TIMEOUT).unwrap_err();
    assert!(matches!(failure, ProbeFailure::Unexpected(_)), "{failure}");
    server.heard();
    // What is looked for ends the reading, wherever it was torn apart.
    let server = Server::start(|mut stream| {
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall is w").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"ell").unwrap();
        std::thread::sleep(Duration::from_millis(500));
        String::new()
    });
    let start = Instant::now();
    assert_eq!(probe(&Http::new(server.port).body_contains("is well"), TIMEOUT), Ok(()));
    assert!(start.elapsed() < Duration::from_millis(450));
}

/// Byte by byte, so that no single wait is long: the sum is what counts.
#[test]
fn the_timeout_is_that_of_the_whole() {
    let timeout = Duration::from_millis(300);
    let trickles = |begin: &'static str, part: &'static str| {
        Server::start(move |mut stream| {
            request(&mut stream);
            let _ = stream.write_all(begin.as_bytes());
            while stream.write_all(part.as_bytes()).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            String::new()
        })
    };
    let silent = || {
        Server::start(|mut stream| {
            let _ = stream.read_to_end(&mut Vec::new());
            String::new()
        })
    };
    let cases = [
        Http::new(silent().port),
        Http::https(silent().port),
        Http::new(trickles("HTTP/1.1 200 OK\r\n", "a: b\r\n").port),
        Http::new(trickles("HTTP/1.1 200 OK\r\n\r\n", "x").port).body_contains("y"),
        // A handshake that never gets beyond its first record.
        Http::https(trickles("\x16\x03\x03\x3f\x01", "x").port).verify(Verification::Nothing),
    ];
    for (number, http) in cases.iter().enumerate() {
        let start = Instant::now();
        let result = probe(http, timeout);
        let took = start.elapsed();
        assert!(took < timeout + Duration::from_millis(150), "case {number}: {took:?}");
        if number != 4 {
            assert_eq!(result, Err(ProbeFailure::Timeout(timeout)), "case {number}");
        }
    }
    assert!(probe(&cases[0], Duration::ZERO).is_err());
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().try_into().unwrap();
    drop(listener);
    for http in [Http::new(port), Http::https(port)] {
        assert_eq!(probe(&http, TIMEOUT), Err(ProbeFailure::Refused));
    }
}

/// An authority, as PEM, and a server with a certificate of its for these names; it ends with the
/// name that it was asked for.
fn tls_server(names: &[&str]) -> (String, Server) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let server = Server::start(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut both = rustls::Stream::new(&mut tls, &mut stream);
        if !request(&mut both).is_empty() {
            let _ = both.write_all(OK.as_bytes());
            let _ = both.flush();
        }
        tls.server_name().unwrap_or("none").to_owned()
    });
    (ca.pem(), server)
}

#[test]
fn tls_asks_for_the_host_and_believes_whom_it_is_told_to() {
    let (ca, server) = tls_server(&["shop.example"]);
    let ours = Verification::authorities(&ca).unwrap();
    let shop = |port| Http::https(port).host("shop.example").unwrap().body_contains("is well");
    assert_eq!(probe(&shop(server.port).verify(ours.clone()), TIMEOUT), Ok(()));
    assert_eq!(server.heard(), "shop.example");

    // Another authority; for another name; one that browsers do not know; in clear.
    let (_, server) = tls_server(&["shop.example"]);
    let failure = reason(&shop(server.port).verify(ours));
    assert!(failure.starts_with("unexpected answer: TLS: "), "{failure}");
    let (ca, server) = tls_server(&["other.example"]);
    let failure = reason(&shop(server.port).verify(Verification::authorities(&ca).unwrap()));
    assert!(failure.contains("not valid for name"), "{failure}");
    let (_, server) = tls_server(&["shop.example"]);
    let failure = reason(&shop(server.port));
    assert!(failure.contains("TLS: invalid peer certificate: UnknownIssuer"), "{failure}");
    let server = Server::answering(OK);
    let failure = reason(&shop(server.port));
    assert!(failure.starts_with("unexpected answer: TLS: "), "{failure}");

    let (_, server) = tls_server(&["other.example"]);
    assert_eq!(probe(&shop(server.port).verify(Verification::Nothing), TIMEOUT), Ok(()));
    assert_eq!(server.heard(), "shop.example");
    // Without a host there is no name to ask for (RFC 6066 section 3), and the address is verified.
    let (ca, server) = tls_server(&["127.0.0.1"]);
    let http = Http::https(server.port).verify(Verification::authorities(&ca).unwrap());
    assert_eq!(probe(&http, TIMEOUT), Ok(()));
    assert_eq!(server.heard(), "none");
}

#[test]
fn what_is_not_valid_is_refused_and_named() {
    let http = || Http::new(NonZeroU16::MIN);
    let too_long = "x".repeat(64);
    for host in ["", "a b", "shop.example:80", "user@shop", "a/b", "-a", "a..b", &too_long, "[::1]"]
    {
        let error = http().host(host).unwrap_err().to_string();
        assert!(error.starts_with("host ") && error.contains(host), "{error}");
    }
    for host in ["shop.example", "a", "10.0.0.1", "2001:db8::1", "_x.example"] {
        let uri = http().host(host).unwrap().uri([192, 0, 2, 1].into());
        assert!(uri.parse::<Uri>().unwrap().host().unwrap().contains(host), "{uri}");
    }
    for path in ["", "health", "/a b", "/a#b", "http://x/", "/\r\nx: y", "*"] {
        assert!(http().path(path).is_err(), "{path:?}");
    }
    for method in ["get", "POST", "", "G ET"] {
        assert!(http().method(method).is_err(), "{method:?}");
    }
    for (name, value) in
        [("", "x"), ("a b", "x"), ("a", "x\r\ny: z"), ("Host", "x"), ("content-length", "1")]
    {
        assert!(http().header(name, value).is_err(), "{name:?}: {value:?}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    for status in [0..=99, 300..=200, 200..=1000] {
        assert!(http().status(status.clone()).is_err(), "{status:?}");
    }
    for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        assert!(Verification::authorities(pem).is_err(), "{pem:?}");
    }
}
