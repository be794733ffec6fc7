//! What there is to begin with: the capture, and the snapshot that a director would have.

use super::{Fallible, Options};
use dsrlb::balancer::Backend;
use dsrlb::config::file::{ConfigFile, Dataplane};
use dsrlb::dataplane::neighbour::Path as Way;
use dsrlb::dataplane::{CaptureFile, Observed, Plan, Planner, Site};
use dsrlb::flow::FiveTuple;
use dsrlb::packet::{self, MacAddress, Parse};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

/// The director's MAC address, and a line on where it is from.
pub fn station(options: &Options, file: &ConfigFile, out: &mut impl Write) -> Fallible<MacAddress> {
    if let Some(station) = options.station {
        writeln!(out, "director: {station}, as told")?;
        return Ok(station);
    }
    let vips: Vec<_> = file.services.iter().map(|service| service.vip.prefix()).collect();
    let mut addressed = BTreeMap::<[u8; 6], u64>::new();
    // An error is for the replay to tell, behind the frames before it.
    for frame in open(&options.input)?.map_while(Result::ok) {
        let Some(to) = frame.bytes.first_chunk::<6>().filter(|to| to[0] & 1 == 0) else { continue };
        let is_for_vip = |flow: FiveTuple| vips.iter().any(|vip| vip.contains(&flow.destination));
        if flow_of(&frame.bytes).is_some_and(is_for_vip) {
            *addressed.entry(*to).or_default() += 1;
        }
    }
    // Some may be others' that a switch flooded, or went out to backends.
    if let Some((station, _)) = addressed.into_iter().max_by_key(|(_, count)| *count) {
        let station = MacAddress(station);
        writeln!(out, "director: {station}, which most frames for VIPs are addressed to")?;
        return Ok(station);
    }
    let station = MacAddress([2, 0, 0, 0, 0, 1]);
    writeln!(out, "director: {station}, made up: no frame is for a VIP")?;
    Ok(station)
}

/// The snapshot that a director would make, had it found all backends well and on its link.
pub fn plan(file: &ConfigFile, station: MacAddress, mtu: u32) -> Plan {
    let dataplane = file.dataplane.as_ref();
    let services: Vec<_> = file.services.iter().map(|service| service.to_service()).collect();
    let site = Site {
        ports: vec![(station, mtu)],
        answers: dataplane.and_then(|of| of.answer_for_vips).unwrap_or(false),
        tunnel_sources: dataplane.map(Dataplane::tunnel_sources).unwrap_or_default(),
        probe_sources: dataplane.map(Dataplane::probe_sources).unwrap_or_default(),
        ..Site::new(station)
    };
    // Numbered in the order of the configuration, and never the director's own.
    let first = if station.0[0] == 0x0e { 0x0a } else { 0x0e };
    let mut numbers = HashMap::<IpAddr, u32>::new();
    Planner::new(max_backends(file)).plan(&services, &site, |_, backend: &dyn Backend| {
        let next = numbers.len() as u32 + 1;
        let [_, a, b, c] = numbers.entry(backend.address()).or_insert(next).to_be_bytes();
        Observed::well(Way { mtu, ..Way::on_link(MacAddress([first, 0, 0, a, b, c])) })
    })
}

/// How many backends there can be, as a director is told it.
pub fn max_backends(file: &ConfigFile) -> usize {
    file.dataplane.as_ref().map(Dataplane::limits).unwrap_or_default().backends
}

/// The flow of the IP packet in a frame, if there is one.
pub fn flow_of(frame: &[u8]) -> Option<FiveTuple> {
    match packet::parse(frame) {
        Parse::Ip(parsed) => Some(parsed.info.flow),
        Parse::NotIp { .. } | Parse::Malformed(_) => None,
    }
}

/// A capture of Ethernet frames, in either format.
pub fn open(path: &Path) -> Fallible<CaptureFile<File>> {
    let file = File::open(path).and_then(CaptureFile::new);
    file.map_err(|error| format!("{}: {error}", path.display()).into())
}
