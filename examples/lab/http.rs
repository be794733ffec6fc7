//! A small but real HTTP/1.1 server, so that the tests see whole TCP connections end to end.

use super::netns::Namespace;
use socket2::SockRef;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// More connections at once are closed unanswered: each one is a thread.
const MAX_CONNECTIONS: usize = 256;
const MAX_LINE: u64 = 4096;
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// Answers `backend=<name> client=<peer address> received=<bytes>` to `GET` and `POST` (which needs a Content-Length),
/// and `N` bytes to `GET /bytes/N`. Connections stay open until the client closes. Dropping it stops it.
#[derive(Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    listener: TcpListener,
    stopping: AtomicBool,
    failing: AtomicBool,
    // Kept so that stopping can end connections that wait for their client.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl HttpServer {
    /// Listens in `namespace`, on an address that one of its interfaces (`lo` included) holds.
    pub fn start(namespace: &Namespace, address: SocketAddr, name: &str) -> io::Result<HttpServer> {
        let listener = namespace.enter(|| TcpListener::bind(address)).map_err(|error| {
            let place = namespace.name();
            io::Error::new(
                error.kind(),
                format!("http server {name}: cannot listen on {address} in {place}: {error}"),
            )
        })?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            listener,
            stopping: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("http-{name}"))
                .spawn(move || shared.accept_all())?
        };
        Ok(HttpServer { shared, acceptor: Some(acceptor) })
    }

    /// Refuses new connections, cuts the open ones and waits until every thread has ended.
    pub fn stop(mut self) {
        self.end();
    }

    /// From now on answers with status 500, or no longer does.
    pub fn set_failing(&self, failing: bool) {
        self.shared.failing.store(failing, Ordering::Relaxed);
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // On Linux this makes a blocked `accept` return. It fails only if that has already happened.
        let _ = SockRef::from(&self.shared.listener).shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic there has been printed; the client that hit it has seen its connection close.
            let _ = acceptor.join();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn accept_all(&self) {
        // The scope waits for the connections' threads before this thread, and so the server, ends.
        thread::scope(|scope| {
            let mut accepted = 0;
            while !self.stopping.load(Ordering::SeqCst) {
                let accept = self
                    .listener
                    .accept()
                    .and_then(|(stream, client)| Ok((stream.try_clone()?, stream, client)));
                let Ok((second_handle, stream, client)) = accept else {
                    // The end, or too few file descriptors, which only time can cure.
                    thread::sleep(RETRY_DELAY);
                    continue;
                };
                let mut connections = self.connections();
                if connections.len() >= MAX_CONNECTIONS {
                    continue;
                }
                accepted += 1;
                let id = accepted;
                connections.insert(id, second_handle);
                drop(connections);
                scope.spawn(move || {
                    // An error is a client that went away, which is the client's to notice and to report.
                    let _ = self.serve(&stream, client);
                    self.connections().remove(&id);
                });
            }
            for connection in self.connections().values() {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: &TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE_LIMIT))?;
        stream.set_write_timeout(Some(IDLE_LIMIT))?;
        stream.set_nodelay(true)?;
        // A server on [::] sees IPv4 clients as ::ffff:a.b.c.d.
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            let received =
                io::copy(&mut (&mut reader).take(request.content_length), &mut io::sink())?;
            match request.path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
                Some(count) => {
                    stream.write_all(head(count).as_bytes())?;
                    io::copy(&mut io::repeat(b'x').take(count), &mut stream)?;
                }
                None => {
                    let body = format!("backend={} client={client} received={received}", self.name);
                    let mut head = head(body.len() as u64);
                    if self.failing.load(Ordering::Relaxed) {
                        head = head.replacen("200 OK", "500 Internal Server Error", 1);
                    }
                    stream.write_all(format!("{head}{body}").as_bytes())?;
                }
            }
            if request.close {
                break;
            }
        }
        Ok(())
    }
}

fn head(content_length: u64) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {content_length}\r\n\r\n"
    )
}

struct Request {
    path: String,
    content_length: u64,
    close: bool,
}

impl Request {
    /// The next request on the connection, or `None` if the client has closed it.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
        let first = read_line(reader)?;
        let Some(path) = first.split(' ').nth(1) else {
            return Ok(None);
        };
        let mut request = Request {
            path: path.to_owned(),
            content_length: 0,
            close: first.ends_with("HTTP/1.0"),
        };
        while let Some((name, value)) = read_header(reader)? {
            match name.as_str() {
                "content-length" => {
                    request.content_length = value.parse().map_err(io::Error::other)?
                }
                "connection" => request.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(Some(request))
    }
}

/// The next header, its name in lower case, or `None` at the empty line that ends them.
pub(super) fn read_header(reader: &mut impl BufRead) -> io::Result<Option<(String, String)>> {
    let line = read_line(reader)?;
    Ok(line
        .split_once(':')
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())))
}

pub(super) fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(MAX_LINE).read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}
