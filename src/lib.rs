//! An embeddable layer-4 load balancer for Direct Server Return.
//!
//! Clients send to a *virtual IP* (VIP). Its packets reach the *director*, which is this library;
//! it picks a *backend* for each by hashing and delivers the packet as it is: with other MAC
//! addresses on its own link, through a tunnel beyond it. The backend holds the VIP on a loopback interface and answers the client
//! directly. So the director sees the small half of every connection and carries none of the large
//! one.
//!
//! # The map
//!
//! | module | what | needs |
//! |---|---|---|
//! | [`flow`], [`forwarding`], [`verdict`], [`error`] | the words everything else is said in | nothing |
//! | [`packet`] | frames as bytes: parse, rewrite, answer; pure | nothing |
//! | [`balancer`] | services, policies, which backend; pure | nothing |
//! | [`health`] | monitors, and when and how they are asked | std |
//! | [`config`] | what makes a configuration valid; pure | nothing |
//! | [`setup_guide`] | what backends have to be told, as commands; pure | nothing |
//! | [`dataplane`] | [`PacketIo`] and its drivers, pipeline, worker, snapshots, neighbours | feature `af-xdp` for the driver of that name |
//! | `director` | all of it, running | feature `af-xdp`, Linux |
//! | `doctor` | what would keep it from running well, and what to type | feature `af-xdp`, Linux |
//!
//! Start with `Director::builder` for a load balancer, with
//! [`Pipeline`] to put the packet path into something else, or with
//! `dataplane::af_xdp::XdpInterface` for the sockets alone.
//!
//! # Example
//!
//! Which backend a flow goes to, without root, network or AF_XDP:
//!
//! ```
//! use dsrlb::balancer::{Candidate, Maglev, Selector};
//! use dsrlb::flow::{FiveTuple, HashInput, HashKey, Protocol};
//!
//! let pool = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(|id| Candidate { id, weight: 1 });
//! let table = Maglev::default().table(&pool);
//! let flow = FiveTuple {
//!     source: "192.0.2.7".parse().unwrap(),
//!     destination: "10.0.0.100".parse().unwrap(),
//!     source_port: 40_000,
//!     destination_port: 80,
//!     protocol: Protocol::TCP,
//! };
//! let chosen = table.select(HashKey::default().hash_flow(HashInput::FiveTuple, &flow));
//! // The same on every machine, in every process, for every order of the pool's configuration.
//! assert_eq!(chosen, Some(0));
//! ```
//!
//! # Features
//!
//! * `af-xdp` (default): the AF_XDP driver and the director. Linux only; building it takes `clang`,
//!   `m4`, `pkg-config` and libelf's headers.
//! * `http`: the HTTP and HTTPS monitor, with its client and TLS.
//! * `metrics`: statistics of a director for the `metrics` facade, by the names they have for Prometheus.
//! * `pcap`: a driver that reads and writes capture files, and captures of a running director, each frame with
//!   its verdict.
//! * `prometheus`: statistics of a director in the text format of Prometheus.
//! * `quic`: encrypted connection IDs, for [`balancer::QuicLb`]; plain ones need no feature.
//! * `serde`: the types that configurations are made of are written and read with serde.
//! * `tracing`: what a director tells event handlers, as events of `tracing`; nothing for a packet.
//! * `file`: configuration files, see [`config`].

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[macro_use]
mod text;

mod addresses;
pub mod balancer;
pub mod config;
pub mod dataplane;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub mod director;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub mod doctor;
pub mod error;
pub mod flow;
pub mod forwarding;
pub mod health;
pub mod packet;
pub mod setup_guide;
pub mod verdict;

pub use balancer::{Backend, Balancer, Policy, RealServer, VirtualService};
pub use dataplane::{PacketIo, Pipeline};
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub use director::Director;
pub use forwarding::Forwarding;
pub use health::Monitor;
/// An address with a prefix length; VIPs are made of them.
pub use ipnet::IpNet;

/// The README's programs are compiled and run like any other example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
