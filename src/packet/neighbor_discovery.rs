//! Answering IPv6 neighbour solicitations (RFC 4861) for a VIP that the host does not hold.
//!
//! The functions take the whole frame and the offset of the IPv6 header; VLAN tags before it stay
//! as they are. A solicitation counts only if it passes every check of RFC 4861 section 7.1.1, the
//! checksum included. No bytes make them panic.

mod duplicates;

pub(super) use duplicates::PROBE_LENGTH;
pub use duplicates::{advertised, probe};

use super::checksum;
use super::mac::{MacAddress, is_for, rewrite_mac};
use arrayvec::ArrayVec;
use std::net::Ipv6Addr;

const IPV6_LENGTH: usize = 40;
/// A solicitation or advertisement without options (RFC 4861 sections 4.3 and 4.4).
const MESSAGE_LENGTH: usize = 24;
/// A link-layer address option for Ethernet (RFC 4861 section 4.6.1, RFC 2464 section 6).
const OPTION_LENGTH: usize = 8;
/// An advertisement with its target link-layer address option.
const ADVERTISEMENT_LENGTH: usize = MESSAGE_LENGTH + OPTION_LENGTH;

const NEXT_HEADER_ICMPV6: u8 = 58;
/// What no router can have forwarded (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;
const TYPE_SOLICITATION: u8 = 135;
const TYPE_ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_ADDRESS: u8 = 1;
const OPTION_TARGET_ADDRESS: u8 = 2;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The Ethernet address of [`ALL_NODES`] (RFC 2464 section 7).
const ALL_NODES_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

/// The longest frame that [`answer`] builds: two VLAN tags and an advertisement, and room to spare.
pub const MAX_ANSWER: usize = 128;

/// A valid solicitation that may be answered.
struct Solicitation {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    /// The source link-layer address option.
    source_mac: Option<MacAddress>,
}

impl Solicitation {
    /// Validates what is at `offset` as RFC 4861 section 7.1.1 demands, in its order.
    fn parse(frame: &[u8], offset: usize) -> Option<Self> {
        let packet = frame.get(offset..)?;
        let (header, rest) = packet.split_first_chunk::<IPV6_LENGTH>()?;
        if header[0] >> 4 != 6 || header[6] != NEXT_HEADER_ICMPV6 || header[7] != HOP_LIMIT {
            return None;
        }
        let length = u16::from_be_bytes([header[4], header[5]]);
        let message = rest.get(..usize::from(length))?;
        let source = address(header, 8)?;
        let destination = address(header, 24)?;

        let pseudo =
            checksum::pseudo_header_v6(source, destination, NEXT_HEADER_ICMPV6, length.into());
        let (fixed, options) = message.split_first_chunk::<MESSAGE_LENGTH>()?;
        if checksum::finish(pseudo + checksum::sum(message)) != 0 {
            return None;
        }
        let [kind, code] = [fixed[0], fixed[1]];
        let target = address(fixed, 8)?;
        if kind != TYPE_SOLICITATION || code != 0 || target.is_multicast() {
            return None;
        }
        let source_mac = address_option(options, OPTION_SOURCE_ADDRESS).ok()?;
        if source.is_unspecified()
            && (destination != solicited_node(target) || source_mac.is_some())
        {
            return None;
        }

        // Not in the RFC's list, but nothing to answer either: a group or a loopback as the source
        // cannot be sent to; who solicits its own address announces it.
        let unusable = source.is_multicast() || source.is_loopback() || source == target;
        let bad_mac = source_mac.is_some_and(|mac| mac.is_multicast() || mac.is_zero());
        (!unusable && !bad_mac && !target.is_unspecified()).then_some(Self {
            source,
            destination,
            target,
            source_mac,
        })
    }
}

/// The IPv6 address at `at`, which is a constant inside `bytes`.
fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk().map(|&octets| Ipv6Addr::from_octets(octets))
}

/// What an option list that RFC 4861 section 7.1.1 refuses is: an option of length zero or one
/// that does not fit.
struct BadOptions;

/// The first link-layer address of this kind among `options`, all of which are checked.
fn address_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddress>, BadOptions> {
    let mut found = None;
    // At most (65535 - 24) / 8 turns, since every option takes eight bytes or more.
    while let [kind, units, ..] = *options {
        if units == 0 {
            return Err(BadOptions);
        }
        let (option, rest) =
            options.split_at_checked(usize::from(units) * OPTION_LENGTH).ok_or(BadOptions)?;
        if kind == wanted && units == 1 && found.is_none() {
            found = option.last_chunk().map(|&bytes| MacAddress(bytes));
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(BadOptions) }
}

/// The multicast group an address is solicited by (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// The address that the neighbour solicitation behind the IPv6 header at `ipv6_offset` asks for.
///
/// `None` when there is no solicitation that RFC 4861 section 7.1.1 lets through, or nobody to
/// answer to.
pub fn solicited_target(frame: &[u8], ipv6_offset: usize) -> Option<Ipv6Addr> {
    Solicitation::parse(frame, ipv6_offset).map(|solicitation| solicitation.target)
}

/// Turns the solicitation into the advertisement "the target is at `own`", in place; VLAN tags
/// stay.
///
/// The advertisement is as long as a solicitation that has one option of eight bytes, as Linux
/// sends them; room that is left over becomes zeroes behind the packet. Where there is less room
/// the target link-layer address is left out, which RFC 4861 section 7.2.4 allows in the answer to
/// a unicast solicitation only; for a multicast one use [`answer`].
///
/// Returns whether the frame is now an advertisement; otherwise it is untouched. Frames for another
/// station and frames from `own` itself (our own solicitation, come back) are not answered.
pub fn answer_in_place(frame: &mut [u8], ipv6_offset: usize, own: MacAddress) -> bool {
    let Some((solicitation, requester)) = answerable(frame, ipv6_offset, own) else {
        return false;
    };
    let Some(packet) = frame.get_mut(ipv6_offset..) else {
        return false;
    };
    let has_room = packet.len() >= IPV6_LENGTH + ADVERTISEMENT_LENGTH;
    if !has_room && solicitation.destination.is_multicast() {
        return false;
    }
    let to = reply_to(&solicitation, requester);
    if !write(packet, own, solicitation.target, to, has_room) {
        return false;
    }
    rewrite_mac(frame, to.mac, own)
}

/// The advertisement that answers the solicitation, as a frame of its own with the VLAN tags of
/// the solicitation; for the frames that [`answer_in_place`] finds too short.
///
/// `None` when there is nothing to answer, as there.
pub fn answer(
    frame: &[u8],
    ipv6_offset: usize,
    own: MacAddress,
) -> Option<ArrayVec<u8, MAX_ANSWER>> {
    let (solicitation, requester) = answerable(frame, ipv6_offset, own)?;
    let mut out = ArrayVec::new();
    out.try_extend_from_slice(frame.get(..ipv6_offset)?).ok()?;
    out.try_extend_from_slice(&[0; IPV6_LENGTH + ADVERTISEMENT_LENGTH]).ok()?;
    let to = reply_to(&solicitation, requester);
    let written = write(out.get_mut(ipv6_offset..)?, own, solicitation.target, to, true);
    (written && rewrite_mac(&mut out, to.mac, own)).then_some(out)
}

/// An advertisement that `vip` is at `own`, which nobody asked for: a whole untagged frame for all
/// nodes, overriding what they know (RFC 4861 section 7.2.6).
pub fn unsolicited(own: MacAddress, vip: Ipv6Addr) -> [u8; 86] {
    let mut frame = [0; 14 + IPV6_LENGTH + ADVERTISEMENT_LENGTH];
    rewrite_mac(&mut frame, ALL_NODES_MAC, own);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    let to = ReplyTo { mac: ALL_NODES_MAC, address: ALL_NODES, flags: FLAG_OVERRIDE };
    // Cannot fail: the buffer has the length of what is written.
    write(&mut frame[14..], own, vip, to, true);
    frame
}

/// The solicitation and the requester's MAC, if it was meant for us and came from another station.
fn answerable(frame: &[u8], offset: usize, own: MacAddress) -> Option<(Solicitation, MacAddress)> {
    // The packet may not overlap the addresses that are about to be written.
    if offset < 14 || !is_for(frame, own) {
        return None;
    }
    let sender = MacAddress(*frame.get(6..)?.first_chunk()?);
    let solicitation = Solicitation::parse(frame, offset)?;
    let requester = solicitation.source_mac.unwrap_or(sender);
    let usable = !requester.is_multicast() && !requester.is_zero();
    (usable && requester != own && sender != own).then_some((solicitation, requester))
}

#[derive(Clone, Copy)]
struct ReplyTo {
    mac: MacAddress,
    address: Ipv6Addr,
    flags: u8,
}

/// RFC 4861 section 7.2.4: to the source, or to all nodes and not "solicited" when the source is
/// unspecified, that is when somebody probes for duplicates (RFC 4862 section 5.4).
fn reply_to(solicitation: &Solicitation, requester: MacAddress) -> ReplyTo {
    if solicitation.source.is_unspecified() {
        ReplyTo { mac: ALL_NODES_MAC, address: ALL_NODES, flags: FLAG_OVERRIDE }
    } else {
        ReplyTo {
            mac: requester,
            address: solicitation.source,
            flags: FLAG_SOLICITED | FLAG_OVERRIDE,
        }
    }
}

/// Writes IPv6 header and advertisement to the start of `packet` and zeroes to the rest of it.
/// Returns whether there was room; without it nothing is written.
fn write(
    packet: &mut [u8],
    own: MacAddress,
    target: Ipv6Addr,
    to: ReplyTo,
    with_option: bool,
) -> bool {
    let length = if with_option { ADVERTISEMENT_LENGTH } else { MESSAGE_LENGTH };
    let Some((used, left_over)) = packet.split_at_mut_checked(IPV6_LENGTH + length) else {
        return false;
    };
    let Some((header, message)) = used.split_first_chunk_mut::<IPV6_LENGTH>() else {
        return false;
    };
    let Some((fixed, option)) = message.split_first_chunk_mut::<MESSAGE_LENGTH>() else {
        return false;
    };
    left_over.fill(0);

    *header = [0; IPV6_LENGTH];
    header[0] = 6 << 4;
    header[5] = length as u8;
    header[6] = NEXT_HEADER_ICMPV6;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&target.octets());
    header[24..40].copy_from_slice(&to.address.octets());

    *fixed = [0; MESSAGE_LENGTH];
    fixed[0] = TYPE_ADVERTISEMENT;
    fixed[4] = to.flags;
    fixed[8..24].copy_from_slice(&target.octets());
    if let Some(option) = option.first_chunk_mut::<OPTION_LENGTH>() {
        option[..2].copy_from_slice(&[OPTION_TARGET_ADDRESS, 1]);
        option[2..].copy_from_slice(&own.0);
    }

    let pseudo = checksum::pseudo_header_v6(target, to.address, NEXT_HEADER_ICMPV6, length as u32);
    let sum = checksum::finish(pseudo + checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
#[path = "neighbor_discovery_tests.rs"]
mod tests;
