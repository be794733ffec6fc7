//! What is asked of an interface: modes, queues and the memory for frames.

use super::error::XdpError;
use super::memory;
use super::modes::{AttachMode, CopyMode};
use super::sockopt::USUAL_TRANSMIT_BUDGET;
use crate::dataplane::{Cores, MAX_BATCH, Polling};

/// What the kernel leaves free before each received packet, in bytes (`XDP_PACKET_HEADROOM`).
pub(super) const PACKET_HEADROOM: u32 = 256;
/// An Ethernet header and two VLAN tags, in bytes: what a frame has beyond the MTU.
const FRAME_OVERHEAD: u32 = 14 + 2 * 4;

/// How [`XdpInterface::open`](super::XdpInterface::open) is to set up an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpOptions {
    /// Other interfaces that frames can leave by, besides the one they come in by. Each queue sends
    /// by the TX queue of its own number there, from the same memory. Then all are in copy mode:
    /// the kernel has memory that is shared between interfaces either copied for all or for none,
    /// and drivers with zero-copy want an XDP program on an interface that only sends, too.
    pub egress: Vec<String>,
    /// Where the XDP program runs.
    pub attach: AttachMode,
    /// Whether frames are copied.
    pub copy: CopyMode,
    /// How many RX queues get a socket, from queue 0 on; `None` is all of them. What arrives on a
    /// queue without a socket stays with the kernel.
    pub queues: Option<u32>,
    /// Frames of memory per queue: a power of two from 64 to 1,048,576. The RX, TX and completion
    /// rings hold as many, so what has been received can always be sent.
    pub frames_per_queue: u32,
    /// Bytes of memory per frame: a power of two from 2048 to the size of a memory page. 256 of
    /// them are the kernel's; larger packets are dropped and counted.
    pub frame_size: u32,
    /// Whether the memory for frames is of huge pages, which the operator has to reserve
    /// (`sysctl vm.nr_hugepages`). Not unless told: it spares misses of the core's address cache
    /// where each queue has tens of megabytes, and is of no use otherwise. A queue takes whole huge
    /// pages, so it must have memory for at least one.
    pub huge_pages: bool,
    /// How many frames one system call sends in copy mode, from 32 to `frames_per_queue`; 64, a whole
    /// batch, unless told. Before Linux 6.18 it is 32. More is of no use unless frames pile up in
    /// the TX ring.
    pub transmit_budget: u32,
    /// What a worker does while there is nothing to receive.
    pub polling: Polling,
    /// How many packets [`Polling::Busy`] takes from the NIC at a time, from 1 to 65535; 64, a whole batch,
    /// unless told. Fewer are handed on sooner, and cost more each.
    pub busy_poll_budget: u16,
    /// Which core the worker of each queue runs on.
    pub cores: Cores,
    /// How many single addresses can be redirected per address family.
    pub max_addresses: u32,
    /// How many prefixes can be redirected per address family.
    pub max_prefixes: u32,
}

impl Default for XdpOptions {
    fn default() -> Self {
        Self {
            egress: Vec::new(),
            attach: AttachMode::Auto,
            copy: CopyMode::Auto,
            queues: None,
            frames_per_queue: 4096,
            frame_size: 2048,
            huge_pages: false,
            transmit_budget: MAX_BATCH as u32,
            polling: Polling::Sleep,
            busy_poll_budget: MAX_BATCH as u16,
            cores: Cores::Any,
            max_addresses: 4096,
            max_prefixes: 1024,
        }
    }
}

impl XdpOptions {
    /// Checks every field on its own and those that must agree.
    pub(super) fn validate(&self) -> Result<(), XdpError> {
        let power_within =
            |value: u32, low, high| value.is_power_of_two() && (low..=high).contains(&value);
        let huge =
            || memory::huge_page_size().is_some_and(|page| self.memory().is_multiple_of(page));
        let checks = [
            (
                power_within(self.frames_per_queue, 64, 1 << 20),
                "frames_per_queue",
                self.frames_per_queue.to_string(),
                "a power of two from 64 to 1048576",
            ),
            (
                power_within(self.frame_size, 2048, 1 << 16),
                "frame_size",
                self.frame_size.to_string(),
                "a power of two from 2048 to the size of a memory page",
            ),
            (
                self.queues != Some(0),
                "queues",
                "0".to_owned(),
                "at least one, or none for every queue",
            ),
            (
                (USUAL_TRANSMIT_BUDGET..=self.frames_per_queue).contains(&self.transmit_budget),
                "transmit_budget",
                self.transmit_budget.to_string(),
                "32 to frames_per_queue",
            ),
            (
                !self.huge_pages || huge(),
                "huge_pages",
                "true".to_owned(),
                "false, or frames_per_queue times frame_size to be a multiple of a huge page \
                 (Hugepagesize in /proc/meminfo; without that line the kernel has none)",
            ),
            (self.busy_poll_budget > 0, "busy_poll_budget", "0".to_owned(), "1 to 65535"),
            (
                (1..=1 << 20).contains(&self.max_addresses),
                "max_addresses",
                self.max_addresses.to_string(),
                "1 to 1048576",
            ),
            (
                (1..=1 << 20).contains(&self.max_prefixes),
                "max_prefixes",
                self.max_prefixes.to_string(),
                "1 to 1048576",
            ),
            (
                self.attach != AttachMode::Generic || self.copy != CopyMode::ZeroCopy,
                "copy",
                CopyMode::ZeroCopy.to_string(),
                "auto or copy: the generic hook has nothing to share with the driver",
            ),
            (
                self.egress.is_empty() || self.copy != CopyMode::ZeroCopy,
                "copy",
                CopyMode::ZeroCopy.to_string(),
                "auto or copy: memory that egress interfaces share is copied",
            ),
            (
                self.egress.len() < usize::from(u8::MAX),
                "egress",
                self.egress.len().to_string(),
                "at most 254 interfaces",
            ),
        ];
        match checks.into_iter().find(|(valid, ..)| !valid) {
            None => Ok(()),
            Some((_, field, value, expected)) => Err(XdpError::Option { field, value, expected }),
        }
    }

    /// Memory for the frames of each queue, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        u64::from(self.frames_per_queue) * u64::from(self.frame_size)
    }

    /// The longest frame that fits, in bytes, from the destination MAC on.
    pub(super) fn room(&self) -> u32 {
        self.frame_size - PACKET_HEADROOM
    }

    /// The longest frame an interface with this MTU receives, in bytes.
    pub(super) fn longest_frame(mtu: u32) -> u32 {
        mtu.saturating_add(FRAME_OVERHEAD)
    }

    /// The largest MTU that the frames have room for, in bytes.
    pub(crate) fn largest_mtu(&self) -> u32 {
        self.room().saturating_sub(FRAME_OVERHEAD)
    }

    /// The smallest frame size that has room for this MTU.
    pub(crate) fn frame_size_for(mtu: u32) -> u32 {
        Self::longest_frame(mtu)
            .saturating_add(PACKET_HEADROOM)
            .checked_next_power_of_two()
            .unwrap_or(1 << 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_each_bad_field_is_named() {
        type Spoil = fn(&mut XdpOptions);
        let spoilers: [(&str, Spoil); 9] = [
            ("frames_per_queue", |o| o.frames_per_queue = 1000),
            ("frame_size", |o| o.frame_size = 1024),
            ("queues", |o| o.queues = Some(0)),
            ("transmit_budget", |o| o.transmit_budget = 31),
            ("transmit_budget", |o| o.transmit_budget = o.frames_per_queue + 1),
            ("busy_poll_budget", |o| o.busy_poll_budget = 0),
            ("max_addresses", |o| o.max_addresses = 0),
            ("max_prefixes", |o| o.max_prefixes = 0),
            ("copy", |o| {
                o.attach = AttachMode::Generic;
                o.copy = CopyMode::ZeroCopy;
            }),
        ];
        XdpOptions::default().validate().unwrap();
        for (name, spoil) in spoilers {
            let mut options = XdpOptions::default();
            spoil(&mut options);
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_mtu_of_1500_fits_the_default_frame_and_1771_does_not() {
        let room = XdpOptions::default().room();
        assert!(XdpOptions::longest_frame(1500) <= room);
        assert!(XdpOptions::longest_frame(1770) <= room);
        assert!(XdpOptions::longest_frame(1771) > room);
        assert_eq!(XdpOptions::frame_size_for(1500), 2048);
        assert_eq!(XdpOptions::frame_size_for(1771), 4096);
        assert_eq!(XdpOptions::frame_size_for(9000), 16384);
    }
}
