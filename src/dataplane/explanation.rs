//! The trace of a decision: what [`Pipeline::explain`](super::Pipeline::explain) found, step by step.

mod text;

use super::fragments::{Decision, Fate};
use super::snapshot::{NextHop, Snapshot};
use crate::balancer::{Assignment, Placement, Selection};
use crate::flow::{ConnectionId, PacketInfo};
use crate::packet::{self, Parse, hop_limit};
use crate::verdict::{BackendIndex, DropReason, Verdict};
use std::collections::BTreeMap;

/// What would become of a frame, and by what. Steps that the frame does not come to are none.
///
/// `Display` writes a line for each step.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The [generation](Snapshot::generation) of the snapshot that it holds for.
    pub generation: u64,
    /// Whether the frame is addressed to the director; others pass.
    pub is_ours: bool,
    /// The IP packet in it, as the balancer sees it.
    pub packet: Option<PacketInfo>,
    /// Bytes of the IP packet; zero if there is none.
    pub length: usize,
    /// Its TTL or hop limit; zero if there is none.
    pub hop_limit: u8,
    /// Its QUIC connection ID, if a service routes by those.
    pub connection_id: Option<ConnectionId>,
    /// Its service, and where that sends new flows with this hash.
    pub selection: Option<Selection>,
    /// What the balancer decides; none also if it does not explain itself.
    pub placement: Option<Placement>,
    /// What becomes of it as a fragment, if it shares the lot of others.
    pub fragment: Option<FragmentTrace>,
    /// How its backend is reached.
    pub next_hop: Option<NextHop>,
    /// How many frames are sent: several if it is cut up, none if it is dropped.
    pub frames: usize,
    /// What becomes of the frame. None if that is up to a balancer that does not
    /// [explain itself](crate::Balancer::explain).
    pub verdict: Option<Verdict>,
    /// What backends are called in the text; others are called by their index.
    pub names: BTreeMap<BackendIndex, String>,
}

/// What becomes of a fragment that shares the lot of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FragmentTrace {
    /// It is the first of its datagram: the later ones will follow it.
    Leads,
    /// It is a later one, and goes where the first one went, whatever the balancer says.
    Follows(BackendIndex),
    /// It is a later one of an echo request that is answered.
    FollowsAnswer,
    /// It is a later one, and dropped for the reason that the first one was.
    FollowsDrop(DropReason),
    /// It is a later one whose first has not come, and waits for that.
    Waits,
    /// It is the same, and there is no place to wait.
    Full,
    /// It is a first one, and there was another of the datagram with other ports.
    Conflicts,
}

impl From<Fate> for FragmentTrace {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Leads => Self::Leads,
            Fate::Follows(Decision::Backend(index)) => Self::Follows(index),
            Fate::Follows(Decision::Answer) => Self::FollowsAnswer,
            Fate::Follows(Decision::Drop(reason)) => Self::FollowsDrop(reason),
            Fate::Waits => Self::Waits,
            Fate::Full => Self::Full,
            Fate::Conflicts => Self::Conflicts,
        }
    }
}

impl Explanation {
    /// What can be told by the frame alone.
    pub(super) fn of(snapshot: &Snapshot, frame: &[u8]) -> Self {
        let mut explanation = Self {
            generation: snapshot.generation,
            is_ours: frame.starts_with(&snapshot.station.0),
            packet: None,
            length: 0,
            hop_limit: 0,
            connection_id: None,
            selection: None,
            placement: None,
            fragment: None,
            next_hop: None,
            frames: 0,
            verdict: None,
            names: BTreeMap::new(),
        };
        if let Parse::Ip(parsed) = packet::parse(frame) {
            explanation.packet = Some(parsed.info);
            explanation.length = parsed.length();
            explanation.hop_limit = hop_limit(parsed.packet(frame));
            if snapshot.services.routes() {
                explanation.connection_id = parsed.connection_id(frame);
            }
        }
        explanation
    }

    /// The backend that the packet goes to, if it goes to one.
    pub fn backend(&self) -> Option<BackendIndex> {
        match self.verdict {
            Some(Verdict::Forward(index)) => Some(index),
            _ => None,
        }
    }

    /// All backends that it speaks of.
    pub fn backends(&self) -> impl Iterator<Item = BackendIndex> {
        let assigned = self.placement.and_then(|placement| match placement.assignment {
            Assignment::Backend(index) => Some(index),
            Assignment::NotVip | Assignment::Drop(_) => None,
        });
        let followed = self.fragment.and_then(|fragment| match fragment {
            FragmentTrace::Follows(index) => Some(index),
            _ => None,
        });
        let recall = self.placement.and_then(|placement| placement.recall).unwrap_or_default();
        let recalled = [recall.before, recall.after].map(|memory| Some(memory?.backend));
        let [before, after] = recalled;
        let owner = self.selection.as_ref().and_then(|selection| selection.owner);
        let routed = self.packet.and_then(|packet| packet.routed.backend());
        [routed, owner, before, after, assigned, followed, self.backend()].into_iter().flatten()
    }

    /// Gives the backends names, for the text.
    #[must_use]
    pub fn named(mut self, name: impl Fn(BackendIndex) -> Option<String>) -> Self {
        let names = self.backends().filter_map(|index| Some((index, name(index)?))).collect();
        self.names = names;
        self
    }
}
