//! Ethernet II framing and VLAN tags (IEEE 802.3 clause 3, IEEE 802.1Q-2022 clause 9).

use super::mac::MacAddress;
use crate::verdict::DropReason;

/// An EtherType: what the payload of a frame is.
///
/// A newtype over the wire value: every value can arrive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// The Address Resolution Protocol.
    pub const ARP: Self = Self(0x0806);
    /// A customer VLAN tag (802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// A service VLAN tag (802.1ad, "QinQ").
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN)
    }
}

/// The most VLAN tags that are looked behind: a service tag and a customer tag.
pub const MAX_VLAN_TAGS: usize = 2;

/// Destination and source address.
const ADDRESSES: usize = 12;
/// A VLAN tag: its own EtherType and the tag control information.
const TAG: usize = 4;

/// The longest Ethernet header: addresses, tags and EtherType.
pub const MAX_ETHERNET_HEADER: usize = ADDRESSES + MAX_VLAN_TAGS * TAG + 2;
/// The shortest, without tags.
const MIN_ETHERNET_HEADER: usize = ADDRESSES + 2;

/// What becomes of a frame's VLAN tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Tags {
    /// They stay.
    #[default]
    Keep,
    /// They are taken away.
    Remove,
    /// One 802.1Q tag with this VLAN id, 1 to 4094, takes their place. It has the priority of the
    /// outermost of them.
    Set(u16),
}

/// An Ethernet header with its tags.
#[derive(Clone, Copy, Debug)]
pub struct EthernetHeader {
    bytes: [u8; MAX_ETHERNET_HEADER],
    length: usize,
}

impl EthernetHeader {
    /// The header for a packet that came in a frame with the header `old`, tags included.
    #[inline]
    pub fn new(
        old: &[u8],
        destination: MacAddress,
        source: MacAddress,
        tags: Tags,
        ether_type: EtherType,
    ) -> Self {
        let mut header = Self { bytes: [0; MAX_ETHERNET_HEADER], length: ADDRESSES };
        let (to, rest) = header.bytes.split_at_mut(6);
        to.copy_from_slice(&destination.0);
        if let Some(from) = rest.first_chunk_mut() {
            *from = source.0;
        }
        // Most frames have no tags, and stay without.
        if old.len() > MIN_ETHERNET_HEADER || matches!(tags, Tags::Set(_)) {
            header.tag(old.get(ADDRESSES..old.len().saturating_sub(2)).unwrap_or_default(), tags);
        }
        header.push(&ether_type.0.to_be_bytes());
        header
    }

    #[cold]
    fn tag(&mut self, old: &[u8], tags: Tags) {
        /// Priority and drop eligibility (IEEE 802.1Q-2022 section 9.6).
        const PRIORITY: u16 = 0xf000;
        match tags {
            Tags::Keep => self.push(old.get(..MAX_VLAN_TAGS * TAG).unwrap_or(old)),
            Tags::Remove => {}
            Tags::Set(id) => {
                let priority = match old {
                    [_, _, c0, c1, ..] => u16::from_be_bytes([*c0, *c1]) & PRIORITY,
                    _ => 0,
                };
                self.push(&EtherType::VLAN.0.to_be_bytes());
                self.push(&(priority | id & !PRIORITY).to_be_bytes());
            }
        }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Writes it to the beginning of `frame`, if that is as long.
    #[inline]
    pub fn write(&self, frame: &mut [u8]) {
        const PLAIN: usize = MIN_ETHERNET_HEADER;
        match (self.length, frame.first_chunk_mut::<PLAIN>(), self.bytes.first_chunk::<PLAIN>()) {
            (PLAIN, Some(place), Some(bytes)) => *place = *bytes,
            _ => {
                if let Some(place) = frame.get_mut(..self.length) {
                    place.copy_from_slice(self.bytes());
                }
            }
        }
    }
}

/// Finds the payload of a frame: its EtherType and its offset, behind all VLAN tags.
///
/// A type below 0x0600 is an IEEE 802.3 length, and comes out as it is: it is nothing of ours.
#[inline]
pub(super) fn payload(frame: &[u8]) -> Result<(EtherType, usize), DropReason> {
    let mut at = ADDRESSES;
    for _ in 0..=MAX_VLAN_TAGS {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
        let ether_type =
            EtherType(u16::from_be_bytes(*bytes.ok_or(DropReason::EthernetTruncated)?));
        if !ether_type.is_vlan() {
            return Ok((ether_type, at + 2));
        }
        at += TAG;
    }
    Err(DropReason::VlanTooDeep)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
    const FROM: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    #[test]
    fn tags_are_kept_removed_or_replaced() {
        let addresses = [TO.0, FROM.0].concat();
        let old = |tags: &[u8]| [&[9; 12], tags, &[8, 0]].concat();
        let one = [0x81, 0, 0x60, 10];
        let two = [0x88, 0xa8, 0xe0, 1, 0x81, 0, 0x60, 10];
        for (before, tags, after) in [
            (&[][..], Tags::Keep, &[][..]),
            (&one, Tags::Keep, &one),
            (&two, Tags::Keep, &two),
            (&[], Tags::Remove, &[]),
            (&two, Tags::Remove, &[]),
            (&[], Tags::Set(20), &[0x81, 0, 0, 20]),
            (&one, Tags::Set(20), &[0x81, 0, 0x60, 20]),
            (&two, Tags::Set(4094), &[0x81, 0, 0xef, 0xfe]),
        ] {
            let header = EthernetHeader::new(&old(before), TO, FROM, tags, EtherType::IPV6);
            let expected = [&addresses, after, &[0x86, 0xdd]].concat();
            assert_eq!(header.bytes(), expected, "{before:x?} {tags:?}");
            assert_eq!(payload(header.bytes()), Ok((EtherType::IPV6, expected.len())));
            let mut frame = [9; 30];
            header.write(&mut frame);
            assert_eq!(frame[..expected.len()], expected);
            assert!(frame[expected.len()..].iter().all(|byte| *byte == 9));
        }
    }

    #[test]
    fn no_header_is_too_short_or_too_long_to_be_replaced() {
        for length in 0..64 {
            let header =
                EthernetHeader::new(&vec![7; length], TO, FROM, Tags::Keep, EtherType::IPV4);
            assert!((14..=MAX_ETHERNET_HEADER).contains(&header.bytes().len()));
            header.write(&mut vec![0; length]);
        }
    }
}
