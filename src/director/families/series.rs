//! Series and families of them.

use crate::dataplane::Counts;

/// Labels and value.
pub(in crate::director) type Series<'a, const N: usize> = ([(&'static str, &'a str); N], u64);

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
        series: impl IntoIterator<Item = Series<'s, N>>,
    ) -> Result<(), Self::Error>;

    fn counter<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N>>,
    ) -> Result<(), Self::Error> {
        self.family(&format!("dsrlb_{name}"), help, Kind::Counter, series)
    }

    fn gauge<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N>>,
    ) -> Result<(), Self::Error> {
        self.family(&format!("dsrlb_{name}"), help, Kind::Gauge, series)
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
