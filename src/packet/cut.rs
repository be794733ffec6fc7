//! Cutting a packet into fragments: IPv4 (RFC 791 section 3.2), and IPv6 by its source (RFC 8200
//! section 4.5), which a director is to the outer packets of its tunnels.

use super::checksum;

/// Every link takes fragments of IPv4 packets of this size (RFC 791 section 3.2).
const SMALLEST_MTU: usize = 68;
/// IPv6's fixed header, and the header of a fragment.
const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const FRAGMENT: u8 = 44;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;
const OFFSET: u16 = 0x1fff;

/// How a packet is cut up: each piece but the last holds as many bytes as fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    is_ipv6: bool,
    /// Bytes of the packet\'s own header, which each piece repeats.
    header: usize,
    /// Bytes behind it.
    payload: usize,
    /// Payload bytes of each piece but the last: a multiple of eight.
    step: usize,
    identification: u32,
}

impl Cut {
    /// How `packet`, an IP packet and nothing else, is cut into pieces of at most `mtu` bytes.
    /// `identification` is for IPv6; IPv4 packets have their own, and fragments are cut further.
    ///
    /// None if it cannot be: IPv4 says "don\'t fragment", IPv6 has extension headers, which outer
    /// packets of tunnels have not, or the MTU is below what each link takes.
    pub fn new(packet: &[u8], mtu: usize, identification: u32) -> Option<Self> {
        let first = *packet.first()?;
        let (is_ipv6, header, room) = match first >> 4 {
            4 => {
                let flags = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]);
                let header = usize::from(first & 0x0f) * 4;
                if flags & DONT_FRAGMENT != 0 || header < 20 {
                    return None;
                }
                (false, header, mtu.checked_sub(header)?)
            }
            6 => (true, IPV6_HEADER, mtu.checked_sub(IPV6_HEADER + FRAGMENT_HEADER)?),
            _ => return None,
        };
        let payload = packet.len().checked_sub(header)?;
        let step = room / 8 * 8;
        if mtu < SMALLEST_MTU || step == 0 {
            return None;
        }
        Some(Self { is_ipv6, header, payload, step, identification })
    }

    /// The number of pieces, at least one.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.step).max(1)
    }

    /// The bytes of piece `number`, counted from zero, IP header included.
    pub fn length(&self, number: usize) -> usize {
        let payload = self.payload.saturating_sub(number * self.step).min(self.step);
        self.header + if self.is_ipv6 { FRAGMENT_HEADER } else { 0 } + payload
    }

    /// Writes piece `number` of `packet` to `out`, which is as long as it. Returns whether it could
    /// be; it can for the packet that this was made for.
    pub fn write(&self, packet: &[u8], number: usize, out: &mut [u8]) -> bool {
        let written = if self.is_ipv6 {
            self.write_v6(packet, number, out)
        } else {
            self.write_v4(packet, number, out)
        };
        written.is_some()
    }

    /// Where in the payload piece `number` begins, and whether another follows.
    fn place(&self, number: usize) -> (usize, bool) {
        (number * self.step, number + 1 < self.count())
    }

    fn write_v4(&self, packet: &[u8], number: usize, out: &mut [u8]) -> Option<()> {
        let (begin, follows) = self.place(number);
        let length = u16::try_from(out.len()).ok()?;
        let (header, payload) = out.split_at_mut_checked(self.header)?;
        header.copy_from_slice(packet.get(..self.header)?);
        payload.copy_from_slice(packet.get(self.header + begin..)?.get(..payload.len())?);
        if number > 0 {
            keep_copied_options(header.get_mut(20..)?);
        }
        if let [_, _, l0, l1, _, _, f0, f1, _, _, c0, c1, ..] = header {
            let field = u16::from_be_bytes([*f0, *f1]);
            let offset = usize::from(field & OFFSET) + begin / 8;
            // A fragment that is cut further keeps its place, and its last piece its "more".
            let more = if follows { MORE_FRAGMENTS } else { field & MORE_FRAGMENTS };
            [*f0, *f1] = (u16::try_from(offset).ok()? & OFFSET | more).to_be_bytes();
            [*l0, *l1] = length.to_be_bytes();
            [*c0, *c1] = [0, 0];
        }
        let sum = checksum::checksum(header);
        header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
        Some(())
    }

    fn write_v6(&self, packet: &[u8], number: usize, out: &mut [u8]) -> Option<()> {
        let (begin, follows) = self.place(number);
        let payload_length = u16::try_from(out.len().checked_sub(IPV6_HEADER)?).ok()?;
        let (header, rest) = out.split_at_mut_checked(IPV6_HEADER)?;
        let (fragment, payload) = rest.split_at_mut_checked(FRAGMENT_HEADER)?;
        header.copy_from_slice(packet.get(..IPV6_HEADER)?);
        payload.copy_from_slice(packet.get(IPV6_HEADER + begin..)?.get(..payload.len())?);
        let [_, _, _, _, l0, l1, next, ..] = header else {
            return None;
        };
        // 13 bits of offset in units of eight bytes, two reserved, one "more".
        let [o0, o1] = (u16::try_from(begin).ok()? | u16::from(follows)).to_be_bytes();
        let [i0, i1, i2, i3] = self.identification.to_be_bytes();
        fragment.copy_from_slice(&[*next, 0, o0, o1, i0, i1, i2, i3]);
        *next = FRAGMENT;
        [*l0, *l1] = payload_length.to_be_bytes();
        Some(())
    }
}

/// Options without the "copied" flag are in the first piece only (RFC 791 section 3.1); elsewhere
/// "no operation" takes their place, so that the header keeps its length.
fn keep_copied_options(mut options: &mut [u8]) {
    const COPIED: u8 = 0x80;
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    loop {
        let length = match options {
            [END, ..] | [] => return,
            [NO_OPERATION, ..] => 1,
            [_, length, ..] => usize::from(*length),
            [_] => return,
        };
        let kind = options.first().copied().unwrap_or(END);
        let Some((option, rest)) = options.split_at_mut_checked(length) else {
            return;
        };
        if option.is_empty() || (kind != NO_OPERATION && length < 2) {
            return;
        }
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
