//! A backend's end of tunnels, for kernels without `ipip`, `ip6_tunnel`, `sit` and `fou`: raw sockets take the outer
//! packets, and what is inside goes into the namespace by a TUN device.

use super::{Host, Namespace};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tun_rs::{DeviceBuilder, SyncDevice};

const DEVICE: &str = "tunnel";
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const UDP: u8 = 17;

/// How a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arrival {
    /// Whether the outer header was IPv6.
    pub over_ipv6: bool,
    /// The outer protocol: 4, 41 or 17.
    pub protocol: u8,
    /// Whether what was inside was IPv6.
    pub inside_ipv6: bool,
}

/// The receiving end; it ends when dropped.
#[derive(Debug)]
pub struct TunnelReceiver {
    stop: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    malformed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl TunnelReceiver {
    /// Starts it for IP-in-IP of all kinds and for GUE to this port, in both variants.
    pub fn start(host: &Host, gue_port: u16) -> io::Result<TunnelReceiver> {
        let device = Arc::new(host.enter(make_device)?);
        // What comes out of a tunnel has clients' addresses, to which the way is another.
        host.namespace.sysctl(&[
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/tunnel/rp_filter", "0"),
        ])?;
        host.namespace.run("ip", &["link", "set", "dev", DEVICE, "up"])?;
        let mut receiver = TunnelReceiver {
            stop: Arc::default(),
            arrivals: Arc::default(),
            malformed: Arc::default(),
            threads: Vec::new(),
        };
        for over_ipv6 in [false, true] {
            for protocol in [IPV4_INSIDE, IPV6_INSIDE, UDP] {
                receiver.listen(&host.namespace, over_ipv6, protocol, gue_port, &device)?;
            }
        }
        Ok(receiver)
    }

    /// How every packet so far came in.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// Packets that were no tunnel's.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    fn listen(
        &mut self,
        namespace: &Namespace,
        over_ipv6: bool,
        protocol: u8,
        gue_port: u16,
        device: &Arc<SyncDevice>,
    ) -> io::Result<()> {
        let mut socket = namespace.enter(|| {
            let domain = if over_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
            Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))
        })?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.set_recv_buffer_size(4 << 20)?;
        let (stop, device) = (Arc::clone(&self.stop), Arc::clone(device));
        let (arrivals, malformed) = (Arc::clone(&self.arrivals), Arc::clone(&self.malformed));
        let work = move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                let Ok(length) = socket.read(&mut buffer) else {
                    continue;
                };
                let outer = &buffer[..length];
                match inner(outer, over_ipv6, protocol, gue_port) {
                    Some(Ok(packet)) => {
                        let inside_ipv6 = packet[0] >> 4 == 6;
                        let arrival = Arrival { over_ipv6, protocol, inside_ipv6 };
                        arrivals.lock().unwrap().push(arrival);
                        // The device refuses what is no packet.
                        let _ = device.send(packet);
                    }
                    Some(Err(Malformed)) => {
                        malformed.fetch_add(1, Ordering::Relaxed);
                    }
                    None => {}
                }
            }
        };
        self.threads.push(namespace.spawn(work)?);
        Ok(())
    }
}

impl Drop for TunnelReceiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn make_device() -> io::Result<SyncDevice> {
    DeviceBuilder::new().name(DEVICE).build_sync()
}

struct Malformed;

/// The packet inside; none if it is no tunnel's. IPv4 sockets give the outer header along, IPv6 ones do not.
fn inner(
    received: &[u8],
    over_ipv6: bool,
    protocol: u8,
    port: u16,
) -> Option<Result<&[u8], Malformed>> {
    let header = match over_ipv6 {
        true => 0,
        false => usize::from(received.first()? & 0x0f) * 4,
    };
    let mut rest = received.get(header..)?;
    if protocol == UDP {
        if rest.get(2..4)? != port.to_be_bytes() {
            return None;
        }
        rest = rest.get(8..)?;
        // The first two bits tell the variant of GUE: 0 has a header, 1 is the IP packet itself.
        if rest.first()? >> 6 == 0 {
            let is_plain = matches!(rest, [0, IPV4_INSIDE | IPV6_INSIDE, 0, 0, ..]);
            if !is_plain {
                return Some(Err(Malformed));
            }
            rest = &rest[4..];
        }
    }
    let version = rest.first()? >> 4;
    let expected: &[u8] = match protocol {
        IPV4_INSIDE => &[4],
        IPV6_INSIDE => &[6],
        _ => &[4, 6],
    };
    Some(if expected.contains(&version) { Ok(rest) } else { Err(Malformed) })
}
