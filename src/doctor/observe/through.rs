//! Packets to the VIPs by the way of a client's: framed by the code that delivers those, sent past the host's
//! stack, their answers heard beside it.
//!
//! A director does this with an XDP program and a network namespace for each probe, so that any monitor can;
//! here it is a SYN or a ping, and packet sockets will do.

use super::segments::{self, Heard, Say, segment};
use super::{is_taken, refused, unseen};
use crate::balancer::Scope;
use crate::dataplane::af_xdp::LinkSocket;
use crate::dataplane::neighbour::NeighbourState;
use crate::dataplane::{self, Idle, Member, Planner, ProbeFramer, Site, Snapshot};
use crate::director::through::{
    Ears, Evidence, Exchange, Heard as Message, Way, explain, ping_exchange, ping_packet,
};
use crate::doctor::Checkup;
use crate::doctor::observed::{Observed, Served};
use crate::flow::Protocol;
use crate::forwarding::{Forwarding, ProbeSources};
use crate::health::ProbeFailure;
use crate::packet::{self, EtherType, Parse};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many backends are asked at a time.
const AT_ONCE: usize = 512;
/// Above what Linux takes for connections of its own (`ip_local_port_range`), unless told.
const FIRST_PORT: u16 = 61_000;
const PAUSE: Duration = Duration::from_millis(5);
/// How many messages are read between two looks at the clock.
const MOST_HEARD: usize = 1024;
const BUFFER_LENGTH: usize = 2048;
const WHAT: &str = "whether backends serve the VIPs";

pub(super) fn look(checkup: &Checkup, seen: &mut Observed) {
    if checkup.config.services.is_empty() {
        return;
    }
    if is_taken(&seen.links) {
        let why = "an XDP program is attached, which would have the answers";
        return seen.unseen.push(unseen(WHAT, why, ""));
    }
    if checkup.check(&seen.vips).is_err() {
        return seen.unseen.push(unseen(WHAT, "the configuration would be refused", ""));
    }
    let ports = seen.links.iter().filter_map(|link| link.there.as_ref());
    let site = Site {
        ports: ports.filter_map(|there| Some((there.mac?, there.mtu))).collect(),
        answers: checkup.answers,
        tunnel_sources: checkup.tunnel_sources,
        errors: dataplane::ErrorPolicy::default(),
        probe_sources: seen.vips.sources,
    };
    let services = checkup.config.services.iter().map(|bound| &bound.service);
    let plan = Planner::new(checkup.limits.backends).plan(services, &site, |_, backend| {
        let path = match seen.backends.get(&backend.address()) {
            Some(NeighbourState::Resolved(path)) => Ok(*path),
            state => Err(Idle::Unresolved(state.map_or(String::new(), |s| s.to_string()))),
        };
        dataplane::Observed { path, ..dataplane::Observed::well(no_path()) }
    });
    let ways = plan.members.iter().map(|member| member.backend.address());
    let unknown = ways.filter(|address| !seen.backends.contains_key(address)).count();
    if unknown > 0 {
        let why = format!("the ways to {unknown} of {} are not known", plan.members.len());
        seen.unseen.push(unseen(WHAT, why, ""));
    }
    match Asker::open(seen, checkup.patience) {
        Ok(mut asker) => {
            let hops = &plan.snapshot.next_hops;
            let reachable = |m: &&Member| hops.get(m.index).is_some();
            let members: Vec<&Member> = plan.members.iter().filter(reachable).collect();
            for some in members.chunks(AT_ONCE) {
                seen.services.extend(asker.ask(&plan.snapshot, some));
            }
        }
        Err(error) => seen.unseen.push(refused(WHAT, &error)),
    }
}

/// In the place of one that is not known.
const fn no_path() -> dataplane::neighbour::Path {
    dataplane::neighbour::Path::on_link(packet::MacAddress::ZERO)
}

/// A backend of a service while it is asked.
struct Asked<'a> {
    member: &'a Member,
    vip: IpAddr,
    /// The end of a connection at the VIP, and ours; none if the service is not of one TCP port.
    connection: Option<(SocketAddr, SocketAddr)>,
    evidence: Evidence,
    heard: Option<Heard>,
}

/// What an exchange would show if it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Connection,
    Vip,
    Tunnel,
    Plain,
}

struct Asker {
    /// By port, to send.
    mouths: Vec<LinkSocket>,
    /// Answers of the VIPs, which the host's own stack may not let through.
    answers: Vec<LinkSocket>,
    /// Answers of the backends' own addresses, and refusals.
    ears: Ears,
    framer: ProbeFramer,
    sources: ProbeSources,
    patience: Duration,
    sequence: u16,
}

impl Asker {
    fn open(seen: &Observed, patience: Duration) -> io::Result<Self> {
        let indices: Vec<u32> =
            seen.links.iter().filter_map(|link| Some(link.there.as_ref()?.index)).collect();
        let ingress = *indices.first().ok_or(io::ErrorKind::NotFound)?;
        let sources = seen.vips.sources;
        let own = [
            (EtherType::IPV4, sources.ipv4.map(IpAddr::V4)),
            (EtherType::IPV6, sources.ipv6.map(IpAddr::V6)),
        ];
        let own = own.into_iter().filter_map(|(kind, own)| Some((kind, own?)));
        let hear = |(kind, own): (EtherType, IpAddr)| {
            LinkSocket::open(ingress, kind.0, &segments::filter(own))
        };
        Ok(Self {
            mouths: indices
                .iter()
                .map(|index| LinkSocket::open(*index, 0, &[]))
                .collect::<io::Result<_>>()?,
            answers: own.map(hear).collect::<io::Result<_>>()?,
            ears: Ears::open()?,
            framer: ProbeFramer::new(),
            sources,
            patience,
            sequence: 0,
        })
    }

    /// Asks these backends, all at once.
    fn ask(&mut self, snapshot: &Snapshot, members: &[&Member]) -> Vec<Served> {
        let mut asked: Vec<Asked<'_>> =
            members.iter().zip(FIRST_PORT..).map(|(m, port)| self.asked(m, port)).collect();
        let mut exchanges = HashMap::new();
        let begun = Instant::now();
        // A second time, for what may have been lost.
        for until in [self.patience / 2, self.patience] {
            for (number, asked) in asked.iter().enumerate() {
                if !asked.is_done() {
                    self.send(snapshot, number, asked, &mut exchanges);
                }
            }
            while begun.elapsed() < until && !asked.iter().all(Asked::is_done) {
                sleep(PAUSE);
                self.hear(snapshot, &mut asked, &exchanges);
            }
        }
        asked.into_iter().map(|asked| asked.served(self.patience)).collect()
    }

    fn asked<'a>(&self, member: &'a Member, port: u16) -> Asked<'a> {
        let prefix = member.service.prefix();
        let vip = prefix.hosts().next().unwrap_or_else(|| prefix.addr());
        let connection = match (member.service.scope(), self.sources.towards(vip)) {
            (Scope::Port(Protocol::TCP, to), Some(own)) => {
                Some(((vip, to).into(), (own, port).into()))
            }
            _ => None,
        };
        Asked { member, vip, connection, evidence: Evidence::default(), heard: None }
    }

    /// Sends everything that may tell something.
    fn send(
        &mut self,
        snapshot: &Snapshot,
        number: usize,
        asked: &Asked<'_>,
        exchanges: &mut HashMap<Exchange, (usize, Purpose)>,
    ) {
        let address = asked.member.backend.address();
        if let Some((vip, own)) = asked.connection {
            let port = Exchange { protocol: Protocol::TCP, number: u32::from(own.port()) };
            exchanges.insert(port, (number, Purpose::Connection));
            self.through(snapshot, asked.member, segment(own, vip, Say::Open));
        }
        let inside = asked.way().tunnel.map(|_| (Purpose::Tunnel, address));
        for (purpose, to) in
            [(Purpose::Vip, asked.vip), (Purpose::Plain, address)].into_iter().chain(inside)
        {
            self.sequence = self.sequence.wrapping_add(1);
            exchanges.insert(ping_exchange(to, self.sequence), (number, purpose));
            match (purpose, self.sources.towards(to)) {
                (Purpose::Plain, _) => self.ears.ping(to, self.sequence),
                (_, Some(own)) => {
                    let ping = ping_packet(own, to, self.sequence);
                    self.through(snapshot, asked.member, ping);
                }
                (_, None) => {}
            }
        }
    }

    /// What cannot be sent is not answered.
    fn through(&mut self, snapshot: &Snapshot, member: &Member, packet: Option<Vec<u8>>) {
        let Self { framer, mouths, .. } = self;
        let _ = packet.map(|packet| {
            framer.frame(snapshot, member.index, &packet, |port, frame| {
                let _ = mouths.get(usize::from(port.0)).map(|mouth| mouth.send(frame));
            })
        });
    }

    fn hear(
        &mut self,
        snapshot: &Snapshot,
        asked: &mut [Asked<'_>],
        exchanges: &HashMap<Exchange, (usize, Purpose)>,
    ) {
        let mut reset = Vec::new();
        let mut buffer = [0; BUFFER_LENGTH];
        for socket in &self.answers {
            for _ in 0..MOST_HEARD {
                let Some(frame) = socket.receive(&mut buffer) else {
                    break;
                };
                let Parse::Ip(parsed) = packet::parse(frame) else {
                    continue;
                };
                let packet = parsed.packet(frame);
                let known = Exchange::answered(packet).and_then(|of| exchanges.get(&of));
                let Some((asked, purpose)) =
                    known.and_then(|(number, purpose)| Some((asked.get_mut(*number)?, *purpose)))
                else {
                    continue;
                };
                // Others may say that there is no way; only the VIP itself proves that there is one.
                if segments::source(packet) != Some(asked.vip) {
                    continue;
                }
                match purpose {
                    Purpose::Connection => {
                        if let Some(heard) = segments::answer(packet) {
                            if let (Heard::Accepts(_), Some((vip, own))) = (heard, asked.connection)
                            {
                                reset.push((asked.member, segment(own, vip, Say::Reset)));
                            }
                            asked.heard = Some(heard);
                        }
                    }
                    Purpose::Vip => asked.evidence.vip = true,
                    Purpose::Tunnel | Purpose::Plain => {}
                }
            }
        }
        self.ears.hear(MOST_HEARD, |message| match message {
            Message::Answer(exchange) => match exchanges.get(&exchange) {
                Some((number, Purpose::Tunnel)) => {
                    let _ = asked.get_mut(*number).map(|asked| asked.evidence.tunnel = true);
                }
                Some((number, Purpose::Plain)) => {
                    let _ = asked.get_mut(*number).map(|asked| asked.evidence.plain = true);
                }
                _ => {}
            },
            Message::Refusal(refusal) => {
                for asked in asked.iter_mut().filter(|asked| refusal.is_about(&asked.way())) {
                    asked.evidence.refused = Some((refusal.kind, refusal.code));
                }
            }
        });
        for (member, packet) in reset {
            self.through(snapshot, member, packet);
        }
    }
}

impl Asked<'_> {
    fn way(&self) -> Way {
        let backend = &self.member.backend;
        let tunnel = match backend.forwarding() {
            Forwarding::Tunnel(tunnel) => Some(tunnel.encapsulation),
            _ => None,
        };
        Way { index: self.member.index, address: backend.address(), tunnel }
    }

    fn is_done(&self) -> bool {
        match self.connection {
            Some(_) => self.heard.is_some(),
            None => self.evidence.vip,
        }
    }

    fn served(self, patience: Duration) -> Served {
        let way = self.way();
        let explained = |failure| Err(explain(failure, &self.evidence, &way, self.vip));
        let (result, mss) = match (self.connection, self.heard) {
            (_, Some(Heard::Accepts(mss))) => (Ok(()), mss),
            (_, Some(Heard::Refuses)) => (explained(ProbeFailure::Refused), None),
            (None, None) if self.evidence.vip => (Ok(()), None),
            (_, None) => (explained(ProbeFailure::Timeout(patience)), None),
        };
        let Member { service, backend, .. } = self.member;
        Served { service: *service, vip: self.vip, id: backend.id().to_owned(), result, mss }
    }
}
