//! What is sent and what has to arrive: frames for a VIP, and how a right forwarder changes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// Backends and the client have MAC addresses that differ in the last byte alone.
pub const CLIENT: u8 = 63;
pub const FIRST_BACKEND: u8 = 11;
pub const BACKENDS: u8 = 16;
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 100);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x100);
pub const PORT: u16 = 80;
/// The size of `struct plan`.
pub const SIZE: usize = 112;

const HEADER: usize = 64;

/// The MAC address of the backend, or of the client, with this number.
pub fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, number]
}

pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The address of the backend with this number, of the VIP's family.
pub fn backend(number: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, number.into()).into()
    } else {
        Ipv4Addr::new(10, 88, 0, number).into()
    }
}

/// What goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frames {
    /// Bytes of a frame, from the destination MAC address on, without the frame check sequence.
    pub size: usize,
    pub ipv6: bool,
    /// How many flows, a power of two; they come in turns.
    pub flows: u64,
}

/// How fast, and with what in it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Pace {
    /// Frames a second; none is as many as can be.
    pub rate: Option<f64>,
    /// Whether each frame says when it was sent. IPv4 alone: an IPv6 frame of 64 bytes has no room.
    pub stamped: bool,
}

impl Frames {
    /// A frame of them, without what the generator fills in.
    pub fn template(&self) -> Vec<u8> {
        let mut frame = [DIRECTOR_MAC, mac(CLIENT)].concat();
        let payload = self.size - 14;
        if self.ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(((payload - 40) as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0).octets());
            frame.extend(VIP6.octets());
        } else {
            let mut header = vec![0x45, 0];
            header.extend((payload as u16).to_be_bytes());
            header.extend([0, 0, 0, 0, 64, 17, 0, 0, 100, 64, 0, 0]);
            header.extend(VIP4.octets());
            let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let sum: u32 = words.sum();
            let check = !((sum & 0xffff) + (sum >> 16)) as u16;
            header[10..12].copy_from_slice(&check.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(header);
        }
        let length = (self.size - frame.len()) as u16;
        frame.extend([0, 0]);
        frame.extend(PORT.to_be_bytes());
        frame.extend(length.to_be_bytes());
        // No checksum of UDP: none that forwards looks at it.
        frame.extend([0, 0]);
        frame.resize(self.size, 0x5a);
        frame
    }

    /// `struct plan` of `traffic.bpf.c`; `outer` is how many bytes of headers the forwarder adds.
    pub fn plan(&self, pace: Pace, outer: usize) -> [u8; SIZE] {
        let template = self.template();
        let gap = pace.rate.map_or(0, |rate| (1e9 / rate) as u64);
        let (source, port, target) = if self.ipv6 { (36, 54, 50) } else { (28, 34, 30) };
        let stamp = if pace.stamped { 42 + outer as u32 } else { 0 };
        let target = target + outer;
        let vip: [u8; 4] = if self.ipv6 { [0, 0, 1, 0] } else { VIP4.octets() };
        let mut bytes = template[..HEADER].to_vec();
        bytes.extend(gap.to_ne_bytes());
        bytes.extend((self.flows - 1).to_ne_bytes());
        for number in [source, port, (self.size + outer) as u32, target as u32] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(vip);
        bytes.extend(stamp.to_ne_bytes());
        bytes.extend(DIRECTOR_MAC);
        bytes.extend(&template[12..14]);
        let mut plan = [0; SIZE];
        plan.copy_from_slice(&bytes);
        plan
    }
}
