//! Fragments that came before the first of their datagram.

use super::FragmentKey;
use crate::dataplane::io::{Frame, HEADROOM};
use crate::flow::Timestamp;
use std::collections::VecDeque;

/// Longer frames do not wait: of what is fragmented for common links there are none.
const LONGEST: usize = 2048;
const ROOM: usize = HEADROOM + LONGEST;
/// The most that wait for one datagram, so that one cannot take all places.
const PER_DATAGRAM: usize = 8;

#[derive(Debug)]
struct Held {
    key: FragmentKey,
    place: usize,
    length: usize,
    until: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    memory: Box<[u8]>,
    free: Vec<usize>,
    /// In order of arrival, and so of their time; never longer than when it was made.
    held: VecDeque<Held>,
}

impl Waiting {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            memory: vec![0; capacity.saturating_mul(ROOM)].into_boxed_slice(),
            free: (0..capacity).rev().collect(),
            held: VecDeque::with_capacity(capacity),
        }
    }

    /// Whether a frame of this length finds a place, when those are gone that have waited too long.
    pub(super) fn has_room(&self, key: &FragmentKey, length: usize, now: Timestamp) -> bool {
        let waiting = self.held.iter().filter(|held| held.until > now.0);
        let alike = waiting.clone().filter(|held| held.key == *key).count();
        let places = self.free.len() + self.held.len() - waiting.count();
        length <= LONGEST && alike < PER_DATAGRAM && places > 0
    }

    pub(super) fn push(
        &mut self,
        key: &FragmentKey,
        frame: &[u8],
        now: Timestamp,
        until: u64,
    ) -> bool {
        if !self.has_room(key, frame.len(), now) {
            return false;
        }
        let Some(place) = self.free.pop() else {
            return false;
        };
        let begin = place * ROOM + HEADROOM;
        if let Some(memory) = self.memory.get_mut(begin..begin + frame.len()) {
            memory.copy_from_slice(frame);
        }
        self.held.push_back(Held { key: *key, place, length: frame.len(), until });
        true
    }

    pub(super) fn release(&mut self, key: &FragmentKey, mut each: impl FnMut(Frame<'_>)) {
        let Self { memory, free, held } = self;
        held.retain(|held| {
            if held.key != *key {
                return true;
            }
            let begin = held.place * ROOM;
            let memory = memory.get_mut(begin..begin + ROOM).unwrap_or_default();
            each(Frame::in_memory(memory, HEADROOM..HEADROOM + held.length));
            free.push(held.place);
            false
        });
    }

    #[inline]
    pub(super) fn expire(&mut self, now: Timestamp, mut each: impl FnMut(usize)) {
        while let Some(held) = self.held.front()
            && held.until <= now.0
        {
            each(held.length);
            self.free.push(held.place);
            self.held.pop_front();
        }
    }
}
