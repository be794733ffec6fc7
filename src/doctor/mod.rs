//! The doctor: looks at the host, the interface and the backends, and says what would keep a director
//! from serving well, and what to type.
//!
//! ```no_run
//! use dsrlb::doctor::{Checkup, Severity};
//!
//! let diagnosis = Checkup::new("eth0").run();
//! println!("{diagnosis}");
//! if diagnosis.worst() == Some(Severity::Error) {
//!     std::process::exit(1);
//! }
//! ```
//!
//! Two halves: it *observes*, which is I/O and ends in a plain value, and it *judges* that value against the
//! configuration, which is pure. Each kind of finding has an identifier, all of which are in [`FINDINGS`] and
//! `docs/doctor.md`.
//!
//! # What it does to the host
//!
//! It binds AF_XDP sockets to the interface and attaches an XDP program that passes everything, to see what
//! the driver really grants, and takes both away again at once. Some drivers reset their link for some
//! seconds when a program is attached, so [`Checkup::trial`] can do without. It asks the link who has the VIPs
//! (of a large prefix, some) and the backends' addresses, in ways that touch no cache (RFC 5227, RFC 4862), has
//! the kernel resolve the backends, and sends each backend a few packets as a director would: pings and, for TCP
//! services, a SYN to the VIP, taken back with a reset. It changes no setting.
//!
//! Where an XDP program is attached already, such as that of a running director, neither the trial is made nor
//! are packets sent through the VIPs: that program would have the answers. The director's own
//! [status](crate::director::Director::stats) tells what its probes found.
//!
//! # What it does not tell
//!
//! The MSS that a backend advertises is that of its SYN-ACK to *this host*. Where its route to the clients has
//! another (`advmss`, MTU), theirs is another. Of a backend that leaves pings unanswered by choice, "VIP not bound"
//! cannot be told from "does not answer".

#![forbid(unsafe_code)]

mod catalogue;
mod checkup;
mod finding;
mod judge;
mod observe;
mod observed;

pub use catalogue::FINDINGS;
pub use checkup::Checkup;
pub use finding::{Diagnosis, Finding, Severity};
