//! What backends have to be told: the commands that make a host one, the script that checks it, and how to undo it
//! all; from the configuration, for each operating system.
//!
//! A [`Guide`] is for one backend and has everything the services ask of it: their VIPs, the ends of tunnels, the
//! map of DSCP values, the TCP segment sizes that fit. Its text is a script to read and run. Everything is made of typed
//! addresses and numbers; names are quoted, so a configuration cannot smuggle commands into it.
//!
//! ```
//! use dsrlb::balancer::{RealServer, VirtualService};
//! use dsrlb::config::Config;
//! use dsrlb::setup_guide::{Circumstances, Guide, System};
//!
//! let service = VirtualService::new("10.0.0.100:80/tcp".parse().unwrap())
//!     .backend(RealServer::new("10.0.0.11".parse().unwrap()));
//! let config: Config = [service].into_iter().collect();
//! let guides = Guide::for_config(&config, System::Linux, &Circumstances::default());
//! let guide = guides[0].as_ref().unwrap();
//! assert!(guide.to_string().contains("ip address replace 10.0.0.100/32 dev lo\n"));
//! assert!(guide.check_script().to_string().contains("arp_ignore"));
//! ```
//!
//! Sources: RFC 1122 section 3.3.4.2 (strong and weak hosts), RFC 9293 section 3.7.1 (MSS), the kernel's
//! `ip-sysctl` document, `nft(8)`, `systemd.network(5)`, Microsoft's `netsh`, FreeBSD's `ifconfig(8)` and `gif(4)`.
//! `docs/backends.md` says which guides a test runs.

#![forbid(unsafe_code)]

mod freebsd;
mod linux;
mod linux_checks;
mod needs;
mod networkd;
mod nft;
mod script;
#[cfg(test)]
mod tests;
mod windows;

pub use script::Script;

use crate::config::Config;
use crate::forwarding::TunnelSources;
use needs::Needs;
use std::net::IpAddr;

/// What a guide is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum System {
    /// Linux by `ip`, `sysctl` and `nft`; until the next boot.
    Linux,
    /// Linux by files of systemd-networkd, for good.
    Networkd,
    /// Linux by netplan as far as that goes: it can hold VIPs, but has no word for the receiving ends of tunnels.
    Netplan,
    /// Windows Server, in PowerShell.
    Windows,
    /// FreeBSD, until the next boot.
    FreeBsd,
}

named!(
    System,
    "system",
    "linux, networkd, netplan, windows or freebsd",
    [
        "linux" => Linux,
        "networkd" => Networkd,
        "netplan" => Netplan,
        "windows" => Windows,
        "freebsd" => FreeBsd,
    ]
);

/// What a guide depends on and services do not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// The largest IP packet that the director's link takes, in bytes; what fits into a tunnel is less by its headers.
    pub link_mtu: u16,
    /// What the director's tunnels send from; only FreeBSD has to know.
    pub tunnel_sources: TunnelSources,
}

impl Default for Circumstances {
    /// Ethernet, and no tunnel sources.
    fn default() -> Self {
        Self { link_mtu: 1500, tunnel_sources: TunnelSources::default() }
    }
}

/// Commands that belong together, and what for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Why, in a sentence or two.
    pub why: String,
    /// The commands, in their order; a command may have several lines.
    pub commands: Vec<String>,
}

/// A point that can be verified on the backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What is to hold.
    pub what: String,
    /// A command of the shell (on Windows an expression) that succeeds if it does.
    test: String,
    /// What to do if it does not.
    pub remedy: String,
}

impl Check {
    fn new(what: impl Into<String>, test: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), test: test.into(), remedy: remedy.into() }
    }
}

/// How one backend is set up. Its `Display` is the script that does so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guide {
    /// The backend's own address.
    pub backend: IpAddr,
    /// What services call it, in alphabetical order.
    pub names: Vec<String>,
    /// What for.
    pub system: System,
    /// Its VIPs and how they come, in a sentence.
    pub summary: String,
    /// What to do, in this order.
    pub setup: Vec<Step>,
    /// What then holds.
    pub checks: Vec<Check>,
    /// How to undo it, in this order.
    pub undo: Vec<Step>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// A backend that cannot be set up on this system for what the services ask of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("backend {backend}: no guide for {system}: {why}")]
pub struct Unsupported {
    /// The backend's own address.
    pub backend: IpAddr,
    /// What services call it, in alphabetical order.
    pub names: Vec<String>,
    /// The system.
    pub system: System,
    /// Why not, and what to do instead.
    pub why: String,
}

impl Guide {
    /// A guide for each backend of the configuration, fallbacks included, by address. Servers with the same address
    /// are one backend, whatever the services.
    ///
    /// The configuration should have passed [`check`](crate::config::check()); of one that did not, what is
    /// impossible is reported as [`Unsupported`].
    pub fn for_config(
        config: &Config,
        system: System,
        circumstances: &Circumstances,
    ) -> Vec<Result<Self, Unsupported>> {
        let all = Needs::of_all(config, circumstances.link_mtu);
        all.iter().map(|needs| Self::new(needs, system, circumstances)).collect()
    }

    fn new(
        needs: &Needs,
        system: System,
        circumstances: &Circumstances,
    ) -> Result<Self, Unsupported> {
        let names = || needs.names.iter().cloned().collect();
        let unsupported = |why| Unsupported { backend: needs.address, names: names(), system, why };
        if let Some(why) = &needs.impossible {
            return Err(unsupported(why.clone()));
        }
        let plan = match system {
            System::Linux => Ok(linux::plan(needs)),
            System::Networkd => Ok(networkd::plan(needs)),
            System::Netplan => networkd::netplan(needs),
            System::Windows => windows::plan(needs),
            System::FreeBsd => freebsd::plan(needs, &circumstances.tunnel_sources),
        };
        let Plan { parts, checks, notes } = plan.map_err(unsupported)?;
        let undo = parts.iter().rev().filter(|part| !part.undo.is_empty());
        Ok(Self {
            backend: needs.address,
            names: names(),
            system,
            summary: needs.summary(),
            undo: undo
                .map(|part| Step { why: part.undo_why.into(), commands: part.undo.clone() })
                .collect(),
            setup: parts
                .into_iter()
                .map(|part| Step { why: part.why.into(), commands: part.commands })
                .collect(),
            checks,
            notes,
        })
    }

    /// A script for whoever runs the backend: a line for each point, `ok` or `FAIL` with the remedy; its exit status is 1
    /// if any failed. A shell script, or PowerShell for Windows. It changes nothing.
    pub fn check_script(&self) -> Script<'_> {
        Script::check(self)
    }

    /// The script that undoes [`Guide::setup`].
    pub fn undo_script(&self) -> Script<'_> {
        Script::undo(self)
    }
}

/// What a system makes of a backend's needs.
struct Plan {
    parts: Vec<Part>,
    checks: Vec<Check>,
    notes: Vec<String>,
}

/// A step and its undoing.
struct Part {
    why: &'static str,
    commands: Vec<String>,
    undo_why: &'static str,
    undo: Vec<String>,
}
