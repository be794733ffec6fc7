//! Two namespaces and a resolver in one of them.
#![allow(dead_code)] // each test file uses a part

use dsrlb::dataplane::neighbour::{
    NeighbourEvent, NeighbourState, Path, Resolver, ResolverThread, Unresolved,
};
use dsrlb::packet::MacAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
pub const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
pub const DIRECTOR_MAC: MacAddress = MacAddress([2, 0, 0, 9, 0, 1]);
pub const PEER_MAC: MacAddress = MacAddress([2, 0, 0, 9, 0, 2]);
pub const NEW_MAC: MacAddress = MacAddress([2, 0, 0, 9, 0, 0x22]);
/// The kernel's probes take 3 s and our pauses at most 8 s.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Two namespaces joined by a veth; removed when dropped.
pub struct Pair {
    pub director: String,
    pub peer: String,
}

impl Pair {
    pub fn new(test: &str) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: needs root");
            return None;
        }
        let name = |side| format!("dsrlb-nb-{test}-{}-{side}", std::process::id());
        let pair = Self { director: name("d"), peer: name("p") };
        for namespace in [&pair.director, &pair.peer] {
            run(&format!("ip netns add {namespace}"));
            for setting in ["all", "default"] {
                set(namespace, &format!("net.ipv6.conf.{setting}.accept_dad=0"));
            }
            run(&format!("ip -n {namespace} link set lo up"));
        }
        let (director, peer) = (&pair.director, &pair.peer);
        run(&format!(
            "ip -n {director} link add eth0 address {DIRECTOR_MAC} type veth \
             peer name eth0 address {PEER_MAC} netns {peer}"
        ));
        for (namespace, last) in [(director, 1), (peer, 2)] {
            run(&format!("ip -n {namespace} addr add 10.9.0.{last}/24 dev eth0"));
            run(&format!("ip -n {namespace} addr add fd09::{last}/64 dev eth0 nodad"));
            run(&format!("ip -n {namespace} link set eth0 up"));
        }
        Some(pair)
    }

    pub fn director(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.director))
    }

    pub fn peer(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.peer))
    }

    /// Runs `action` on a thread inside the director's namespace.
    pub fn inside<T: Send + 'static>(&self, action: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.director);
        let thread = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            action()
        });
        thread.join().unwrap()
    }

    pub fn index(&self, interface: &str) -> u32 {
        let line = self.director(&format!("-o link show {interface}"));
        line.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// A resolver, opened inside, that wants `addresses`.
    pub fn watch(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Watch {
        self.watch_on(&[self.index("eth0")], addresses)
    }

    /// The same, with these interfaces.
    pub fn watch_on(&self, ports: &[u32], addresses: impl IntoIterator<Item = IpAddr>) -> Watch {
        let ports = ports.to_vec();
        let (sender, events) = mpsc::channel();
        let resolver = self.inside(move || Resolver::open(&ports).unwrap());
        assert_eq!(resolver.link(0).mac, Some(DIRECTOR_MAC));
        let thread = ResolverThread::spawn(resolver, move |event| {
            let _ = sender.send(event.expect("netlink works"));
        });
        let thread = thread.unwrap();
        thread.want(addresses.into_iter().collect());
        Watch { thread, events }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.director, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

pub fn run(command: &str) -> String {
    run_words(&command.split_whitespace().collect::<Vec<_>>())
}

/// What `sysctl -w` does, which not every machine has.
pub fn set(namespace: &str, setting: &str) {
    let (key, value) = setting.split_once('=').unwrap();
    let write = format!("echo {value} >/proc/sys/{}", key.replace('.', "/"));
    run_words(&["ip", "netns", "exec", namespace, "sh", "-c", &write]);
}

pub fn run_words(command: &[&str]) -> String {
    let (program, arguments) = command.split_first().unwrap();
    let output = Command::new(program).args(arguments).stderr(Stdio::piped()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub struct Watch {
    pub thread: ResolverThread,
    pub events: mpsc::Receiver<NeighbourEvent>,
}

impl Watch {
    /// Waits until an event satisfies `wanted`, and says how long it took.
    #[track_caller]
    pub fn until(&self, what: &str, mut wanted: impl FnMut(NeighbourEvent) -> bool) -> Duration {
        let start = Instant::now();
        let mut seen = Vec::new();
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            match self.events.recv_timeout(left) {
                Ok(event) if wanted(event) => return start.elapsed(),
                Ok(event) => seen.push(event),
                Err(_) => break,
            }
        }
        panic!("{what} within {PATIENCE:?}; saw {seen:?}");
    }

    #[track_caller]
    pub fn until_state(&self, of: IpAddr, wanted: NeighbourState) -> Duration {
        self.until(&format!("{of} {wanted}"), |event| {
            matches!(event, NeighbourEvent::Neighbour { address, state }
                if address == of && alike(state, wanted))
        })
    }
}

/// Whether the kernel has them; that one cannot be made for any other reason is a failure.
pub fn has_vlan_devices(pair: &Pair) -> bool {
    let command = format!("-n {} link add link eth0 name v9 type vlan id 9", pair.peer);
    let made = Command::new("ip").args(command.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    let is_unknown = ["Unknown device type", "not supported"].map(|text| error.contains(text));
    assert!(made.status.success() || is_unknown.contains(&true), "{command}: {error}");
    made.status.success()
}

/// Of two ways only the next hop's address is compared.
fn alike(state: NeighbourState, wanted: NeighbourState) -> bool {
    match (state, wanted) {
        (NeighbourState::Resolved(a), NeighbourState::Resolved(b)) => a.mac == b.mac,
        (state, wanted) => state == wanted,
    }
}

/// By this MAC address, whatever the way is like otherwise.
pub fn at(mac: MacAddress) -> NeighbourState {
    NeighbourState::Resolved(Path::on_link(mac))
}

pub fn unresolved(why: Unresolved) -> NeighbourState {
    NeighbourState::Unresolved { why }
}
