//! Why a backend does not answer: what pings of other ways tell about a probe that found no answer.

use crate::health::ProbeFailure;
use std::net::IpAddr;
use std::time::Duration;

/// What has been heard while a probe waited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Evidence {
    /// The VIP answered a ping that took the way of the probe.
    pub(super) vip: bool,
    /// The backend's own address answered a ping that came out of its tunnel.
    pub(super) tunnel: bool,
    /// The backend's own address answered a plain ping.
    pub(super) plain: bool,
    /// The backend's host has refused what was sent to it through the tunnel: type and code.
    pub(super) refused: Option<(u8, u8)>,
}

/// Puts the reason for a failure as exactly as the evidence allows.
pub(super) fn explain(
    failure: ProbeFailure,
    evidence: &Evidence,
    address: IpAddr,
    is_tunnel: bool,
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
    match (is_tunnel, evidence.tunnel, evidence.plain) {
        (true, true, _) => ProbeFailure::VipNotBound(format!(
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
        (true, false, true) => ProbeFailure::NotDecapsulated(format!(
            "{address} answers pings, but none that come through its tunnel; is the tunnel's device \
             up, and its rp_filter 0?"
        )),
        (false, _, true) => ProbeFailure::VipNotBound(format!(
            "{address} answers pings, the VIP does not; does the backend hold the VIP on its \
             loopback?"
        )),
        (_, _, false) => ProbeFailure::Timeout(timeout),
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

    #[test]
    fn the_reason_is_as_exact_as_the_evidence() {
        let silent = Evidence::default();
        let plain = Evidence { plain: true, ..silent.clone() };
        let tunnel = Evidence { tunnel: true, ..plain.clone() };
        let vip = Evidence { vip: true, ..tunnel.clone() };
        let refused = Evidence { refused: Some((3, 2)), ..plain.clone() };
        for (evidence, is_tunnel, expected) in [
            (&silent, false, "no answer within"),
            (&silent, true, "no answer within"),
            (&plain, false, "VIP not bound"),
            (&plain, true, "tunnel not decapsulated"),
            (&refused, true, "tunnel not decapsulated: 10.0.0.11 refuses"),
            (&refused, false, "VIP not bound"),
            (&tunnel, true, "VIP not bound"),
            (&vip, true, "application down"),
            (&vip, false, "application down"),
        ] {
            let timeout = ProbeFailure::Timeout(Duration::from_millis(500));
            let address = "10.0.0.11".parse().unwrap();
            let text = explain(timeout, evidence, address, is_tunnel).to_string();
            assert!(text.starts_with(expected), "{evidence:?} {is_tunnel}: {text}");
        }
    }

    #[test]
    fn a_refusal_is_the_applications_and_other_failures_stay() {
        let explained = |failure| {
            explain(failure, &Evidence::default(), "10.0.0.11".parse().unwrap(), false).to_string()
        };
        assert_eq!(explained(ProbeFailure::Refused), "application down: refused on the VIP");
        let answer = ProbeFailure::Unexpected("status 500".into());
        assert_eq!(explained(answer.clone()), answer.to_string());
    }
}
