//! What is known, and the snapshot made of it. One lock, never held while packets are processed.

mod hearing;
mod observing;
mod operating;
mod reporting;
mod retired;

use super::board::{AdminBoard, HealthBoard};
use super::claims::ClaimBoard;
use super::difference::{all_down_changes, changes};
use super::error::UpdateError;
use super::status::{Applied, Event};
#[cfg(feature = "tracing")]
use super::trace;
use crate::balancer::{Backend, VipKey};
use crate::config::{Changes, Config, Host, Limits, check, moves};
use crate::dataplane::af_xdp::{Answer, Granted, XdpError, XdpInterface, prefer_huge_pages};
use crate::dataplane::neighbour::{LinkState, NeighbourState};
use crate::dataplane::{
    Idle, MailSender, Member, PathMtus, Planner, Port, Site, Snapshot, WorkerCounters,
};
use crate::error::ConfigError;
use crate::forwarding::ProbeSources;
use crate::health::MonitorBinding;
use crate::packet::{Claim, MacAddress, arp, neighbor_discovery};
use crate::verdict::{BackendIndex, DropReason};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use retired::Retired;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// When a backend's drain is over. One that left and came back has another index.
type Deadline = (BackendIndex, Instant);

/// What is called with each event.
pub(super) type EventHandler = Box<dyn Fn(&Event) + Send + Sync>;

/// What the director's threads share.
pub(super) struct Shared {
    control: Mutex<Control>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    counters: Vec<Arc<WorkerCounters>>,
    stop: AtomicBool,
    /// Held while a change of the services is made known to all: the last one made is then also
    /// the last one that the resolver and the monitors hear of.
    changing: Mutex<()>,
    on_event: EventHandler,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("control", &self.control).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        control: Control,
        counters: Vec<Arc<WorkerCounters>>,
        on_event: EventHandler,
    ) -> Self {
        Self {
            control: Mutex::new(control),
            snapshots: Arc::default(),
            counters,
            stop: AtomicBool::new(false),
            changing: Mutex::default(),
            on_event,
        }
    }

    pub(super) fn snapshots(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.snapshots)
    }

    pub(super) fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    pub(super) fn stop_workers(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// A poisoned lock is taken all the same: a plan is made anew from what is known.
    pub(super) fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes and tells what happened outside of a plan.
    pub(super) fn emit(&self, event: Event) {
        self.lock().note([event]);
        self.tell();
    }

    /// Tells the events that have been noted, in their order, unless somebody is at it: then that
    /// thread tells these too. Without the lock, so that a handler may ask and change the director;
    /// what its own changes bring is told after it has returned.
    pub(super) fn tell(&self) {
        let mut control = self.lock();
        if std::mem::replace(&mut control.telling, true) {
            return;
        }
        // Handlers and subscribers are the embedder's; their bugs must not end the thread that found
        // something out. The panic hook has told of it.
        let call = |them: &dyn Fn()| drop(catch_unwind(AssertUnwindSafe(them)));
        #[cfg_attr(
            not(feature = "tracing"),
            expect(clippy::while_let_loop, reason = "there is more to it with tracing")
        )]
        loop {
            #[cfg(feature = "tracing")]
            {
                let generation = self.snapshots.load().generation;
                if std::mem::replace(&mut control.traced, generation) != generation {
                    drop(control);
                    call(&|| trace::snapshot(generation));
                    control = self.lock();
                    // Another one may have come meanwhile.
                    continue;
                }
            }
            let Some(event) = control.untold.pop_front() else { break };
            drop(control);
            #[cfg(feature = "tracing")]
            call(&|| trace::event(&event));
            call(&|| (self.on_event)(&event));
            control = self.lock();
        }
        control.telling = false;
    }

    /// Changes the configuration; returns the one that is in force from now on. The events are noted
    /// and not yet told. `prepare` is called before anything has changed if services are to be probed
    /// through their VIPs.
    pub(super) fn update(
        &self,
        change: impl FnOnce(&mut Config) -> Result<(), ConfigError>,
        prepare: impl FnOnce() -> io::Result<()>,
    ) -> Result<(Config, Applied), UpdateError> {
        let mut control = self.lock();
        let (before, old_members) = (self.snapshots.load_full(), control.members.clone());
        let mut config = control.config.clone();
        change(&mut config)?;
        control.settings.check(&mut config)?;
        if config.probes_through_vips() {
            prepare().map_err(UpdateError::Probing)?;
        }
        control.hear_probes(&config)?;
        let (old, new) = (vip_set(&control.config), vip_set(&config));
        let changes = Changes::between(&control.config, &config);
        // What goes is no longer redirected before it is unknown to the workers, what comes is
        // known to them before it is redirected: no packet falls between.
        let mut applied = control.redirect(&old.intersection(&new).copied().collect());
        if applied.is_ok() {
            let unchanged = (control.config.clone(), control.health.clone());
            control.health.adopt(&config);
            control.config = config;
            self.publish(&mut control);
            applied = control.redirect(&new);
            if applied.is_err() {
                (control.config, control.health) = unchanged;
                self.publish(&mut control);
            }
        }
        if let Err(error) = applied {
            // If this fails as well, the next change does the rest.
            let _ = control.redirect(&old);
            return Err(error.into());
        }
        for vip in new.difference(&old) {
            control.announce(*vip);
        }
        // What was known of a backend that left must not greet it when it comes back.
        let Control { config, neighbours, admin, claims, deadlines, members, .. } = &mut *control;
        let wanted = addresses(config);
        neighbours.retain(|address, _| wanted.contains(address));
        admin.adopt(config);
        deadlines.retain(|(index, _)| members.iter().any(|member| member.index == *index));
        claims.adopt(single(new));
        let config = config.clone();
        let after = self.snapshots.load();
        let generation = after.generation;
        let moves = moves((&before.services, &old_members), (&after.services, members));
        let moved = moves.into_iter().map(|moves| (moves.service, moves.share)).collect();
        let applied = Applied { generation, changes, moved };
        control.note([Event::ConfigApplied(applied.clone())]);
        Ok((config, applied))
    }

    /// Attaches the program, for the answers to the first probes alone: who is well is known before
    /// there is traffic.
    pub(super) fn attach(&self) -> Result<(), XdpError> {
        let mut control = self.lock();
        control.interface.set_serving(false)?;
        control.interface.attach()
    }

    /// The last step of the start: traffic comes from now on, and events are told.
    pub(super) fn serve(&self) -> Result<(), XdpError> {
        let mut control = self.lock();
        control.interface.set_serving(true)?;
        for vip in vip_set(&control.config) {
            control.announce(vip);
        }
        control.running = true;
        let events = changes(&[], &control.members);
        control.note(events);
        drop(control);
        self.tell();
        Ok(())
    }

    pub(super) fn detach(&self) {
        self.lock().interface.detach();
    }

    /// Plans anew, hands the snapshot to the workers, and notes what that changed for backends.
    fn publish(&self, control: &mut Control) {
        let (snapshot, members) = control.plan();
        snapshot.memory().for_each(prefer_huge_pages);
        control.retired.keep(self.snapshots.swap(Arc::new(snapshot)));
        let events = changes(&control.members, &members);
        let services = all_down_changes(&control.config, &control.members, &members);
        control.note(events.into_iter().chain(services));
        // Slots are used again: what a backend has been sent counts from when it came.
        let known: HashMap<BackendIndex, (u64, u64)> = std::mem::take(&mut control.baselines);
        for member in &members {
            let baseline = known.get(&member.index).copied();
            let baseline = baseline.unwrap_or_else(|| self.traffic(member.index));
            control.baselines.insert(member.index, baseline);
        }
        control.members = members;
    }

    fn traffic(&self, index: BackendIndex) -> (u64, u64) {
        let each = self.counters.iter().map(|counters| counters.backend(index));
        each.fold((0, 0), |(packets, bytes), (p, b)| (packets + p, bytes + b))
    }
}

/// What does not change while a director runs.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) host: Host,
    pub(super) limits: Limits,
    /// For services that have no monitor of their own.
    pub(super) monitor: Option<MonitorBinding>,
    /// When the workers' time begins, if services are to know what they chose before they changed.
    pub(super) epoch: Option<Instant>,
    /// What works and yet may surprise, beside what the interface has to say.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Completes a configuration, and checks it.
    fn check(&self, config: &mut Config) -> Result<(), ConfigError> {
        config.with_default(self.monitor.as_ref());
        check(config, &self.host, &self.limits)
    }
}

/// What is known, and what was last planned from it.
#[derive(Debug)]
pub(super) struct Control {
    interface: XdpInterface,
    settings: Settings,
    mail: MailSender,
    site: Site,
    config: Config,
    neighbours: HashMap<IpAddr, NeighbourState>,
    health: HealthBoard,
    admin: AdminBoard,
    deadlines: Vec<Deadline>,
    path_mtus: PathMtus,
    claims: ClaimBoard,
    planner: Planner,
    retired: Retired<Snapshot>,
    members: Vec<Member>,
    baselines: HashMap<BackendIndex, (u64, u64)>,
    failure: Option<String>,
    /// Whether events are of interest yet: while it starts, nothing has changed for anybody.
    running: bool,
    /// Noted under the lock, so that their order is that of what happened; told without it.
    untold: VecDeque<Event>,
    /// Whether a thread is telling them.
    telling: bool,
    /// The snapshot that was told of last.
    #[cfg(feature = "tracing")]
    traced: u64,
}

impl Control {
    pub(super) fn new(
        interface: XdpInterface,
        site: Site,
        settings: Settings,
        mail: MailSender,
    ) -> Self {
        Self {
            interface,
            site,
            planner: Planner::new(settings.limits.backends),
            retired: Retired::default(),
            settings,
            mail,
            config: Config::default(),
            neighbours: HashMap::new(),
            health: HealthBoard::default(),
            admin: AdminBoard::default(),
            deadlines: Vec::new(),
            path_mtus: PathMtus::default(),
            claims: ClaimBoard::default(),
            members: Vec::new(),
            baselines: HashMap::new(),
            failure: None,
            running: false,
            untold: VecDeque::new(),
            telling: false,
            #[cfg(feature = "tracing")]
            traced: 0,
        }
    }

    fn note(&mut self, events: impl IntoIterator<Item = Event>) {
        if self.running {
            self.untold.extend(events);
        }
    }

    pub(super) fn granted(&self) -> Granted {
        self.interface.granted()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let services = self.config.services.iter().map(|bound| &bound.service);
        let empty = services.filter(|service| service.all_backends().next().is_none());
        let empty = empty.map(|service| {
            format!(
                "service {} has no backends: its packets are dropped and counted as {}",
                service.key,
                DropReason::NoBackend
            )
        });
        let noted = self.interface.warnings().iter().chain(&self.settings.warnings).cloned();
        let claims = self.claims.all().filter(|claim| !self.explains(claim));
        let claims = claims.map(|claim| event(*claim).to_string());
        noted.chain(empty).chain(claims).collect()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a backend waits for its first probe to decide about it.
    pub(super) fn awaits_probes(&self) -> bool {
        self.health.awaits_probes()
    }

    fn member(&self, service: VipKey, id: &str) -> Option<&Member> {
        let mut members = self.members.iter();
        members.find(|member| (member.service, member.backend.id()) == (service, id))
    }

    fn has_backend(&self, address: IpAddr) -> bool {
        self.members.iter().any(|member| member.backend.address() == address)
    }

    /// Whether a claim is that of a backend which takes no new flows for it, and says so itself.
    fn explains(&self, claim: &Claim) -> bool {
        self.members.iter().any(|member| {
            matches!(member.idle, Some(Idle::ClaimsVip { .. }))
                && member.service.prefix().contains(&claim.address)
                && on_link(&self.neighbours, member.backend.as_ref()) == Some(claim.mac)
        })
    }

    fn redirect(&mut self, vips: &HashSet<IpNet>) -> Result<(), XdpError> {
        let answer = if self.site.answers { Answer::Handler } else { Answer::Kernel };
        let addresses: Vec<_> = vips.iter().map(|vip| (*vip, answer)).collect();
        self.interface.redirect(&addresses)
    }

    /// Has the answers to probes through VIPs come to the workers, if there are such probes.
    fn hear_probes(&mut self, config: &Config) -> Result<(), XdpError> {
        let sources = match config.probes_through_vips() {
            true => self.site.probe_sources,
            false => ProbeSources::default(),
        };
        self.interface.set_probe_sources(sources)
    }

    /// Follows a change of an interface's own MAC address or MTU.
    fn set_port(&mut self, port: u8, link: LinkState) {
        let Some((station, mtu)) = self.site.ports.get_mut(usize::from(port)) else {
            return;
        };
        *mtu = link.mtu;
        let Some(mac) = link.mac.filter(|mac| mac != station) else {
            return;
        };
        *station = mac;
        if Port(port) == Port::INGRESS
            && let Err(error) = self.interface.set_station(mac)
        {
            self.note([Event::ResolverFailed(error.to_string())]);
        }
    }

    fn station(&self) -> MacAddress {
        self.site.ports.first().map_or(MacAddress::ZERO, |(station, _)| *station)
    }

    /// Tells the link that a VIP is here, if that is ours to tell. It is best effort: whoever
    /// missed it asks, and is answered.
    fn announce(&self, vip: IpNet) {
        if !self.site.answers || vip.prefix_len() != vip.max_prefix_len() {
            return;
        }
        let frame = match vip.addr() {
            IpAddr::V4(vip) => arp::announcement(self.station(), vip).to_vec(),
            IpAddr::V6(vip) => neighbor_discovery::unsolicited(self.station(), vip).to_vec(),
        };
        self.mail.send(Port::INGRESS, frame);
    }
}

fn vip_set(config: &Config) -> HashSet<IpNet> {
    config.services.iter().map(|bound| bound.service.key.prefix()).collect()
}

/// Of these VIPs those that are one address.
fn single(vips: HashSet<IpNet>) -> BTreeSet<IpAddr> {
    let single = vips.into_iter().filter(|vip| vip.prefix_len() == vip.max_prefix_len());
    single.map(|vip| vip.addr()).collect()
}

/// What is told, and warned of, about a host that claims a VIP.
fn event(claim: Claim) -> Event {
    Event::VipClaimed { vip: claim.address, mac: claim.mac }
}

/// The MAC address of a backend, if it is its own and not that of a router.
fn on_link(
    neighbours: &HashMap<IpAddr, NeighbourState>,
    backend: &dyn Backend,
) -> Option<MacAddress> {
    match neighbours.get(&backend.address())? {
        NeighbourState::Resolved(path) if path.gateway.is_none() => Some(path.mac),
        _ => None,
    }
}

/// The addresses of all backends, whose neighbours are wanted.
pub(super) fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    let backends = config.services.iter().flat_map(|bound| bound.service.all_backends());
    backends.map(|backend| backend.address()).collect()
}
