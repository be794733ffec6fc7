//! What the fragments of a datagram have in common: the lot of the first of them.
//!
//! Only a first fragment has ports. Where these decide, what became of it is remembered by the
//! datagram\'s identity, and later fragments follow; those that overtake it wait for a while. Nothing
//! is put together: the backend does that.
//!
//! All memory is allocated at the start. A flood of first fragments replaces what is remembered of
//! others, in sets of four that a keyed hash picks, so nobody can aim at a datagram; a flood of
//! later ones fills the places to wait, and no more. Each worker has memory of its own: NICs hash
//! fragments by their addresses alone, so all of a datagram come by one queue.

mod table;
mod waiting;

use super::io::Frame;
use crate::flow::{FiveTuple, Fragment, HashKey, PacketInfo, Protocol, Timestamp};
use crate::verdict::{BackendIndex, DropReason};
use std::net::IpAddr;
use std::time::Duration;
use table::Table;
use waiting::Waiting;

/// How much is remembered of fragmented datagrams, for each worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentLimits {
    /// Datagrams whose first fragment has been seen, about 80 bytes each. Zero: later fragments are
    /// dropped wherever ports decide.
    pub datagrams: usize,
    /// How long a first fragment is remembered. Networks reorder by milliseconds; a fast client
    /// uses an identification again after seconds (RFC 4963 section 3).
    pub lifetime: Duration,
    /// Fragments that can wait for the first of their datagram, 2,304 bytes each.
    pub waiting: usize,
    /// How long they wait.
    pub patience: Duration,
}

impl Default for FragmentLimits {
    /// 4,096 datagrams for two seconds, 64 waiting fragments for half a second.
    fn default() -> Self {
        Self {
            datagrams: 4096,
            lifetime: Duration::from_secs(2),
            waiting: 64,
            patience: Duration::from_millis(500),
        }
    }
}

/// What identifies a datagram: for IPv4 source, destination, protocol and identification (RFC 791
/// section 3.2), for IPv6 all but the protocol (RFC 8200 section 4.5), which later fragments may
/// state differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FragmentKey(
    /// With the identification in the place of the ports.
    FiveTuple,
);

impl FragmentKey {
    pub(super) fn of(fragment: &PacketInfo) -> Self {
        let FiveTuple { source, destination, protocol, .. } = fragment.flow;
        let identification = fragment.identification;
        Self(FiveTuple {
            source,
            destination,
            source_port: (identification >> 16) as u16,
            destination_port: identification as u16,
            protocol: match destination {
                IpAddr::V4(_) => protocol,
                IpAddr::V6(_) => Protocol(0),
            },
        })
    }
}

/// The lot of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    Backend(BackendIndex),
    /// It is an echo request that the director answers.
    Answer,
    Drop(DropReason),
}

/// What becomes of a fragment that is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is the first of its datagram: the others share its lot.
    Leads,
    /// It shares this lot of the first one.
    Follows(Decision),
    /// It waits for the first one.
    Waits,
    /// There is no place for it to wait.
    Full,
    /// There has been another first one with other ports: an attempt to have one datagram end in two
    /// places (RFC 5722), or an identification used again too soon.
    Conflicts,
}

/// Follows the fragments of one worker.
#[derive(Debug)]
pub(super) struct FragmentTracker {
    table: Table,
    waiting: Waiting,
    limits: FragmentLimits,
}

impl FragmentTracker {
    pub(super) fn new(limits: FragmentLimits, key: HashKey) -> Self {
        Self {
            table: Table::new(limits.datagrams, key),
            waiting: Waiting::new(limits.waiting),
            limits,
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.limits.datagrams > 0
    }

    /// What becomes of a fragment whose frame has this length; nothing is changed.
    pub(super) fn fate(
        &self,
        key: &FragmentKey,
        info: &PacketInfo,
        length: usize,
        now: Timestamp,
    ) -> Fate {
        if info.fragment == Fragment::First {
            return match self.table.conflicts(key, ports(&info.flow), now) {
                true => Fate::Conflicts,
                false => Fate::Leads,
            };
        }
        match self.table.find(key, now) {
            Some(decision) => Fate::Follows(decision),
            None if self.waiting.has_room(key, length, now) => Fate::Waits,
            None => Fate::Full,
        }
    }

    /// Remembers what is decided of a first fragment, whose ports are those of `flow`.
    pub(super) fn first(
        &mut self,
        key: &FragmentKey,
        decision: Decision,
        flow: &FiveTuple,
        now: Timestamp,
    ) {
        self.table.insert(key, decision, ports(flow), now, nanoseconds(self.limits.lifetime));
    }

    /// Keeps a copy of a frame whose first fragment has not come; false if there is no place.
    pub(super) fn hold(&mut self, key: &FragmentKey, frame: &[u8], now: Timestamp) -> bool {
        let until = now.0.saturating_add(nanoseconds(self.limits.patience));
        self.waiting.push(key, frame, now, until)
    }

    /// Gives the frames that wait for this datagram to `each`, in order of arrival, and forgets
    /// them.
    pub(super) fn release(&mut self, key: &FragmentKey, each: impl FnMut(Frame<'_>)) {
        self.waiting.release(key, each);
    }

    /// Forgets the frames that have waited too long; `each` gets their lengths.
    #[inline]
    pub(super) fn expire(&mut self, now: Timestamp, each: impl FnMut(usize)) {
        self.waiting.expire(now, each);
    }
}

fn ports(flow: &FiveTuple) -> (u16, u16) {
    (flow.source_port, flow.destination_port)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
