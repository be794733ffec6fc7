//! What the appliance said at one moment, of all that it says.

use super::exposition::{Malformed, Series, parse};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

/// Counters and states at one moment.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Sample {
    /// When it was asked for, by a clock that never goes back.
    pub at: Duration,
    /// Whether packets are taken.
    pub up: bool,
    pub generation: u64,
    pub workers: u64,
    pub totals: Totals,
    /// Flows remembered.
    pub flows: u64,
    /// Frames by the reason why they were dropped.
    pub dropped: BTreeMap<String, u64>,
    /// Frames by where else they were lost.
    pub lost: BTreeMap<String, u64>,
    /// In the order of the configuration.
    pub services: Vec<Service>,
}

/// What is counted since the start.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Totals {
    pub received: u64,
    pub forwarded: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub lost: u64,
}

#[derive(Clone, Default, PartialEq, Debug)]
pub struct Service {
    pub name: String,
    pub state: String,
    /// How many of its backends take new flows by right.
    pub active: u64,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Default, PartialEq, Debug)]
pub struct Backend {
    pub id: String,
    pub state: String,
    pub health: String,
    pub neighbour: String,
    /// Why it takes no new flows, in words.
    pub why: Option<String>,
    /// How long the last probe took, in seconds.
    pub probe: Option<f64>,
    /// How many there were, and how many of them failed.
    pub probes: u64,
    pub failed: u64,
    pub weight: u64,
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// Why what was said is of no use.
#[derive(PartialEq, Debug)]
pub enum Unusable {
    Line(Malformed),
    NotOurs,
    Health(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => error.fmt(f),
            Self::NotOurs => f.write_str("/metrics has no dsrlb_up: is this the appliance?"),
            Self::Health(error) => write!(f, "/health: {error}"),
        }
    }
}

impl Sample {
    /// Numbers and states are those of `/metrics`, what is said in words those of `/health`.
    pub fn read(at: Duration, metrics: &str, health: &str) -> Result<Self, Unusable> {
        let mut reading = Reading { sample: Self { at, ..Self::default() }, ..Reading::default() };
        let mut is_ours = false;
        for series in parse(metrics) {
            let series = series.map_err(Unusable::Line)?;
            is_ours |= series.name == "dsrlb_up";
            reading.take(&series);
        }
        if !is_ours {
            return Err(Unusable::NotOurs);
        }
        let health: Value =
            serde_json::from_str(health).map_err(|error| Unusable::Health(error.to_string()))?;
        for idle in health["idle"].as_array().into_iter().flatten() {
            let text = |key: &str| idle[key].as_str().unwrap_or_default().to_owned();
            if let Some(backend) = reading.known(&text("service"), &text("backend")) {
                backend.why = Some(text("why"));
            }
        }
        Ok(reading.sample)
    }
}

/// A sample that is being read, and where in it services and their backends are.
#[derive(Default)]
struct Reading {
    sample: Sample,
    services: HashMap<String, (usize, HashMap<String, usize>)>,
}

impl Reading {
    fn take(&mut self, series: &Series<'_>) {
        // Counters are exact to 2^53, and what is shown of them to less.
        let (sample, value) = (&mut self.sample, series.value as u64);
        match series.name {
            "dsrlb_up" => sample.up = value == 1,
            "dsrlb_snapshot_generation" => sample.generation = value,
            "dsrlb_frames_received_total" => {
                sample.workers += 1;
                sample.totals.received += value;
            }
            "dsrlb_forwarded_packets_total" => sample.totals.forwarded += value,
            "dsrlb_forwarded_bytes_total" => sample.totals.bytes += value,
            "dsrlb_flows" => sample.flows += value,
            "dsrlb_dropped_frames_total" => {
                sample.totals.dropped += value;
                *sample.dropped.entry(series.label("reason").to_owned()).or_default() += value;
            }
            "dsrlb_receive_lost_frames_total" => self.lost("receive", series),
            "dsrlb_transmit_lost_frames_total" => self.lost("transmit", series),
            name if name.starts_with("dsrlb_service_") => self.service(series),
            name if name.starts_with("dsrlb_backend_") => self.backend(series),
            _ => {}
        }
    }

    fn lost(&mut self, side: &str, series: &Series<'_>) {
        let value = series.value as u64;
        self.sample.totals.lost += value;
        let place = format!("{side} {}", series.label("cause"));
        *self.sample.lost.entry(place).or_default() += value;
    }

    fn service(&mut self, series: &Series<'_>) {
        let services = &mut self.sample.services;
        let (place, _) =
            self.services.entry(series.label("service").to_owned()).or_insert_with(|| {
                let name = series.label("service").to_owned();
                services.push(Service { name, ..Service::default() });
                (services.len() - 1, HashMap::new())
            });
        let service = &mut services[*place];
        match series.name {
            "dsrlb_service_state" => service.state = series.label("state").to_owned(),
            "dsrlb_service_active_backends" => service.active = series.value as u64,
            _ => {}
        }
    }

    fn backend(&mut self, series: &Series<'_>) {
        // Services come before their backends; one that has no series has none for its backends here.
        let Some((place, ids)) = self.services.get_mut(series.label("service")) else { return };
        let backends = &mut self.sample.services[*place].backends;
        let place = *ids.entry(series.label("backend").to_owned()).or_insert_with(|| {
            let id = series.label("backend").to_owned();
            backends.push(Backend { id, ..Backend::default() });
            backends.len() - 1
        });
        let (backend, value) = (&mut backends[place], series.value as u64);
        match series.name {
            "dsrlb_backend_packets_total" => backend.packets = value,
            "dsrlb_backend_bytes_total" => backend.bytes = value,
            "dsrlb_backend_flows" => backend.flows = value,
            "dsrlb_backend_weight" => backend.weight = value,
            "dsrlb_backend_probe_duration_seconds" => backend.probe = Some(series.value),
            "dsrlb_backend_probes_total" => {
                backend.probes += value;
                backend.failed += if series.label("result") == "failed" { value } else { 0 };
            }
            "dsrlb_backend_state" => backend.state = series.label("state").to_owned(),
            "dsrlb_backend_health" => backend.health = series.label("health").to_owned(),
            "dsrlb_backend_neighbour" => backend.neighbour = series.label("neighbour").to_owned(),
            _ => {}
        }
    }

    fn known(&mut self, service: &str, id: &str) -> Option<&mut Backend> {
        let (place, ids) = self.services.get(service)?;
        self.sample.services[*place].backends.get_mut(*ids.get(id)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two services, the first with two backends of which one is ill.
    pub(crate) const METRICS: &str = r#"# HELP dsrlb_up Whether packets are taken
dsrlb_up 1
dsrlb_snapshot_generation 7
dsrlb_frames_received_total{worker="0"} 600
dsrlb_frames_received_total{worker="1"} 400
dsrlb_forwarded_packets_total{worker="0"} 580
dsrlb_forwarded_packets_total{worker="1"} 400
dsrlb_forwarded_bytes_total{worker="0"} 58000
dsrlb_dropped_frames_total{worker="0",reason="no-service"} 15
dsrlb_dropped_frames_total{worker="1",reason="no-service"} 5
dsrlb_dropped_frames_total{worker="0",reason="looped"} 0
dsrlb_receive_lost_frames_total{worker="0",cause="ring-full"} 3
dsrlb_transmit_lost_frames_total{worker="0",cause="failed"} 1
dsrlb_flows{worker="0",state="proven"} 20
dsrlb_flows{worker="1",state="unproven"} 5
dsrlb_service_state{service="10.0.0.100:80/tcp",state="serving"} 1
dsrlb_service_state{service="[fd00::100]:443/tcp",state="empty"} 1
dsrlb_service_backends{service="10.0.0.100:80/tcp"} 2
dsrlb_service_active_backends{service="10.0.0.100:80/tcp"} 1
dsrlb_service_active_backends{service="[fd00::100]:443/tcp"} 0
dsrlb_backend_packets_total{service="10.0.0.100:80/tcp",backend="web-1"} 980
dsrlb_backend_packets_total{service="10.0.0.100:80/tcp",backend="web-2"} 0
dsrlb_backend_bytes_total{service="10.0.0.100:80/tcp",backend="web-1"} 58000
dsrlb_backend_flows{service="10.0.0.100:80/tcp",backend="web-1"} 25
dsrlb_backend_weight{service="10.0.0.100:80/tcp",backend="web-1"} 2
dsrlb_backend_weight{service="10.0.0.100:80/tcp",backend="web-2"} 1
dsrlb_backend_state{service="10.0.0.100:80/tcp",backend="web-1",state="active"} 1
dsrlb_backend_state{service="10.0.0.100:80/tcp",backend="web-2",state="unhealthy"} 1
dsrlb_backend_health{service="10.0.0.100:80/tcp",backend="web-1",health="up"} 1
dsrlb_backend_health{service="10.0.0.100:80/tcp",backend="web-2",health="down"} 1
dsrlb_backend_probes_total{service="10.0.0.100:80/tcp",backend="web-1",result="succeeded"} 7
dsrlb_backend_probes_total{service="10.0.0.100:80/tcp",backend="web-1",result="failed"} 2
dsrlb_backend_probe_duration_seconds{service="10.0.0.100:80/tcp",backend="web-1"} 0.0012
dsrlb_backend_neighbour{service="10.0.0.100:80/tcp",backend="web-1",neighbour="resolved"} 1
dsrlb_backend_neighbour{service="10.0.0.100:80/tcp",backend="web-2",neighbour="resolved"} 1
"#;
    pub(crate) const HEALTH: &str = r#"{"status": "serving", "idle": [
        {"service": "10.0.0.100:80/tcp", "backend": "web-2", "state": "unhealthy",
         "why": "unhealthy: connection refused"},
        {"service": "10.0.0.100:80/tcp", "backend": "just added", "why": "not in /metrics yet"}
    ]}"#;

    #[test]
    fn numbers_states_and_words_come_together() {
        let sample = Sample::read(Duration::from_secs(3), METRICS, HEALTH).unwrap();
        assert!(sample.up);
        assert_eq!((sample.generation, sample.workers, sample.flows), (7, 2, 25));
        let totals = Totals { received: 1000, forwarded: 980, bytes: 58_000, dropped: 20, lost: 4 };
        assert_eq!(sample.totals, totals);
        assert_eq!(sample.dropped["no-service"], 20);
        assert_eq!(sample.lost["receive ring-full"], 3);
        let [web, other] = &sample.services[..] else { panic!("{:?}", sample.services) };
        assert_eq!((web.state.as_str(), web.active, web.backends.len()), ("serving", 1, 2));
        assert_eq!((other.state.as_str(), other.backends.len()), ("empty", 0));
        let well = Backend {
            id: "web-1".to_owned(),
            state: "active".to_owned(),
            health: "up".to_owned(),
            neighbour: "resolved".to_owned(),
            why: None,
            probe: Some(0.0012),
            probes: 9,
            failed: 2,
            weight: 2,
            flows: 25,
            packets: 980,
            bytes: 58_000,
        };
        assert_eq!(web.backends[0], well);
        assert_eq!(web.backends[1].why.as_deref(), Some("unhealthy: connection refused"));
    }

    #[test]
    fn what_is_not_the_appliance_is_said_to_be_none() {
        let read = |metrics, health| Sample::read(Duration::ZERO, metrics, health);
        assert_eq!(read("go_threads 3\n", "{}"), Err(Unusable::NotOurs));
        assert!(matches!(read("<html>\n", "{}"), Err(Unusable::Line(_))));
        assert!(matches!(read("dsrlb_up 1\n", "<html>"), Err(Unusable::Health(_))));
        assert!(read("dsrlb_up 0\n", "{}").is_ok_and(|sample| !sample.up));
    }
}
