//! `[dataplane]`: what is set once, at start.

use super::item::Item;
use super::leaves::{InterfaceName, names};
use super::place::Place;
use super::reader::Reader;
use super::table::{Examine, Keys, table};
use crate::balancer::{FlowTable, Record};
use crate::config::Limits;
use crate::dataplane::{Cores, Polling};
use crate::forwarding::{ProbeSources, TunnelSources};
use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use std::collections::HashSet;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use toml::de::DeValue;

/// How the interface is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The best that the driver can.
    #[default]
    Auto,
    /// Zero-copy, or the start fails.
    ZeroCopy,
    /// Copied, even if the driver could do without.
    Copy,
    /// In the generic hook, which every interface has, and copied.
    Generic,
}

named!(
    Mode,
    "mode",
    "auto, zero-copy, copy or generic",
    ["auto" => Auto, "zero-copy" => ZeroCopy, "copy" => Copy, "generic" => Generic]
);
names! {
    Mode: "auto, zero-copy, copy or generic";
    Record: "all or contested";
    Polling: "sleep, busy or spin";
}

impl Item for Cores {
    const ALLOWED: &'static str = "\"each\", or an array of numbers of cores, as in [2, 3]";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            DeValue::Array(_) => Vec::read(value, at, reader).map(Self::List),
            value if value.as_str() == Some("each") => Some(Self::Each),
            value => {
                reader.refuse(value, at, Self::ALLOWED);
                None
            }
        }
    }
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let list = Vec::<u32>::schema(generator).to_value();
        json_schema!({ "anyOf": [{ "type": "string", "enum": ["each"] }, list] })
    }
}

table! {
    /// What is set once, at start; a change takes a restart.
    Dataplane {
        /// The interface that packets for the VIPs come in by, and frames leave by.
        "interface" interface: Option<InterfaceName>,
        /// Instead of `interface`, several: packets come in by the first, frames leave by any.
        "interfaces" interfaces: Vec<InterfaceName>,
        /// How the interface is driven; `auto` unless told.
        "mode" mode: Option<Mode>,
        /// How many RX queues are served, from queue 0 on; all unless told.
        "queues" queues: Option<NonZeroU32>,
        /// Frames of memory for each queue, a power of two from 64 to 1048576; 4096 unless told.
        "frames-per-queue" frames_per_queue: Option<NonZeroU32>,
        /// Bytes of each frame, a power of two from 2048 to the size of a memory page; 2048 unless told.
        "frame-size" frame_size: Option<NonZeroU32>,
        /// Whether the memory for frames is of huge pages, which have to be reserved (`sysctl
        /// vm.nr_hugepages`); not unless told. For tens of megabytes per queue.
        "huge-pages" huge_pages: Option<bool>,
        /// How many frames one system call sends where they are copied, from 32 to `frames-per-queue`; 64
        /// unless told, and 32 before Linux 6.18.
        "transmit-budget" transmit_budget: Option<NonZeroU32>,
        /// What a worker does while there is nothing to receive: `sleep`, unless told; `busy`, drive the
        /// NIC's queue itself, for zero-copy with a core for each worker; or `spin`, look again and again,
        /// for a core that nothing else needs.
        "polling" polling: Option<Polling>,
        /// How many packets `polling = "busy"` takes from the NIC at a time; 64 unless told.
        "busy-poll-budget" busy_poll_budget: Option<NonZeroU16>,
        /// Which core each worker runs on: `each`, one for each in order, or a list of them, one for each queue;
        /// the scheduler decides unless told.
        "cores" cores: Option<Cores>,
        /// Whether ARP and neighbour discovery for the VIPs are answered, for a host that does not
        /// hold them itself; not unless told.
        "answer-for-vips" answer_for_vips: Option<bool>,
        /// What tunnels send from: for each family an address of this host, or a prefix.
        "tunnel-source" tunnel_source: Vec<IpNet>,
        /// What probes through VIPs are sent from: for each family an address of this host; the first
        /// of the interface unless told.
        "probe-source" probe_source: Vec<IpAddr>,
        /// For how many flows each queue has room, at 16 bytes each; 262144 unless told. Half of them is what
        /// can be relied upon.
        "flows-per-queue" flows_per_queue: Option<NonZeroU32>,
        /// Which flows are recorded: `all`, unless told, or only those that a change has `contested`.
        "record" record: Option<Record>,
        /// How many services there can be; 1024 unless told.
        "max-services" max_services: Option<NonZeroU32>,
        /// How many backends there can be, counted once for each service; 16384 unless told.
        "max-backends" max_backends: Option<NonZeroU32>,
    }
}

impl Dataplane {
    /// The interface that packets come in by.
    pub fn ingress(&self) -> &str {
        self.all_interfaces().next().map_or("", InterfaceName::as_str)
    }

    /// The other interfaces that frames may leave by.
    pub fn egress(&self) -> impl Iterator<Item = &str> {
        self.all_interfaces().skip(1).map(InterfaceName::as_str)
    }

    fn all_interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        self.interface.iter().chain(&self.interfaces)
    }

    /// What tunnels send from.
    pub fn tunnel_sources(&self) -> TunnelSources {
        self.tunnel_source.iter().copied().fold(TunnelSources::default(), TunnelSources::with)
    }

    /// What probes through VIPs are sent from, as far as it is set.
    pub fn probe_sources(&self) -> ProbeSources {
        let mut sources = ProbeSources::default();
        for source in &self.probe_source {
            match source {
                IpAddr::V4(source) => sources.ipv4 = Some(*source),
                IpAddr::V6(source) => sources.ipv6 = Some(*source),
            }
        }
        sources
    }

    /// How much there can be.
    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        let limit = |set: Option<NonZeroU32>, usual| {
            set.map_or(usual, |set| usize::try_from(set.get()).unwrap_or(usize::MAX))
        };
        Limits {
            services: limit(self.max_services, usual.services),
            backends: limit(self.max_backends, usual.backends),
        }
    }

    /// The keys whose values differ, each with what it is and what it was.
    pub(crate) fn differences(&self, was: &Self) -> Vec<(&'static str, String, String)> {
        let both = self.texts().into_iter().zip(was.texts());
        both.filter(|((_, is), (_, was))| is != was)
            .map(|((key, is), (_, was))| (key, is, was))
            .collect()
    }

    /// What is in force by each key, as text.
    fn texts(&self) -> [(&'static str, String); 17] {
        fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
            let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
            if items.is_empty() { "none".to_owned() } else { items.join(", ") }
        }
        let number = |set: Option<NonZeroU32>| set.map_or("default".to_owned(), |n| n.to_string());
        let (probe, limits) = (self.probe_sources(), self.limits());
        [
            ("interfaces", list(self.all_interfaces())),
            ("mode", self.mode.unwrap_or_default().to_string()),
            ("queues", number(self.queues)),
            ("frames-per-queue", number(self.frames_per_queue)),
            ("frame-size", number(self.frame_size)),
            ("huge-pages", self.huge_pages.unwrap_or(false).to_string()),
            ("transmit-budget", number(self.transmit_budget)),
            ("polling", self.polling.unwrap_or_default().to_string()),
            ("busy-poll-budget", number(self.busy_poll_budget.map(NonZeroU32::from))),
            (
                "cores",
                match &self.cores {
                    None | Some(Cores::Any) => "default".to_owned(),
                    Some(Cores::Each) => "each".to_owned(),
                    Some(Cores::List(cores)) => list(cores),
                },
            ),
            ("answer-for-vips", self.answer_for_vips.unwrap_or(false).to_string()),
            ("tunnel-source", list(self.tunnel_sources().iter())),
            (
                "probe-source",
                list(probe.ipv4.map(IpAddr::V4).into_iter().chain(probe.ipv6.map(IpAddr::V6))),
            ),
            ("flows-per-queue", number(self.flows_per_queue)),
            ("record", self.record.unwrap_or_default().to_string()),
            ("max-services", limits.services.to_string()),
            ("max-backends", limits.backends.to_string()),
        ]
    }
}

impl Examine for Dataplane {
    fn examine(&self, keys: &mut Keys<'_, '_, '_>) {
        match (&self.interface, self.interfaces.as_slice()) {
            (Some(_), []) | (None, [_, ..]) => {}
            (None, []) => keys.problem("interface", "is required: the name of an interface"),
            (Some(_), _) => keys.problem("interfaces", "is instead of `interface`, not beside it"),
        }
        let mut seen = HashSet::new();
        if !self.all_interfaces().all(|name| seen.insert(name.as_str())) {
            keys.problem("interfaces", "names an interface twice");
        }
        if self.interfaces.len() > 255 {
            keys.problem("interfaces", "at most 255 interfaces");
        }
        if self.mode == Some(Mode::ZeroCopy) && self.interfaces.len() > 1 {
            keys.problem("mode", "auto, copy or generic: memory that interfaces share is copied");
        }
        let power = |value: Option<NonZeroU32>, from: u32, to: u32| {
            value.is_none_or(|value| value.is_power_of_two() && (from..=to).contains(&value.get()))
        };
        if !power(self.frames_per_queue, 64, 1 << 20) {
            keys.problem("frames-per-queue", "a power of two from 64 to 1048576");
        }
        if !power(self.frame_size, 2048, 1 << 16) {
            keys.problem("frame-size", "a power of two from 2048 to the size of a memory page");
        }
        let frames = self.frames_per_queue.map_or(4096, NonZeroU32::get);
        if self.transmit_budget.is_some_and(|budget| !(32..=frames).contains(&budget.get())) {
            keys.problem("transmit-budget", "32 to `frames-per-queue`, which is 4096 unless told");
        }
        if self.busy_poll_budget.is_some() && self.polling != Some(Polling::Busy) {
            keys.problem("busy-poll-budget", "goes with polling = \"busy\"");
        }
        if let Some(Cores::List(cores)) = &self.cores {
            let mut seen = HashSet::new();
            let few = cores.len() < self.queues.map_or(1, NonZeroU32::get) as usize;
            if few || !cores.iter().all(|core| seen.insert(core)) {
                keys.problem("cores", "one core for each queue, none of them twice");
            }
        }
        let flows = self.flows_per_queue.map_or(0, NonZeroU32::get);
        if usize::try_from(flows).unwrap_or(usize::MAX) > FlowTable::MAX_ENTRIES {
            keys.problem("flows-per-queue", "a whole number from 1 to 268435456");
        }
        let once = |ipv4: usize, all: usize| ipv4 <= 1 && all - ipv4 <= 1;
        let ipv4 = self.tunnel_source.iter().filter(|source| source.addr().is_ipv4()).count();
        if !once(ipv4, self.tunnel_source.len()) {
            keys.problem("tunnel-source", "at most one of each family");
        }
        let ipv4 = self.probe_source.iter().filter(|source| source.is_ipv4()).count();
        if !once(ipv4, self.probe_source.len()) {
            keys.problem("probe-source", "at most one of each family");
        }
    }
}
