//! Which way of remembering flows breaks how many, and what it costs: a simulation.
//!
//! ```text
//! cargo run --release --no-default-features --example churn [MINUTES]
//! ```
//!
//! Clients open connections, most of them short and a few that last for hours, to fifty backends
//! that are drained, weighted, added and removed every two minutes. Each packet is shown to all
//! designs. A flow is broken when one of its packets goes to another backend than its first one,
//! though that could still have served it; whoever loses its backend is not counted. Half the time
//! over, another director takes over, which has followed the changes and has not seen the flows; and for
//! ten seconds of each half hour there is a flood of SYNs. Everything is decided by the library's own
//! tables and policies, in virtual time, and comes out the same each time.

mod designs;
mod flows;
mod pool;

use designs::Design;
use dsrlb::flow::Timestamp;
use flows::{Event, Flows};
use pool::Pool;
use std::collections::HashMap;

const SECOND: u64 = 1_000_000_000;
const CHANGE_EVERY: u64 = 120 * SECOND;

/// What became of the flows of one design.
#[derive(Default)]
struct Outcome {
    /// By flow, the slot of the backend its first packet went to.
    homes: HashMap<u64, usize>,
    broken: u64,
    /// New flows that went to a backend which takes none.
    astray: u64,
    most_bytes: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let minutes: u64 = std::env::args().nth(1).map_or(Ok(60), |text| text.parse())?;
    let end = minutes.clamp(4, 24 * 60) * 60 * SECOND;
    let mut pool = Pool::new();
    let mut flows = Flows::new(end);
    let mut designs = designs::all(&pool);
    let mut outcomes: Vec<Outcome> = designs.iter().map(|_| Outcome::default()).collect();
    let (mut next_change, mut restart, mut changes) = (CHANGE_EVERY, end / 2, 0);

    while let Some((now, event)) = flows.next() {
        if now >= next_change {
            next_change += CHANGE_EVERY;
            changes += 1;
            pool.change(Timestamp(now));
            designs.iter_mut().for_each(|design| design.change(&pool, Timestamp(now)));
        }
        if now >= restart {
            restart = u64::MAX;
            designs.iter_mut().for_each(Design::restart);
        }
        for (design, outcome) in designs.iter_mut().zip(&mut outcomes) {
            look(&pool, design, outcome, now, &event);
        }
    }

    println!("{} flows, {} at a time at most, {changes} changes", flows.opened(), flows.most());
    println!("{:<58} {:>8} {:>9} {:>9}", "design", "broken", "astray", "KiB");
    for (design, outcome) in designs.iter().zip(&outcomes) {
        let kib = outcome.most_bytes.div_ceil(1024);
        println!("{:<58} {:>8} {:>9} {kib:>9}", design.name, outcome.broken, outcome.astray);
    }
    Ok(())
}

fn look(pool: &Pool, design: &mut Design, outcome: &mut Outcome, now: u64, event: &Event) {
    let Some(chosen) = design.packet(&event.packet, Timestamp(now)) else { return };
    if event.is_first {
        outcome.most_bytes = outcome.most_bytes.max(design.bytes());
        outcome.astray += u64::from(!pool.takes(chosen));
        outcome.homes.insert(event.flow, chosen);
    } else if let Some(home) = outcome.homes.get(&event.flow).copied()
        && home != chosen
    {
        outcome.homes.remove(&event.flow);
        outcome.broken += u64::from(pool.serves(home));
    }
    if event.is_last {
        outcome.homes.remove(&event.flow);
    }
}
