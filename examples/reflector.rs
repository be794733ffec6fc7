//! Sends every UDP packet to an address back to where it came from, over AF_XDP: the least that
//! drives a `PacketIo`. As root: `cargo run --example reflector -- eth1 192.0.2.10`.

use dsrlb::dataplane::af_xdp::{Answer, XdpInterface, XdpOptions};
use dsrlb::dataplane::{Action, Frame, PacketIo};
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Swaps MACs, addresses and ports, which leaves every checksum right.
fn reflect(frame: &mut Frame<'_>) {
    let bytes = frame.bytes_mut();
    let fields = match bytes {
        // Without options, as nearly all are.
        [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, 0x45, ..] if bytes.get(23) == Some(&17) => {
            [(0, 6), (26, 4), (34, 2)]
        }
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..] if bytes.get(20) == Some(&17) => {
            [(0, 6), (22, 16), (54, 2)]
        }
        _ => return,
    };
    if bytes.len() < fields[2].0 + 8 {
        return;
    }
    for (at, length) in fields {
        bytes[at..at + 2 * length].rotate_left(length);
    }
    frame.set_action(Action::Transmit);
}

fn main() -> Result<(), Box<dyn Error>> {
    let [_, name, address] = std::env::args()
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: reflector INTERFACE ADDRESS")?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut interface =
        XdpInterface::open(&name, &XdpOptions::default()).map_err(|error| error.to_string())?;
    interface.redirect(&[(address.parse::<IpAddr>()?.into(), Answer::Kernel)])?;
    let mut queues = interface.take_queues();
    interface.attach().map_err(|error| error.to_string())?;
    println!("{:?}", interface.granted());
    std::thread::scope(|scope| {
        for queue in &mut queues {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let polled = queue.poll(Duration::from_millis(100), &mut |frames| {
                        frames.iter_mut().for_each(reflect)
                    });
                    if let Err(error) = polled {
                        return eprintln!("{error}");
                    }
                }
                println!("queue {}: {:?}", queue.queue(), queue.stats());
            });
        }
    });
    interface.detach();
    Ok(())
}
