//! How long frames are under way at half of what the director can forward.

use crate::contender::{Kind, Place};
use crate::figures::{Spread, percentile, table};
use crate::plan::{Frames, Pace};
use crate::rates::FLOWS;
use crate::run::{Bench, Case, Sample};
use std::error::Error;

const ROWS: [(&str, Kind); 3] = [
    ("director, L2", Kind::Director),
    ("same sockets, MAC addresses swapped", Kind::Bare),
    ("nftables `fwd`, on the generator's core", Kind::Nftables),
];
const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

/// Measures and prints; `capacity` is in frames a second.
pub fn compare(bench: &Bench, capacity: f64) -> Result<(), Box<dyn Error>> {
    let pace = Pace { rate: Some(capacity / 2.0), stamped: true };
    let frames = Frames { size: 64, ipv6: false, flows: FLOWS };
    let mut rounds: Vec<Vec<Sample>> = Vec::new();
    for round in 0..bench.times.rounds {
        eprintln!("latency, round {} of {}", round + 1, bench.times.rounds);
        let measure = |(_, kind): &(_, Kind)| {
            bench.measure(&Case { kind: *kind, place: Place::Apart, frames, pace })
        };
        rounds.push(ROWS.iter().map(measure).collect::<Result<_, _>>()?);
    }
    let mut lines = Vec::new();
    for (number, (name, _)) in ROWS.iter().enumerate() {
        let of = |get: &dyn Fn(&Sample) -> Option<f64>| {
            let figures = rounds.iter().filter_map(|round| get(round.get(number)?));
            Spread::of(figures).ok_or("nothing was measured")
        };
        let offered = of(&|it| Some(it.offered))?;
        let forwarded = of(&|it| Some(it.forwarded))?;
        let mut line = vec![
            (*name).to_owned(),
            format!("{:.3}", offered.median / 1e6),
            format!("{:.3}", forwarded.median / 1e6),
        ];
        for share in SHARES {
            let windows =
                rounds.iter().filter_map(|round| round.get(number)).flat_map(|it| &it.delays);
            let figures = windows.filter_map(|window| percentile(window, share));
            line.push(Spread::of(figures).ok_or("nothing was measured")?.text(1e3, 1));
        }
        let ratios = rounds.iter().filter_map(|round| {
            let p99 = |at: usize| {
                let windows = round.get(at)?.delays.iter();
                Some(Spread::of(windows.filter_map(|window| percentile(window, SHARES[1])))?.median)
            };
            Some(p99(number)? / p99(1)?)
        });
        line.push(Spread::of(ratios).ok_or("nothing was measured")?.text(1.0, 2));
        lines.push(line);
    }
    println!("### Time under way at half of the director's capacity\n");
    println!(
        "64 bytes, evenly paced, from the generator to the other end of the same wire; microseconds, in classes 3 % \
         wide: the percentiles of each whole eighth of a second of {} rounds, the median of those (least to most), so that \
         a moment in which the machine did something else counts once. The last column: of the medians of each round. \
         The generator's own part is in all of them.\n",
        bench.times.rounds
    );
    let head =
        ["forwarder", "offered, M/s", "forwarded, M/s", "p50", "p99", "p99.9", "p99 to swapping"];
    println!("{}", table(&head, &lines));
    Ok(())
}
