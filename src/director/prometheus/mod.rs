//! [`Stats`] as Prometheus reads them: a pure function.

use super::families::{self, Kind, Series, Sink, Value};
use super::stats::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;
use std::fmt;

/// Writes statistics in the [Prometheus text format](https://prometheus.io/docs/instrumenting/exposition_formats/),
/// version 0.0.4: `text/plain; version=0.0.4; charset=utf-8`.
///
/// Every name begins with `dsrlb_`; counters end in `_total` and begin at zero with the director, those
/// of a backend when it comes. Units are frames (called packets where they are forwarded), flows, and
/// bytes with the Ethernet header. `worker` counts the queues from 0, `port` the interfaces. A state is a
/// label of a series with the value 1: there is one such series for each thing that has states. Reasons
/// in words are not here but in [`Stats`].
///
/// `dsrlb_frames_received_total` and `dsrlb_frames_judged_total`, the sum of all verdicts, are read at
/// the same moment: they are equal, or a frame was lost in the director. Of the first 65,536 services and
/// the first 65,536 backends with ids of up to 255 bytes there are series; how many are left out is one,
/// too.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dsrlb::director::{Director, prometheus_text};
///
/// let director = Director::builder("eth0").start()?;
/// println!("{}", prometheus_text(director.stats()));
/// # Ok(())
/// # }
/// ```
pub fn prometheus_text(stats: Stats) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposed(stats)));
    let mut text = String::new();
    // Nothing that is written to memory fails, and no encoder here does; half a text would be refused.
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(fmt::Error) => String::new(),
    }
}

#[derive(Debug)]
struct Exposed(Stats);

impl Collector for Exposed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::write(&mut Out(encoder), &self.0)
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Sink for Out<'_> {
    type Error = fmt::Error;

    fn family<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        series: impl IntoIterator<Item = Series<'s, N, Value>>,
    ) -> fmt::Result {
        let as_type = match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        // It ends the names of counters in `_total` itself.
        let mut family = self.0.encode_descriptor(name, help, None, as_type)?;
        for (labels, value) in series {
            let mut one = family.encode_family(&labels)?;
            match (kind, value) {
                (Kind::Counter, Value::Count(count)) => {
                    one.encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)?;
                }
                (Kind::Counter, Value::Seconds(time)) => {
                    one.encode_counter(&time, None::<&Exemplar<NoLabelSet, f64>>)?;
                }
                (Kind::Gauge, Value::Count(count)) => one.encode_gauge(&count)?,
                (Kind::Gauge, Value::Seconds(time)) => one.encode_gauge(&time)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
