//! What the appliance tells over HTTP: `/metrics` for Prometheus, `/health` for whoever watches it.
//!
//! A few threads answer one request each at a time and close the connection, so there are never more
//! connections than threads, beside those that the kernel lets wait. Each has a time by which it is over,
//! whatever the client does.

use dsrlb::director::{Director, Stats, prometheus_text};
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How many connections are served at a time.
const THREADS: usize = 4;
/// How long a client may take for its request, and again for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request that is read, in bytes.
const LONGEST: usize = 8 << 10;
/// How much of an answer is written before the time is looked at again, in bytes.
const PIECE: usize = 64 << 10;
/// How many headers of a request are understood.
const HEADERS: usize = 64;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers on this address until the process ends. Once the director is gone it says so.
pub fn serve(listen: SocketAddr, director: &Arc<Director>) -> io::Result<()> {
    let listener = TcpListener::bind(listen)
        .map_err(|error| io::Error::new(error.kind(), format!("metrics on {listen}: {error}")))?;
    for number in 0..THREADS {
        let (listener, director) = (listener.try_clone()?, Arc::downgrade(director));
        let work = move || {
            loop {
                match listener.accept() {
                    // A client that goes away, or is too slow, has only itself to blame.
                    Ok((stream, _)) => drop(converse(stream, &director)),
                    // Out of file descriptors, most likely: that may pass.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        };
        std::thread::Builder::new().name(format!("metrics-{number}")).spawn(work)?;
    }
    Ok(())
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

fn converse(mut stream: TcpStream, director: &Weak<Director>) -> io::Result<()> {
    let (answer, with_body) = match read_request(&mut stream)? {
        Some((method, path)) if matches!(method.as_str(), "GET" | "HEAD") => {
            (answer(&path, director), method == "GET")
        }
        Some(_) => (plain("405 Method Not Allowed", "GET or HEAD\n"), true),
        None => (plain("400 Bad Request", "not a request\n"), true),
    };
    let Answer { status, kind, body } = answer;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let end = Instant::now() + PATIENCE;
    write_until(&mut stream, head.as_bytes(), end)?;
    if with_body { write_until(&mut stream, body.as_bytes(), end) } else { Ok(()) }
}

/// Method and path; none of what is no request or too long for one.
fn read_request(stream: &mut TcpStream) -> io::Result<Option<(String, String)>> {
    let end = Instant::now() + PATIENCE;
    let (mut buffer, mut length) = (vec![0; LONGEST], 0);
    loop {
        stream.set_read_timeout(Some(left(end)?))?;
        let count = match buffer.get_mut(length..) {
            None | Some([]) => return Ok(None),
            Some(room) => stream.read(room)?,
        };
        length += count;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(buffer.get(..length).unwrap_or_default()) {
            Ok(httparse::Status::Complete(_)) => {
                let of = |text: Option<&str>| text.unwrap_or_default().to_owned();
                return Ok(Some((of(request.method), of(request.path))));
            }
            Ok(httparse::Status::Partial) if count > 0 => {}
            _ => return Ok(None),
        }
    }
}

fn write_until(stream: &mut TcpStream, bytes: &[u8], end: Instant) -> io::Result<()> {
    for mut piece in bytes.chunks(PIECE) {
        while !piece.is_empty() {
            stream.set_write_timeout(Some(left(end)?))?;
            let count = stream.write(piece)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            piece = piece.get(count..).unwrap_or_default();
        }
    }
    Ok(())
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn plain(status: &'static str, body: &str) -> Answer {
    Answer { status, kind: TEXT, body: body.to_owned() }
}

fn answer(path: &str, director: &Weak<Director>) -> Answer {
    let path = path.split('?').next().unwrap_or_default();
    if !matches!(path, "/metrics" | "/health") {
        return plain("404 Not Found", "there are /metrics and /health\n");
    }
    let Some(stats) = director.upgrade().map(|director| director.stats()) else {
        return plain("503 Service Unavailable", "the director has ended\n");
    };
    match path {
        "/metrics" => Answer { status: "200 OK", kind: PROMETHEUS, body: prometheus_text(stats) },
        _ => health(&stats),
    }
}

/// Whether packets are taken, and in words what is less than it could be: each service that not all its
/// backends serve, and each backend that takes no new flows. 200 as long as packets are taken, however
/// backends are: whoever sends packets here goes by that.
fn health(stats: &Stats) -> Answer {
    let idle = stats.backends.iter().filter_map(|backend| {
        let why = backend.idle.as_ref()?;
        let (service, id) = (backend.service.to_string(), &backend.id);
        Some(json!({ "service": service, "backend": id, "state": why.name(), "why": why.to_string() }))
    });
    let less = stats.services.iter().filter(|service| service.active < service.backends.max(1));
    let less = less.map(|of| {
        json!({
            "service": of.service.to_string(), "state": of.state.as_str(),
            "backends": of.backends, "active": of.active,
        })
    });
    let body = json!({
        "status": if stats.failure.is_none() { "serving" } else { "failed" },
        "failure": stats.failure,
        "generation": stats.generation,
        "services": less.collect::<Vec<_>>(),
        "idle": idle.collect::<Vec<_>>(),
    });
    let status = if stats.failure.is_none() { "200 OK" } else { "503 Service Unavailable" };
    Answer { status, kind: JSON, body: format!("{body:#}\n") }
}
