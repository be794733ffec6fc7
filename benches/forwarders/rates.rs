//! Packets per second, from as many as the generator can send.

use crate::contender::{Kind, Place};
use crate::figures::{Spread, table};
use crate::plan::{Frames, Pace};
use crate::run::{Bench, Case, Sample};
use std::error::Error;

/// Live flows, but where it says otherwise.
pub const FLOWS: u64 = 1 << 14;
pub const MANY_FLOWS: u64 = 1 << 19;
/// A forwarder that lets this much through may be faster than what is offered.
const ALL: f64 = 0.95;

/// A row of the table.
struct Row {
    name: &'static str,
    kind: Kind,
    place: Place,
    ipv6: bool,
    flows: u64,
}

fn rows() -> Vec<Row> {
    use Kind::*;
    use Place::*;
    let row = |name, kind, place| Row { name, kind, place, ipv6: false, flows: FLOWS };
    let ipv6 = |row: Row| Row { ipv6: true, ..row };
    let many = |row: Row| Row { flows: MANY_FLOWS, ..row };
    vec![
        row("director, L2", Director, Apart),
        row("same sockets, MAC addresses swapped", Bare, Apart),
        row("nftables `fwd`, on the generator's core", Nftables, Apart),
        row("nftables `fwd`, on a core of its own", Nftables, OneCore(0)),
        row("AF_PACKET", PacketSocket, Apart),
        row("director, IPIP", Tunnel, Apart),
        ipv6(row("director, L2, IPv6", Director, Apart)),
        ipv6(row("nftables `fwd`, on the generator's core, IPv6", Nftables, Apart)),
        many(row("director, L2, 524,288 flows", Director, Apart)),
        row("director and NAPI on one core", Director, OneCore(0)),
        row("director and NAPI, nice 19, on one core", Director, OneCore(19)),
    ]
}

/// Compares for each size, prints the table, and returns what the director forwards of the smallest frames.
pub fn compare(bench: &Bench) -> Result<f64, Box<dyn Error>> {
    let rows = rows();
    let (mut lines, mut capacity) = (Vec::new(), None);
    for &size in bench.times.sizes {
        let mut rounds: Vec<Vec<Sample>> = Vec::new();
        for round in 0..bench.times.rounds {
            eprintln!("{size} bytes, round {} of {}", round + 1, bench.times.rounds);
            let measure = |row: &Row| {
                let frames = Frames { size, ipv6: row.ipv6, flows: row.flows };
                let case = Case { kind: row.kind, place: row.place, frames, pace: Pace::default() };
                bench.measure(&case)
            };
            rounds.push(rows.iter().map(measure).collect::<Result<_, _>>()?);
        }
        for (number, row) in rows.iter().enumerate() {
            let of = |get: fn(&Sample) -> f64| {
                let figures = rounds.iter().filter_map(|round| round.get(number)).map(get);
                Spread::of(figures).ok_or("not one round")
            };
            let (offered, forwarded) = (of(|it| it.offered)?, of(|it| it.forwarded)?);
            capacity = capacity.or(Some(forwarded.median));
            let mut line = vec![
                size.to_string(),
                row.name.to_owned(),
                format!("{:.2}{}", offered.median / 1e6, remark(row, &offered, &forwarded)),
                forwarded.text(1e6, 3),
            ];
            line.extend(
                REFERENCES.iter().map(|reference| ratio(&rows, &rounds, number, *reference)),
            );
            line.push(match row.kind {
                Kind::Nftables => String::new(),
                _ => of(|it| it.cpu / it.forwarded)?.text(1e-9, 0),
            });
            lines.push(line);
        }
    }
    println!("### Packets per second on veth, copy mode\n");
    println!(
        "UDP, {FLOWS} flows, 16 backends, {} rounds. Frames come from one core, where the kernel also receives \
         them unless the row says otherwise; processes have the other core. *Offered*: frames given to the wire, \
         those for which the forwarder's end had no room included; ¹: on the forwarder's own core, so it offers \
         what it can beside it; ²: next to all came through, so it may be faster. *Forwarded*: arrived, by \
         destination MAC address. Millions a second; median (least to most). Ratios are medians of those within \
         each round; nftables is that of the same family, and on one core where the row is. What its process computes \
         for a frame, the kernel's sending included, tells more where others use the machine too.\n",
        bench.times.rounds
    );
    let head = [
        "bytes",
        "forwarder",
        "offered",
        "forwarded",
        "to swapping",
        "to nftables at its best",
        "to AF_PACKET",
        "to L2 IPv4",
        "ns of the process a frame",
    ];
    println!("{}", table(&head, &lines));
    Ok(capacity.ok_or("no size to measure")?)
}

/// Whether the first row is divided by the second, or by the best of several.
type Reference = fn(&Row, &Row) -> bool;
const REFERENCES: [Reference; 4] = [
    |_, row| row.kind == Kind::Bare,
    // One core is compared with one core, and a family with itself.
    |own, row| {
        let one_core = |row: &Row| row.place != Place::Apart;
        let comparable = one_core(row) || !one_core(own) || own.kind == Kind::Nftables;
        row.kind == Kind::Nftables && row.ipv6 == own.ipv6 && comparable
    },
    |_, row| row.kind == Kind::PacketSocket,
    |_, row| {
        row.kind == Kind::Director && row.place == Place::Apart && !row.ipv6 && row.flows == FLOWS
    },
];

/// By how much more a row forwarded than the best of the references, round by round.
fn ratio(rows: &[Row], rounds: &[Vec<Sample>], number: usize, is_reference: Reference) -> String {
    let ratios = rounds.iter().filter_map(|round| {
        let own = rows.get(number)?;
        let references = rows.iter().zip(round).filter(|(row, _)| is_reference(own, row));
        let best = references.map(|(_, sample)| sample.forwarded).max_by(f64::total_cmp)?;
        Some(round.get(number)?.forwarded / best)
    });
    Spread::of(ratios).map_or_else(String::new, |spread| spread.text(1.0, 2))
}

fn remark(row: &Row, offered: &Spread, forwarded: &Spread) -> &'static str {
    match (row.kind, row.place) {
        (Kind::Nftables, Place::Apart) => "¹",
        _ if forwarded.median > ALL * offered.median => "²",
        _ => "",
    }
}
