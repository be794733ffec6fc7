//! The AF_XDP driver: frames for our addresses come from the NIC's queues to user space and go
//! back, past the kernel's network stack.
//!
//! An XDP program, `redirect.bpf.c`, runs for each received frame. Those that are addressed to
//! this station and to one of the addresses set with [`XdpInterface::redirect`] it gives to the
//! socket of the queue they arrived on, an [`XdpQueue`]; all others it passes to the kernel. One
//! tag of a VLAN or two are looked through, whatever the VLAN.
//!
//! ```no_run
//! use dsrlb::dataplane::af_xdp::{Answer, XdpInterface, XdpOptions};
//! use dsrlb::dataplane::{Action, PacketIo};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut interface = XdpInterface::open("eth1", &XdpOptions::default())?;
//! let mut queues = interface.take_queues();
//! interface.redirect(&[("192.0.2.10/32".parse()?, Answer::Kernel)])?;
//! interface.attach()?;
//! println!("{:?}", interface.granted());
//! for queue in &mut queues {
//!     queue.poll(Duration::from_millis(100), &mut |frames| {
//!         for frame in frames {
//!             frame.set_action(Action::Release);
//!         }
//!     })?;
//! }
//! interface.detach();
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - A packet that another namespace of the same host sends over a veth pair may lack its checksum
//!   (`CHECKSUM_PARTIAL`), which no one completes once it is forwarded from here: switch transmit
//!   offloads off where it comes from, `ethtool -K IF tx off`.
//! - GRO and LRO merge packets into ones larger than a frame only in generic mode and on veth; such
//!   are dropped and counted as `receive_dropped`.
//! - A tag that the NIC has taken out of the frame is not seen; [`XdpInterface::warnings`] says
//!   where that may be.
//! - A program that another thread starts while [`XdpInterface::open`] runs may inherit a socket and
//!   hold its queue for as long as it lives (libxdp opens sockets without close-on-exec, which is set
//!   right after). Open interfaces before there are such threads.
//! - Sending bypasses the queueing discipline of the interface.

// The only module that may: here are system calls without a safe wrapper, and memory that is
// shared with the kernel. Each block says why it is sound.
#![allow(unsafe_code)]

mod addresses;
mod attached;
mod cores;
mod device;
mod error;
pub(crate) mod ethtool;
mod granted;
mod huge_pages;
mod interface;
mod link;
mod link_socket;
mod memory;
mod modes;
mod options;
mod program;
mod queue;
mod rings;
mod socket;
mod sockopt;
mod tx_port;
mod tx_ring;

pub use addresses::Answer;
pub(crate) use attached::{holder, program_name};
pub use cores::pin_thread;
pub use device::DeviceStats;
pub use error::XdpError;
pub use granted::{Attached, Granted};
pub use huge_pages::prefer_huge_pages;
pub use interface::{XdpInterface, XdpPort};
pub(crate) use link_socket::LinkSocket;
pub(crate) use memory::{huge_page_size, page_size};
pub use modes::{AttachMode, CopyMode};
pub use options::XdpOptions;
pub use program::RedirectStats;
pub use queue::{FrameCensus, XdpQueue};
