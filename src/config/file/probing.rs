//! `monitor`: how a service's backends are probed.

use super::leaves::{Payload, names};
use super::table::{Examine, Keys, table};
use crate::balancer::{Scope, VipKey};
use crate::health::{HealthPolicy, HealthState, Through};
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What a monitor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MonitorKind {
    /// A page by HTTP.
    Http,
    /// A page by HTTPS.
    Https,
    /// A TCP connection.
    Tcp,
    /// An answer to a datagram.
    Udp,
    /// An ICMP echo reply.
    Ping,
    /// An answer of the neighbour: ARP or neighbour discovery.
    Neighbour,
}

named!(
    MonitorKind,
    "kind of monitor",
    "http, https, tcp, udp, ping or neighbour",
    [
        "http" => Http,
        "https" => Https,
        "tcp" => Tcp,
        "udp" => Udp,
        "ping" => Ping,
        "neighbour" => Neighbour,
    ]
);
names! { MonitorKind: "http, https, tcp, udp, ping or neighbour"; }

/// Those that do not go with every kind.
const KEYS: [&str; 10] = [
    "port",
    "path",
    "host",
    "method",
    "status",
    "body",
    "authorities",
    "verify",
    "request",
    "response",
];

impl MonitorKind {
    /// The keys that are this kind's, besides those that all have.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["port", "path", "host", "method", "status", "body"],
            Self::Https => {
                &["port", "path", "host", "method", "status", "body", "authorities", "verify"]
            }
            Self::Tcp => &["port"],
            Self::Udp => &["port", "request", "response"],
            Self::Ping | Self::Neighbour => &[],
        }
    }
}

table! {
    /// How a service's backends are probed.
    Monitor {
        /// What is asked for.
        "kind" kind: MonitorKind,
        /// The port that is asked (http, https, tcp, udp); that of the service unless told.
        "port" port: Option<NonZeroU16>,
        /// The path, and query, that is asked for (http, https); `/` unless told.
        "path" path: Option<String>,
        /// The `Host` header, and with https the name that the certificate is for; the address unless
        /// told.
        "host" host: Option<String>,
        /// The method (http, https); `GET` unless told.
        "method" method: Option<String>,
        /// The status that is well, or a range such as `200-399` (http, https); `200-399` unless told.
        "status" status: Option<RangeInclusive<u16>>,
        /// A text that has to be in the page (http, https).
        "body" body: Option<String>,
        /// Authorities that certificates have to come from (https), as PEM text; those that browsers
        /// believe unless told.
        "authorities" authorities: Option<String>,
        /// Whether certificates are verified (https); true unless told.
        "verify" verify: Option<bool>,
        /// What is sent (udp): a text, or bytes such as `hex:0d0a`; nothing unless told.
        "request" request: Option<Payload>,
        /// What has to be in the answer (udp); any answer is well unless told.
        "response" response: Option<Payload>,
        /// Which way probes take: to the VIP as clients' packets do, or to the backend's own address;
        /// `vip` unless told, `backend` for kind neighbour.
        "through" through: Option<Through>,
        /// From one probe to the next, 10ms to a day; 1s unless told.
        "interval" interval: Option<Duration>,
        /// How long a probe may take, at most the interval; 500ms unless told, or less if the interval
        /// is.
        "timeout" timeout: Option<Duration>,
        /// Successes in a row that make a backend healthy; 2 unless told.
        "rise" rise: Option<NonZeroU32>,
        /// Failures in a row that make a backend unhealthy; 3 unless told.
        "fall" fall: Option<NonZeroU32>,
        /// What a new backend counts as; `unknown` unless told, until its first probe.
        "initial" initial: Option<HealthState>,
    }
}

impl Examine for Monitor {
    fn examine(&self, keys: &mut Keys<'_, '_, '_>) {
        for key in KEYS {
            if keys.has(key) && !self.kind.keys().contains(&key) {
                let kinds = MonitorKind::NAMES.iter().filter(|(_, k)| k.keys().contains(&key));
                let kinds: Vec<&str> = kinds.map(|(name, _)| *name).collect();
                keys.problem(key, format!("goes with {}, not {}", kinds.join(", "), self.kind));
            }
        }
        // Whatever is in a request line or a header must not end it.
        let token = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let line = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.path.as_deref().is_some_and(|path| !path.starts_with('/') || !line(path)) {
            keys.problem("path", "begins with a slash and has no spaces, as in \"/health?full=1\"");
        }
        if self.host.as_deref().is_some_and(|host| !line(host) || host.contains('/')) {
            keys.problem("host", "a name, or an address, without a port");
        }
        if self.method.as_deref().is_some_and(|method| !token(method)) {
            keys.problem("method", "letters alone, as in \"GET\" or \"HEAD\"");
        }
        if self.body.is_some() && self.method.as_deref() == Some("HEAD") {
            keys.problem("body", "does not go with HEAD, whose responses have none");
        }
        if self.kind == MonitorKind::Neighbour && self.through == Some(Through::Vip) {
            keys.problem("through", "backend: a neighbour is found by its own address");
        }
        for problem in self.policy().problems("") {
            keys.problem(&problem.path, problem.expected);
        }
    }
}

impl Monitor {
    /// How often it probes, and what the results amount to.
    pub fn policy(&self) -> HealthPolicy {
        let usual = HealthPolicy::default();
        let interval = self.interval.unwrap_or(usual.interval);
        HealthPolicy {
            interval,
            timeout: self.timeout.unwrap_or(usual.timeout.min(interval)),
            rise: self.rise.map_or(usual.rise, NonZeroU32::get),
            fall: self.fall.map_or(usual.fall, NonZeroU32::get),
            initial: self.initial.unwrap_or(usual.initial),
        }
    }

    /// Which way its probes take.
    pub fn through(&self) -> Through {
        let usual = match self.kind {
            MonitorKind::Neighbour => Through::Backend,
            _ => Through::default(),
        };
        self.through.unwrap_or(usual)
    }

    /// The port that is asked at backends of this service; none if there is none to be known.
    pub fn port_for(&self, service: &VipKey) -> Option<NonZeroU16> {
        let own = match service.scope() {
            Scope::Port(_, port) => NonZeroU16::new(port),
            Scope::All | Scope::Protocol(_) => None,
        };
        self.port.or(own)
    }

    /// Whether it asks a port at all.
    pub(super) fn needs_port(&self) -> bool {
        self.kind.keys().contains(&"port")
    }
}
