//! Packets as bytes: parsing and rewriting, pure.

#![forbid(unsafe_code)]

mod mac;

pub use mac::{MacAddress, rewrite_mac};
