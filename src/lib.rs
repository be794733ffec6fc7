//! dsrlb

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub mod balancer;
pub mod config;
pub mod dataplane;
pub mod error;
pub mod flow;
pub mod packet;
pub mod verdict;

pub use ipnet::IpNet;
