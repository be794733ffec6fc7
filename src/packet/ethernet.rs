//! Ethernet II framing and VLAN tags (IEEE 802.3 clause 3, IEEE 802.1Q-2022 clause 9).

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
