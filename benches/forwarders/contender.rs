//! Who is compared: starting one, placing it, stopping it.

use crate::network::Network;
use crate::plan::{self, BACKENDS, FIRST_BACKEND, PORT, VIP4, VIP6};
use crate::schedule::Schedule;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// What forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The director, rewriting MAC addresses.
    Director,
    /// The director, with an IPv4 header put before each packet.
    Tunnel,
    /// The director's sockets with a handler that swaps MAC addresses.
    Bare,
    /// The same, which never waits.
    Spinning,
    /// The director's worker and the handler that swaps MAC addresses, in turns.
    InTurns,
    /// The same, each for as long as times under way are counted together.
    InWindows,
    /// nftables: `fwd` at netdev ingress, by a hash, after the MAC addresses have been set.
    Nftables,
    /// Packet sockets.
    PacketSocket,
}

/// Which of the two CPUs does what. Frames always come from the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The kernel receives on the generator's CPU; the process, if there is one, has the other.
    Apart,
    /// The kernel receives in a thread with this nice value, on the other CPU; the process is there too.
    OneCore(i32),
}

impl Kind {
    const ALL: [(&str, Self); 8] = [
        ("director", Self::Director),
        ("tunnel", Self::Tunnel),
        ("bare", Self::Bare),
        ("spinning", Self::Spinning),
        ("in-turns", Self::InTurns),
        ("in-windows", Self::InWindows),
        ("nftables", Self::Nftables),
        ("packet-socket", Self::PacketSocket),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Bytes that it puts before each packet.
    pub fn outer(self) -> usize {
        if self == Self::Tunnel { 20 } else { 0 }
    }

    /// Whether it sends to backends.
    pub fn balances(self) -> bool {
        !matches!(self, Self::Bare | Self::Spinning)
    }

    /// Whether it sends back to the client.
    pub fn returns(self) -> bool {
        matches!(self, Self::Bare | Self::Spinning | Self::InTurns | Self::InWindows)
    }
}

/// A contender that forwards.
pub struct Running<'a> {
    network: &'a Network,
    child: Option<Child>,
    rules: bool,
}

impl<'a> Running<'a> {
    /// Starts it with `entries` of flow table on CPU `cpu`, and returns when it forwards.
    pub fn start(
        network: &'a Network,
        kind: Kind,
        place: Place,
        cpu: usize,
        entries: usize,
    ) -> Result<Self, Box<dyn Error>> {
        network.set_threaded(place != Place::Apart)?;
        let rules = match kind {
            Kind::Nftables => Some(forwarding_rules(&network.director_end)),
            // What the socket has seen must not go up the stack as well.
            Kind::PacketSocket => Some(rules(
                &network.director_end,
                &[format!("ip daddr {VIP4} drop"), format!("ip6 daddr {VIP6} drop")],
            )),
            _ => None,
        };
        let mut this = Self { network, child: None, rules: rules.is_some() };
        if let Some(rules) = rules {
            network.director.run("nft", &[&rules])?;
        }
        if kind != Kind::Nftables {
            let program = std::env::current_exe()?;
            let (cpu, entries) = (cpu.to_string(), entries.to_string());
            let words = ["forward", kind.name(), &network.director_end, &cpu, &entries];
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
            // A process is in the namespace of the thread that starts it.
            this.child = Some(network.director.enter(|| command.spawn())?);
            this.wait_until_ready()?;
        }
        if let Place::OneCore(nice) = place {
            network.place_thread(cpu, nice)?;
        }
        Ok(this)
    }

    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        let output = self.child.as_mut().and_then(|child| child.stdout.as_mut());
        let mut line = String::new();
        BufReader::new(output.ok_or("no output to read")?).read_line(&mut line)?;
        if line == "ready\n" { Ok(()) } else { Err("the forwarder did not start".into()) }
    }

    /// What its process has done so far; nothing if it has none.
    pub fn schedule(&self) -> Result<Schedule, Box<dyn Error>> {
        let Some(child) = &self.child else { return Ok(Schedule::default()) };
        Ok(Schedule::of_process(child.id())?)
    }

    /// Stops it, and returns what it then complains of.
    pub fn stop(mut self) -> Result<(), Box<dyn Error>> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        drop(child.stdin.take());
        let status = child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the forwarder failed: {status}").into())
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.rules
            && let Err(error) = self.network.director.run("nft", &["delete table netdev bench"])
        {
            eprintln!("{error}");
        }
    }
}

fn forwarding_rules(interface: &str) -> String {
    let source = plan::mac_text(plan::DIRECTOR_MAC);
    let macs = (0..BACKENDS)
        .map(|number| format!("{number} : {}", plan::mac_text(plan::mac(FIRST_BACKEND + number))));
    let macs = macs.collect::<Vec<_>>().join(", ");
    let rule = |family: &str, vip: &str| {
        format!(
            "{family} daddr {vip} udp dport {PORT} ether saddr set {source} ether daddr set \
             jhash {family} saddr . udp sport mod {BACKENDS} map {{ {macs} }} fwd to {interface}"
        )
    };
    rules(interface, &[rule("ip", &VIP4.to_string()), rule("ip6", &VIP6.to_string())])
}

fn rules(interface: &str, all: &[String]) -> String {
    let chain = format!(
        "add table netdev bench; add chain netdev bench in \
         {{ type filter hook ingress device {interface} priority 0 ; }}"
    );
    let rules = all.iter().map(|rule| format!("; add rule netdev bench in {rule}"));
    [chain].into_iter().chain(rules).collect()
}
