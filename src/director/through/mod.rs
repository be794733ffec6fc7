//! Probing through the VIP: a probe that travels as a client's packet does.
//!
//! A monitor is an ordinary program: it opens a socket and connects it to the VIP. On this host that
//! would go astray, for the host may hold the VIP itself, and its routes know nothing of backends. So
//! the monitor's thread enters a [`Lane`] for the time of the probe, a network namespace with nothing
//! but a tunnel device in it. What the probe sends there, [`Prober`] frames for the backend just as
//! the pipeline frames a client's packets, and a worker sends it. What the VIP answers comes to the
//! host's own address; the XDP program takes it out, and the worker hands it back to the lane.
//!
//! While a probe waits without an answer, pings by other ways find out where it got lost
//! ([`evidence`]).

mod evidence;
mod exchange;
mod lane;
mod monitor;
mod pings;
mod prober;
mod pump;

pub(crate) use evidence::{Evidence, explain};
pub(crate) use exchange::{Exchange, upper_layer};
pub(super) use monitor::ThroughVip;
pub(crate) use pings::{Ears, Heard, exchange as ping_exchange, packet as ping_packet};
pub(super) use prober::Prober;
pub(crate) use prober::Way;
