//! A veth pair between two namespaces, with AF_XDP at one end or both, and frames to send over it.

use crate::lab::Namespace;
use crate::lab::netns::{new_prefix, sweep};
use dsrlb::IpNet;
use dsrlb::dataplane::af_xdp::{Answer, XdpError, XdpInterface, XdpOptions, XdpQueue};
use dsrlb::dataplane::{Action, Frame, PacketIo, Port};
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub type TestResult = Result<(), Box<dyn Error>>;

pub const DIRECTOR: &str = "d0";
pub const CLIENT: &str = "c0";
pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const FOREIGN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const BROADCAST: [u8; 6] = [0xff; 6];

pub const VIP4: &str = "10.88.0.100/32";
pub const VIP6: &str = "fd88::100/128";
/// Long enough for a frame to cross a veth on a busy machine; nobody waits longer than it takes.
pub const WAIT: Duration = Duration::from_secs(5);
/// Long enough to believe that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(40);

/// Both ends of the pair.
pub struct Wire {
    pub director: Namespace,
    pub client: Namespace,
}

impl Wire {
    /// `10.88.0.1` and `fd88::1` (and the VIPs, on `lo`) at the director, `.2` at the client.
    pub fn build(tag: &str, queues: u32) -> Result<Self, Box<dyn Error>> {
        sweep();
        let prefix = new_prefix(tag)?;
        let director = Namespace::create(format!("{prefix}-director"))?;
        let client = Namespace::create(format!("{prefix}-client"))?;
        for namespace in [&director, &client] {
            namespace.sysctl(&[
                ("net/ipv6/conf/all/accept_dad", "0"),
                ("net/ipv6/conf/default/accept_dad", "0"),
                ("net/ipv4/conf/all/rp_filter", "0"),
            ])?;
        }
        let size = format!("numrxqueues {queues} numtxqueues {queues}");
        let (director_name, client_name) = (director.name(), client.name());
        director
            .ip_batch(&[
                format!(
                    "link add {DIRECTOR} address 02:00:00:00:00:01 {size} type veth \
                 peer name {CLIENT} address 02:00:00:00:00:02 {size} netns {client_name}"
                ),
                format!("addr add 10.88.0.1/24 dev {DIRECTOR}"),
                format!("addr add fd88::1/64 dev {DIRECTOR}"),
                format!("addr add {VIP4} dev lo"),
                format!("addr add {VIP6} dev lo"),
                format!("link set {DIRECTOR} up"),
            ])
            .map_err(|error| format!("{director_name}: {error}"))?;
        client.ip_batch(&[
            format!("addr add 10.88.0.2/24 dev {CLIENT}"),
            format!("addr add fd88::2/64 dev {CLIENT}"),
            format!("link set {CLIENT} up"),
        ])?;
        for (namespace, interface) in [(&director, DIRECTOR), (&client, CLIENT)] {
            let queues = queues.to_string();
            namespace.run("ethtool", &["-L", interface, "rx", &queues, "tx", &queues]).ok();
        }
        Ok(Self { director, client })
    }

    /// Opens the director's end, in its namespace.
    pub fn open_director(&self, options: &XdpOptions) -> Result<XdpInterface, XdpError> {
        self.director.enter(|| XdpInterface::open(DIRECTOR, options))
    }

    /// Both ends, redirecting `addresses`, attached; every interface with its queues.
    pub fn open(
        &self,
        addresses: &[(IpNet, Answer)],
        options: &XdpOptions,
    ) -> Result<(End, End), XdpError> {
        let open = |namespace: &Namespace, name: &str| {
            namespace.enter(|| {
                let mut interface = XdpInterface::open(name, options)?;
                interface.redirect(addresses)?;
                let queues = interface.take_queues();
                interface.attach()?;
                Ok(End { interface, queues })
            })
        };
        Ok((open(&self.director, DIRECTOR)?, open(&self.client, CLIENT)?))
    }

    /// Whether the director's kernel answers the client's echo request.
    pub fn ping(&self, address: &str) -> bool {
        let arguments = ["-c", "1", "-W", "1", address];
        self.client.run("ping", &arguments).is_ok()
    }
}

/// One end of the wire.
pub struct End {
    pub interface: XdpInterface,
    pub queues: Vec<XdpQueue>,
}

/// Sends `frame` from the client and has the director reflect it; what comes back, if anything.
pub fn round_trip(
    director: &mut XdpQueue,
    client: &mut XdpQueue,
    frame: &[u8],
    wait: Duration,
) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    assert!(client.send(Port::INGRESS, frame)?, "no room to send a single frame");
    director.poll(wait, &mut |frames| frames.iter_mut().for_each(reflect))?;
    let mut answers = Vec::new();
    client.poll(wait, &mut |frames| {
        answers.extend(frames.iter().map(|frame| frame.bytes().to_vec()));
    })?;
    Ok(answers.pop())
}

/// What the director does here: back to where the frame came from, on the same link.
pub fn reflect(frame: &mut Frame<'_>) {
    let (to, rest) = frame.bytes_mut().split_at_mut(6);
    to.swap_with_slice(&mut rest[..6]);
    frame.set_action(Action::Transmit(Port::INGRESS));
}

/// `frame` as it is expected back.
pub fn reflected(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// Ethernet with `tags` as (TPID, VLAN) around `payload`.
pub fn ethernet(to: [u8; 6], tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to, CLIENT_MAC].concat();
    for &(tpid, vlan) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IP packet to `address` with a next header and payload, checksums left out: nobody looks.
pub fn packet(address: &str, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    let address: IpAddr = address.split('/').next().unwrap().parse().unwrap();
    let length = payload.len() as u16;
    match address {
        IpAddr::V4(to) => {
            let mut ip = vec![0x45, 0];
            ip.extend((length + 20).to_be_bytes());
            ip.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 88, 0, 2]);
            ip.extend(to.octets());
            ip.extend(payload);
            (0x0800, ip)
        }
        IpAddr::V6(to) => {
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend(length.to_be_bytes());
            ip.extend([protocol, 64]);
            ip.extend("fd88::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
            ip.extend(to.octets());
            ip.extend(payload);
            (0x86dd, ip)
        }
    }
}

/// A UDP datagram to `address` in a frame to `to`.
pub fn udp(to: [u8; 6], tags: &[(u16, u16)], address: &str) -> Vec<u8> {
    let (ethertype, ip) = packet(address, 17, &[4, 0, 0, 7, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    ethernet(to, tags, ethertype, &ip)
}

/// An ARP request for `target` in a frame to `to`.
pub fn arp(to: [u8; 6], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let payload = [&head[..], &CLIENT_MAC, &[10, 88, 0, 2], &[0; 6], &target].concat();
    ethernet(to, &[], 0x0806, &payload)
}

/// A neighbour discovery message of `kind` about `target`, in a packet to `address`.
pub fn neighbour_discovery(to: [u8; 6], address: &str, kind: u8, target: &str) -> Vec<u8> {
    let target: std::net::Ipv6Addr = target.parse().unwrap();
    let payload = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    let (ethertype, ip) = packet(address, 58, &payload);
    ethernet(to, &[], ethertype, &ip)
}

pub fn kernel(addresses: &[&str]) -> Vec<(IpNet, Answer)> {
    let parse = |address: &&str| (address.parse().unwrap(), Answer::Kernel);
    addresses.iter().map(parse).collect()
}

/// Keeps the other tests out, or says why none can run. Alone, because a test that starts a program
/// at the wrong moment would pass a socket on to it that another test is just opening.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    if nix::unistd::geteuid().is_root() {
        return Some(ONE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    println!("SKIPPED: needs root, for network namespaces and AF_XDP");
    None
}

/// Waits until `condition` holds, and says whether it came to that.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + WAIT;
    while !condition() {
        if std::time::Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
