//! From a description to a running director.

use super::claims::ClaimWatch;
use super::control::{Control, EventHandler, Settings, Shared, addresses};
use super::error::StartError;
use super::feedback::FeedbackListener;
use super::health::Health;
use super::sharing::Sharing;
use super::source::SourceThread;
use super::through::Prober;
use super::updater::Updater;
use super::workers::Workers;
use super::{Director, Event, memory};
use crate::balancer::{Balancer, FlowBalancer, FlowSync, Record};
use crate::config::{Config, ConfigSource, Host, Limits, ServiceConfig, SourceError};
use crate::dataplane::af_xdp::{XdpInterface, XdpOptions, XdpQueue, prefer_huge_pages};
use crate::dataplane::neighbour::{
    NeighbourEvent, NeighbourState, Resolver, ResolverError, ResolverThread,
};
use crate::dataplane::{
    ErrorPolicy, Mailbox, Pipeline, PipelineOptions, Site, Worker, WorkerCounters,
};
use crate::flow::HashKey;
use crate::forwarding::{ProbeSources, TunnelSources};
use crate::health::MonitorBinding;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the start waits for a source to give its first configuration.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(5);
/// How long the start waits for the neighbours, so that the first packet already has its way.
const FIRST_RESOLUTION: Duration = Duration::from_secs(1);

/// How often the link is asked who has the VIPs, unless it is set.
const CLAIM_CHECKS: Duration = Duration::from_secs(5);
/// The limits of that.
const QUICKEST_CLAIM_CHECKS: Duration = Duration::from_millis(100);
const SLOWEST_CLAIM_CHECKS: Duration = Duration::from_secs(24 * 60 * 60);

type BalancerFactory = Box<dyn Fn() -> Box<dyn Balancer> + Send>;

/// Describes a director. Only the interface has no default.
pub struct DirectorBuilder {
    interface: String,
    config: Config,
    source: Option<Box<dyn ConfigSource>>,
    xdp: XdpOptions,
    limits: Limits,
    answers: bool,
    tunnel_sources: TunnelSources,
    probe_sources: ProbeSources,
    errors: ErrorPolicy,
    pipeline: PipelineOptions,
    monitor: Option<MonitorBinding>,
    claim_checks: Option<Duration>,
    flows: usize,
    record: Record,
    /// None: the usual one.
    balancer: Option<BalancerFactory>,
    /// Whom the usual one shares flows with.
    sharing: Option<Sharing>,
    on_event: EventHandler,
}

impl fmt::Debug for DirectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectorBuilder")
            .field("interface", &self.interface)
            .field("config", &self.config)
            .field("xdp", &self.xdp)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl DirectorBuilder {
    /// For how many flows each worker has room unless told otherwise, at 16 bytes each; half of them
    /// is what can be relied upon.
    pub const FLOWS: usize = 1 << 18;

    pub(super) fn new(interface: String) -> Self {
        Self {
            interface,
            config: Config::default(),
            source: None,
            xdp: XdpOptions::default(),
            limits: Limits::default(),
            answers: false,
            tunnel_sources: TunnelSources::default(),
            probe_sources: ProbeSources::default(),
            errors: ErrorPolicy::default(),
            pipeline: PipelineOptions::default(),
            monitor: None,
            claim_checks: Some(CLAIM_CHECKS),
            flows: Self::FLOWS,
            record: Record::default(),
            balancer: None,
            sharing: None,
            on_event: Box::new(|_| {}),
        }
    }

    /// Adds a service, with or without a monitor of its own. More can be added while the director
    /// runs.
    #[must_use]
    pub fn service(mut self, service: impl Into<ServiceConfig>) -> Self {
        self.config.services.push(service.into());
        self
    }

    /// Sets where configurations come from, from the first one on; they replace what
    /// [`DirectorBuilder::service`] adds.
    #[must_use]
    pub fn source(mut self, source: impl ConfigSource + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Sets modes, queues and memory of the interface.
    #[must_use]
    pub fn xdp(mut self, options: XdpOptions) -> Self {
        self.xdp = options;
        self
    }

    /// Sets how many services and backends there can be.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Answers ARP and neighbour discovery for the VIPs and announces them, for a host that does
    /// not hold them itself. The default is not to: then the host holds each VIP on the interface
    /// (`ip address add 10.0.0.100/32 dev eth0`), or a router has a route for it.
    ///
    /// VIPs that are prefixes are answered for, but not announced. Announcements are untagged.
    #[must_use]
    pub fn answer_for_vips(mut self, answers: bool) -> Self {
        self.answers = answers;
        self
    }

    /// Sets what tunnels send from, to backends of its family: an address of this host, or a prefix
    /// that it holds (see [`TunnelSources`]).
    #[must_use]
    pub fn tunnel_source(mut self, source: impl Into<IpNet>) -> Self {
        self.tunnel_sources = self.tunnel_sources.with(source.into());
        self
    }

    /// Sets what probes through VIPs of its family are sent from, and so where their answers come to:
    /// an address of this host, on the interface of [`Director::builder`]. The default is that
    /// interface's first address with a subnet. While it is probed from, this host itself cannot be
    /// a client of the VIPs from that address.
    #[must_use]
    pub fn probe_source(mut self, source: IpAddr) -> Self {
        match source {
            IpAddr::V4(source) => self.probe_sources.ipv4 = Some(source),
            IpAddr::V6(source) => self.probe_sources.ipv6 = Some(source),
        }
        self
    }

    /// Adds an interface that frames may leave by, where the route to a backend does. Packets for
    /// the VIPs are taken only where they come in, at the interface of [`Director::builder`].
    #[must_use]
    pub fn egress(mut self, interface: impl Into<String>) -> Self {
        self.xdp.egress.push(interface.into());
        self
    }

    /// Sets what is done about packets that cannot be delivered as they are.
    #[must_use]
    pub fn errors(mut self, policy: ErrorPolicy) -> Self {
        self.errors = policy;
        self
    }

    /// Sets how much each worker remembers of fragments, and how many ICMP errors it sends. Each
    /// has a secret that is drawn when it starts, whatever is given here.
    #[must_use]
    pub fn pipeline(mut self, options: PipelineOptions) -> Self {
        self.pipeline = options;
        self
    }

    /// Sets the monitor of all services that have none of their own, also of those that come later.
    /// A backend that is not well takes no traffic; one without a monitor is taken to be well.
    #[must_use]
    pub fn monitor(mut self, monitor: MonitorBinding) -> Self {
        self.monitor = Some(monitor);
        self
    }

    /// Sets how often the link of the director's interface is asked who has the VIPs that are single
    /// addresses, at most 64 of them at a time; the default is every 5 seconds, the least is 100 ms, the most a day, and
    /// with `None` it is not asked.
    ///
    /// A backend that answers ARP or neighbour solicitations for the VIP of its service takes clients
    /// past the director. It takes no new flows until it is silent
    /// ([`Idle::ClaimsVip`](crate::dataplane::Idle::ClaimsVip)), whatever its monitor says. Anybody else
    /// who does is told of by [`Event::VipClaimed`] and [`Director::warnings`]. The questions are
    /// untagged and touch nobody's cache (RFC 5227, RFC 4862).
    #[must_use]
    pub fn claim_checks(mut self, every: Option<Duration>) -> Self {
        self.claim_checks =
            every.map(|every| every.clamp(QUICKEST_CLAIM_CHECKS, SLOWEST_CLAIM_CHECKS));
        self
    }

    /// Sets for how many flows the table of each worker has room, at 16 bytes each, unless there is a
    /// balancer of one's own; half of them is what can be relied upon.
    #[must_use]
    pub fn flows(mut self, entries: usize) -> Self {
        self.flows = entries;
        self
    }

    /// Sets which flows are recorded. With [`Record::Contested`] services know what they chose before they
    /// changed, also for a balancer of one's own.
    #[must_use]
    pub fn record(mut self, record: Record) -> Self {
        self.record = record;
        self
    }

    /// Sets how each worker's balancer is made; the default is a [`FlowBalancer`] with room for
    /// [`DirectorBuilder::flows`]. [`HashBalancer`](crate::balancer::HashBalancer) remembers nothing.
    #[must_use]
    pub fn balancer<B: Balancer + 'static>(
        mut self,
        make: impl Fn() -> B + Send + 'static,
    ) -> Self {
        self.balancer = Some(Box::new(move || Box::new(make())));
        self
    }

    /// Shares flows with other directors, so that each of them can go on with the
    /// connections of the others, also where hashing alone would not send them. `secret` is one that they have
    /// in common and nobody else knows; `transport` makes each worker's way to them, for the queue of this number:
    ///
    /// ```no_run
    /// use dsrlb::dataplane::Hub;
    /// use dsrlb::director::Director;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::new(Hub::ROOM);
    /// let secret = "000102030405060708090a0b0c0d0e0f".parse()?;
    /// let start = |interface: &str| {
    ///     let side = hub.side();
    ///     Director::builder(interface).sync(secret, move |_queue| side.member()).start()
    /// };
    /// let (one, other) = (start("eth0")?, start("eth1")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What it tells and hears is in [`Counts::sync`](crate::dataplane::Counts::sync). Each worker needs room
    /// ([`DirectorBuilder::flows`]) for its own flows and for all of the other directors'. A balancer of
    /// one's own is not touched; it has [`FlowBalancer::sync`].
    #[must_use]
    pub fn sync<T: FlowSync + 'static>(
        mut self,
        secret: HashKey,
        mut transport: impl FnMut(u32) -> T + Send + 'static,
    ) -> Self {
        let transport = Box::new(move |queue| -> Box<dyn FlowSync> { Box::new(transport(queue)) });
        self.sharing = Some(Sharing { secret, transport });
        self
    }

    /// Sets what is called with each event: in the order in which they happened, never two at
    /// once, on one of the director's threads or that of who changed the services. The handler may
    /// ask and change the director; while it runs, later events wait, and so does what else the
    /// thread that called it finds out: it should hand on what takes long. If it panics, only that
    /// call is lost.
    #[must_use]
    pub fn on_event(mut self, handler: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.on_event = Box::new(handler);
        self
    }

    /// Starts. When this returns the director is forwarding; backends whose MAC addresses were not
    /// known within a second follow when they are.
    ///
    /// # Errors
    ///
    /// If the services are not valid or the interface cannot be used. Nothing is left behind.
    pub fn start(mut self) -> Result<Director, StartError> {
        if let Some(source) = &mut self.source {
            self.config = first(source)?;
        }
        let mut interface = XdpInterface::open(&self.interface, &self.xdp)?;
        let ports: Vec<u32> = interface.ports().iter().map(|port| port.index).collect();
        let mut resolver = Resolver::open(&ports)?;
        let probe_sources = probe_sources(self.probe_sources, &resolver.own_addresses()?);
        let host = Host {
            addresses: resolver.host_addresses()?,
            tunnel_sources: self.tunnel_sources,
            probe_sources,
        };
        let mut config = self.config;
        config.with_default(self.monitor.as_ref());
        crate::config::check(&config, &host, &self.limits)?;

        let sources = resolver.preferred_host_routes()?;
        let mut warnings = source_warnings(&self.interface, &config, &sources);
        warnings.extend(tunnel_warnings(&host));

        let queues = interface.take_queues();
        if self.balancer.is_none() {
            memory::check(self.flows, queues.len())?;
        }
        let counters: Vec<_> =
            queues.iter().map(|_| Arc::new(WorkerCounters::new(self.limits.backends))).collect();
        counters.iter().for_each(|counters| prefer_huge_pages(counters.memory()));
        let mailbox = |queue: &XdpQueue| {
            let waker = queue.waker();
            Mailbox::new(move || waker.wake())
        };
        let (senders, mailboxes): (Vec<_>, Vec<_>) = queues.iter().map(mailbox).unzip();
        // Whatever has no queue of its own goes by the first one.
        let mail = senders.first().cloned().unwrap_or_else(|| Mailbox::new(|| ()).0);
        let site = Site {
            ports: interface.ports().iter().map(|port| (port.mac, port.mtu)).collect(),
            answers: self.answers,
            tunnel_sources: self.tunnel_sources,
            errors: self.errors,
            probe_sources,
        };
        let epoch = Instant::now();
        let settings = Settings {
            host,
            limits: self.limits,
            monitor: self.monitor,
            epoch: (self.record == Record::Contested).then_some(epoch),
            warnings,
        };
        let control = Control::new(interface, site, settings, mail.clone());
        let shared = Arc::new(Shared::new(control, counters.clone(), self.on_event));

        let set = |all: &mut Config| {
            *all = config;
            Ok(())
        };
        let prober = Prober::start(&shared, probe_sources, mail).map_err(StartError::Probing)?;
        let (config, _) = shared.update(set, || prober.prepare())?;
        resolve_first(&mut resolver, &addresses(&config), &shared)?;

        // From here on an early return drops what there is, and so undoes it.
        let mut workers = Workers::new(&shared);
        let mail = senders.into_iter().zip(mailboxes);
        for ((queue, counters), (mail, mailbox)) in queues.into_iter().zip(counters).zip(mail) {
            let (number, core) = (queue.queue(), queue.core());
            let options = PipelineOptions { secret: secret(), ..self.pipeline };
            let balancer = match &self.balancer {
                Some(make) => make(),
                None => {
                    let sharing = self.sharing.as_mut();
                    usual_balancer(self.flows, self.record, &self.limits, sharing, number)?
                }
            };
            let pipeline = Pipeline::with_options(balancer, counters, &options);
            let worker = Worker::new(queue, pipeline, shared.snapshots(), mailbox);
            workers.start(number, core, mail, worker.epoch(epoch).prober(prober.receiver()))?;
        }
        let report = Arc::clone(&shared);
        let resolver = ResolverThread::spawn(resolver, move |event| match event {
            Ok(event) => report.neighbour(event),
            Err(error) => report.emit(Event::ResolverFailed(error.to_string())),
        });
        let resolver =
            resolver.map_err(|source| StartError::Thread { thread: "neighbour", source })?;
        // Without a source there is no tunnel, and nothing that could be said about one.
        let has_tunnels = self.tunnel_sources.iter().next().is_some();
        let feedback = has_tunnels.then(|| FeedbackListener::start(&shared)).transpose();
        let feedback = feedback.map_err(StartError::Feedback)?;
        shared.attach()?;
        let health = Health::start(&config, &shared, prober)?;
        let updater = Arc::new(Updater::new(Arc::clone(&shared), resolver, health));
        shared.serve()?;
        let claims = self.claim_checks.zip(ports.first());
        let claims = claims.map(|(every, port)| ClaimWatch::start(&shared, *port, every));
        let claims = claims.transpose().map_err(StartError::Claims)?;
        let source = self.source.map(|source| SourceThread::start(source, &updater, &shared));
        let source = source.transpose();
        let source = source.map_err(|source| StartError::Thread { thread: "config", source })?;
        Ok(Director { workers, source, feedback, claims, updater, shared })
    }
}

/// Each worker's own, with a secret of its own unless they share flows.
fn usual_balancer(
    entries: usize,
    record: Record,
    limits: &Limits,
    sharing: Option<&mut Sharing>,
    queue: u32,
) -> Result<Box<dyn Balancer>, StartError> {
    let key = sharing.as_ref().map_or_else(|| HashKey::new(secret()), |sharing| sharing.secret);
    let balancer = FlowBalancer::new_in(entries, limits.backends, key, prefer_huge_pages);
    let balancer = balancer.map_err(StartError::Flows)?.record(record);
    Ok(match sharing {
        Some(sharing) => Box::new(balancer.sync((sharing.transport)(queue))),
        None => Box::new(balancer),
    })
}

/// The configuration to begin with.
fn first(source: &mut Box<dyn ConfigSource>) -> Result<Config, StartError> {
    match source.next(FIRST_CONFIGURATION).map_err(StartError::Source)? {
        Some(config) => Ok(config),
        None => {
            let text = format!("the source gave none within {FIRST_CONFIGURATION:?}");
            Err(StartError::Source(SourceError::Unreadable(text)))
        }
    }
}

/// VIPs that the kernel may send probes and neighbour solicitations from: backends hold them too,
/// so their answers would stay there.
fn source_warnings(interface: &str, config: &Config, sources: &[Ipv6Addr]) -> Vec<String> {
    let is_vip = |source: &&Ipv6Addr| {
        let source = IpAddr::V6(**source);
        config.services.iter().any(|bound| bound.service.key.prefix().contains(&source))
    };
    let warning = |vip| {
        format!(
            "{interface} holds the VIP {vip} as an address to send from: what this host asks the \
             backends may leave from it, and their answers never arrive; run `ip address change \
             {vip}/128 dev {interface} preferred_lft 0`"
        )
    };
    sources.iter().filter(is_vip).map(warning).collect()
}

/// Bytes that nobody can guess: the standard library draws keys for its hash maps.
fn secret() -> [u8; 16] {
    let halves = [0, 1].map(|half: u8| RandomState::new().hash_one(half).to_ne_bytes());
    let mut secret = [0; 16];
    secret.iter_mut().zip(halves.as_flattened()).for_each(|(to, from)| *to = *from);
    secret
}

/// What has been set, and for the rest the first address of each family.
pub(crate) fn probe_sources(set: ProbeSources, own: &[IpNet]) -> ProbeSources {
    let ipv4 = own.iter().find_map(|own| match own {
        IpNet::V4(own) => Some(own.addr()),
        IpNet::V6(_) => None,
    });
    let ipv6 = own.iter().find_map(|own| match own {
        IpNet::V6(own) => Some(own.addr()),
        IpNet::V4(_) => None,
    });
    ProbeSources { ipv4: set.ipv4.or(ipv4), ipv6: set.ipv6.or(ipv6) }
}

/// Sources of tunnels that this host does not seem to hold.
fn tunnel_warnings(host: &Host) -> Vec<String> {
    let is_held = |source: &IpNet| host.addresses.iter().any(|own| own.addr() == source.addr());
    let single = host.tunnel_sources.iter().filter(|s| s.prefix_len() == s.max_prefix_len());
    single
        .filter(|source| !is_held(source))
        .map(|source| {
            format!(
                "no interface of this host holds the tunnel source {}: that packets are too large \
                 for a path beyond the first link will not be heard of",
                source.addr()
            )
        })
        .collect()
}

/// Gives the neighbours a moment to be found before traffic comes.
fn resolve_first(
    resolver: &mut Resolver,
    wanted: &BTreeSet<IpAddr>,
    shared: &Shared,
) -> Result<(), ResolverError> {
    resolver.want(wanted)?;
    let deadline = Instant::now() + FIRST_RESOLUTION;
    let mut pending = wanted.clone();
    while !pending.is_empty() && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        for event in resolver.next_events(left)? {
            if let NeighbourEvent::Neighbour { address, state } = event
                && matches!(state, NeighbourState::Resolved(_) | NeighbourState::Rejected { .. })
            {
                pending.remove(&address);
            }
            shared.neighbour(event);
        }
    }
    Ok(())
}
