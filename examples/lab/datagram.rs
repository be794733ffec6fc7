//! UDP and raw-IP servers that answer from the address they are bound to.

use super::netns::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a server without traffic looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(20);
pub(super) const LARGEST_DATAGRAM: usize = 65_535;

/// Answers each datagram with a line `backend=<name> client=<peer address>` and then the datagram's own bytes, from
/// the address it is bound to. Dropping it stops it.
#[derive(Debug)]
pub struct DatagramServer {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DatagramServer {
    /// Serves UDP in `namespace`, on an address that one of its interfaces (`lo` included) holds.
    pub fn udp(
        namespace: &Namespace,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<DatagramServer> {
        let bound = namespace.enter(|| UdpSocket::bind(address));
        DatagramServer::serve(
            bound.map_err(|error| cannot_bind(namespace, name, address, &error))?,
            0,
            name,
        )
    }

    /// Serves an IP protocol that has no ports, for example 253, which RFC 3692 sets aside for experiments.
    pub fn raw(
        namespace: &Namespace,
        address: IpAddr,
        protocol: u8,
        name: &str,
    ) -> io::Result<DatagramServer> {
        let address = SocketAddr::new(address, 0);
        let bound = namespace.enter(|| raw_socket(address, protocol));
        let socket = bound.map_err(|error| cannot_bind(namespace, name, address, &error))?;
        DatagramServer::serve(socket, raw_header_length(address.ip()), name)
    }

    fn serve(socket: UdpSocket, header: usize, name: &str) -> io::Result<DatagramServer> {
        socket.set_read_timeout(Some(STOP_CHECK))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, name) = (Arc::clone(&stopping), name.to_owned());
        let thread = thread::Builder::new().name(format!("datagram-{name}")).spawn(move || {
            let mut buffer = vec![0; LARGEST_DATAGRAM];
            while !stop.load(Ordering::SeqCst) {
                // A timeout, or an ICMP error for an answer whose client has gone; neither ends the service.
                let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let mut answer = format!("backend={name} client={client}\n").into_bytes();
                answer.extend_from_slice(buffer.get(header..length).unwrap_or_default());
                // A lost answer shows at the client, as a timeout.
                let _ = socket.send_to(&answer, client);
            }
        })?;
        Ok(DatagramServer { stopping, thread: Some(thread) })
    }

    /// Closes the socket and waits until its thread has ended.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn cannot_bind(
    namespace: &Namespace,
    name: &str,
    address: SocketAddr,
    error: &io::Error,
) -> io::Error {
    let place = namespace.name();
    io::Error::new(
        error.kind(),
        format!("datagram server {name}: cannot bind to {address} in {place}: {error}"),
    )
}

/// A raw socket in the clothes of a `UdpSocket`, whose safe `send_to` and `recv_from` work on any datagram socket.
/// The port must be 0: raw sockets refuse any other.
pub(super) fn raw_socket(local: SocketAddr, protocol: u8) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(local);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// What the kernel puts before the payload when a raw socket receives: the IP header for IPv4 (without options here,
/// as the lab sends none), nothing for IPv6.
pub(super) fn raw_header_length(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 0 }
}
