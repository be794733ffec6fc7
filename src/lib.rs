//! dsrlb

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub mod balancer;
pub mod config;
pub mod dataplane;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub mod director;
pub mod error;
pub mod flow;
pub mod health;
pub mod packet;
pub mod verdict;

pub use ipnet::IpNet;
