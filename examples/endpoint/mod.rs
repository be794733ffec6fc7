//! What the appliance tells over HTTP: `/metrics` for Prometheus, `/health` for whoever watches it. And, if it is
//! told so, what an operator on the same host may tell it: `POST /drain` and `POST /undrain`.
//!
//! A few threads answer one request each at a time and close the connection, so there are never more
//! connections than threads, beside those that the kernel lets wait. Each has a time by which it is over,
//! whatever the client does.

mod command;
mod request;

use command::{Command, is_of_this_host};
use dsrlb::config::file::Metrics;
use dsrlb::director::{Director, Stats, prometheus_text};
use request::{Bad, Request, left};
use serde_json::json;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How many connections are served at a time.
const THREADS: usize = 4;
/// How long a client may take for its request, and again for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of an answer is written before the time is looked at again, in bytes.
const PIECE: usize = 64 << 10;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers until the process ends. Once the director is gone it says so.
pub fn serve(metrics: &Metrics, director: &Arc<Director>) -> io::Result<()> {
    let (listen, commands) = (metrics.listen, metrics.commands.unwrap_or(false));
    let listener = TcpListener::bind(listen)
        .map_err(|error| io::Error::new(error.kind(), format!("metrics on {listen}: {error}")))?;
    for number in 0..THREADS {
        let (listener, director) = (listener.try_clone()?, Arc::downgrade(director));
        let work = move || {
            loop {
                match listener.accept() {
                    // A client that goes away, or is too slow, has only itself to blame. And no answer is to end
                    // the thread that gives it.
                    Ok((stream, _)) => {
                        let answer = || converse(stream, commands, &director);
                        drop(catch_unwind(AssertUnwindSafe(answer)));
                    }
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

fn converse(mut stream: TcpStream, commands: bool, director: &Weak<Director>) -> io::Result<()> {
    let is_local = is_of_this_host(stream.peer_addr()?.ip(), stream.local_addr()?.ip());
    let (answer, with_body) = match request::read(&mut stream, Instant::now() + PATIENCE)? {
        Ok(request) => match request.method.as_str() {
            "GET" | "HEAD" => (tell(&request.path, director), request.method == "GET"),
            "POST" => (obey(&request, is_local, commands, director), true),
            _ => (plain("405 Method Not Allowed", "GET, HEAD or POST\n"), true),
        },
        Err(Bad::NoRequest) => (plain("400 Bad Request", "not a request\n"), true),
        Err(Bad::Chunked) => {
            (plain("411 Length Required", "a body has to have its Content-Length\n"), true)
        }
        Err(Bad::TooLong) => (plain("413 Content Too Large", "more than 8 KiB\n"), true),
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

fn plain(status: &'static str, body: &str) -> Answer {
    Answer { status, kind: TEXT, body: body.to_owned() }
}

const ENDED: &str = "the director has ended\n";

/// What a command comes to: how the backend is then.
fn obey(request: &Request, is_local: bool, commands: bool, director: &Weak<Director>) -> Answer {
    let command = match Command::of(request, is_local, commands) {
        Ok(command) => command,
        Err(refusal) => return plain(refusal.status, &refusal.why),
    };
    let Some(director) = director.upgrade() else {
        return plain("503 Service Unavailable", ENDED);
    };
    let Command { service, backend, admin } = command;
    if let Err(error) = director.set_admin(service, &backend, admin) {
        return plain("404 Not Found", &format!("{error}\n"));
    }
    let what = request.path.trim_start_matches('/');
    // Nobody may be left to read it.
    let _ = writeln!(io::stderr(), "command: {what} {backend:?} of {service}");
    let all = director.stats().backends;
    // It may have been removed just now.
    let is_it = all.iter().find(|of| of.service == service && of.id == backend);
    let state = is_it.map(|of| of.idle.as_ref().map_or("active", |idle| idle.name()));
    let body = json!({ "service": service.to_string(), "backend": backend, "state": state });
    Answer { status: "200 OK", kind: JSON, body: format!("{body:#}\n") }
}

fn tell(path: &str, director: &Weak<Director>) -> Answer {
    if !matches!(path, "/metrics" | "/health") {
        return plain(
            "404 Not Found",
            "there are /metrics and /health; by POST /drain and /undrain\n",
        );
    }
    let Some(stats) = director.upgrade().map(|director| director.stats()) else {
        return plain("503 Service Unavailable", ENDED);
    };
    match path {
        "/metrics" => Answer { status: "200 OK", kind: PROMETHEUS, body: prometheus_text(stats) },
        _ => health(&stats),
    }
}

/// So many services and backends that are not as they should be are named.
const MOST_NAMED: usize = 1000;

/// Whether packets are taken, and in words what is less than it could be: each service that not all its
/// backends serve, and each backend that takes no new flows, as far as there is room for. 200 as long as packets are taken, however
/// backends are: whoever sends packets here goes by that.
fn health(stats: &Stats) -> Answer {
    let idle = || stats.backends.iter().filter_map(|of| Some((of, of.idle.as_ref()?)));
    let named = idle().take(MOST_NAMED).map(|(backend, why)| {
        let (service, id) = (backend.service.to_string(), &backend.id);
        json!({ "service": service, "backend": id, "state": why.name(), "why": why.to_string() })
    });
    let less = || stats.services.iter().filter(|of| of.active < of.backends.max(1));
    let left_out = [less().count(), idle().count()].map(|count| count.saturating_sub(MOST_NAMED));
    let less = less().take(MOST_NAMED).map(|of| {
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
        "idle": named.collect::<Vec<_>>(),
        "left_out": left_out.iter().sum::<usize>(),
    });
    let status = if stats.failure.is_none() { "200 OK" } else { "503 Service Unavailable" };
    Answer { status, kind: JSON, body: format!("{body:#}\n") }
}
