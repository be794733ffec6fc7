//! What the process computes when there is little to do, beside one that never waits.

use crate::contender::{Kind, Place};
use crate::figures::{Spread, table};
use crate::plan::{Frames, Pace};
use crate::rates::FLOWS;
use crate::run::{Bench, Case, Sample};
use std::error::Error;

const KINDS: [(&str, Kind); 3] = [
    ("director", Kind::Director),
    ("same sockets, MAC addresses swapped", Kind::Bare),
    ("the same, never waiting", Kind::Spinning),
];

/// Measures and prints; `capacity` is in frames a second.
pub fn compare(bench: &Bench, capacity: f64) -> Result<(), Box<dyn Error>> {
    let frames = Frames { size: 64, ipv6: false, flows: FLOWS };
    let loads = [
        ("none", Some(0.0)),
        ("1 % of the director's capacity", Some(capacity / 100.0)),
        ("50 %", Some(capacity / 2.0)),
        ("all that comes", None),
    ];
    let mut lines = Vec::new();
    for (load, rate) in loads {
        let pace = Pace { rate, stamped: false };
        let mut rounds: Vec<Vec<Sample>> = Vec::new();
        for round in 0..bench.times.rounds {
            eprintln!("CPU, load {load}, round {} of {}", round + 1, bench.times.rounds);
            let measure = |(_, kind): &(_, Kind)| {
                bench.measure(&Case { kind: *kind, place: Place::Apart, frames, pace })
            };
            rounds.push(KINDS.iter().map(measure).collect::<Result<_, _>>()?);
        }
        for (number, (name, _)) in KINDS.iter().enumerate() {
            let of = |get: fn(&Sample) -> f64| {
                let figures = rounds.iter().filter_map(|round| round.get(number)).map(get);
                Spread::of(figures).ok_or("not one round")
            };
            lines.push(vec![
                load.to_owned(),
                (*name).to_owned(),
                of(|it| it.offered)?.text(1e6, 4),
                of(|it| it.forwarded)?.text(1e6, 4),
                of(|it| it.cpu)?.text(0.01, 1),
            ]);
        }
    }
    println!("### CPU by load\n");
    println!(
        "64 bytes. CPU: per cent of one core that the process took, system calls and what the kernel sends inside \
         them included, the kernel's receiving on the other core not. Median (least to most) of {} rounds.\n",
        bench.times.rounds
    );
    println!("{}", table(&["load", "process", "offered, M/s", "forwarded, M/s", "CPU, %"], &lines));
    Ok(())
}
