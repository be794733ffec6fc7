//! What a client does: fetch, upload, download, ask. All of it happens in the namespace of the calling thread:
//! `lab.client.enter(|| http_get(vip, "/", timeout))`.

use super::command;
use super::datagram::{LARGEST_DATAGRAM, raw_header_length, raw_socket};
use super::http::{read_header, read_line};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// A server's answer, with both ends of the connection as the client sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The response body.
    pub body: String,
    /// Where the connection went.
    pub peer: SocketAddr,
    /// Where it came from.
    pub local: SocketAddr,
}

impl HttpAnswer {
    /// The name of the backend that answered.
    pub fn backend(&self) -> &str {
        field(&self.body, "backend")
    }

    /// The client's address as the backend saw it.
    pub fn client(&self) -> &str {
        field(&self.body, "client")
    }
}

/// A connection that can carry several requests, to see that a flow stays where it is.
#[derive(Debug)]
pub struct HttpConnection {
    reader: BufReader<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
    // Asks the server to close first, which leaves TIME_WAIT with the server: the client can use the same port again.
    last_request: bool,
}

impl HttpConnection {
    /// Connects from any address. `timeout` bounds the connect and later every read and write.
    pub fn open(server: SocketAddr, timeout: Duration) -> io::Result<HttpConnection> {
        HttpConnection::open_from(any_address(server), server, timeout)
    }

    /// Connects from a given address, so that a test can choose the flow; port 0 means any port.
    pub fn open_from(
        local: SocketAddr,
        server: SocketAddr,
        timeout: Duration,
    ) -> io::Result<HttpConnection> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        // The same port again and again is the point of choosing it.
        socket.set_reuse_address(true)?;
        socket
            .bind(&local.into())
            .map_err(|error| wrap(&error, &format!("cannot bind to {local}")))?;
        socket
            .connect_timeout(&server.into(), timeout)
            .map_err(|error| wrap(&error, &format!("cannot connect from {local} to {server}")))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        Ok(HttpConnection { reader: BufReader::new(stream), peer, local, last_request: false })
    }

    /// Where it comes from.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks for `path` and reads the whole answer.
    pub fn get(&mut self, path: &str) -> io::Result<HttpAnswer> {
        self.request("GET", path, &[])
    }

    /// Uploads `body`; the answer's `received=` tells how much of it arrived.
    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<HttpAnswer> {
        self.request("POST", path, body)
    }

    /// Downloads `bytes` bytes and returns how many came.
    pub fn download(&mut self, bytes: u64) -> io::Result<u64> {
        let length = self.send("GET", &format!("/bytes/{bytes}"), &[])?;
        let received = io::copy(&mut (&mut self.reader).take(length), &mut io::sink())?;
        self.wait_for_close()?;
        Ok(received)
    }

    fn for_one_request(mut self) -> HttpConnection {
        self.last_request = true;
        self
    }

    fn wait_for_close(&mut self) -> io::Result<()> {
        if self.last_request {
            io::copy(&mut self.reader, &mut io::sink())?;
        }
        Ok(())
    }

    fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<HttpAnswer> {
        let length = self.send(method, path, body)?;
        let mut body = String::new();
        (&mut self.reader).take(length).read_to_string(&mut body)?;
        self.wait_for_close()?;
        Ok(HttpAnswer { body, peer: self.peer, local: self.local })
    }

    /// Sends a request, reads the head of the answer and returns the length of what follows.
    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<u64> {
        let connection = if self.last_request { "close" } else { "keep-alive" };
        let (host, length) = (self.peer, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut stream = self.reader.get_ref();
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let status = read_line(&mut self.reader)
            .map_err(|error| wrap(&error, &format!("no answer from {}", self.peer)))?;
        if !status.starts_with("HTTP/1.1 200") {
            let message = format!("{} answered {status:?}; expected HTTP/1.1 200", self.peer);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut length = 0;
        while let Some((name, value)) = read_header(&mut self.reader)? {
            if name == "content-length" {
                length = value.parse().map_err(io::Error::other)?;
            }
        }
        Ok(length)
    }
}

/// Fetches `path` over a connection of its own.
pub fn http_get(server: SocketAddr, path: &str, timeout: Duration) -> io::Result<HttpAnswer> {
    HttpConnection::open(server, timeout)?.for_one_request().get(path)
}

/// Fetches `path` over a connection of its own, from a given address.
pub fn http_get_from(
    local: SocketAddr,
    server: SocketAddr,
    path: &str,
    timeout: Duration,
) -> io::Result<HttpAnswer> {
    HttpConnection::open_from(local, server, timeout)?.for_one_request().get(path)
}

/// Uploads `body` over a connection of its own.
pub fn http_post(
    server: SocketAddr,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> io::Result<HttpAnswer> {
    HttpConnection::open(server, timeout)?.for_one_request().post(path, body)
}

/// Downloads over a connection of its own and returns how many bytes came.
pub fn http_download(server: SocketAddr, bytes: u64, timeout: Duration) -> io::Result<u64> {
    HttpConnection::open(server, timeout)?.for_one_request().download(bytes)
}

/// A datagram server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatagramAnswer {
    /// The name of the backend that answered.
    pub backend: String,
    /// The client's address as the backend saw it.
    pub client: String,
    /// What was sent, if nothing changed it on the way.
    pub payload: Vec<u8>,
}

/// Sends one UDP datagram and waits for the answer, which counts only if it comes from `server`.
pub fn udp_ask(
    server: SocketAddr,
    payload: &[u8],
    timeout: Duration,
) -> io::Result<DatagramAnswer> {
    udp_ask_from(any_address(server), server, payload, timeout)
}

/// As [`udp_ask`], from a given address.
pub fn udp_ask_from(
    local: SocketAddr,
    server: SocketAddr,
    payload: &[u8],
    timeout: Duration,
) -> io::Result<DatagramAnswer> {
    let socket =
        UdpSocket::bind(local).map_err(|error| wrap(&error, &format!("cannot bind to {local}")))?;
    ask(&socket, server, 0, payload, timeout)
}

/// Sends one packet of an IP protocol without ports, and waits for the answer from the same address.
pub fn raw_ask(
    server: IpAddr,
    protocol: u8,
    payload: &[u8],
    timeout: Duration,
) -> io::Result<DatagramAnswer> {
    let server = SocketAddr::new(server, 0);
    let socket = raw_socket(any_address(server), protocol)?;
    ask(&socket, server, raw_header_length(server.ip()), payload, timeout)
}

fn ask(
    socket: &UdpSocket,
    server: SocketAddr,
    header: usize,
    payload: &[u8],
    timeout: Duration,
) -> io::Result<DatagramAnswer> {
    // A connected socket drops what comes from anywhere else: a backend that answers from its own address fails here.
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(payload)?;
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    let length = socket
        .recv(&mut buffer)
        .map_err(|error| wrap(&error, &format!("no answer from {server}")))?;
    let answer = buffer.get(header..length).unwrap_or_default();
    let end_of_line = answer.iter().position(|&byte| byte == b'\n').ok_or_else(|| {
        let message =
            format!("{server} answered {length} bytes without a first line that names the backend");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    let line = String::from_utf8_lossy(&answer[..end_of_line]);
    Ok(DatagramAnswer {
        backend: field(&line, "backend").to_owned(),
        client: field(&line, "client").to_owned(),
        payload: answer[end_of_line + 1..].to_vec(),
    })
}

/// Sends one ICMP echo request and waits up to a second for the reply.
pub fn ping(address: IpAddr) -> io::Result<()> {
    command::run("ping", &["-n", "-q", "-c1", "-W1", &address.to_string()]).map(drop)
}

/// The value of `name=value` in a line of such pairs; empty if there is none.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    line.split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .find(|pair| pair.0 == name)
        .map_or("", |pair| pair.1)
}

fn any_address(server: SocketAddr) -> SocketAddr {
    let any = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    SocketAddr::new(any, 0)
}

fn wrap(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
