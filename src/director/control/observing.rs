//! What is known of each backend, as a plan takes it: the one in force, or one that might be.

use super::{Control, Shared, on_link};
use crate::balancer::{Backend, VipKey};
use crate::config::{Changes, Config, Preview, moves};
use crate::dataplane::neighbour::{NeighbourState, Path};
use crate::dataplane::{Idle, Member, Observed, PathMtus, Planner, Site, Snapshot};
use crate::director::board::{AdminBoard, HealthBoard};
use crate::director::claims::ClaimBoard;
use crate::error::ConfigError;
use crate::flow::Timestamp;
use crate::health::HealthState;
use crate::packet::MacAddress;
use crate::verdict::BackendIndex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Where backends that nobody has looked for yet are taken to be.
const SOMEWHERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 0]);

impl Shared {
    /// What another configuration would do with what is known now; nothing is changed.
    pub(in crate::director) fn preview(&self, mut config: Config) -> Result<Preview, ConfigError> {
        let mut control = self.lock();
        control.settings.check(&mut config)?;
        let mut planner = control.planner.clone();
        let (known, _, old) = control.known();
        let services = config.services.iter().map(|bound| &bound.service);
        let after = planner.plan(services, known.site, known.observer(&config, true));
        let changes = Changes::between(old, &config);
        let before = self.snapshots.load();
        let moves =
            moves((&before.services, &control.members), (&after.snapshot.services, &after.members));
        Ok(Preview { changes, moves })
    }
}

impl Shared {
    /// The ids of all backends, by the index they have now.
    pub(in crate::director) fn names(&self) -> HashMap<BackendIndex, String> {
        let control = self.lock();
        let members = control.members.iter();
        members.map(|member| (member.index, member.backend.id().to_owned())).collect()
    }
}

impl Control {
    /// The time of the workers, where services know what they chose before.
    fn workers_time(&self) -> Option<Timestamp> {
        self.settings.epoch.map(|epoch| Timestamp(epoch.elapsed().as_nanos() as u64))
    }

    /// Whether a service has been unchanged for so long that it may forget what it chose before.
    pub(super) fn settles(&self) -> bool {
        let settles = || self.planner.settles();
        self.workers_time().is_some_and(|now| settles().is_some_and(|then| then <= now))
    }

    pub(super) fn plan(&mut self) -> (Snapshot, Vec<Member>) {
        if let Some(now) = self.workers_time() {
            self.planner.at(now);
        }
        let (known, planner, config) = self.known();
        let services = config.services.iter().map(|bound| &bound.service);
        let plan = planner.plan(services, known.site, known.observer(config, false));
        (plan.snapshot, plan.members)
    }

    fn known(&mut self) -> (Known<'_>, &mut Planner, &Config) {
        let Self { config, site, planner, neighbours, health, admin, path_mtus, claims, .. } = self;
        (Known { site, neighbours, health, admin, path_mtus, claims }, planner, config)
    }
}

/// What plans are made of, beside the configuration.
struct Known<'a> {
    site: &'a Site,
    neighbours: &'a HashMap<IpAddr, NeighbourState>,
    health: &'a HealthBoard,
    admin: &'a AdminBoard,
    path_mtus: &'a PathMtus,
    claims: &'a ClaimBoard,
}

impl Known<'_> {
    /// Says what is known of the backends of a configuration. Those of which nothing is known yet are
    /// taken to be well if `hopeful`.
    fn observer(
        &self,
        config: &Config,
        hopeful: bool,
    ) -> impl Fn(VipKey, &dyn Backend) -> Observed {
        let Self { neighbours, health, admin, path_mtus, claims, .. } = *self;
        let now = Instant::now();
        let probed = config.services.iter().filter_map(|bound| {
            Some((bound.service.key, bound.monitor.as_ref()?.policy.detection()))
        });
        let detection: HashMap<VipKey, Duration> = probed.collect();
        move |service, backend| {
            let detection = detection.get(&service).copied();
            let known = detection.and_then(|_| health.of(service, backend.id()));
            Observed {
                path: match neighbours.get(&backend.address()) {
                    Some(NeighbourState::Resolved(path)) => {
                        let learned = path_mtus.known(backend.address(), now).unwrap_or(u32::MAX);
                        Ok(Path { mtu: path.mtu.min(learned), ..*path })
                    }
                    Some(NeighbourState::Rejected { mac, why }) => {
                        Err(Idle::BadMac { mac: *mac, why: *why })
                    }
                    Some(NeighbourState::Unresolved { why }) => {
                        Err(Idle::Unresolved(why.to_string()))
                    }
                    None if hopeful => Ok(Path::on_link(SOMEWHERE)),
                    None => Err(Idle::Unresolved("not looked for yet".to_owned())),
                },
                health: match known.map(|known| known.state) {
                    None | Some(HealthState::Up) => Ok(()),
                    Some(HealthState::Unknown) if hopeful => Ok(()),
                    Some(HealthState::Unknown) => Err("not probed yet".to_owned()),
                    Some(HealthState::Down) => {
                        Err(known.and_then(|known| known.reason.clone()).unwrap_or_default())
                    }
                },
                ill_for: known
                    .and_then(|known| known.fell)
                    .map_or(Duration::MAX, |fell| now.saturating_duration_since(fell)),
                detection: detection.unwrap_or_default(),
                claims: on_link(neighbours, backend)
                    .and_then(|mac| claims.of(service.prefix(), mac)),
                admin: admin.of(service, backend),
            }
        }
    }
}
