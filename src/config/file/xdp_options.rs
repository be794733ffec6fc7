//! What `[dataplane]` says to the AF_XDP driver.

use super::dataplane::{Dataplane, Mode};
use crate::dataplane::af_xdp::{AttachMode, CopyMode, XdpOptions};

impl Dataplane {
    /// Modes, queues, memory, and the interfaces that frames leave by.
    pub fn xdp_options(&self) -> XdpOptions {
        let usual = XdpOptions::default();
        let (attach, copy) = match self.mode.unwrap_or_default() {
            Mode::Auto => (AttachMode::Auto, CopyMode::Auto),
            Mode::ZeroCopy => (AttachMode::Native, CopyMode::ZeroCopy),
            Mode::Copy => (AttachMode::Auto, CopyMode::Copy),
            Mode::Generic => (AttachMode::Generic, CopyMode::Copy),
        };
        let vips = u32::try_from(self.limits().services).unwrap_or(u32::MAX);
        XdpOptions {
            egress: self.egress().map(str::to_owned).collect(),
            attach,
            copy,
            queues: self.queues.map(u32::from),
            frames_per_queue: self.frames_per_queue.map_or(usual.frames_per_queue, u32::from),
            frame_size: self.frame_size.map_or(usual.frame_size, u32::from),
            huge_pages: self.huge_pages.unwrap_or(usual.huge_pages),
            transmit_budget: self.transmit_budget.map_or(usual.transmit_budget, u32::from),
            polling: self.polling.unwrap_or(usual.polling),
            busy_poll_budget: self.busy_poll_budget.map_or(usual.busy_poll_budget, u16::from),
            cores: self.cores.clone().unwrap_or(usual.cores),
            max_addresses: usual.max_addresses.max(vips),
            max_prefixes: usual.max_prefixes.max(vips),
        }
    }
}
