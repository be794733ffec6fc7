//! Direct Server Return without root and without a network: the real pipeline over frames in
//! memory.
//!
//! ```text
//! cargo run --no-default-features --example simulate
//! ```
//!
//! Ten thousand clients send to a VIP with three backends; then one backend fails. Shown is how
//! the flows spread, that the packets differ in nothing but their MAC addresses, and how many flows
//! had to move. Exits non-zero if any of that is not as it should be.

use dsrlb::balancer::{Backend, HashBalancer, RealServer, VirtualService};
use dsrlb::config::{Host, Limits, check};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Frame, MemoryIo, Observed, PacketIo, Pipeline, Planner, Site, Snapshot, WorkerCounters,
};
use dsrlb::flow::Timestamp;
use dsrlb::packet::MacAddress;
use etherparse::PacketBuilder;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const DIRECTOR: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x01]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xcc]);
const FLOWS: u16 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let backend = |address: [u8; 4]| RealServer::new(IpAddr::from(address));
    let services = [VirtualService::new("10.0.0.100:80/tcp".parse()?)
        .backend(backend([10, 0, 0, 11]))
        .backend(backend([10, 0, 0, 12]))
        .backend(backend([10, 0, 0, 13]).with_weight(2))];
    check(&services.iter().cloned().collect(), &Host::default(), &Limits::default())?;

    // What the director learns from the neighbour table and its monitors, here by fiat: each
    // backend's MAC address ends in the last byte of its IP address.
    let mut planner = Planner::new(16);
    let mut plan = |failed: Option<IpAddr>| {
        planner.plan(&services, &Site::new(DIRECTOR), |_, backend: &dyn Backend| Observed {
            health: match failed {
                Some(address) if address == backend.address() => Err("switched off".into()),
                _ => Ok(()),
            },
            ..Observed::well(Path::on_link(mac_of(backend.address())))
        })
    };
    let before = spread("all backends well", &plan(None).snapshot)?;
    let failed = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 12));
    let after = spread("10.0.0.12 failed", &plan(Some(failed)).snapshot)?;

    let orphans = before.iter().filter(|mac| **mac == mac_of(failed)).count();
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
    println!("{moved} of {FLOWS} flows moved; {orphans} of them had to.");
    if orphans == 0 || moved < orphans || moved - orphans > usize::from(FLOWS) / 50 {
        return Err("more than 2 % of the flows of living backends moved".into());
    }
    Ok(())
}

/// Sends the first packet of every flow through the pipeline; the MAC address each one went to.
fn spread(title: &str, snapshot: &Snapshot) -> Result<Vec<MacAddress>, Box<dyn Error>> {
    let mut io = MemoryIo::new();
    let mut sent = Vec::new();
    for port in 0..FLOWS {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT.0, DIRECTOR.0)
            .ipv4([192, 0, 2, 7], [10, 0, 0, 100], 64)
            .tcp(40_000 + port, 80, 0, 65_535)
            .syn()
            .write(&mut frame, &[])?;
        sent.push(frame.clone());
        io.push(frame);
    }
    let mut pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(16)));
    let mut process = |frames: &mut [Frame<'_>]| {
        pipeline.process(snapshot, Timestamp(0), frames);
    };
    while io.poll(Duration::ZERO, &mut process)? > 0 {}

    let received = io.take_sent();
    let mut flows = BTreeMap::<_, u32>::new();
    let mut chosen = Vec::new();
    for (sent, received) in sent.iter().zip(&received) {
        if sent[12..] != received[12..] {
            return Err("a packet changed beyond its MAC addresses".into());
        }
        let (mac, _) = received.split_first_chunk::<6>().ok_or("a frame without addresses")?;
        chosen.push(MacAddress(*mac));
        *flows.entry(mac).or_default() += 1;
    }
    if chosen.len() != usize::from(FLOWS) {
        return Err(format!("{} of {FLOWS} packets were forwarded", chosen.len()).into());
    }
    println!("{title}:");
    for (mac, flows) in flows {
        let share = 100.0 * f64::from(flows) / f64::from(FLOWS);
        println!("  10.0.0.{:<3} {flows:>6} flows {share:>5.1} %", mac[5]);
    }
    Ok(chosen)
}

fn mac_of(address: IpAddr) -> MacAddress {
    match address {
        IpAddr::V4(ip) => MacAddress([2, 0, 0, 0, 0, ip.octets()[3]]),
        IpAddr::V6(ip) => MacAddress([2, 0, 0, 0, 0, ip.octets()[15]]),
    }
}
