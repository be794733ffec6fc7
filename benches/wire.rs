//! What it costs to put a header before a packet, on AF_XDP in copy mode between two network namespaces. Needs root.
//!
//! ```text
//! cargo bench --bench wire
//! ```
//!
//! Two handlers take turns over the same socket: one rewrites MAC addresses, one also puts 20 bytes into the room in
//! front. The time is that of the director's poll alone, sending included, which is most of it; medians of eleven
//! rounds, their range, and the ratio of the medians.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "../tests/netns_af_xdp/wire.rs"]
#[allow(dead_code, unreachable_pub)]
mod wire;

use dsrlb::dataplane::af_xdp::XdpOptions;
use dsrlb::dataplane::{Action, Frame, PacketIo, Port};
use std::error::Error;
use std::time::{Duration, Instant};
use wire::{DIRECTOR_MAC, VIP4, WAIT, Wire, ethernet, kernel, packet, reflect};

const ROUNDS: usize = 11;
const BATCHES: usize = 300;
const BATCH: usize = 32;
const HEADER: usize = 20;

type Handler = fn(&mut Frame<'_>);

fn in_front(frame: &mut Frame<'_>) {
    assert!(frame.grow_front(HEADER));
    frame.bytes_mut()[14..14 + HEADER].fill(0x45);
    frame.bytes_mut()[..6].copy_from_slice(&wire::CLIENT_MAC);
    frame.bytes_mut()[6..12].copy_from_slice(&DIRECTOR_MAC);
    frame.set_action(Action::Transmit(Port::INGRESS));
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Err(missing) = lab::Lab::privileged() {
        println!("SKIPPED: {missing}");
        return Ok(());
    }
    let wire = Wire::build("wirebench", 1)?;
    let (mut director, mut client) = wire.open(&kernel(&[VIP4]), &XdpOptions::default())?;
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    let handlers: [(&str, Handler); 2] =
        [("MAC addresses", reflect), ("20 bytes in front", in_front)];
    for size in [64, 1400] {
        let (ether_type, bytes) = packet(VIP4, 17, &vec![7; size - 34]);
        let frame = ethernet(DIRECTOR_MAC, &[], ether_type, &bytes);
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            for ((_, handler), times) in handlers.iter().zip(&mut times) {
                let mut spent = Duration::ZERO;
                for _ in 0..BATCHES {
                    for _ in 0..BATCH {
                        assert!(peer.send(Port::INGRESS, &frame)?);
                    }
                    let mut handled = 0;
                    while handled < BATCH {
                        let start = Instant::now();
                        let count =
                            queue.poll(WAIT, &mut |frames| frames.iter_mut().for_each(handler))?;
                        spent += start.elapsed();
                        handled += count;
                    }
                    while peer.poll(Duration::ZERO, &mut |_| ())? > 0 {}
                }
                times.push(spent.as_nanos() as f64 / (BATCHES * BATCH) as f64);
            }
        }
        let medians = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            (times[ROUNDS / 2], times[0], times[ROUNDS - 1])
        });
        for ((name, _), (median, least, most)) in handlers.iter().zip(medians) {
            let ratio = median / medians[0].0;
            println!(
                "{size:>5} bytes, {name:<18} {median:>6.0} ns a frame ({least:.0} to {most:.0}), {ratio:.2}"
            );
        }
    }
    Ok(())
}
