//! Any monitor, through the VIP.

use super::evidence::explain;
use super::prober::{Prober, Session};
use crate::balancer::VipKey;
use crate::health::{Monitor, News, ProbeFailure, Target};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ASTRAY: &str = "the monitor has sent nothing from its own thread, so nothing went through the \
                      VIP: bind it to the backends' own addresses (`Through::Backend`), or have it \
                      open its sockets on the thread that probes";

/// Has a monitor probe a service's VIP at one backend after the other.
pub(in crate::director) struct ThroughVip {
    pub(in crate::director) prober: Arc<Prober>,
    pub(in crate::director) service: VipKey,
    pub(in crate::director) monitor: Arc<dyn Monitor>,
}

impl Monitor for ThroughVip {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let start = Instant::now();
        let way = self.prober.shared.way_to(self.service, target.id);
        let way = way.map_err(ProbeFailure::NeighbourUnresolved)?;
        let vip = self.vip();
        // Late enough not to trouble who is well, early enough to be answered in time.
        let session = Session::new(vip, way, start + timeout / 2);
        let running = self.prober.begin(session, timeout)?;
        let left = timeout.saturating_sub(start.elapsed());
        let at_vip = Target::new(target.service, target.id, vip);
        let result = running.lane.inside(&self.prober.home, || self.monitor.probe(&at_vip, left));
        let (evidence, carried) = running.findings();
        match result.map_err(ProbeFailure::from)? {
            // Its packets went another way, and say nothing of this one.
            Ok(()) if carried == 0 => Err(ProbeFailure::System(ASTRAY.to_owned())),
            Ok(()) => Ok(()),
            // What the configuration says, and not what was left of it.
            Err(ProbeFailure::Timeout(_)) => {
                Err(explain(ProbeFailure::Timeout(timeout), &evidence, &way, vip))
            }
            Err(failure) => Err(explain(failure, &evidence, &way, vip)),
        }
    }

    fn subscribe(&self, news: News) {
        self.monitor.subscribe(news);
    }
}

impl ThroughVip {
    /// Of a prefix, its first address: they are all served alike.
    fn vip(&self) -> IpAddr {
        let prefix = self.service.prefix();
        prefix.hosts().next().unwrap_or_else(|| prefix.addr())
    }
}
