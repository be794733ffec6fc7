//! A laboratory for Direct Server Return: a client, a director, backends and the switch between them, each a network
//! namespace of this machine. Needs root, touches no interface of the host, and leaves nothing behind.
//!
//! ```text
//!      client .2                 director .1 (and the VIP .100)
//!         |                         |  optionally 802.1Q-tagged, optionally with several queues
//!   ======+=========================+====== switch: a bridge, 10.77.0.0/24 and fd77::/64
//!         |            |            |
//!      b1 .11       b2 .12       b3 .13     each with the VIP on lo, not answering ARP or ND for it
//! ```
//!
//! Request: client -> director -> backend. Answer: backend -> client; [`Lab::watch_vip`] proves that the director sees
//! none of it. Everything is deterministic: host number `n` has 10.77.0.n, fd77::n and 02:00:00:00:01:n (the digits of
//! n read the same in all three), and its interface is `eth0`.
//!
//! ```no_run
//! let lab = Lab::build(&LabOptions::named("demo"))?;
//! let servers = lab.start_http(80)?;
//! let director = lab.director.enter(|| start_the_director(&lab.director.interface, lab.vip4));
//! let answer = lab.client.enter(|| http_get(lab.vip4_port(80), "/", TIMEOUT))?;
//! ```
// Shared by `#[path]` between several examples and tests; each of them uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod client;
mod command;
mod datagram;
mod http;
pub mod netns;
mod routed;
mod topology;
mod tunnel;
mod vlan;
mod watch;

pub use client::{
    DatagramAnswer, HttpAnswer, HttpConnection, http_download, http_get, http_get_from, http_post,
    ping, raw_ask, udp_ask, udp_ask_from,
};
pub use datagram::DatagramServer;
pub use http::HttpServer;
pub use netns::Namespace;
pub use routed::SECOND_ARM;
pub use tunnel::{Arrival, TunnelReceiver};
pub use watch::SourceWatch;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

/// What to build.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Becomes part of the namespaces' names; lower-case letters and digits.
    pub tag: &'static str,
    /// How many backends, 1 to 80.
    pub backends: u8,
    /// How many receive and transmit queues the director's interface has.
    pub queues: u8,
    /// Whether the hosts have IPv6 at all.
    pub ipv6: bool,
    /// Whether the director's interface holds the VIP, so that its kernel answers ARP and ND for it. If not, nobody
    /// does, until somebody in the director's namespace adds it or the client gets a permanent neighbour.
    pub director_holds_vip: bool,
    /// Makes the director's cable an 802.1Q trunk. XDP and AF_XDP see, and have to send, frames with this tag; the
    /// director's kernel and all other hosts see them without. Needs `tc` and clang.
    pub vlan: Option<u16>,
    /// Whether the backends are behind a router, each in a subnet of its own. Needs IPv6.
    pub routed: bool,
    /// Whether the director has a second interface, to the router, and its routes to the backends leave by that.
    pub second_arm: bool,
    /// The MTU of the links between the router and the backends, if it is another.
    pub far_mtu: Option<u16>,
    /// The MTU of every interface. Native XDP on veth takes about 3500 at most (with pages of 4 KiB).
    pub mtu: u16,
}

impl LabOptions {
    /// The usual lab, under a name of its own.
    pub fn named(tag: &'static str) -> LabOptions {
        LabOptions { tag, ..LabOptions::default() }
    }
}

impl Default for LabOptions {
    fn default() -> LabOptions {
        LabOptions {
            tag: "lab",
            backends: 3,
            queues: 1,
            ipv6: true,
            director_holds_vip: true,
            vlan: None,
            routed: false,
            second_arm: false,
            far_mtu: None,
            mtu: 1500,
        }
    }
}

/// One machine of the laboratory.
#[derive(Debug)]
pub struct Host {
    /// `client`, `director`, `b1`, `b2`, ... Also the name of the switch's port to it.
    pub name: String,
    /// Where it lives.
    pub namespace: Namespace,
    /// Its only interface beside `lo`.
    pub interface: String,
    /// The interface's MAC address.
    pub mac: [u8; 6],
    /// The interface's own IPv4 address.
    pub v4: Ipv4Addr,
    /// The interface's own IPv6 address, unless the lab was built without IPv6.
    pub v6: Ipv6Addr,
}

impl Host {
    /// Runs `work` inside this host's namespace; see [`Namespace::enter`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(work)
    }

    /// The MAC address as `ip` prints it.
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// What an interface has carried since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
}

/// The laboratory. Dropping it removes all of it.
#[derive(Debug)]
pub struct Lab {
    // The switch goes first: with it go all cables, even if a thread somewhere keeps a host's namespace alive.
    pub switch: Namespace,
    pub client: Host,
    pub director: Host,
    /// Between the director and the backends, if they are routed.
    pub router: Option<Host>,
    pub backends: Vec<Host>,
    pub vip4: Ipv4Addr,
    pub vip6: Ipv6Addr,
    ipv6: bool,
}

impl Lab {
    /// Builds it, after sweeping up what killed processes left behind.
    pub fn build(options: &LabOptions) -> io::Result<Lab> {
        Lab::privileged().map_err(io::Error::other)?;
        netns::sweep();
        topology::build(options)
    }

    /// For tests: builds it, or says loudly that the test is skipped because this process may not. With the environment
    /// variable `DSRLB_LAB=required` (for CI, where a skipped test would look like a passed one) that is a panic.
    ///
    /// # Panics
    /// If the lab cannot be built for any other reason.
    pub fn build_or_skip(options: &LabOptions) -> Option<Lab> {
        if let Err(missing) = Lab::privileged() {
            assert!(std::env::var("DSRLB_LAB").as_deref() != Ok("required"), "{missing}");
            // Not `eprintln!`, which the test harness hides when the test passes.
            let _ = writeln!(io::stderr(), "SKIPPED: lab {:?}: {missing}", options.tag);
            return None;
        }
        Some(Lab::build(options).unwrap_or_else(|error| panic!("cannot build the lab: {error}")))
    }

    /// Whether this process can build a lab; if not, what is missing.
    pub fn privileged() -> Result<(), String> {
        command::run("ip", &["-V"]).map_err(|error| format!("the lab needs `ip`: {error}"))?;
        // Only a trial tells: capabilities, user namespaces and seccomp all have a say. The thread takes the result away.
        let trial =
            thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)).join();
        match trial {
            Ok(Ok(())) if nix::unistd::geteuid().is_root() => Ok(()),
            Ok(Ok(())) => Err("the lab needs root, as it creates files in /run/netns".to_owned()),
            Ok(Err(error)) => {
                Err(format!("the lab needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): {error}"))
            }
            Err(_) => Err(
                "the lab cannot tell whether it may make a network namespace: the trial panicked"
                    .to_owned(),
            ),
        }
    }

    /// The VIPs that this lab has: IPv4, and IPv6 unless switched off.
    pub fn vips(&self) -> Vec<IpAddr> {
        let v6 = self.ipv6.then_some(IpAddr::V6(self.vip6));
        [IpAddr::V4(self.vip4)].into_iter().chain(v6).collect()
    }

    /// A port on the IPv4 VIP.
    pub fn vip4_port(&self, port: u16) -> SocketAddr {
        (self.vip4, port).into()
    }

    /// A port on the IPv6 VIP.
    pub fn vip6_port(&self, port: u16) -> SocketAddr {
        (self.vip6, port).into()
    }

    /// Starts an HTTP server on each backend, in order, for its own addresses and the VIPs.
    pub fn start_http(&self, port: u16) -> io::Result<Vec<HttpServer>> {
        self.backends.iter().map(|backend| self.start_http_on(backend, port)).collect()
    }

    /// Starts an HTTP server on one backend, for example on one whose server was stopped.
    pub fn start_http_on(&self, backend: &Host, port: u16) -> io::Result<HttpServer> {
        let any = if self.ipv6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        HttpServer::start(&backend.namespace, SocketAddr::new(any, port), &backend.name)
    }

    /// Starts a UDP server on each VIP of each backend.
    pub fn start_udp(&self, port: u16) -> io::Result<Vec<DatagramServer>> {
        self.on_vips(|backend, vip| {
            DatagramServer::udp(&backend.namespace, SocketAddr::new(vip, port), &backend.name)
        })
    }

    /// Starts a server for an IP protocol without ports on each VIP of each backend.
    pub fn start_raw(&self, protocol: u8) -> io::Result<Vec<DatagramServer>> {
        self.on_vips(|backend, vip| {
            DatagramServer::raw(&backend.namespace, vip, protocol, &backend.name)
        })
    }

    fn on_vips<T>(&self, start: impl Fn(&Host, IpAddr) -> io::Result<T>) -> io::Result<Vec<T>> {
        let vips = self.vips();
        let places =
            self.backends.iter().flat_map(|backend| vips.iter().map(move |vip| (backend, *vip)));
        places.map(|(backend, vip)| start(backend, vip)).collect()
    }

    /// Counts frames from one of the VIPs on the director's cable, from now on.
    pub fn watch_vip(&self, vip: IpAddr) -> io::Result<SourceWatch> {
        let index = link(&self.switch, &self.director.name)?["ifindex"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok());
        let index = index.ok_or_else(|| {
            io::Error::other("`ip -j link show` printed no ifindex; is iproute2 too old?")
        })?;
        self.switch.enter(|| SourceWatch::start(vip, index))
    }

    /// What a host's interface has carried. Frames that AF_XDP takes or sends are counted too.
    pub fn counters(&self, host: &Host) -> io::Result<Counters> {
        let link = link(&host.namespace, &host.interface)?;
        let count = |direction: &str, unit: &str| {
            link["stats64"][direction][unit].as_u64().ok_or_else(|| {
                io::Error::other(format!("`ip -j -s link show` printed no stats64.{direction}.{unit}; is iproute2 too old?"))
            })
        };
        Ok(Counters {
            rx_packets: count("rx", "packets")?,
            rx_bytes: count("rx", "bytes")?,
            tx_packets: count("tx", "packets")?,
            tx_bytes: count("tx", "bytes")?,
        })
    }

    /// Changes the MTU of the link between the router and one backend.
    pub fn set_far_mtu(&self, backend: &Host, mtu: u16) -> io::Result<()> {
        let router = self.router.as_ref().ok_or_else(|| io::Error::other("nothing is routed"))?;
        routed::set_far_mtu(&router.namespace, backend, mtu)
    }

    /// Plugs a host's cable in or out, at the switch's end, so that the host keeps its addresses.
    pub fn set_link(&self, host: &Host, up: bool) -> io::Result<()> {
        let state = if up { "up" } else { "down" };
        self.switch.run("ip", &["link", "set", "dev", &host.name, state]).map(drop)
    }
}

fn link(namespace: &Namespace, interface: &str) -> io::Result<serde_json::Value> {
    let text = namespace.run("ip", &["-j", "-s", "link", "show", "dev", interface])?;
    let mut links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0].take())
}

/// From now on SIGINT and SIGTERM remove this process's namespaces and end it, with status 130 or 143.
pub fn cleanup_on_signals() -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("lab-signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            netns::remove_own();
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
