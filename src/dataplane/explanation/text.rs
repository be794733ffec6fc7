//! An explanation as text, a line for each step.

use super::{Explanation, FragmentTrace};
use crate::balancer::{Decider, FlowMemory, Placement, Recall, Rule, Selection};
use crate::dataplane::snapshot::{Delivery, NextHop};
use crate::flow::{Fragment, PacketInfo, PacketKind, Protocol, TcpFlags};
use crate::verdict::{BackendIndex, Verdict};
use std::fmt;

/// Where the second column begins.
const WIDTH: usize = 12;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, text: &dyn fmt::Display| writeln!(f, "{name:WIDTH$}{text}");
        match &self.packet {
            Some(packet) => line("packet", &self.packet_line(packet))?,
            None => line("packet", &"none of IP that is well formed")?,
        }
        if !self.is_ours {
            line("frame", &"not addressed to the director")?;
        }
        if let Some(selection) = &self.selection {
            line("service", &service_line(selection))?;
            line("hash", &hash_line(selection))?;
            line("new flows", &self.owner_line(selection))?;
        }
        if let Some(id) = &self.connection_id {
            let backend = self.packet.and_then(|packet| packet.routed.backend());
            let leads = backend.map_or("nowhere".to_owned(), |index| self.name(index));
            line("QUIC ID", &format_args!("{id:?}: leads to {leads}"))?;
        }
        if let Some(placement) = &self.placement {
            if let Some(text) = self.recall_line(placement) {
                line("flow table", &text)?;
            }
            line("decided by", &decider(placement.decider))?;
        }
        if let Some(fragment) = &self.fragment {
            line("fragment", &self.fragment_line(fragment))?;
        }
        if let Some(hop) = &self.next_hop {
            line("next hop", &hop_line(hop))?;
        }
        write!(f, "{:WIDTH$}{}", "verdict", self.verdict_line())
    }
}

impl Explanation {
    fn name(&self, index: BackendIndex) -> String {
        self.names.get(&index).cloned().unwrap_or_else(|| format!("backend {index:?}"))
    }

    fn packet_line(&self, packet: &PacketInfo) -> String {
        let mut text = packet.flow.to_string();
        if packet.kind == PacketKind::Ordinary && packet.flow.protocol == Protocol::TCP {
            let flags = [
                ("SYN", TcpFlags::SYN),
                ("FIN", TcpFlags::FIN),
                ("RST", TcpFlags::RST),
                ("ACK", TcpFlags::ACK),
            ];
            for (name, _) in flags.iter().filter(|(_, bit)| packet.tcp_flags.has(*bit)) {
                text += ", ";
                text += name;
            }
        }
        text += match packet.kind {
            PacketKind::Ordinary => "",
            PacketKind::EchoRequest => ", an echo request",
            PacketKind::IcmpError => ", an ICMP error about what the VIP sent",
            PacketKind::TruncatedError => ", an ICMP error that quotes too little",
            PacketKind::StrayError => ", an ICMP error about what the VIP did not send",
        };
        text += match packet.fragment {
            Fragment::Whole => "",
            Fragment::First => ", first fragment",
            Fragment::Later => ", later fragment",
        };
        format!("{text}, {} bytes, hop limit {}", self.length, self.hop_limit)
    }

    fn owner_line(&self, selection: &Selection) -> String {
        match (selection.owner, selection.backends) {
            (None, _) => "no backend takes any".to_owned(),
            (Some(owner), 1) => format!("to {}, the only backend that takes any", self.name(owner)),
            (Some(owner), all) => {
                format!("to {}, of {all} backends that take some", self.name(owner))
            }
        }
    }

    /// None where nothing was asked.
    fn recall_line(&self, placement: &Placement) -> Option<String> {
        let Recall { before, after } = placement.recall?;
        let of = |FlowMemory { backend, state, remaining }| {
            format!("{}, {state}, for another {:.1} s", self.name(backend), remaining.as_secs_f64())
        };
        let is_hit = placement.decider == Decider::FlowTable;
        let mut text = match before {
            None => "miss".to_owned(),
            Some(memory) if is_hit => format!("hit: {}", of(memory)),
            Some(memory) => format!("not gone by: {}", of(memory)),
        };
        let what = |memory: FlowMemory| (memory.backend, memory.state);
        match after {
            Some(memory) if before.map(what) != Some(what(memory)) => {
                text += &format!("; then {}, {}", self.name(memory.backend), memory.state);
            }
            None if before.is_some() => text += "; then forgotten",
            _ => {}
        }
        Some(text)
    }

    fn fragment_line(&self, fragment: &FragmentTrace) -> String {
        match fragment {
            FragmentTrace::Leads => "later ones of the datagram follow it".to_owned(),
            FragmentTrace::Follows(index) => {
                format!("follows the first of its datagram to {}", self.name(*index))
            }
            FragmentTrace::FollowsAnswer => "of an echo request that is answered".to_owned(),
            FragmentTrace::FollowsDrop(reason) => {
                format!("dropped as the first of its datagram was: {reason}")
            }
            FragmentTrace::Waits => "waits for the first of its datagram".to_owned(),
            FragmentTrace::Full => "no place to wait for the first of its datagram".to_owned(),
            FragmentTrace::Conflicts => "another first one of its datagram has come".to_owned(),
        }
    }

    fn verdict_line(&self) -> String {
        match self.verdict {
            None => "up to the balancer, which does not explain itself".to_owned(),
            Some(verdict) => {
                let text = verdict.in_words(|index| self.name(index));
                match verdict {
                    Verdict::Forward(_) if self.frames > 1 => {
                        format!("{text}, in {} frames", self.frames)
                    }
                    _ => text,
                }
            }
        }
    }
}

fn service_line(selection: &Selection) -> String {
    let rule = match selection.rule {
        Rule::Echo => "which forwards echo requests",
        Rule::Port => "by protocol and port",
        Rule::Protocol => "by protocol",
        Rule::Everything => "for all protocols",
    };
    let sessionless = if selection.is_remembered { "" } else { ", sessionless" };
    format!("{}, {rule}{sessionless}", selection.service)
}

fn hash_line(selection: &Selection) -> String {
    let Selection { hash_input, hash, slot, .. } = selection;
    let hashed: String = selection.hashed.iter().map(|byte| format!("{byte:02x}")).collect();
    let slot = slot.map(|(slot, slots)| format!(", slot {slot} of {slots}")).unwrap_or_default();
    format!("{hash_input} {hashed}: {:016x}{slot}", hash.0)
}

const fn decider(decider: Decider) -> &'static str {
    match decider {
        Decider::Lookup => "the look-up of its service",
        Decider::ConnectionId => "its connection ID",
        Decider::FlowTable => "the flow table",
        Decider::Selector => "its hash",
        Decider::Elder => "its hash, as it was before the last change",
    }
}

fn hop_line(hop: &NextHop) -> String {
    let delivery = match &hop.delivery {
        Delivery::L2 => "l2".to_owned(),
        Delivery::L3Dsr(backend, dscp) => format!("l3dsr:{dscp} to {backend}"),
        Delivery::Tunnel(path) => path.to_string(),
    };
    format!("{} by port {}, MTU {}, {delivery}", hop.destination, hop.port.0, hop.mtu)
}
