//! Why a backend does not answer: what pings of other ways tell about a probe that found no answer.

use super::prober::Way;
use crate::health::ProbeFailure;
use std::net::IpAddr;
use std::time::Duration;

/// What has been heard while a probe waited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Evidence {
    /// The VIP answered a ping that took the way of the probe.
    pub(crate) vip: bool,
    /// The backend's own address answered a ping that came out of its tunnel.
    pub(crate) tunnel: bool,
    /// The backend's own address answered a plain ping.
    pub(crate) plain: bool,
    /// The backend's host has refused what was sent to it through the tunnel: type and code.
    pub(crate) refused: Option<(u8, u8)>,
}

/// Puts the reason for a failure as exactly as the evidence allows.
pub(crate) fn explain(
    failure: ProbeFailure,
    evidence: &Evidence,
    way: &Way,
    vip: IpAddr,
) -> ProbeFailure {
    let timeout = match failure {
        ProbeFailure::Timeout(timeout) => timeout,
        // Whoever refuses has got the packet, and holds the VIP.
        ProbeFailure::Refused => {
            return ProbeFailure::ApplicationDown("refused on the VIP".to_owned());
        }
        other => return other,
    };
    if evidence.vip {
        return application(timeout);
    }
    let (address, is_tunnel) = (way.address, way.tunnel.is_some());
    // The ping inside the tunnel is of the backend's family. Of two, a host may decapsulate the one.
    let is_telling = vip.is_ipv4() == address.is_ipv4();
    match (is_tunnel, evidence.tunnel, evidence.plain) {
        (true, true, _) if is_telling => ProbeFailure::VipNotBound(format!(
            "what its tunnel delivers for {address} is answered, for the VIP it is not; does the \
             backend hold the VIP on its loopback?"
        )),
        // The surest sign, but for a tunnel that ends in a program: the kernel knows nothing of it.
        (true, false, _) if let Some((kind, code)) = evidence.refused => {
            ProbeFailure::NotDecapsulated(format!(
                "{address} refuses what comes through its tunnel (ICMP type {kind}, code {code}); is \
                 the tunnel's device up, or the port open?"
            ))
        }
        (true, false, true) if is_telling => ProbeFailure::NotDecapsulated(format!(
            "{address} answers pings, but none that come through its tunnel; is the tunnel's device \
             up, and its rp_filter 0?"
        )),
        (true, _, true) => ProbeFailure::NotDecapsulated(format!(
            "or VIP not bound, which cannot be told across families: {address} answers pings, the VIP \
             inside the tunnel does not"
        )),
        (false, _, true) => ProbeFailure::VipNotBound(format!(
            "{address} answers pings, the VIP does not; does the backend hold the VIP on its \
             loopback?"
        )),
        _ => ProbeFailure::Timeout(timeout),
    }
}

fn application(timeout: Duration) -> ProbeFailure {
    ProbeFailure::ApplicationDown(format!(
        "no answer within {timeout:?}, though the VIP answers pings"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::Encapsulation;
    use crate::verdict::BackendIndex;

    fn explained(failure: ProbeFailure, evidence: &Evidence, tunnel: bool, vip: &str) -> String {
        let way = Way {
            index: BackendIndex::new(0, 0),
            address: "10.0.0.11".parse().unwrap(),
            tunnel: tunnel.then_some(Encapsulation::IpIp),
        };
        explain(failure, evidence, &way, vip.parse().unwrap()).to_string()
    }

    #[test]
    fn the_reason_is_as_exact_as_the_evidence() {
        let silent = Evidence::default();
        let plain = Evidence { plain: true, ..silent.clone() };
        let tunnel = Evidence { tunnel: true, ..plain.clone() };
        let vip = Evidence { vip: true, ..tunnel.clone() };
        let refused = Evidence { refused: Some((3, 2)), ..plain.clone() };
        let (v4, v6) = ("10.0.0.100", "fd00::100");
        for (evidence, is_tunnel, to, expected) in [
            (&silent, false, v4, "no answer within"),
            (&silent, true, v4, "no answer within"),
            (&plain, false, v4, "VIP not bound"),
            (&plain, false, v6, "VIP not bound"),
            (&plain, true, v4, "tunnel not decapsulated: 10.0.0.11 answers"),
            (&plain, true, v6, "tunnel not decapsulated: or VIP not bound"),
            (&refused, true, v4, "tunnel not decapsulated: 10.0.0.11 refuses"),
            (&refused, true, v6, "tunnel not decapsulated: 10.0.0.11 refuses"),
            (&refused, false, v4, "VIP not bound"),
            (&tunnel, true, v4, "VIP not bound"),
            (&tunnel, true, v6, "tunnel not decapsulated: or VIP not bound"),
            (&vip, true, v6, "application down"),
            (&vip, false, v4, "application down"),
        ] {
            let timeout = ProbeFailure::Timeout(Duration::from_millis(500));
            let text = explained(timeout, evidence, is_tunnel, to);
            assert!(text.starts_with(expected), "{evidence:?} {is_tunnel} {to}: {text}");
        }
    }

    #[test]
    fn a_refusal_is_the_applications_and_other_failures_stay() {
        let of = |failure| explained(failure, &Evidence::default(), false, "10.0.0.100");
        assert_eq!(of(ProbeFailure::Refused), "application down: refused on the VIP");
        let answer = ProbeFailure::Unexpected("status 500".into());
        assert_eq!(of(answer.clone()), answer.to_string());
    }
}
