//! Series and families of them, by the encoder of `prometheus-client`.

use crate::dataplane::Counts;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use std::fmt;

/// Labels and value.
pub(super) type Series<'a, const N: usize, V = u64> = ([(&'static str, &'a str); N], V);

/// Writes families of series.
pub(super) struct Out<'a>(pub(super) DescriptorEncoder<'a>);

impl Out<'_> {
    pub(super) fn counter<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N>>,
    ) -> fmt::Result {
        let name = format!("dsrlb_{name}");
        let mut family = self.0.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            let mut one = family.encode_family(&labels)?;
            one.encode_counter(&value, None::<&Exemplar<NoLabelSet, u64>>)?;
        }
        Ok(())
    }

    pub(super) fn gauge<'s, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N, V>>,
    ) -> fmt::Result {
        let name = format!("dsrlb_{name}");
        let mut family = self.0.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// One series for each worker and each of what it counts.
pub(super) fn each<'a>(
    workers: &'a [Counts],
    names: &'a [String],
    label: &'static str,
    counts: impl Fn(&'a Counts) -> Vec<(&'static str, u64)> + 'a,
) -> impl Iterator<Item = Series<'a, 2>> {
    workers.iter().zip(names).flat_map(move |(worker, name)| {
        let series = |(of, count)| ([("worker", name.as_str()), (label, of)], count);
        counts(worker).into_iter().map(series).collect::<Vec<_>>()
    })
}

/// One series for each worker.
pub(super) fn one<'a>(
    workers: &'a [Counts],
    names: &'a [String],
    count: impl Fn(&Counts) -> u64 + 'a,
) -> impl Iterator<Item = Series<'a, 1>> {
    let all = workers.iter().zip(names);
    all.map(move |(worker, name)| ([("worker", name.as_str())], count(worker)))
}

pub(super) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}
