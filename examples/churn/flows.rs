//! Clients: when they open connections, for how long, and how often they speak.

use dsrlb::flow::{FiveTuple, Fragment, PacketInfo, Protocol, TcpFlags};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::SECOND;

/// New connections a second.
const RATE: f64 = 300.0;
/// SYNs of the flood: as many as this for each tenth of a millisecond.
const FLOOD_STEP: u64 = SECOND / 10_000;

/// Numbers that look random and are the same each time (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// Nanoseconds, exponentially distributed around a mean in seconds.
    fn time(&mut self, mean: f64) -> u64 {
        let share = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-(1.0 - share).ln() * mean * SECOND as f64) as u64
    }
}

/// A packet of a flow.
pub struct Event {
    /// A number that no other flow has.
    pub flow: u64,
    pub packet: PacketInfo,
    pub is_first: bool,
    pub is_last: bool,
}

/// A flow that will send again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Live {
    flow: u64,
    sent: u32,
    end: u64,
    /// Milliseconds between packets, on average.
    pace: u64,
}

/// All packets, in the order of time.
pub struct Flows {
    random: Random,
    due: BinaryHeap<Reverse<(u64, Live)>>,
    next_open: u64,
    next_flood: u64,
    opened: u64,
    flooded: u64,
    most: usize,
    end: u64,
}

impl Flows {
    pub fn new(end: u64) -> Self {
        Self {
            random: Random(1),
            due: BinaryHeap::new(),
            next_open: 0,
            next_flood: 10 * 60 * SECOND,
            opened: 0,
            flooded: 0,
            most: 0,
            end,
        }
    }

    pub fn opened(&self) -> u64 {
        self.opened
    }

    pub fn most(&self) -> usize {
        self.most
    }

    /// The next packet, and when it comes.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let due = self.due.peek().map_or(u64::MAX, |Reverse((time, _))| *time);
        let now = due.min(self.next_open).min(self.next_flood);
        if now >= self.end {
            return None;
        }
        if now == self.next_flood {
            return Some((now, self.flood(now)));
        }
        if now == self.next_open {
            return Some((now, self.open(now)));
        }
        let Reverse((_, mut live)) = self.due.pop()?;
        live.sent += 1;
        let next = now + 1 + self.random.time(live.pace as f64 / 1000.0);
        let is_last = next >= live.end;
        if !is_last {
            self.due.push(Reverse((next, live)));
        }
        let flags = if is_last { TcpFlags::ACK | TcpFlags::FIN } else { TcpFlags::ACK };
        let packet = packet(live.flow, flags);
        Some((now, Event { flow: live.flow, packet, is_first: false, is_last }))
    }

    fn open(&mut self, now: u64) -> Event {
        self.next_open = now + 1 + self.random.time(1.0 / RATE);
        let flow = self.opened;
        self.opened += 1;
        // Requests, sessions, and what is kept open: web, mail, queues, terminals.
        let (life, pace) = match self.random.below(100) {
            0..80 => (5.0, 1_500),
            80..98 => (90.0, 10_000),
            98 => (3600.0, 20_000),
            _ => (3600.0, 300_000),
        };
        let end = now + self.random.time(life);
        // The handshake is over after a round trip.
        self.due.push(Reverse((now + 50_000_000, Live { flow, sent: 1, end, pace })));
        self.most = self.most.max(self.due.len());
        Event { flow, packet: packet(flow, TcpFlags::SYN), is_first: true, is_last: false }
    }

    /// One SYN of somebody who is not there.
    fn flood(&mut self, now: u64) -> Event {
        self.flooded += 1;
        let is_over = now % (30 * 60 * SECOND) >= (10 * 60 + 10) * SECOND;
        self.next_flood =
            if is_over { now + 30 * 60 * SECOND - 10 * SECOND } else { now + FLOOD_STEP };
        let flow = u64::MAX - self.flooded;
        Event { flow, packet: packet(flow, TcpFlags::SYN), is_first: false, is_last: true }
    }
}

/// Every flow has a source of its own.
fn packet(flow: u64, flags: u8) -> PacketInfo {
    let flow = FiveTuple {
        source: std::net::IpAddr::from((u128::from(flow) | 0x2001_0db8 << 96).to_be_bytes()),
        destination: super::pool::VIP.into(),
        source_port: 40_000,
        destination_port: 443,
        protocol: Protocol::TCP,
    };
    PacketInfo::new(flow, Fragment::Whole, TcpFlags(flags))
}
