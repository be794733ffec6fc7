//! Frames of the worker's own: what did not fit into the frame that called for it.

use super::io::{Frame, HEADROOM, Port};
use arrayvec::ArrayVec;
use std::ops::Range;

/// How many frames of its own a batch can call for.
const FRAMES: usize = 256;
/// Room for each in front of it and for its bytes: a memory page, less what AF_XDP takes.
const ROOM: usize = 4096;

/// Memory for [`FRAMES`] frames, allocated once; a frame that finds no room is not made.
#[derive(Debug)]
pub(super) struct Outbox {
    memory: Box<[u8]>,
    ready: ArrayVec<(Port, Range<usize>), FRAMES>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { memory: vec![0; FRAMES * ROOM].into_boxed_slice(), ready: ArrayVec::new() }
    }

    /// Has `make` fill `count` frames, each of which it gets by its number and as long as there is
    /// room for; it cuts them to their length and answers with the port they are to be sent by.
    /// Returns whether all were made; if not, none is kept.
    pub(super) fn push_all(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize, &mut Frame<'_>) -> Option<Port>,
    ) -> bool {
        let before = self.ready.len();
        let made = (0..count).all(|number| {
            let offset = self.ready.len() * ROOM;
            let Some(memory) = self.memory.get_mut(offset..offset + ROOM) else {
                return false;
            };
            let mut frame = Frame::in_memory(memory, HEADROOM..ROOM);
            let port = make(number, &mut frame);
            let range = offset + frame.range().start..offset + frame.range().end;
            port.is_some_and(|port| self.ready.try_push((port, range)).is_ok())
        });
        if !made {
            self.ready.truncate(before);
        }
        made
    }

    /// How many frames wait to be drained.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Keeps a copy of a frame; returns whether there was room.
    pub(super) fn push_copy(&mut self, port: Port, bytes: &[u8]) -> bool {
        self.push_all(1, |_, frame| {
            frame.truncate(bytes.len());
            let same = frame.bytes().len() == bytes.len();
            same.then(|| frame.bytes_mut().copy_from_slice(bytes)).map(|()| port)
        })
    }

    /// Gives each frame to `each`, in order, and forgets it.
    pub(super) fn drain<E>(
        &mut self,
        mut each: impl FnMut(Port, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let ready = std::mem::take(&mut self.ready);
        ready
            .into_iter()
            .try_for_each(|(port, range)| each(port, self.memory.get(range).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(outbox: &mut Outbox) -> Vec<(Port, Vec<u8>)> {
        let mut frames = Vec::new();
        let _: Result<(), ()> = outbox.drain(|port, bytes| {
            frames.push((port, bytes.to_vec()));
            Ok(())
        });
        frames
    }

    #[test]
    fn frames_come_out_as_they_were_made_and_no_more_than_there_is_room_for() {
        let mut outbox = Outbox::new();
        for round in 0..2 {
            for number in 0..FRAMES {
                assert!(outbox.push_copy(Port(round), &vec![number as u8; 14 + number]));
            }
            assert!(!outbox.push_copy(Port(round), &[0; 14]));
            let frames = drained(&mut outbox);
            assert_eq!(frames.len(), FRAMES);
            for (number, frame) in frames.into_iter().enumerate() {
                assert_eq!(frame, (Port(round), vec![number as u8; 14 + number]));
            }
        }
    }

    #[test]
    fn of_several_all_are_made_or_none() {
        let mut outbox = Outbox::new();
        assert!(outbox.push_copy(Port(1), &[1; 20]));
        let number_if = |limit: usize| {
            move |number: usize, frame: &mut Frame<'_>| {
                frame.truncate(number);
                (number < limit).then_some(Port(2))
            }
        };
        assert!(!outbox.push_all(3, number_if(2)));
        assert!(!outbox.push_all(FRAMES, number_if(FRAMES)), "one place is taken");
        assert!(outbox.push_all(2, number_if(2)));
        let lengths: Vec<_> = drained(&mut outbox).iter().map(|(_, frame)| frame.len()).collect();
        assert_eq!(lengths, [20, 0, 1]);
    }

    #[test]
    fn frames_have_room_in_front_and_an_end() {
        let mut outbox = Outbox::new();
        assert!(!outbox.push_copy(Port::INGRESS, &[0; ROOM - HEADROOM + 1]));
        assert!(outbox.push_all(1, |_, frame| frame.grow_front(HEADROOM).then_some(Port(1))));
        assert_eq!(drained(&mut outbox)[0].1.len(), ROOM);
    }
}
