//! Sends every UDP packet to an address back to where it came from, over AF_XDP: the least that
//! drives a `PacketIo`. As root, on an interface with traffic for the address:
//!
//! ```text
//! cargo run --example reflector -- eth1 192.0.2.10
//! ```

use dsrlb::dataplane::af_xdp::{Answer, XdpInterface, XdpOptions};
use dsrlb::dataplane::{Action, Frame, PacketIo};
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const UDP: u8 = 17;

/// Swaps the fields of `length` bytes at `at` and right after it.
fn swap(bytes: &mut [u8], at: usize, length: usize) {
    let (left, right) = bytes[at..at + 2 * length].split_at_mut(length);
    left.swap_with_slice(right);
}

/// Swaps MACs, addresses and ports, which leaves every checksum right.
fn reflect(frame: &mut Frame<'_>) {
    let bytes = frame.bytes_mut();
    let (addresses, length, ports) = match (bytes.get(12..14), bytes.get(14), bytes.get(23)) {
        (Some([0x08, 0x00]), Some(0x45), Some(&UDP)) => (26, 4, 34),
        (Some([0x86, 0xdd]), _, _) if bytes.get(20) == Some(&UDP) => (22, 16, 54),
        _ => return,
    };
    if bytes.len() < ports + 8 {
        return;
    }
    swap(bytes, 0, 6);
    swap(bytes, addresses, length);
    swap(bytes, ports, 2);
    frame.set_action(Action::Transmit);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: reflector INTERFACE ADDRESS".into());
    };
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;

    let mut interface = XdpInterface::open(&name, &XdpOptions::default())?;
    interface.redirect(&[(address.parse::<IpAddr>()?.into(), Answer::Kernel)])?;
    let mut queues = interface.take_queues();
    interface.attach()?;
    println!("{:?}", interface.granted());
    std::thread::scope(|scope| {
        for queue in &mut queues {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let polled = queue.poll(Duration::from_millis(100), &mut |frames| {
                        frames.iter_mut().for_each(reflect);
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
