//! The AF_XDP driver on veth pairs between namespaces of this machine. Needs root; skips without.

mod huge_pages;
mod knobs;
#[path = "../../examples/lab/mod.rs"]
mod lab;
mod lifecycle;
mod redirection;
mod room;
#[path = "../support/skip.rs"]
mod skip;
mod transport;
#[allow(unreachable_pub)] // Its items are for the modules above, as `pub(crate)` would say too.
mod wire;
