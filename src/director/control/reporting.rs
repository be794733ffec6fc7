//! What there is to tell when somebody asks.

use super::{Control, Shared};
use crate::dataplane::{Counts, Member, WorkerCounters};
use crate::director::health::Probes;
use crate::director::stats::{BackendStatus, Stats, services};
use std::sync::Arc;

impl Shared {
    pub(in crate::director) fn worker_counts(&self) -> Vec<Counts> {
        let counts = |counters: &Arc<WorkerCounters>| {
            let mut counts = Counts::default();
            counters.add_to(&mut counts);
            counts
        };
        self.counters.iter().map(counts).collect()
    }

    pub(in crate::director) fn stats(&self, mut probes: Probes) -> Stats {
        let control = self.lock();
        let workers = self.worker_counts();
        let mut counts = Counts::default();
        workers.iter().for_each(|worker| counts += *worker);
        let status = |member| self.status(&control, member);
        let backends: Vec<_> = control.members.iter().map(status).collect();
        let keys = control.config.services.iter().map(|bound| bound.service.key);
        let mut stats = Stats {
            generation: self.snapshots.load().generation,
            counts,
            workers,
            redirect: control.interface.stats().ok(),
            devices: control.interface.device_stats().unwrap_or_default(),
            services: services(keys, &backends),
            backends,
            failure: control.failure(),
        };
        drop(control);
        // Changes need not wait for this.
        if !probes.is_empty() {
            for backend in &mut stats.backends {
                backend.probes = probes.remove(&(backend.service.to_string(), backend.id.clone()));
            }
        }
        stats
    }

    fn status(&self, control: &Control, member: &Member) -> BackendStatus {
        let (service, backend) = (member.service, member.backend.as_ref());
        let (packets, bytes) = self.traffic(member.index);
        let base = control.baselines.get(&member.index).copied().unwrap_or((0, 0));
        let known = control.health.of(service, backend.id());
        BackendStatus {
            service,
            id: backend.id().to_owned(),
            index: member.index,
            address: backend.address(),
            weight: backend.weight(),
            admin: control.admin.of(service, backend),
            health: known.map(|known| known.state),
            health_reason: known.and_then(|known| known.reason.clone()),
            probes: None,
            neighbour: control.neighbours.get(&backend.address()).copied(),
            idle: member.idle.clone(),
            last_resort: member.last_resort,
            flows: self.counters.iter().map(|counters| counters.flows(member.index)).sum(),
            flows_begun: self.counters.iter().map(|all| all.flows_begun(member.index)).sum(),
            packets: packets.wrapping_sub(base.0),
            bytes: bytes.wrapping_sub(base.1),
        }
    }
}
