//! [`Stats`] for whichever recorder of the `metrics` facade a program has installed.

use super::families::{self, Kind, Series, Sink, Value};
use super::stats::Stats;
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, with_recorder};
use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;

const METADATA: Metadata<'_> = Metadata::new("dsrlb", Level::INFO, Some(module_path!()));

/// Publishes statistics through the [`metrics`] facade: the series of the Prometheus text, by the same names
/// and labels. To be called as often as values are to be fresh:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dsrlb::director::{Director, MetricsPublisher};
///
/// let director = Director::builder("eth0").start()?;
/// let mut publisher = MetricsPublisher::default();
/// loop {
///     publisher.publish(&director.stats());
///     std::thread::sleep(std::time::Duration::from_secs(5));
/// }
/// # }
/// ```
///
/// Counters are set to what has been counted, by [`absolute`](metrics::Counter::absolute): recorders keep the
/// larger value, so the counters of a backend that left and came back stand still until it has caught up. Recorders
/// keep gauges as well; one whose series has gone, because a state is another one or a backend has left, is set to
/// zero once. So one publisher belongs to one director and one recorder.
#[derive(Default)]
pub struct MetricsPublisher {
    /// Those that were published last.
    gauges: HashSet<Key>,
}

impl fmt::Debug for MetricsPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPublisher").field("gauges", &self.gauges.len()).finish()
    }
}

impl MetricsPublisher {
    /// Hands all values to the recorder; does nothing if there is none.
    pub fn publish(&mut self, stats: &Stats) {
        with_recorder(|recorder| {
            let mut out = Out { recorder, gauges: HashSet::with_capacity(self.gauges.len()) };
            let Ok(()) = families::write(&mut out, stats);
            for gone in self.gauges.difference(&out.gauges) {
                recorder.register_gauge(gone, &METADATA).set(0.0);
            }
            self.gauges = out.gauges;
        });
    }
}

struct Out<'a> {
    recorder: &'a dyn Recorder,
    gauges: HashSet<Key>,
}

impl Sink for Out<'_> {
    type Error = Infallible;

    fn family<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        series: impl IntoIterator<Item = Series<'s, N, Value>>,
    ) -> Result<(), Infallible> {
        let help = help.to_owned().into();
        let name = match kind {
            Kind::Counter => KeyName::from(format!("{name}_total")),
            Kind::Gauge => KeyName::from(name.to_owned()),
        };
        match kind {
            Kind::Counter => self.recorder.describe_counter(name.clone(), None, help),
            Kind::Gauge => self.recorder.describe_gauge(name.clone(), None, help),
        }
        for (labels, value) in series {
            let labels = labels.map(|(label, of)| Label::new(label, of.to_owned()));
            let key = Key::from_parts(name.clone(), labels.to_vec());
            match (kind, value) {
                (Kind::Counter, Value::Count(count)) => {
                    self.recorder.register_counter(&key, &METADATA).absolute(count);
                }
                (_, value) => {
                    let value = match value {
                        Value::Count(count) => count as f64,
                        Value::Seconds(time) => time,
                    };
                    self.recorder.register_gauge(&key, &METADATA).set(value);
                    self.gauges.insert(key);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{Counts, Idle};
    use crate::director::stats::{self, BackendStatus};
    use metrics::with_local_recorder;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use std::collections::BTreeMap;

    fn with(backends: Vec<BackendStatus>) -> Stats {
        let key = "10.0.0.100:80/tcp".parse().unwrap();
        let mut workers = vec![Counts::default(); 2];
        (workers[1].io.received, workers[1].judged) = (7, 7);
        Stats {
            generation: 3,
            counts: Counts::default(),
            workers,
            redirect: None,
            devices: Vec::new(),
            services: stats::services([key].into_iter(), &backends),
            backends,
            failure: None,
        }
    }

    fn backend(id: &str, idle: Option<Idle>, packets: u64) -> BackendStatus {
        let service = "10.0.0.100:80/tcp".parse().unwrap();
        BackendStatus { idle, packets, ..stats::tests::backend(service, id) }
    }

    /// What a recorder has, as the lines of the Prometheus text.
    fn recorded(recorder: &DebuggingRecorder) -> BTreeMap<String, u64> {
        let all = recorder.snapshotter().snapshot().into_vec().into_iter();
        let lines = all.map(|(key, _, description, value)| {
            assert!(description.is_some_and(|text| !text.is_empty()));
            let labels = key.key().labels();
            let labels: Vec<_> = labels.map(|l| format!("{}=\"{}\"", l.key(), l.value())).collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            let value = match value {
                DebugValue::Counter(value) => value,
                DebugValue::Gauge(value) => value.0 as u64,
                DebugValue::Histogram(_) => panic!("there are none"),
            };
            (format!("{}{labels}", key.key().name()), value)
        });
        lines.collect()
    }

    #[test]
    #[cfg(feature = "prometheus")]
    fn the_recorder_has_what_the_text_has() {
        let recorder = DebuggingRecorder::new();
        let stats = || with(vec![backend("b1", None, 5), backend("b2", Some(Idle::Draining), 6)]);
        let mut publisher = MetricsPublisher::default();
        with_local_recorder(&recorder, || publisher.publish(&stats()));
        let text = crate::director::prometheus_text(stats());
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| line.rsplit_once(' ').unwrap());
        let lines: BTreeMap<_, _> =
            lines.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect();
        let recorded = recorded(&recorder);
        assert_eq!(recorded, lines);
        assert_eq!(recorded["dsrlb_frames_received_total{worker=\"1\"}"], 7);
    }

    #[test]
    fn a_state_that_is_over_is_zero_and_so_is_a_backend_that_left() {
        let recorder = DebuggingRecorder::new();
        let mut publisher = MetricsPublisher::default();
        let state = |id: &str, state: &str| {
            format!(
                "dsrlb_backend_state{{service=\"10.0.0.100:80/tcp\",backend=\"{id}\",state=\"{state}\"}}"
            )
        };
        let mut publish = |backends: Vec<BackendStatus>| {
            with_local_recorder(&recorder, || publisher.publish(&with(backends)));
            recorded(&recorder)
        };
        let first = publish(vec![backend("b1", None, 5), backend("b2", None, 6)]);
        assert_eq!([first[&state("b1", "active")], first[&state("b2", "active")]], [1, 1]);
        let then = publish(vec![backend("b1", Some(Idle::Draining), 8)]);
        assert_eq!(then[&state("b1", "active")], 0);
        assert_eq!([then[&state("b1", "draining")], then[&state("b2", "active")]], [1, 0]);
        let packets = "dsrlb_backend_packets_total{service=\"10.0.0.100:80/tcp\",backend=\"b1\"}";
        assert_eq!([first[packets], then[packets]], [5, 8], "absolute, not added");
    }
}
