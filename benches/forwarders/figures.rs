//! Medians, ranges, percentiles, and how they are written down.

/// The middle of some figures and how far they go.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of at least one figure; the lower of the middle two if their number is even.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let median = *figures.get(figures.len().checked_sub(1)? / 2)?;
        Some(Self { median, least: *figures.first()?, most: *figures.last()? })
    }

    /// `0.93 (0.75 to 1.03)`, each divided by `unit`, with this many decimals.
    pub fn text(&self, unit: f64, decimals: usize) -> String {
        let [median, least, most] = [self.median, self.least, self.most].map(|it| it / unit);
        format!("{median:.decimals$} ({least:.decimals$} to {most:.decimals$})")
    }
}

/// The value that `share` of all are not above; classes in rising order, each with its number.
pub fn percentile(classes: &[(f64, u64)], share: f64) -> Option<f64> {
    let all: u64 = classes.iter().map(|(_, count)| count).sum();
    let wanted = ((all as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let reached = classes.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    reached.map(|(value, _)| *value)
}

/// A table in Markdown.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule: Vec<String> = head.iter().map(|_| "---".to_owned()).collect();
    let rows = rows.iter().map(|row| line(row));
    [line(&heads), line(&rule)].into_iter().chain(rows).collect()
}

/// The ways in which the arithmetic could be wrong; run before anything is measured.
pub fn check() {
    let spread = Spread::of([3.0, 1.0, 2.0, 9.0, 2.5]);
    assert_eq!(spread, Some(Spread { median: 2.5, least: 1.0, most: 9.0 }));
    assert_eq!(Spread::of([]), None);
    let classes = [(1.0, 989), (2.0, 10), (3.0, 1), (4.0, 0)];
    let found = [0.5, 0.989, 0.99, 0.999, 1.0].map(|share| percentile(&classes, share));
    assert_eq!(found, [1.0, 1.0, 2.0, 2.0, 3.0].map(Some));
    assert_eq!(percentile(&[(1.0, 0)], 0.5), None);
}
