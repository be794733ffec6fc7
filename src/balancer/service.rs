//! Virtual services: what is balanced, among whom, and how.

use super::backend::Backend;
use super::flow_table::FlowTimes;
use super::policy::{Maglev, Policy};
use crate::error::ParseError;
use crate::flow::{HashInput, HashKey, Protocol};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// Which packets to a VIP belong to a service, from the widest to the narrowest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Every protocol and port: Azure's HA ports, NetScaler's service type ANY.
    All,
    /// Every port of one protocol.
    Protocol(Protocol),
    /// One port of one protocol.
    Port(Protocol, u16),
}

/// What names a virtual service: an address or a prefix of them, and a scope.
///
/// As text: `10.0.0.100:80/tcp`, `10.0.0.100:any/udp`, `10.0.0.100` (all ports, all protocols),
/// `[2001:db8::1]:53/udp`, `2001:db8::1`, `203.0.113.0/24:443/tcp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct VipKey {
    prefix: IpNet,
    scope: Scope,
}

impl VipKey {
    /// A service for one address.
    pub fn new(address: IpAddr, scope: Scope) -> Self {
        Self::with_prefix(IpNet::from(address), scope)
    }

    /// A service for every address of a prefix; host bits are ignored.
    pub fn with_prefix(prefix: IpNet, scope: Scope) -> Self {
        Self { prefix: prefix.trunc(), scope }
    }

    /// The addresses.
    pub fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The protocols and ports.
    pub fn scope(&self) -> Scope {
        self.scope
    }
}

impl fmt::Display for VipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_address = self.prefix.prefix_len() == self.prefix.max_prefix_len();
        let bracket = self.prefix.addr().is_ipv6() && self.scope != Scope::All;
        f.write_str(if bracket { "[" } else { "" })?;
        match is_address {
            true => write!(f, "{}", self.prefix.addr())?,
            false => write!(f, "{}", self.prefix)?,
        }
        f.write_str(if bracket { "]" } else { "" })?;
        match self.scope {
            Scope::All => Ok(()),
            Scope::Protocol(protocol) => write!(f, ":any/{protocol}"),
            Scope::Port(protocol, port) => write!(f, ":{port}/{protocol}"),
        }
    }
}

impl FromStr for VipKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            ParseError::new(
                "VIP",
                text,
                "an address or prefix, alone or with a port (or \"any\") and a protocol, as in \
                 10.0.0.100:80/tcp, 10.0.0.100:any/udp, [2001:db8::1]:53/udp or 203.0.113.0/24",
            )
        };
        let address = |text: &str| {
            let host = text.parse::<IpAddr>().map(IpNet::from);
            host.or_else(|_| text.parse::<IpNet>()).map_err(|_| error())
        };
        // A bare IPv6 address is full of colons, so it is tried first and whole.
        let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(prefix) = address(inside.unwrap_or(text)) {
            return Ok(Self::with_prefix(prefix, Scope::All));
        }
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once("]:"),
            None => text.split_once(':'),
        }
        .ok_or_else(error)?;
        let (port, protocol) = rest.split_once('/').ok_or_else(error)?;
        let protocol = Protocol::from_name(protocol).ok_or_else(error)?;
        let scope = match port {
            "any" => Scope::Protocol(protocol),
            port if protocol.has_ports() => {
                // `parse` takes a plus sign too.
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port| digits && *port != 0);
                Scope::Port(protocol, port.ok_or_else(error)?)
            }
            _ => return Err(error()),
        };
        Ok(Self::with_prefix(address(host)?, scope))
    }
}

serde_as_text!(VipKey);

/// What becomes of an ICMP or ICMPv6 echo request ("ping") to a VIP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Echo {
    /// The director answers: the VIP is reachable, which says nothing of the backends.
    #[default]
    Answer,
    /// It is dropped.
    Drop,
    /// It goes to one of this service's backends, by the hash of its addresses.
    Forward,
}

named!(
    Echo,
    "answer to pings",
    "answer, drop or forward",
    ["answer" => Answer, "drop" => Drop, "forward" => Forward]
);

/// What becomes of packets to a service of which no backend may take new flows.
#[derive(Clone, Debug, Default)]
pub enum WhenAllDown {
    /// They are dropped and counted.
    #[default]
    Drop,
    /// They are shared out among all backends with a next hop that the operator has enabled, whatever
    /// their monitors say and whether they claim the VIP: better some that may answer than none.
    SendToAll,
    /// They go on to the backends that took traffic last, as far as these have a next hop. Those are
    /// all that went down within the time it takes to find that out: what falls together is found to
    /// have fallen one after the other.
    KeepLast,
    /// They go to this backend ("sorry server"), which is not probed.
    Fallback(Arc<dyn Backend>),
}

impl WhenAllDown {
    /// As it is written in configuration files.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::SendToAll => "send-to-all",
            Self::KeepLast => "keep-last",
            Self::Fallback(_) => "fallback",
        }
    }
}

/// What becomes of the flows of a backend that its monitor finds ill. Those of one that cannot be reached,
/// is disabled or is gone go elsewhere in any case.
///
/// The names are those of Google's passthrough load balancers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Persistence {
    /// Connections of TCP and SCTP stay: whatever the monitor says, elsewhere they would be reset. Flows
    /// of other protocols go elsewhere.
    #[default]
    Default,
    /// All flows go elsewhere, where TCP connections are reset at once.
    Never,
    /// All flows stay.
    Always,
}

named!(
    Persistence,
    "persistence on unhealthy backends",
    "default, never or always",
    ["default" => Default, "never" => Never, "always" => Always]
);

/// A virtual service as the embedder configures it.
#[derive(Clone, Debug)]
pub struct VirtualService {
    /// The VIP, ports and protocols.
    pub key: VipKey,
    /// What of a flow decides where it goes.
    pub hash_input: HashInput,
    /// The key of the flow hash; directors that share the VIP share it.
    pub hash_key: HashKey,
    /// How new flows are shared out.
    pub policy: Arc<dyn Policy>,
    /// What becomes of echo requests. A VIP has one answer to them whatever the number of its
    /// services: if one of them forwards, that; else if one drops, that.
    pub echo: Echo,
    /// What becomes of packets while no backend may take new flows.
    pub when_all_down: WhenAllDown,
    /// Whether every packet is decided by hashing alone, also by a balancer that remembers flows
    /// (NetScaler's sessionless mode).
    pub sessionless: bool,
    /// What becomes of the flows of ill backends, where flows are remembered.
    pub persistence: Persistence,
    /// How long flows are remembered.
    pub times: FlowTimes,
    /// The real servers.
    pub backends: Vec<Arc<dyn Backend>>,
}

impl VirtualService {
    /// A service without backends yet, hashing five-tuples by [`Maglev`].
    pub fn new(key: VipKey) -> Self {
        Self {
            key,
            hash_input: HashInput::default(),
            hash_key: HashKey::default(),
            policy: Arc::new(Maglev::default()),
            echo: Echo::default(),
            when_all_down: WhenAllDown::default(),
            sessionless: false,
            persistence: Persistence::default(),
            times: FlowTimes::default(),
            backends: Vec::new(),
        }
    }

    /// The real servers, and the fallback if there is one.
    pub fn all_backends(&self) -> impl Iterator<Item = &Arc<dyn Backend>> + Clone {
        let fallback = match &self.when_all_down {
            WhenAllDown::Fallback(backend) => Some(backend),
            _ => None,
        };
        self.backends.iter().chain(fallback)
    }

    /// Adds a real server.
    #[must_use]
    pub fn backend(mut self, backend: impl Backend + 'static) -> Self {
        self.backends.push(Arc::new(backend));
        self
    }

    /// Sets what of a flow decides where it goes.
    #[must_use]
    pub fn hash_input(mut self, input: HashInput) -> Self {
        self.hash_input = input;
        self
    }

    /// Sets the key of the flow hash.
    #[must_use]
    pub fn hash_key(mut self, key: HashKey) -> Self {
        self.hash_key = key;
        self
    }

    /// Sets what becomes of echo requests to the VIP.
    #[must_use]
    pub fn echo(mut self, echo: Echo) -> Self {
        self.echo = echo;
        self
    }

    /// Sets what becomes of packets while no backend may take new flows.
    #[must_use]
    pub fn when_all_down(mut self, what: WhenAllDown) -> Self {
        self.when_all_down = what;
        self
    }

    /// Has every packet decided by hashing alone.
    #[must_use]
    pub fn sessionless(mut self) -> Self {
        self.sessionless = true;
        self
    }

    /// Sets what becomes of the flows of ill backends.
    #[must_use]
    pub fn persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// Sets how long flows are remembered.
    #[must_use]
    pub fn times(mut self, times: FlowTimes) -> Self {
        self.times = times;
        self
    }

    /// Sets how new flows are shared out.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Arc::new(policy);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "10.0.0.100:80/tcp",
            "10.0.0.100:any/udp",
            "10.0.0.100:any/253",
            "10.0.0.100",
            "2001:db8::1",
            "[2001:db8::1]:53/udp",
            "[2001:db8::]:any/sctp",
            "203.0.113.0/24:443/tcp",
            "203.0.113.0/24",
            "[2001:db8::/64]:443/tcp",
        ] {
            assert_eq!(text.parse::<VipKey>().unwrap().to_string(), text);
        }
        assert_eq!("[2001:db8::1]".parse::<VipKey>().unwrap().to_string(), "2001:db8::1");
    }

    #[test]
    fn bad_text_is_refused_with_what_is_allowed() {
        for text in [
            "",
            ":",
            "10.0.0.100:80",
            "10.0.0.100:0/tcp",
            "10.0.0.100:65536/tcp",
            "10.0.0.256",
            "10.0.0.100:80/icmp",
            "10.0.0.100:80/tcpp",
            "2001:db8::1:80/tcp/x",
            "10.0.0.0/33:80/tcp",
            "[2001:db8::1:53/udp",
            "10.0.0.100:/tcp",
            "::1]:80/256",
            "2001:db8::1]",
            "[[2001:db8::1]]",
            "10.0.0.100]",
            "10.0.0.100:+80/tcp",
            "10.0.0.100:any/+6",
        ] {
            let error = text.parse::<VipKey>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.100:80/tcp"), "{error}");
        }
    }
}
