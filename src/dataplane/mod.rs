//! Where packets meet the balancer: drivers, the pipeline and the worker.
//!
//! A packet's way through here is short. A [`PacketIo`] driver lends a batch of frames to the
//! [`Worker`]'s handler, the [`Pipeline`] decides and rewrites each one by the current
//! [`Snapshot`], and the driver sends what is to be sent.

#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub mod af_xdp;
mod answer;
#[cfg(feature = "pcap")]
mod capture;
mod cores;
mod counters;
mod delivery;
mod explanation;
mod express;
mod fragments;
mod hop;
mod hub;
mod io;
mod mailbox;
mod memory;
mod minimal;
pub mod neighbour;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub(crate) mod netlink;
mod next_hops;
mod outbox;
mod oversized;
mod path_mtu;
#[cfg(feature = "pcap")]
mod pcap;
mod pipeline;
mod planner;
mod probe;
mod reading;
mod refusal;
mod settling;
mod snapshot;
#[cfg(feature = "pcap")]
mod tap;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod waker;
mod worker;

#[cfg(feature = "pcap")]
pub use capture::{CaptureFile, CapturedFrame};
pub use cores::{Cores, Polling};
pub use counters::{Counts, WorkerCounters};
pub use explanation::{Explanation, FragmentTrace};
pub use fragments::FragmentLimits;
pub use hub::{Hub, HubMember, HubSide};
pub use io::{Action, Frame, HEADROOM, Handler, IoStats, MAX_BATCH, PacketIo, Port};
pub use mailbox::{Answer, MailSender, Mailbox, Question};
pub use memory::MemoryIo;
pub use minimal::MixedFamilies;
pub use next_hops::NextHops;
pub use path_mtu::PathMtus;
#[cfg(feature = "pcap")]
pub use pcap::PcapIo;
pub use pipeline::{Pipeline, PipelineOptions};
pub use planner::{Idle, Member, Observed, Plan, Planner, Site};
pub use probe::ProbeFramer;
pub use snapshot::{Delivery, ErrorPolicy, NextHop, Snapshot};
#[cfg(feature = "pcap")]
pub use tap::{Bounds, Chosen, Sample, Taken, Tap, TapCounts, TapFeed, TapReader};
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub use waker::Waker;
pub use worker::Worker;
