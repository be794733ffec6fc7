//! Series and families of them.

use crate::dataplane::Counts;
use std::time::Duration;

/// Labels and value.
pub(in crate::director) type Series<'a, const N: usize, V = u64> =
    ([(&'static str, &'a str); N], V);

/// What a series may have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::director) enum Value {
    Count(u64),
    Seconds(f64),
}

/// What the values of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::director) enum Kind {
    Counter,
    Gauge,
}

/// Takes families of series.
pub(in crate::director) trait Sink {
    type Error;

    /// One family, whose name has no ending that tells of its kind.
    fn family<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        series: impl IntoIterator<Item = Series<'s, N, Value>>,
    ) -> Result<(), Self::Error>;

    fn counter<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N>>,
    ) -> Result<(), Self::Error> {
        let series = series.into_iter().map(|(labels, count)| (labels, Value::Count(count)));
        self.family(&format!("dsrlb_{name}"), help, Kind::Counter, series)
    }

    fn gauge<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N>>,
    ) -> Result<(), Self::Error> {
        let series = series.into_iter().map(|(labels, count)| (labels, Value::Count(count)));
        self.family(&format!("dsrlb_{name}"), help, Kind::Gauge, series)
    }

    /// A gauge of times; the unit ends its name.
    fn seconds<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N, Duration>>,
    ) -> Result<(), Self::Error> {
        let seconds =
            |(labels, time): Series<'s, N, Duration>| (labels, Value::Seconds(time.as_secs_f64()));
        self.family(
            &format!("dsrlb_{name}_seconds"),
            help,
            Kind::Gauge,
            series.into_iter().map(seconds),
        )
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
