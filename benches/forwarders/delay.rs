//! How long frames are under way at half of what the director can forward.

use crate::contender::{Kind, Place};
use crate::figures::{Spread, percentile, table};
use crate::in_turns::is_swapping;
use crate::plan::{Frames, Pace};
use crate::rates::FLOWS;
use crate::run::{Bench, Case, Sample};
use std::error::Error;

/// Each with whether it is of the windows in which MAC addresses are swapped, if that is not in all or none.
const ROWS: [(&str, Kind, Option<bool>); 3] = [
    ("director's worker", Kind::InWindows, Some(false)),
    ("MAC addresses swapped", Kind::InWindows, Some(true)),
    ("nftables `fwd`, on the generator's core", Kind::Nftables, None),
];
const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

/// Measures and prints; `capacity` is in frames a second.
pub fn compare(bench: &Bench, capacity: f64) -> Result<(), Box<dyn Error>> {
    let pace = Pace { rate: Some(capacity / 2.0), stamped: true };
    let frames = Frames { size: 64, ipv6: false, flows: FLOWS };
    let mut rounds: Vec<[Sample; 2]> = Vec::new();
    for round in 0..bench.times.rounds {
        eprintln!("latency, round {} of {}", round + 1, bench.times.rounds);
        let measure = |kind| bench.measure(&Case { kind, place: Place::Apart, frames, pace });
        rounds.push([measure(Kind::InWindows)?, measure(Kind::Nftables)?]);
    }
    let mut lines = Vec::new();
    for (name, kind, swapping) in ROWS {
        let samples = rounds.iter().map(|[turns, other]| match kind {
            Kind::InWindows => turns,
            _ => other,
        });
        let of = |get: fn(&Sample) -> f64| {
            Spread::of(samples.clone().map(get)).ok_or("nothing was measured")
        };
        let (offered, forwarded) = (of(|it| it.offered)?, of(|it| it.forwarded)?);
        let mut line = vec![
            name.to_owned(),
            format!("{:.3}", offered.median / 1e6),
            format!("{:.3}", forwarded.median / 1e6),
        ];
        for share in SHARES {
            let figures = samples.clone().flat_map(|it| percentiles(it, swapping, share));
            line.push(Spread::of(figures).ok_or("nothing was measured")?.text(1e3, 1));
        }
        let ratios = rounds.iter().zip(samples).filter_map(|([turns, _], own)| {
            let median = |it, swapping| Some(Spread::of(percentiles(it, swapping, 0.99))?.median);
            Some(median(own, swapping)? / median(turns, Some(true))?)
        });
        line.push(Spread::of(ratios).ok_or("nothing was measured")?.text(1.0, 2));
        lines.push(line);
    }
    println!("### Time under way at half of the director's capacity\n");
    println!(
        "64 bytes, evenly paced, from the generator to the other end of the same wire; microseconds, in classes 3 % \
         wide: the percentiles of each whole eighth of a second of {} rounds, the median of those (least to most), so that \
         a moment in which the machine did something else counts once. The first two have the same sockets for an eighth of a \
         second in turns. The last column: of the medians of each round. The generator's own part is in all of them.\n",
        bench.times.rounds
    );
    let head =
        ["forwarder", "offered, M/s", "forwarded, M/s", "p50", "p99", "p99.9", "p99 to swapping"];
    println!("{}", table(&head, &lines));
    Ok(())
}

/// Of each window in which addresses were swapped, or were not; of all if that is none.
fn percentiles(sample: &Sample, swapping: Option<bool>, share: f64) -> Vec<f64> {
    let is_it = |number| swapping.is_none_or(|swapping| is_swapping(number) == swapping);
    let windows = sample.delays.iter().filter(|(number, _)| is_it(*number));
    windows.filter_map(|(_, delays)| percentile(delays, share)).collect()
}
