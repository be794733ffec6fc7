//! Sends every UDP packet to an address back to where it came from: the AF_XDP sockets by themselves,
//! driven with a handler of one's own. As root, on an interface with traffic for the address:
//!
//! ```text
//! cargo run --example reflector -- eth1 192.0.2.10
//! ```

use dsrlb::dataplane::af_xdp::{Answer, XdpInterface, XdpOptions};
use dsrlb::dataplane::{Action, Frame, PacketIo, Port};
use dsrlb::flow::{Fragment, Protocol};
use dsrlb::packet::{Parse, parse};
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Swaps MACs, addresses and ports, which leaves every checksum right.
fn reflect(frame: &mut Frame<'_>) {
    let Parse::Ip(packet) = parse(frame.bytes()) else {
        return;
    };
    let (flow, network) = (packet.info.flow, usize::from(packet.network));
    if flow.protocol != Protocol::UDP || packet.info.fragment == Fragment::Later {
        return;
    }
    let (offset, length) = if flow.source.is_ipv4() { (12, 4) } else { (8, 16) };
    for (at, length) in [(0, 6), (network + offset, length), (packet.transport.into(), 2)] {
        let (one, other) = frame.bytes_mut()[at..at + 2 * length].split_at_mut(length);
        one.swap_with_slice(other);
    }
    frame.set_action(Action::Transmit(Port::INGRESS));
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, address] = &arguments[..] else {
        return Err("usage: reflector INTERFACE ADDRESS".into());
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut interface = XdpInterface::open(name, &XdpOptions::default())?;
    interface.redirect(&[(address.parse::<IpAddr>()?.into(), Answer::Kernel)])?;
    let mut queues = interface.take_queues();
    interface.attach()?;
    println!("{}", interface.granted());
    while !stop.load(Relaxed) {
        for queue in &mut queues {
            let wait = Duration::from_millis(10);
            queue.poll(wait, &mut |frames| frames.iter_mut().for_each(reflect))?;
        }
    }
    interface.detach();
    Ok(())
}
