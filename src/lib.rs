//! dsrlb

#![deny(unsafe_code)]

pub mod dataplane;
pub mod error;
pub mod flow;
pub mod health;
pub mod packet;
pub mod verdict;

pub use ipnet::IpNet;
