//! The services of one snapshot, and the look-up that finds a packet's.

use super::built::Service;
use super::exact::ExactServices;
use super::flow_table::{Lease, Signal};
use super::keepers::{Keepers, Keeping};
use super::service::{Echo, Scope};
use super::sync::BackendNames;
use crate::flow::{ConnectionId, Fragment, PacketInfo, PacketKind, Protocol};
use crate::verdict::BackendIndex;
use foldhash::fast::FixedState;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

/// What the look-up of a packet's destination found.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The most specific service that covers the packet.
    Service(&'a Service),
    /// The destination is a VIP, but no service of it covers the protocol and port.
    NoService,
    /// The destination is a VIP whose services differ by port, and this fragment has none; or the
    /// fragment does not even tell its protocol.
    PortUnknown,
    /// The destination is no VIP.
    NotVip,
}

/// All services of one snapshot.
///
/// Most specific first: a longer prefix before a shorter one, and for one prefix a port before a
/// protocol before everything. So `10.0.0.100:80/tcp` wins over `10.0.0.100`, which wins over
/// `10.0.0.0/24:80/tcp`.
#[derive(Debug, Default)]
pub struct ServiceTable {
    services: Vec<Arc<Service>>,
    exact: ExactServices,
    /// VIPs that are single addresses.
    addresses: HashMap<IpAddr, u32, FixedState>,
    /// VIPs that are prefixes, longest first.
    prefixes: Vec<PrefixLength>,
    /// From a VIP's number and a scope to a position in `services`.
    rules: HashMap<RuleKey, u32, FixedState>,
    /// The VIPs and protocols that have a service for a single port.
    by_port: HashSet<(u32, Protocol), FixedState>,
    /// By VIP's number, what becomes of echo requests, and the service to forward them to.
    echo: Vec<(Echo, u32)>,
    keepers: Keepers,
    names: Arc<BackendNames>,
    /// Whether any service routes by connection ID.
    routes: bool,
}

/// All VIP prefixes of one length and family.
#[derive(Debug)]
struct PrefixLength {
    length: u8,
    vips: HashMap<IpNet, u32, FixedState>,
    is_ipv4: bool,
}

/// A VIP's number and a scope, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct RuleKey(u64);

impl RuleKey {
    fn new(vip: u32, scope: Scope) -> Self {
        let scope = match scope {
            Scope::All => 0,
            Scope::Protocol(protocol) => 1 << 24 | u64::from(protocol.0) << 16,
            Scope::Port(protocol, port) => 2 << 24 | u64::from(protocol.0) << 16 | u64::from(port),
        };
        Self(u64::from(vip) << 32 | scope)
    }
}

impl ServiceTable {
    /// A table of these services. Of two with the same key the later one wins; configurations are
    /// checked for that before they get here.
    pub fn new(services: Vec<Arc<Service>>) -> Self {
        let mut table = Self::default();
        for (position, service) in (0u32..).zip(&services) {
            table.exact.insert(service.key(), position);
            let vip = table.vip_number(service.key().prefix());
            let scope = service.key().scope();
            if let Scope::Port(protocol, _) = scope {
                table.by_port.insert((vip, protocol));
            }
            table.rules.insert(RuleKey::new(vip, scope), position);
            if let Some(echo) = table.echo.get_mut(vip as usize)
                && service.echo() > echo.0
            {
                *echo = (service.echo(), position);
            }
        }
        table.routes = services.iter().any(|service| service.routes());
        table.services = services;
        table
    }

    /// Sets which backends keep flows they have, whether or not they take new ones: for balancers that
    /// remember flows. Each is named with the position of its service; one that is not named keeps nothing, and of one
    /// that is named twice the last counts.
    #[must_use]
    pub fn keeping(mut self, backends: &[(BackendIndex, Keeping, usize)]) -> Self {
        let lives = |position: usize| self.services.get(position)?.lives();
        let backends = backends.iter();
        self.keepers =
            Keepers::new(backends.map(|&(index, keeping, of)| (index, keeping, lives(of))));
        self
    }

    /// Sets what backends are called between directors: for balancers that share flows.
    #[must_use]
    pub fn named(mut self, names: Arc<BackendNames>) -> Self {
        self.names = names;
        self
    }

    /// What backends are called between directors.
    #[inline]
    pub fn names(&self) -> &BackendNames {
        &self.names
    }

    /// Whether a backend keeps the flows of this protocol that it has. One whose index is out of date keeps
    /// nothing.
    #[inline]
    pub fn keeps(&self, index: BackendIndex, protocol: Protocol) -> bool {
        self.keepers.keeps(index, protocol)
    }

    /// Where what packets of known flows read of this lies in memory, by its addresses.
    pub(crate) fn memory(&self) -> Range<usize> {
        self.keepers.memory()
    }

    /// Whether a backend keeps any flows.
    #[inline]
    pub fn keeps_any(&self, index: BackendIndex) -> bool {
        self.keepers.keeps_any(index)
    }

    /// Has fetched what [`ServiceTable::renewal`] will read for flows of these backends.
    #[inline(always)]
    pub(super) fn fetch(&self, indices: impl Iterator<Item = BackendIndex>) {
        self.keepers.fetch(indices);
    }

    /// What a packet that says this does to a flow of a backend, if nothing new.
    #[inline(always)]
    pub(super) fn renewal(&self, index: BackendIndex, signal: Signal) -> Lease {
        self.keepers.renewal(index, signal)
    }

    /// Whether connection IDs decide about anything here, so that they have to be read.
    #[inline]
    pub fn routes(&self) -> bool {
        self.routes
    }

    /// The backend that a packet with this connection ID goes to, whatever its flow: the one that gave
    /// out the ID, if the packet's service routes by it and that backend keeps its flows.
    #[inline]
    pub fn route(&self, packet: &PacketInfo, id: &ConnectionId) -> Option<BackendIndex> {
        let Lookup::Service(service) = self.lookup(packet) else {
            return None;
        };
        service.route(id).filter(|index| self.keeps(*index, packet.flow.protocol))
    }

    /// The services, in the order they were given.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    fn vip_number(&mut self, prefix: IpNet) -> u32 {
        let next = self.echo.len() as u32;
        let number = if prefix.prefix_len() == prefix.max_prefix_len() {
            *self.addresses.entry(prefix.addr()).or_insert(next)
        } else {
            let (length, is_ipv4) = (prefix.prefix_len(), prefix.addr().is_ipv4());
            let same = |group: &PrefixLength| group.length == length && group.is_ipv4 == is_ipv4;
            let position = self.prefixes.iter().position(same).unwrap_or_else(|| {
                let position = self.prefixes.partition_point(|group| group.length > length);
                let vips = HashMap::default();
                self.prefixes.insert(position, PrefixLength { length, vips, is_ipv4 });
                position
            });
            match self.prefixes.get_mut(position) {
                Some(group) => *group.vips.entry(prefix).or_insert(next),
                None => next,
            }
        };
        if number == next {
            self.echo.push((Echo::Answer, 0));
        }
        number
    }

    /// Finds the service for a packet.
    #[inline(always)]
    pub fn lookup(&self, packet: &PacketInfo) -> Lookup<'_> {
        if packet.fragment != Fragment::Later
            && let Some(position) = self.exact.find(&packet.flow)
            && let Some(service) = self.services.get(position as usize)
        {
            return Lookup::Service(service);
        }
        self.lookup_widely(*packet)
    }

    /// The same, by the rules for all services. Apart, as few packets come here.
    #[inline(never)]
    fn lookup_widely(&self, packet: PacketInfo) -> Lookup<'_> {
        if packet.kind == PacketKind::EchoRequest
            && let Some((Echo::Forward, position)) = self.echo_rule(packet.flow.destination)
        {
            let service = self.services.get(position as usize);
            return service.map_or(Lookup::NoService, |service| Lookup::Service(service));
        }
        let mut best = Lookup::NotVip;
        for vip in self.vips(packet.flow.destination) {
            match self.lookup_in(vip, &packet) {
                found @ Lookup::Service(_) => return found,
                // The ports decide between two services, so a shorter prefix must not answer.
                unknown @ Lookup::PortUnknown => return unknown,
                missed => best = missed,
            }
        }
        best
    }

    /// What becomes of echo requests to `address`; `None` if it is no VIP.
    #[inline]
    pub fn echo(&self, address: IpAddr) -> Option<Echo> {
        self.echo_rule(address).map(|(echo, _)| echo)
    }

    #[inline]
    fn echo_rule(&self, address: IpAddr) -> Option<(Echo, u32)> {
        let vip = self.vips(address).next()?;
        self.echo.get(vip as usize).copied()
    }

    /// Whether later fragments of `packet`'s datagram can only be placed by what became of the
    /// first: its service is found or its backend chosen by ports; or it is ICMP, of which only the
    /// first tells whether it is an echo request; or an IPv6 header hides the protocol.
    pub fn follows_fragments(&self, packet: &PacketInfo) -> bool {
        let protocol = packet.flow.protocol;
        if matches!(protocol, Protocol::ICMP | Protocol::ICMPV6) {
            return true;
        }
        match self.lookup(&PacketInfo { fragment: Fragment::Later, ..*packet }) {
            Lookup::PortUnknown => true,
            Lookup::Service(service) => protocol.has_ports() && service.needs_ports(),
            Lookup::NoService | Lookup::NotVip => false,
        }
    }

    /// Whether `address` is a VIP.
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.vips(address).next().is_some()
    }

    /// The VIPs that cover an address, most specific first.
    #[inline]
    fn vips(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        let exact = self.addresses.get(&address).copied();
        let covering = self.prefixes.iter().filter_map(move |group| {
            if group.is_ipv4 != address.is_ipv4() {
                return None;
            }
            let prefix = IpNet::new(address, group.length).ok()?.trunc();
            group.vips.get(&prefix).copied()
        });
        exact.into_iter().chain(covering)
    }

    #[inline]
    fn lookup_in(&self, vip: u32, packet: &PacketInfo) -> Lookup<'_> {
        let protocol = packet.flow.protocol;
        // The first fragment's headers went on to the upper layer, and were found by that.
        if packet.fragment == Fragment::Later && protocol.is_extension_header() {
            return Lookup::PortUnknown;
        }
        if protocol.has_ports() {
            if packet.fragment == Fragment::Later {
                if self.by_port.contains(&(vip, protocol)) {
                    return Lookup::PortUnknown;
                }
            } else {
                let port = packet.flow.destination_port;
                if let Some(service) = self.rule(vip, Scope::Port(protocol, port)) {
                    return Lookup::Service(service);
                }
            }
        }
        self.rule(vip, Scope::Protocol(protocol))
            .or_else(|| self.rule(vip, Scope::All))
            .map_or(Lookup::NoService, Lookup::Service)
    }

    #[inline]
    fn rule(&self, vip: u32, scope: Scope) -> Option<&Service> {
        let position = *self.rules.get(&RuleKey::new(vip, scope))?;
        self.services.get(position as usize).map(Arc::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{VipKey, VirtualService};
    use crate::flow::HashInput;
    use crate::flow::{FiveTuple, TcpFlags};
    use proptest::prelude::*;

    fn table(keys: &[&str]) -> ServiceTable {
        let services = keys.iter().map(|key| {
            let service = VirtualService::new(key.parse().unwrap());
            Arc::new(Service::build(&service.policy(super::super::Rendezvous), []))
        });
        ServiceTable::new(services.collect())
    }

    fn packet(destination: &str, protocol: Protocol, port: u16, fragment: Fragment) -> PacketInfo {
        let flow = FiveTuple {
            source: "192.0.2.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 4000,
            destination_port: port,
            protocol,
        };
        PacketInfo::new(flow, fragment, TcpFlags::default())
    }

    fn found(table: &ServiceTable, packet: &PacketInfo) -> String {
        match table.lookup(packet) {
            Lookup::Service(service) => service.key().to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_most_specific_service_wins() {
        let table = table(&[
            "10.0.0.0/8",
            "10.0.0.0/24:443/tcp",
            "10.0.0.100",
            "10.0.0.100:any/udp",
            "10.0.0.100:80/tcp",
            "10.0.0.7:80/tcp",
            "[2001:db8::1]:53/udp",
            "2001:db8::/32",
        ]);
        let whole =
            |to, protocol, port| found(&table, &packet(to, protocol, port, Fragment::Whole));
        assert_eq!(whole("10.0.0.100", Protocol::TCP, 80), "10.0.0.100:80/tcp");
        assert_eq!(whole("10.0.0.100", Protocol::TCP, 443), "10.0.0.100");
        assert_eq!(whole("10.0.0.100", Protocol::UDP, 80), "10.0.0.100:any/udp");
        assert_eq!(whole("10.0.0.100", Protocol::GRE, 0), "10.0.0.100");
        assert_eq!(whole("10.0.0.1", Protocol::TCP, 443), "10.0.0.0/24:443/tcp");
        assert_eq!(whole("10.0.0.1", Protocol::TCP, 80), "10.0.0.0/8");
        // A VIP of its own that lacks the port falls back to the prefixes around it.
        assert_eq!(whole("10.0.0.7", Protocol::TCP, 443), "10.0.0.0/24:443/tcp");
        assert_eq!(whole("2001:db8::1", Protocol::UDP, 53), "[2001:db8::1]:53/udp");
        assert_eq!(whole("2001:db8::1", Protocol::TCP, 53), "2001:db8::/32");
        assert_eq!(whole("192.0.2.9", Protocol::TCP, 80), "NotVip");
        // The IPv4 prefix does not cover the mapped IPv6 address.
        assert_eq!(whole("::ffff:10.0.0.100", Protocol::TCP, 80), "NotVip");
    }

    #[test]
    fn a_port_that_no_service_has_is_told_from_no_vip() {
        let table = table(&["10.0.0.7:80/tcp"]);
        let whole = |port| found(&table, &packet("10.0.0.7", Protocol::TCP, port, Fragment::Whole));
        assert_eq!(whole(81), "NoService");
        let later = packet("10.0.0.7", Protocol::TCP, 0, Fragment::Later);
        assert_eq!(found(&table, &later), "PortUnknown");
        let esp = packet("10.0.0.7", Protocol::ESP, 0, Fragment::Later);
        assert_eq!(found(&table, &esp), "NoService");
    }

    /// RFC 8200 section 4.5: destination options may follow the fragment header, and then only the
    /// first fragment tells what is behind them.
    #[test]
    fn a_later_fragment_that_hides_its_protocol_does_not_fall_to_a_wider_service() {
        let table = table(&["[2001:db8::1]:80/tcp", "2001:db8::1", "[2001:db8::/32]:any/udp"]);
        let options = |to, part| found(&table, &packet(to, Protocol(60), 0, part));
        assert_eq!(options("2001:db8::1", Fragment::Later), "PortUnknown");
        assert_eq!(options("2001:db8::2", Fragment::Later), "PortUnknown");
        assert_eq!(options("2001:db9::1", Fragment::Later), "NotVip");
    }

    #[test]
    fn a_later_fragment_does_not_fall_to_a_wider_prefix() {
        let table = table(&["10.0.0.7:80/tcp", "10.0.0.0/24", "10.0.0.0/16:any/tcp"]);
        let later = |to| found(&table, &packet(to, Protocol::TCP, 0, Fragment::Later));
        assert_eq!(later("10.0.0.7"), "PortUnknown");
        assert_eq!(later("10.0.0.8"), "10.0.0.0/24");
        assert_eq!(later("10.0.1.8"), "10.0.0.0/16:any/tcp");
    }

    #[test]
    fn prefixes_of_one_length_and_two_families() {
        for keys in [["10.0.0.0/24", "fd00::/24"], ["fd00::/24", "10.0.0.0/24"]] {
            let table = table(&keys);
            let to = |to| found(&table, &packet(to, Protocol::GRE, 0, Fragment::Whole));
            assert_eq!(to("10.0.0.7"), "10.0.0.0/24");
            assert_eq!(to("fd00::7"), "fd00::/24");
        }
    }

    #[test]
    fn a_vip_has_one_answer_to_echo_requests() {
        let service = |key: &str, echo| {
            let service = VirtualService::new(key.parse().unwrap()).echo(echo);
            Arc::new(Service::build(&service.policy(super::super::Rendezvous), []))
        };
        let table = ServiceTable::new(vec![
            service("10.0.0.1:80/tcp", Echo::Answer),
            service("10.0.0.2:80/tcp", Echo::Drop),
            service("10.0.0.2:81/tcp", Echo::Answer),
            service("10.0.0.3:80/tcp", Echo::Answer),
            service("10.0.0.3:81/tcp", Echo::Forward),
            service("10.0.0.3:82/tcp", Echo::Drop),
            service("10.0.0.0/24", Echo::Drop),
        ]);
        let echo = |to: &str| table.echo(to.parse().unwrap());
        assert_eq!(echo("10.0.0.1"), Some(Echo::Answer));
        assert_eq!(echo("10.0.0.2"), Some(Echo::Drop));
        assert_eq!(echo("10.0.0.3"), Some(Echo::Forward));
        assert_eq!(echo("10.0.0.4"), Some(Echo::Drop));
        assert_eq!(echo("10.0.1.1"), None);
        let request = |to| {
            let packet = packet(to, Protocol::ICMP, 0, Fragment::Whole);
            found(&table, &PacketInfo { kind: PacketKind::EchoRequest, ..packet })
        };
        assert_eq!(request("10.0.0.3"), "10.0.0.3:81/tcp");
        assert_eq!(request("10.0.0.2"), "10.0.0.0/24");
    }

    #[test]
    fn fragments_are_followed_only_where_ports_or_the_kind_of_message_decide() {
        let service = |key: &str, input| {
            let service = VirtualService::new(key.parse().unwrap()).hash_input(input);
            Arc::new(Service::build(&service.policy(super::super::Rendezvous), []))
        };
        let table = ServiceTable::new(vec![
            service("10.0.0.1", HashInput::FiveTuple),
            service("10.0.0.2:any/udp", HashInput::SourceIp),
            service("10.0.0.2:80/tcp", HashInput::SourceIp),
        ]);
        let follows = |to, protocol, part| table.follows_fragments(&packet(to, protocol, 80, part));
        for part in [Fragment::First, Fragment::Later] {
            assert!(follows("10.0.0.1", Protocol::UDP, part));
            assert!(!follows("10.0.0.1", Protocol::ESP, part));
            assert!(follows("10.0.0.1", Protocol::ICMP, part));
            assert!(!follows("10.0.0.2", Protocol::UDP, part));
            assert!(follows("10.0.0.2", Protocol::TCP, part));
            assert!(!follows("10.0.0.3", Protocol::TCP, part));
        }
    }

    #[test]
    fn members_are_sorted_by_id_once_each_and_without_the_weightless() {
        let service = VirtualService::new("10.0.0.7".parse().unwrap());
        let backend = |id: &str, weight, slot| {
            let server = super::super::RealServer::new("10.0.0.11".parse().unwrap());
            let server: Arc<dyn super::super::Backend> =
                Arc::new(server.with_id(id).with_weight(weight));
            (server, BackendIndex::new(slot, 0))
        };
        let pool = [backend("c", 1, 0), backend("a", 1, 1), backend("b", 0, 2), backend("a", 1, 3)];
        let members = [1, 0].map(|slot| BackendIndex::new(slot, 0));
        assert_eq!(Service::build(&service, pool).members(), members);
    }

    /// The rule itself, read off the whole list.
    fn oracle<'a>(keys: &[&'a str], packet: &PacketInfo) -> Option<&'a str> {
        let covers = |key: &&&str| {
            let key: VipKey = key.parse().unwrap();
            key.prefix().contains(&packet.flow.destination)
                && match key.scope() {
                    Scope::All => true,
                    Scope::Protocol(protocol) => protocol == packet.flow.protocol,
                    Scope::Port(protocol, port) => {
                        (protocol, port) == (packet.flow.protocol, packet.flow.destination_port)
                    }
                }
        };
        let rank = |key: &&&str| {
            let key: VipKey = key.parse().unwrap();
            (key.prefix().prefix_len(), key.scope())
        };
        keys.iter().filter(covers).max_by_key(rank).copied()
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_through_the_list(
            picked in prop::sample::subsequence(vec![
                "10.0.0.0/8", "10.0.0.0/8:any/tcp", "10.0.0.0/30:1/tcp", "10.0.0.0/30",
                "10.0.0.1", "10.0.0.1:1/tcp", "10.0.0.1:2/tcp", "10.0.0.1:any/udp",
                "10.0.0.2:any/tcp", "10.0.0.2:1/udp", "10.0.0.0/31:any/gre",
            ], 0..11),
            host in 0u8..5, port in 1u16..4, protocol in prop::sample::select(vec![6u8, 17, 47]),
        ) {
            let protocol = Protocol(protocol);
            let port = if protocol.has_ports() { port } else { 0 };
            let packet = packet(&format!("10.0.0.{host}"), protocol, port, Fragment::Whole);
            let expected = oracle(&picked, &packet);
            let table = table(&picked);
            match table.lookup(&packet) {
                Lookup::Service(service) => {
                    let key = service.key().to_string();
                    prop_assert_eq!(Some(key.as_str()), expected);
                }
                _ => prop_assert_eq!(None, expected),
            }
        }
    }
}
