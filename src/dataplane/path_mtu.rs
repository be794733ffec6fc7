//! Path MTUs learned from what routers say about tunnels. Pure: time is passed in.

use crate::forwarding::{Encapsulation, Forwarding, TunnelSources};
use crate::packet::icmp::TunnelFeedback;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a lowered path MTU is believed before larger packets are tried again (RFC 1191 section
/// 6.3, RFC 8201 section 4).
const LIFETIME: Duration = Duration::from_secs(600);
/// IPv4 paths are not believed to take less: whoever can guess a tunnel's addresses could otherwise
/// have every packet cut to pieces (RFC 8900 section 3.7). Linux draws its line here too
/// (`net.ipv4.route.min_pmtu`).
const LOWEST_IPV4: u32 = 552;

/// What the paths to backends have been found to take.
#[derive(Debug, Default)]
pub struct PathMtus {
    learned: HashMap<IpAddr, Learned>,
}

#[derive(Debug)]
struct Learned {
    mtu: u32,
    until: Instant,
}

impl PathMtus {
    /// Takes in what a router said about a packet it quotes; returns whether that is news. It must
    /// be a packet that this director can have sent: from `sources`, to the address and by the
    /// encapsulation of one of `backends`, of which only so many paths are remembered.
    pub fn learn(
        &mut self,
        feedback: &TunnelFeedback,
        sources: &TunnelSources,
        backends: impl IntoIterator<Item = (IpAddr, Forwarding)>,
        now: Instant,
    ) -> bool {
        let from_us = sources
            .towards(feedback.destination)
            .is_some_and(|source| source.contains(&feedback.source));
        let mut tunnels = backends.into_iter().filter(|(to, _)| *to == feedback.destination);
        if !from_us || !tunnels.any(|(_, forwarding)| could_send(forwarding, feedback)) {
            return false;
        }
        let mtu = match feedback.destination {
            IpAddr::V4(_) => feedback.mtu.max(LOWEST_IPV4),
            IpAddr::V6(_) => feedback.mtu,
        };
        // A larger one is never learned so: it is found when the smaller one has expired.
        let known = self.known(feedback.destination, now).unwrap_or(u32::MAX);
        if mtu > known {
            return false;
        }
        let learned = Learned { mtu, until: now + LIFETIME };
        self.learned.insert(feedback.destination, learned);
        mtu < known
    }

    /// Forgets what is too old, and the paths to all but the backends that `keep` names; returns
    /// whether a backend's path is taken to be larger again.
    pub fn expire(&mut self, now: Instant, keep: impl Fn(IpAddr) -> bool) -> bool {
        let before = self.learned.len();
        self.learned.retain(|address, learned| learned.until > now && keep(*address));
        self.learned.len() < before
    }

    /// The largest outer packet that the path to `backend` is known to take, if less than its first
    /// link does.
    pub fn known(&self, backend: IpAddr, now: Instant) -> Option<u32> {
        let learned = self.learned.get(&backend)?;
        (learned.until > now).then_some(learned.mtu)
    }
}

fn could_send(forwarding: Forwarding, feedback: &TunnelFeedback) -> bool {
    let Forwarding::Tunnel(tunnel) = forwarding else {
        return false;
    };
    match tunnel.encapsulation {
        Encapsulation::IpIp => matches!(feedback.protocol.0, 4 | 41),
        Encapsulation::Gue { port, .. } => feedback.udp_ports.is_some_and(|(_, to)| to == port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use crate::forwarding::GueVariant;

    fn sources() -> TunnelSources {
        ["10.0.0.1/32", "fd00::/64"]
            .into_iter()
            .fold(TunnelSources::default(), |sources, source| sources.with(source.parse().unwrap()))
    }

    fn backends() -> Vec<(IpAddr, Forwarding)> {
        vec![
            ("10.1.0.11".parse().unwrap(), Forwarding::IPIP),
            ("fd01::11".parse().unwrap(), Forwarding::gue(6080, GueVariant::One)),
            ("10.1.0.12".parse().unwrap(), Forwarding::L2),
        ]
    }

    fn feedback(source: &str, destination: &str, protocol: u8, mtu: u32) -> TunnelFeedback {
        TunnelFeedback {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: Protocol(protocol),
            udp_ports: (protocol == 17).then_some((50_000, 6080)),
            mtu,
        }
    }

    #[test]
    fn a_lower_mtu_is_believed_for_ten_minutes_and_a_higher_one_never() {
        let (mut mtus, start) = (PathMtus::default(), Instant::now());
        let backend = "10.1.0.11".parse().unwrap();
        let mut learn = |mtu, after| {
            let feedback = feedback("10.0.0.1", "10.1.0.11", 4, mtu);
            let news = mtus.learn(&feedback, &sources(), backends(), start + after);
            (news, mtus.known(backend, start + after))
        };
        let second = Duration::from_secs(1);
        assert_eq!(learn(1400, Duration::ZERO), (true, Some(1400)));
        assert_eq!(learn(1500, second), (false, Some(1400)));
        assert_eq!(learn(1400, second * 2), (false, Some(1400)));
        assert_eq!(learn(100, second * 3), (true, Some(552)));
        let (end, all) = (start + second * 3 + LIFETIME, |_| true);
        assert!(!mtus.expire(end - second, all));
        assert_eq!(mtus.known(backend, end - second), Some(552));
        assert_eq!(mtus.known(backend, end), None);
        assert!(mtus.expire(end, all));
    }

    #[test]
    fn only_what_is_about_a_tunnel_of_ours_is_believed() {
        let mut mtus = PathMtus::default();
        let mut learn = |source, destination, protocol| {
            let feedback = feedback(source, destination, protocol, 1300);
            mtus.learn(&feedback, &sources(), backends(), Instant::now())
        };
        assert!(learn("fd00::77", "fd01::11", 17));
        assert!(!learn("10.0.0.2", "10.1.0.11", 4), "not from here");
        assert!(!learn("10.0.0.1", "10.1.0.13", 4), "to no backend");
        assert!(!learn("10.0.0.1", "10.1.0.12", 4), "to one without a tunnel");
        assert!(!learn("10.0.0.1", "10.1.0.11", 17), "by another encapsulation");
        assert!(!learn("fd00::77", "fd01::11", 41), "by another encapsulation");
    }

    #[test]
    fn what_was_learned_goes_with_the_backend() {
        let mut mtus = PathMtus::default();
        let now = Instant::now();
        assert!(mtus.learn(
            &feedback("10.0.0.1", "10.1.0.11", 4, 1300),
            &sources(),
            backends(),
            now
        ));
        assert!(!mtus.expire(now, |address| address == IpAddr::from([10, 1, 0, 11])));
        assert!(mtus.expire(now, |_| false));
        assert_eq!(mtus.known([10, 1, 0, 11].into(), now), None);
    }
}
