//! A flow as directors tell each other of it: 24 bytes.

use crate::balancer::flow_table::{FlowKey, FlowRecord, State, TICK};
use crate::verdict::BackendIndex;
use std::time::Duration;

/// A proven flow and where it goes, for another director.
///
/// # Encoding
///
/// [`SharedFlow::BYTES`] bytes; numbers are big-endian.
///
/// | bytes | what |
/// |---|---|
/// | 0 | the version, 1 |
/// | 1 | the state: 1 an established TCP connection, 2 one that is closing, 3 a flow of another protocol |
/// | 2, 3 | zero |
/// | 4 to 7 | for how much longer it is remembered if nothing is heard of it, in units of 2^27 ns; not zero |
/// | 8 to 15 | the flow: its hash under the secret that the directors share |
/// | 16 to 23 | the [name](super::BackendNames) of its backend |
///
/// A record is believed: whoever can forge one decides where a flow goes, so a transport beyond one's own
/// machine authenticates, and drops what is too old.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SharedFlow {
    key: u64,
    backend: u64,
    remaining: u32,
    state: State,
}

const _: () = assert!(size_of::<SharedFlow>() == SharedFlow::BYTES);

/// Bytes that are no [`SharedFlow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the record of a flow: {what} is {value}, expected {expected}")]
pub struct SharedFlowError {
    what: &'static str,
    value: u32,
    expected: &'static str,
}

const STATES: [(u8, State); 3] = [(1, State::Established), (2, State::Closing), (3, State::Active)];

impl SharedFlow {
    /// How many bytes a record takes.
    pub const BYTES: usize = 24;
    const VERSION: u8 = 1;

    /// None if the flow is not proven.
    #[inline]
    pub(super) fn new(record: &FlowRecord, backend: u64) -> Option<Self> {
        let FlowRecord { key, state, remaining, .. } = record;
        let remaining = u32::try_from(remaining.as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX);
        let flow = Self { key: key.0, backend, remaining, state: *state };
        (state.is_proven() && remaining > 0).then_some(flow)
    }

    /// With the backend's index here.
    #[inline]
    pub(super) fn record(&self, backend: BackendIndex) -> FlowRecord {
        let remaining = TICK.saturating_mul(self.remaining);
        FlowRecord { key: FlowKey(self.key), backend, state: self.state, remaining }
    }

    /// The hash of the flow, which a transport may share flows out by.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The [name](super::BackendNames) of its backend.
    pub fn backend(&self) -> u64 {
        self.backend
    }

    /// For how much longer it is remembered if nothing is heard of it.
    pub fn remaining(&self) -> Duration {
        TICK.saturating_mul(self.remaining)
    }

    /// The record as bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let state = STATES.iter().find(|(_, state)| *state == self.state);
        let head = [Self::VERSION, state.map_or(0, |(code, _)| *code), 0, 0];
        let words = [self.key, self.backend].map(u64::to_be_bytes);
        let parts = [&head[..], &self.remaining.to_be_bytes(), words.as_flattened()];
        let mut bytes = [0; Self::BYTES];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// Another version, or a field with a value that it cannot have.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, SharedFlowError> {
        let wrong = |what, value, expected| Err(SharedFlowError { what, value, expected });
        let [version, code, a, b, c, d, e, f, rest @ ..] = *bytes;
        if version != Self::VERSION {
            return wrong("the version", version.into(), "1");
        }
        let Some((_, state)) = STATES.iter().find(|(known, _)| *known == code) else {
            return wrong("the state", code.into(), "1 to 3");
        };
        let spare = u16::from_be_bytes([a, b]);
        if spare != 0 {
            return wrong("the space after the state", spare.into(), "0");
        }
        let remaining = u32::from_be_bytes([c, d, e, f]);
        if remaining == 0 {
            return wrong("the time that is left", 0, "more than 0");
        }
        let mut words = rest.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        Ok(Self { key: word(), backend: word(), remaining, state: *state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encoding_is_as_specified() {
        let record = FlowRecord {
            key: FlowKey(0x0102_0304_0506_0708),
            backend: BackendIndex::new(5, 1),
            state: State::Closing,
            remaining: Duration::from_nanos(0xa0b0_c0d0 << 27),
        };
        let flow = SharedFlow::new(&record, 0x1112_1314_1516_1718).unwrap();
        let bytes = [
            1, 2, 0, 0, 0xa0, 0xb0, 0xc0, 0xd0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14,
            0x15, 0x16, 0x17, 0x18,
        ];
        assert_eq!(flow.to_bytes(), bytes);
        assert_eq!(SharedFlow::from_bytes(&bytes), Ok(flow));
        assert_eq!(flow.record(record.backend), record);
        assert_eq!((flow.key(), flow.remaining()), (record.key.0, record.remaining));
        for (place, value, what) in [
            (0, 2, "the version is 2, expected 1"),
            (1, 0, "the state is 0, expected 1 to 3"),
            (1, 4, "the state is 4, expected 1 to 3"),
            (3, 9, "the space after the state is 9, expected 0"),
        ] {
            let mut bad = bytes;
            bad[place] = value;
            assert!(SharedFlow::from_bytes(&bad).unwrap_err().to_string().ends_with(what));
        }
        let mut over = bytes;
        over[4..8].fill(0);
        SharedFlow::from_bytes(&over).unwrap_err();
        for state in [State::Opening, State::Single] {
            assert_eq!(SharedFlow::new(&FlowRecord { state, ..record }, 7), None);
        }
        let remaining = TICK - Duration::from_nanos(1);
        assert_eq!(SharedFlow::new(&FlowRecord { remaining, ..record }, 7), None);
    }

    proptest! {
        /// Random bytes are seldom a record, so the first ones are likely to be good.
        #[test]
        fn bytes_are_a_record_of_just_these_bytes_or_none(
            head in [0u8..3, 0u8..5, 0u8..2, 0u8..2], rest: [u8; 20],
        ) {
            let mut bytes = [0; SharedFlow::BYTES];
            bytes[..4].copy_from_slice(&head);
            bytes[4..].copy_from_slice(&rest);
            let good = head[0] == 1 && (1..=3).contains(&head[1]) && head[2..] == [0, 0]
                && rest[..4] != [0; 4];
            match SharedFlow::from_bytes(&bytes) {
                Ok(flow) => prop_assert!(good && flow.to_bytes() == bytes),
                Err(_) => prop_assert!(!good),
            }
        }
    }
}
