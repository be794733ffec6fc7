//! What runs in a process of its own: the director, a handler that only swaps MAC addresses, both in turns, packet
//! sockets.

use crate::contender::Kind;
use crate::in_turns::{self, TURN};
use crate::plan::{self, BACKENDS, FIRST_BACKEND, PORT, VIP4, VIP6};
use crate::{packet_socket, traffic};
use dsrlb::balancer::{RealServer, VipKey, VirtualService};
use dsrlb::dataplane::af_xdp::{Answer, XdpInterface, XdpOptions, XdpQueue};
use dsrlb::dataplane::{Action, Frame, PacketIo, Port};
use dsrlb::director::Director;
use std::error::Error;
use std::io::Read;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Forwards from when it prints `ready` until the standard input ends, on CPU `cpu`.
pub fn run(kind: Kind, interface: &str, cpu: usize, entries: usize) -> Result<(), Box<dyn Error>> {
    traffic::pin(cpu)?;
    match kind {
        Kind::Director | Kind::Tunnel => direct(kind == Kind::Tunnel, interface, entries),
        Kind::Bare => until_told(|stop| swap(interface, Duration::from_millis(50), stop)),
        Kind::Spinning => until_told(|stop| swap(interface, Duration::ZERO, stop)),
        Kind::InTurns => until_told(|stop| in_turns::forward(interface, entries, TURN, stop)),
        Kind::InWindows => {
            let turn = Duration::from_nanos(traffic::WINDOW);
            until_told(|stop| in_turns::forward(interface, entries, turn, stop))
        }
        Kind::PacketSocket => until_told(|stop| Ok(packet_socket::forward(interface, stop)?)),
        Kind::Nftables => Err("nftables needs no process".into()),
    }
}

/// That of each family, with all backends.
pub fn services(forwarding: &str) -> Result<[VirtualService; 2], Box<dyn Error>> {
    let forwarding = forwarding.parse()?;
    let service = |ipv6: bool| -> Result<_, Box<dyn Error>> {
        let vip = if ipv6 { format!("[{VIP6}]:{PORT}/udp") } else { format!("{VIP4}:{PORT}/udp") };
        let service = VirtualService::new(vip.parse::<VipKey>()?);
        Ok((FIRST_BACKEND..FIRST_BACKEND + BACKENDS).fold(service, |service, number| {
            let server = RealServer::new(plan::backend(number, ipv6));
            service.backend(server.with_forwarding(forwarding))
        }))
    };
    Ok([service(false)?, service(true)?])
}

/// The whole director as its users start it, without monitors.
fn direct(tunnel: bool, interface: &str, entries: usize) -> Result<(), Box<dyn Error>> {
    let mut builder = Director::builder(interface).flows(entries);
    for service in services(if tunnel { "ipip" } else { "l2" })? {
        builder = builder.service(service);
    }
    if tunnel {
        for source in ["10.88.0.1", "fd88::1"] {
            builder = builder.tunnel_source(source.parse::<IpAddr>()?);
        }
    }
    let director = builder.start()?;
    println!("ready");
    wait_for_the_end();
    if let Some(failure) = director.failure() {
        return Err(failure.into());
    }
    let counts = director.shutdown().counts;
    // Answers by ARP and the like are not counted; everything else that is no forwarding is a mistake.
    if let Some((reason, count)) = counts.drops().next() {
        return Err(format!("dropped {count}: {reason}").into());
    }
    Ok(())
}

/// The first queue of an interface, to which comes what is for the VIPs from now on, as long as the interface is kept.
pub fn open(name: &str) -> Result<(XdpInterface, XdpQueue), Box<dyn Error + Send + Sync>> {
    let mut interface = XdpInterface::open(name, &XdpOptions::default())?;
    let vips = [IpAddr::from(VIP4), IpAddr::from(VIP6)];
    interface.redirect(&vips.map(|vip| (vip.into(), Answer::Kernel)))?;
    let queue = interface.take_queues().into_iter().next().ok_or("the interface has no queue")?;
    interface.attach()?;
    println!("ready");
    Ok((interface, queue))
}

fn swap(
    interface: &str,
    wait: Duration,
    stop: &AtomicBool,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (_interface, mut queue) = open(interface)?;
    while !stop.load(Relaxed) {
        queue.poll(wait, &mut |frames| frames.iter_mut().for_each(swap_addresses))?;
    }
    Ok(())
}

pub fn swap_addresses(frame: &mut Frame<'_>) {
    if let Some((addresses, _)) = frame.bytes_mut().split_first_chunk_mut::<12>() {
        addresses.rotate_left(6);
        frame.set_action(Action::Transmit(Port::INGRESS));
    }
}

fn until_told(
    forward: impl FnOnce(&AtomicBool) -> Result<(), Box<dyn Error + Send + Sync>> + Send,
) -> Result<(), Box<dyn Error>> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let forwarding = scope.spawn(|| forward(&stop));
        wait_for_the_end();
        stop.store(true, Relaxed);
        forwarding.join().map_err(|_| "the forwarder panicked")?.map_err(|error| error.to_string())
    })?;
    Ok(())
}

fn wait_for_the_end() {
    // An error is an end as well.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
