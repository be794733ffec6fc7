//! The director beside what else could forward, on one veth pair, in one run. Needs root, two CPUs, `nft` and clang.
//!
//! ```text
//! cargo bench --bench forwarders [-- quick | -- turns]
//! ```
//!
//! Every contender gets the same frames of one generator, one contender after the other, round by round; each round
//! starts each one anew, warms it up and counts what arrives at the other end, by destination MAC address. Prints
//! tables in Markdown; `cargo xtask bench` writes them down.

#[path = "../../examples/lab/mod.rs"]
mod lab;

mod contender;
mod cpu;
mod delay;
mod figures;
mod forwarder;
mod in_turns;
mod network;
mod packet_socket;
mod plan;
mod rates;
mod run;
mod schedule;
mod traffic;

use contender::Kind;
use run::{Bench, Times};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["forward", kind, interface, cpu, entries] => {
            let kind = Kind::named(kind).ok_or("there is no such forwarder")?;
            forwarder::run(kind, interface, cpu.parse()?, entries.parse()?)
        }
        [] => compare(Times::full()),
        ["quick"] => compare(Times::quick()),
        ["turns"] => compare_in_turns(),
        _ => Err(format!("`{}`: expected nothing, `quick` or `turns`", words.join(" ")).into()),
    }
}

/// Nothing where it cannot be measured.
fn bench(times: Times) -> Result<Option<Bench>, Box<dyn Error>> {
    figures::check();
    if let Err(missing) = lab::Lab::privileged() {
        println!("SKIPPED: {missing}");
        return Ok(None);
    }
    lab::cleanup_on_signals()?;
    Bench::new(times).map(Some)
}

fn compare(times: Times) -> Result<(), Box<dyn Error>> {
    let Some(bench) = bench(times)? else { return Ok(()) };
    in_turns::compare(&bench)?;
    let capacity = rates::compare(&bench)?;
    delay::compare(&bench, capacity)?;
    cpu::compare(&bench, capacity)?;
    println!("{}", bench.disturbance());
    Ok(())
}

fn compare_in_turns() -> Result<(), Box<dyn Error>> {
    let Some(bench) = bench(Times::full())? else { return Ok(()) };
    let capacity = in_turns::compare(&bench)?;
    delay::compare(&bench, capacity)?;
    println!("{}", bench.disturbance());
    Ok(())
}
