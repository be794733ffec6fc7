//! Packets as bytes: parsing and rewriting, pure.
//!
//! # Contract
//!
//! Nothing here performs I/O, reads a clock, allocates, or panics, whatever bytes it is given;
//! the fuzz targets `parse` and `rewrite` hold it to that. Lengths come from the headers and are
//! checked against the frame before they are used, and Ethernet padding is never taken for
//! payload. All numbers are host order once read; addresses and MACs keep the order of the wire.
//!
//! [`parse`] reads a frame from the outside in and answers with one of three things: an IP packet
//! with the offsets of its parts, something that is not IP, or bytes that are malformed and why.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
mod claim;
mod common;
mod cut;
mod ethernet;
mod hop_limit;
pub mod icmp;
mod ipv4;
mod ipv6;
mod l3dsr;
mod mac;
pub mod neighbor_discovery;
mod parse;
mod quic;
mod transport;
mod tunnel;

pub use claim::{Claim, MAX_QUESTION, claim, question};
pub(crate) use common::{LEAST, glance};
pub use cut::Cut;
pub use ethernet::{EtherType, EthernetHeader, MAX_ETHERNET_HEADER, MAX_VLAN_TAGS, Tags};
pub(crate) use hop_limit::decrement_ttl;
pub use hop_limit::{decrement_hop_limit, hop_limit};
pub use ipv4::Ipv4Header;
pub use ipv6::{Ipv6Header, MAX_EXTENSION_HEADERS};
pub use l3dsr::rewrite_l3dsr;
pub use mac::{MacAddress, rewrite_mac};
pub(crate) use parse::{Content, parse_into};
pub use parse::{Parse, Parsed, parse};
pub use quic::connection_id;
pub use transport::Transport;
pub(crate) use tunnel::OuterIpv4;
pub use tunnel::{OuterFragmentation, TunnelPath, encapsulate};
