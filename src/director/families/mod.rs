//! [`Stats`] as families of series: the one list of what is published, whoever takes it.

mod series;

use super::stats::{BackendStatus, ServiceStatus, Stats};
use crate::dataplane::Counts;
use crate::dataplane::af_xdp::{DeviceStats, RedirectStats};
use crate::dataplane::neighbour::NeighbourState;
use crate::health::HealthState;
use crate::verdict::{AnswerKind, DropReason};
pub(super) use series::{Kind, Series, Sink, Value};
use series::{each, numbers, one};

/// More backends, and more services, than these get no series of their own.
pub(super) const MOST: usize = 1 << 16;
/// A backend with a longer id gets none either, in bytes; configuration files have none.
pub(super) const LONGEST_ID: usize = 255;

/// Gives every family to `out`, each once.
pub(super) fn write<S: Sink>(out: &mut S, stats: &Stats) -> Result<(), S::Error> {
    let running = u64::from(stats.failure.is_none());
    out.gauge("up", "Whether packets are taken: no worker has failed", [([], running)])?;
    out.gauge("snapshot_generation", "Snapshots published so far", [([], stats.generation)])?;
    frames(out, &stats.workers)?;
    drivers(out, &stats.workers)?;
    flows(out, &stats.workers)?;
    below(out, stats.redirect.as_ref(), &stats.devices)?;
    services(out, &stats.services)?;
    backends(out, &stats.backends)
}

fn frames<S: Sink>(out: &mut S, all: &[Counts]) -> Result<(), S::Error> {
    let names = numbers(all.len());
    let help = "Frames that the driver lent to the worker";
    out.counter("frames_received", help, one(all, &names, |c| c.io.received))?;
    let help = "Sum of all verdicts when the frames received were read; equal to them";
    out.counter("frames_judged", help, one(all, &names, |c| c.judged))?;
    let help = "Packets forwarded to backends";
    out.counter("forwarded_packets", help, one(all, &names, |c| c.forwarded))?;
    let help = "Bytes forwarded to backends";
    out.counter("forwarded_bytes", help, one(all, &names, |c| c.forwarded_bytes))?;
    let kinds = |c: &Counts| AnswerKind::ALL.map(|k| (k.as_str(), c.answered(k))).to_vec();
    let help = "Frames answered by the director, by kind of answer";
    out.counter("answered_frames", help, each(all, &names, "kind", kinds))?;
    let help = "Answers of VIPs to probes of the director";
    out.counter("probe_frames", help, one(all, &names, |c| c.probes))?;
    let help = "Frames that were not for a VIP";
    out.counter("passed_frames", help, one(all, &names, |c| c.passed))?;
    let reasons =
        |c: &Counts| DropReason::ALL.iter().map(|r| (r.as_str(), c.dropped(*r))).collect();
    let help = "Frames dropped, by reason";
    out.counter("dropped_frames", help, each(all, &names, "reason", reasons))?;
    let help = "Fragments that wait for the first of their datagram";
    out.gauge("held_frames", help, one(all, &names, |c| c.held))?;
    let help = "ICMP errors that name an MTU below what every link takes";
    out.counter("doubtful_mtus", help, one(all, &names, |c| c.doubtful_mtus))
}

fn drivers<S: Sink>(out: &mut S, all: &[Counts]) -> Result<(), S::Error> {
    let names = numbers(all.len());
    let help = "Frames given to the transmit side and not known to have failed";
    out.counter("transmitted_frames", help, one(all, &names, |c| c.io.transmitted))?;
    let causes =
        |c: &Counts| vec![("rejected", c.io.transmit_rejected), ("failed", c.io.transmit_failed)];
    let help =
        "Frames not sent: the ring had no room (rejected), or kernel or device refused (failed)";
    out.counter("transmit_lost_frames", help, each(all, &names, "cause", causes))?;
    let causes = |c: &Counts| {
        vec![
            ("ring-full", c.io.receive_ring_full),
            ("no-frame", c.io.receive_no_frame),
            ("other", c.io.receive_dropped),
        ]
    };
    let help = "Frames lost before a worker saw them (XDP_STATISTICS)";
    out.counter("receive_lost_frames", help, each(all, &names, "cause", causes))
}

fn flows<S: Sink>(out: &mut S, all: &[Counts]) -> Result<(), S::Error> {
    let names = numbers(all.len());
    let states = |c: &Counts| vec![("proven", c.flows.proven), ("unproven", c.flows.unproven)];
    out.gauge("flows", "Flows remembered now", each(all, &names, "state", states))?;
    let help = "Flows not remembered, for want of a place; each of their packets counts";
    out.counter("flows_refused", help, one(all, &names, |c| c.flows.refused))?;
    let help = "Flows that began to be remembered, by a packet of their own";
    out.counter("flows_begun", help, one(all, &names, |c| c.flows.begun))?;
    let help = "Unproven flows that gave their place to others";
    out.counter("flows_displaced", help, one(all, &names, |c| c.flows.displaced))?;
    let told = |c: &Counts| vec![("sent", c.sync.sent), ("lost", c.sync.lost)];
    let help = "Flows told to other directors, and of those what did not reach all";
    out.counter("shared_flows", help, each(all, &names, "what", told))?;
    let heard = |c: &Counts| {
        vec![
            ("new", c.sync.new),
            ("updated", c.sync.updated),
            ("known", c.sync.known),
            ("unknown-backend", c.sync.unknown),
            ("refused", c.sync.refused),
        ]
    };
    let help = "Flows heard of from other directors, by what became of it";
    out.counter("heard_flows", help, each(all, &names, "what", heard))
}

/// What the XDP program and the interfaces counted.
fn below<S: Sink>(
    out: &mut S,
    redirect: Option<&RedirectStats>,
    devices: &[DeviceStats],
) -> Result<(), S::Error> {
    let redirect = redirect.into_iter().flat_map(|stats| {
        [
            ([("action", "redirected")], stats.redirected),
            ([("action", "passed")], stats.passed),
            ([("action", "no-socket")], stats.no_socket),
        ]
    });
    let help = "Frames by what the XDP program did; no-socket: for a VIP, left to the kernel";
    out.counter("xdp_frames", help, redirect)?;
    let names = numbers(devices.len());
    let devices = devices.iter().zip(&names).flat_map(|(device, port)| {
        let series = |(event, count)| ([("port", port.as_str()), ("event", event)], count);
        [
            ("received", device.received),
            ("receive-missed", device.receive_missed),
            ("receive-dropped", device.receive_dropped),
            ("receive-errors", device.receive_errors),
            ("transmitted", device.transmitted),
            ("transmit-dropped", device.transmit_dropped),
            ("transmit-errors", device.transmit_errors),
        ]
        .map(series)
    });
    out.counter("device_frames", "Frames as the interfaces count them", devices)
}

fn services<S: Sink>(out: &mut S, all: &[ServiceStatus]) -> Result<(), S::Error> {
    let left_out = all.len().saturating_sub(MOST) as u64;
    let help = "Services that have no series here, as there are too many";
    out.gauge("services_left_out", help, [([], left_out)])?;
    let named: Vec<_> = all.iter().take(MOST).map(|s| (s.service.to_string(), s)).collect();
    let state = |(name, s): &'_ (String, &ServiceStatus)| (name.clone(), s.state.as_str());
    let states: Vec<_> = named.iter().map(state).collect();
    let states =
        states.iter().map(|(name, state)| ([("service", name.as_str()), ("state", *state)], 1));
    out.gauge("service_state", "What becomes of a service's new flows", states)?;
    let count = |of: fn(&ServiceStatus) -> usize| {
        named.iter().map(move |(name, s)| ([("service", name.as_str())], of(s) as u64))
    };
    out.gauge("service_backends", "Backends of a service", count(|s| s.backends))?;
    let help = "Backends of a service that take new flows by right";
    out.gauge("service_active_backends", help, count(|s| s.active))
}

fn backends<S: Sink>(out: &mut S, all: &[BackendStatus]) -> Result<(), S::Error> {
    let named = all.iter().filter(|backend| backend.id.len() <= LONGEST_ID).take(MOST);
    let named: Vec<_> = named.map(|b| (b.service.to_string(), b)).collect();
    let left_out = (all.len() - named.len()) as u64;
    let help = "Backends that have no series here: too many, or with too long an id";
    out.gauge("backends_left_out", help, [([], left_out)])?;
    let count = |of: fn(&BackendStatus) -> u64| {
        named
            .iter()
            .map(move |(service, b)| ([("service", service.as_str()), ("backend", &b.id)], of(b)))
    };
    out.counter("backend_packets", "Packets forwarded to a backend", count(|b| b.packets))?;
    out.counter("backend_bytes", "Bytes forwarded to a backend", count(|b| b.bytes))?;
    out.gauge("backend_flows", "Flows remembered of a backend", count(|b| b.flows))?;
    let help = "Flows of a backend that began to be remembered, by a packet of their own";
    out.counter("backend_flows_begun", help, count(|b| b.flows_begun))?;
    let help = "Configured share of new flows";
    out.gauge("backend_weight", help, count(|b| b.weight.into()))?;
    let help = "Whether a backend takes new flows by right";
    out.gauge("backend_active", help, count(|b| u64::from(b.idle.is_none())))?;
    let state = |label, of: fn(&BackendStatus) -> &'static str| {
        named.iter().map(move |(service, b)| {
            ([("service", service.as_str()), ("backend", &b.id), (label, of(b))], 1)
        })
    };
    let idle = |b: &BackendStatus| b.idle.as_ref().map_or("active", |idle| idle.name());
    let help = "Why a backend takes no new flows, or active";
    out.gauge("backend_state", help, state("state", idle))?;
    let health = |b: &BackendStatus| match b.health {
        None => "not-probed",
        Some(HealthState::Unknown) => "unknown",
        Some(HealthState::Up) => "up",
        Some(HealthState::Down) => "down",
    };
    out.gauge("backend_health", "What a backend's monitor observes", state("health", health))?;
    let probed = || named.iter().filter_map(|(service, b)| Some((service, b, b.probes?)));
    let results = probed().flat_map(|(service, b, probes)| {
        [("succeeded", probes.succeeded), ("failed", probes.failed)].map(|(result, count)| {
            ([("service", service.as_str()), ("backend", &*b.id), ("result", result)], count)
        })
    });
    out.counter("backend_probes", "Probes of a backend by its monitor", results)?;
    let times = probed().filter_map(|(service, b, probes)| {
        Some(([("service", service.as_str()), ("backend", &*b.id)], probes.last?))
    });
    let help = "How long the last probe took that ended in time, in seconds";
    out.seconds("backend_probe_duration", help, times)?;
    let neighbour = |b: &BackendStatus| match b.neighbour {
        None => "unknown",
        Some(NeighbourState::Resolved(_)) => "resolved",
        Some(NeighbourState::Unresolved { .. }) => "unresolved",
        Some(NeighbourState::Rejected { .. }) => "rejected",
    };
    let help = "Whether the way to a backend is known";
    out.gauge("backend_neighbour", help, state("neighbour", neighbour))
}
