//! Packets as bytes: parsing and rewriting, pure.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
mod mac;
pub mod neighbor_discovery;

pub use mac::{MacAddress, rewrite_mac};
