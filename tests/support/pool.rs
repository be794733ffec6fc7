//! A small configuration: every kind of service, three backends.

use super::frames::DIRECTOR_MAC;
use dsrlb::balancer::{Backend, HashBalancer, RealServer, VipKey, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{
    Action, Frame, HEADROOM, Idle, Observed, Pipeline, Plan, Planner, Port, Site, WorkerCounters,
};
use dsrlb::flow::{HashInput, Timestamp};
use dsrlb::packet::MacAddress;
use dsrlb::verdict::{BackendIndex, Verdict};
use std::sync::{Arc, OnceLock};

pub const STATION: MacAddress = MacAddress(DIRECTOR_MAC);

pub const SERVICES: [(&str, HashInput); 6] = [
    ("10.0.0.100:80/tcp", HashInput::FiveTuple),
    ("10.0.0.100:any/udp", HashInput::SourceIp),
    ("10.0.0.101", HashInput::FiveTuple),
    ("203.0.113.0/24:443/tcp", HashInput::TwoTuple),
    ("[fd00::100]:80/tcp", HashInput::FiveTuple),
    ("fd00::101", HashInput::ThreeTuple),
];

/// `10.0.0.11` to `10.0.0.13`, at `02:00:00:00:00:0b` and up; `10.0.0.102:80/tcp` has a backend
/// whose neighbour is unresolved.
pub fn plan() -> Plan {
    plan_with(false)
}

/// The same; `answers` says whether ARP and neighbour discovery for the VIPs are ours to answer.
pub fn plan_with(answers: bool) -> Plan {
    let pool = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
    let service = |key: &str, input| {
        let service = VirtualService::new(key.parse().unwrap()).hash_input(input);
        pool.iter().fold(service, |service, address| {
            service.backend(RealServer::new(address.parse().unwrap()))
        })
    };
    let mut services: Vec<_> = SERVICES.map(|(key, input)| service(key, input)).into();
    let lost = RealServer::new("10.0.0.99".parse().unwrap());
    services.push(VirtualService::new("10.0.0.102:80/tcp".parse().unwrap()).backend(lost));
    let site = Site { answers, ..Site::new(STATION) };
    Planner::new(64).plan(&services, &site, observe)
}

/// The plan, made once: the fuzz targets need it for every input.
pub fn plan_once() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(plan)
}

fn observe(_: VipKey, backend: &dyn Backend) -> Observed {
    let last = match backend.address() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => ip.octets()[15],
    };
    let path = match last {
        99 => Err(Idle::Unresolved("nobody answers".into())),
        last => Ok(Path::on_link(MacAddress([2, 0, 0, 0, 0, last]))),
    };
    Observed { path, ..Observed::well(Path::on_link(STATION)) }
}

pub fn pipeline() -> Pipeline<HashBalancer> {
    Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(64)))
}

/// What comes of one frame: its verdict and all that is sent.
pub fn send(
    pipeline: &mut Pipeline<HashBalancer>,
    plan: &Plan,
    now: u64,
    frame: &[u8],
) -> (Verdict, Vec<Vec<u8>>) {
    let mut memory = [&[0; HEADROOM], frame].concat();
    let end = memory.len();
    let mut frame = Frame::in_memory(&mut memory, HEADROOM..end);
    let batch = std::slice::from_mut(&mut frame);
    let verdict = pipeline.process(&plan.snapshot, Timestamp(now), batch)[0];
    let mut sent = Vec::new();
    if let Action::Transmit(_) = frame.action() {
        sent.push(frame.bytes().to_vec());
    }
    let drained: Result<(), ()> = pipeline.drain(|_: Port, bytes| {
        sent.push(bytes.to_vec());
        Ok(())
    });
    assert_eq!(drained, Ok(()));
    (verdict, sent)
}

/// `forward 10.0.0.12`, `drop no-service`, `pass`.
pub fn describe(plan: &Plan, verdict: Verdict) -> String {
    let name = |index: BackendIndex| {
        let member = plan.members.iter().find(|member| member.index == index);
        member.map_or("?", |member| member.backend.id())
    };
    match verdict {
        Verdict::Forward(index) => format!("forward {}", name(index)),
        Verdict::Answer(kind) => format!("answer {}", kind.as_str()),
        Verdict::Hold => "hold".into(),
        Verdict::Pass => "pass".into(),
        Verdict::Probe => "probe".into(),
        Verdict::Drop(reason) => format!("drop {reason}"),
    }
}
