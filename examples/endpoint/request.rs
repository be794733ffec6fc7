//! One request, read in bounded time and memory.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The longest request that is read, in bytes.
const LONGEST: usize = 8 << 10;
/// How many headers of a request are understood.
const HEADERS: usize = 64;

/// What is asked, as far as it matters here.
#[derive(Clone, Default, Debug)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// In the order in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Bad {
    NoRequest,
    /// A body whose length is not told (RFC 9112 section 6.3).
    Chunked,
    TooLong,
}

impl Request {
    /// What a header says; none if it is not there, or there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(of, _)| of.eq_ignore_ascii_case(name));
        let (_, value) = all.next()?;
        all.next().is_none().then_some(value)
    }

    pub fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(of, _)| of.eq_ignore_ascii_case(name))
    }
}

/// Reads one request with its body, whose length has to be told.
pub fn read(stream: &mut TcpStream, end: Instant) -> io::Result<Result<Request, Bad>> {
    let (mut buffer, mut length) = (vec![0; LONGEST], 0);
    loop {
        stream.set_read_timeout(Some(left(end)?))?;
        let count = match buffer.get_mut(length..) {
            None | Some([]) => return Ok(Err(Bad::NoRequest)),
            Some(room) => stream.read(room)?,
        };
        length += count;
        let read = buffer.get(..length).unwrap_or_default();
        match parse(read) {
            Ok(Some(request)) => return Ok(Ok(request)),
            Ok(None) if count > 0 => {}
            Ok(None) => return Ok(Err(Bad::NoRequest)),
            Err(bad) => return Ok(Err(bad)),
        }
    }
}

/// The request that these bytes are; none if they are only its beginning.
fn parse(bytes: &[u8]) -> Result<Option<Request>, Bad> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Bad::NoRequest),
    };
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers = request.headers.iter().map(|of| (of.name.to_owned(), text(of.value)));
    let mut found = Request {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        headers: headers.collect(),
        body: Vec::new(),
    };
    if found.has_header("transfer-encoding") {
        return Err(Bad::Chunked);
    }
    let body = match found.header("content-length") {
        Some(count) => count.parse::<usize>().map_err(|_| Bad::NoRequest)?,
        None if found.has_header("content-length") => return Err(Bad::NoRequest),
        None => 0,
    };
    let end = head.saturating_add(body);
    if end > LONGEST {
        return Err(Bad::TooLong);
    }
    let Some(bytes) = bytes.get(head..end) else {
        return Ok(None);
    };
    found.body = bytes.to_vec();
    Ok(Some(found))
}

/// The time until then; an error if there is none.
pub fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
