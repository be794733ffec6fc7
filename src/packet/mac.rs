//! MAC addresses, and the rewrite that is all of Direct Server Return on one link.

use crate::error::ParseError;
use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, which no station has.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set: multicast, broadcast included (IEEE 802-2014 section 8.2.2).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether all bits are zero.
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            ParseError::new("MAC address", text, "six hexadecimal bytes, as in 02:00:5e:10:00:01")
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or_else(error)
    }
}

/// Addresses `frame` to the next hop `destination`, from our `source`; nothing else changes.
///
/// Returns whether the frame was long enough to have both addresses; a shorter one is untouched.
#[inline]
pub fn rewrite_mac(frame: &mut [u8], destination: MacAddress, source: MacAddress) -> bool {
    let Some(addresses) = frame.first_chunk_mut::<12>() else {
        return false;
    };
    let (to, from) = addresses.split_at_mut(6);
    to.copy_from_slice(&destination.0);
    from.copy_from_slice(&source.0);
    true
}

/// Whether a station with the address `own` takes the frame: it is for `own` or for a group.
///
/// A port in promiscuous mode also receives what a switch floods for others.
#[inline]
pub(crate) fn is_for(frame: &[u8], own: MacAddress) -> bool {
    frame.first_chunk().map(|&to| MacAddress(to)).is_some_and(|to| to == own || to.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let mac: MacAddress = "02:00:5e:10:00:0F".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:0f");
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:0f:00",
            "2:0:5e:10:0:f",
            "02:00:5e:10:00:+f",
            "zz:00:5e:10:00:01",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn rewrites_twelve_bytes_and_no_other(mut frame: Vec<u8>, to: [u8; 6], from: [u8; 6]) {
            let before = frame.clone();
            let done = rewrite_mac(&mut frame, MacAddress(to), MacAddress(from));
            prop_assert_eq!(done, before.len() >= 12);
            if done {
                prop_assert_eq!(&frame[..6], &to);
                prop_assert_eq!(&frame[6..12], &from);
                prop_assert_eq!(&frame[12..], &before[12..]);
            } else {
                prop_assert_eq!(frame, before);
            }
        }
    }
}
