use super::*;
use crate::balancer::VipKey;
use crate::dataplane::af_xdp::DeviceStats;
use crate::dataplane::{Counts, Idle};
use crate::director::families::{LONGEST_ID, MOST};
use crate::director::stats::{self, BackendStatus};
use crate::health::{HealthState, ProbeCounts};
use crate::verdict::DropReason;
use std::collections::HashSet;
use std::time::{Duration, Instant};

pub(super) fn empty() -> Stats {
    Stats {
        generation: 3,
        counts: Counts::default(),
        workers: vec![Counts::default(); 2],
        redirect: None,
        devices: Vec::new(),
        services: Vec::new(),
        backends: Vec::new(),
        failure: None,
    }
}

pub(super) fn with(backends: Vec<BackendStatus>, keys: impl Iterator<Item = VipKey>) -> Stats {
    let services = stats::services(keys, &backends);
    Stats { services, backends, ..empty() }
}

pub(super) fn key(number: u32) -> VipKey {
    let [_, a, b, c] = number.to_be_bytes();
    format!("10.{a}.{b}.{c}:80/tcp").parse().unwrap()
}

/// That every line is one of the format, and no series is there twice.
fn check(text: &str) {
    let mut seen = HashSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(
                comment.starts_with("HELP dsrlb_") || comment.starts_with("TYPE dsrlb_"),
                "{line}"
            );
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("dsrlb_"), "{line}");
        assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        assert!(seen.insert(series), "twice: {line}");
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn each_worker_reason_and_kind_has_a_series_from_the_start() {
    let mut stats = empty();
    stats.workers[1].judged = 5;
    stats.workers[1].io.received = 5;
    stats.devices.push(DeviceStats { receive_missed: 9, ..DeviceStats::default() });
    let text = prometheus_text(stats);
    check(&text);
    let dropped = text.lines().filter(|line| line.starts_with("dsrlb_dropped_frames_total{"));
    assert_eq!(dropped.count(), 2 * DropReason::COUNT);
    for line in [
        "# TYPE dsrlb_frames_received_total counter",
        "dsrlb_frames_received_total{worker=\"1\"} 5",
        "dsrlb_frames_judged_total{worker=\"1\"} 5",
        "dsrlb_frames_judged_total{worker=\"0\"} 0",
        "dsrlb_answered_frames_total{worker=\"0\",kind=\"packet-too-big\"} 0",
        "dsrlb_dropped_frames_total{worker=\"0\",reason=\"no-service\"} 0",
        "dsrlb_device_frames_total{port=\"0\",event=\"receive-missed\"} 9",
        "dsrlb_up 1",
        "dsrlb_snapshot_generation 3",
    ] {
        assert!(text.lines().any(|of| of == line), "{line} is not in\n{text}");
    }
    let text = prometheus_text(Stats { failure: Some("queue 0".to_owned()), ..empty() });
    assert!(text.contains("\ndsrlb_up 0\n"));
}

#[test]
fn what_backends_are_called_is_escaped_and_why_they_are_idle_has_a_word() {
    let ill = BackendStatus {
        id: "a\"b\\c\nd".to_owned(),
        idle: Some(Idle::Unhealthy("connection refused".to_owned())),
        health: Some(HealthState::Down),
        flows: 7,
        probes: Some(ProbeCounts {
            succeeded: 5,
            failed: 2,
            last: Some(Duration::from_micros(1500)),
            ..ProbeCounts::default()
        }),
        ..stats::tests::backend(key(1), "")
    };
    let text = prometheus_text(with(vec![ill], [key(1), key(2)].into_iter()));
    check(&text);
    let of = r#"{service="10.0.0.1:80/tcp",backend="a\"b\\c\nd""#;
    for line in [
        format!("dsrlb_backend_flows{of}}} 7"),
        format!("dsrlb_backend_active{of}}} 0"),
        format!("dsrlb_backend_probes_total{of},result=\"succeeded\"}} 5"),
        format!("dsrlb_backend_probes_total{of},result=\"failed\"}} 2"),
        format!("dsrlb_backend_probe_duration_seconds{of}}} 0.0015"),
        format!("dsrlb_backend_state{of},state=\"unhealthy\"}} 1"),
        format!("dsrlb_backend_health{of},health=\"down\"}} 1"),
        format!("dsrlb_backend_neighbour{of},neighbour=\"unknown\"}} 1"),
        "dsrlb_service_state{service=\"10.0.0.1:80/tcp\",state=\"all-down\"} 1".to_owned(),
        "dsrlb_service_state{service=\"10.0.0.2:80/tcp\",state=\"empty\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|of| of == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("connection refused"));
}

#[test]
fn ten_thousand_services_have_their_series_and_too_many_are_counted() {
    let many = |services: u32| {
        let backends = (1..=services).map(|number| stats::tests::backend(key(number), "b1"));
        with(backends.collect(), (1..=services).map(key))
    };
    let (stats, begun) = (many(10_000), Instant::now());
    let text = prometheus_text(stats);
    println!("{} bytes in {:?}", text.len(), begun.elapsed());
    check(&text);
    let lines = text.lines().count();
    // Three series of a service, nine of a backend.
    assert!((120_000..121_000).contains(&lines), "{lines} lines");
    assert!(text.len() < 12_000_000, "{} bytes", text.len());
    assert!(text.contains("service=\"10.0.39.16:80/tcp\""), "the last one");

    let mut stats = many(MOST as u32 + 2);
    stats.backends[0].id = "x".repeat(LONGEST_ID + 1);
    let text = prometheus_text(stats);
    check(&text);
    assert!(text.contains("\ndsrlb_services_left_out 2\n"));
    assert!(text.contains("\ndsrlb_backends_left_out 2\n"));
    assert!(!text.contains("xxx"));
}
