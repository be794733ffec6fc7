//! What the operator wants of backends, and what probes ask.

use super::{Control, Deadline, Shared};
use crate::balancer::{AdminState, VipKey};
use crate::dataplane::Idle;
use crate::director::through::Way;
use crate::forwarding::Forwarding;
use crate::verdict::BackendIndex;
use std::time::{Duration, Instant};

/// How soon services forget what they chose long ago.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Shared {
    /// Takes in what the operator wants of a backend from now on; nothing of its own: what the
    /// configuration says. Returns its index and the snapshot that this is in force with, or nothing
    /// if there is no such backend.
    pub(in crate::director) fn set_admin(
        &self,
        service: VipKey,
        id: &str,
        admin: Option<AdminState>,
        until: Option<Instant>,
    ) -> Option<(BackendIndex, u64)> {
        let mut control = self.lock();
        let index = control.member(service, id)?.index;
        control.admin.set(service, id, admin);
        control.deadlines.retain(|(of, _): &Deadline| *of != index);
        control.deadlines.extend(until.map(|until| (index, until)));
        self.publish(&mut control);
        drop(control);
        self.tell();
        Some((index, self.snapshots.load().generation))
    }

    /// Cuts what is left of drains whose time is over, and lets services forget what they chose long ago;
    /// returns when to look again.
    pub(in crate::director) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut control = self.lock();
        let Control { deadlines, admin, members, .. } = &mut *control;
        let before = deadlines.len();
        deadlines.retain(|(index, until)| {
            let is_over = *until <= now;
            let of = members.iter().find(|member| is_over && member.index == *index);
            if let Some(member) = of {
                admin.set(member.service, member.backend.id(), Some(AdminState::Disabled));
            }
            !is_over
        });
        let next = deadlines.iter().map(|(_, until)| *until).min();
        let is_over = deadlines.len() < before;
        let look = control.settings.epoch.map(|_| now + LOOK_EVERY);
        if is_over || control.settles() {
            self.publish(&mut control);
            drop(control);
            self.tell();
        }
        next.into_iter().chain(look).min()
    }

    /// What the operator wants of a backend, and its index; none if there is no such backend.
    pub(in crate::director) fn admin_of(
        &self,
        service: VipKey,
        id: &str,
    ) -> Option<(BackendIndex, AdminState)> {
        let control = self.lock();
        let member = control.member(service, id)?;
        Some((member.index, control.admin.of(service, member.backend.as_ref())))
    }

    /// How many flows a backend has that takes no new ones, once all workers have counted them in
    /// this snapshot or a later one.
    pub(in crate::director) fn flows_of(
        &self,
        index: BackendIndex,
        generation: u64,
    ) -> Option<u64> {
        self.counters.iter().map(|counters| counters.leaving(index, generation)).sum()
    }

    /// The way that probes through a service's VIP take to a backend, or why there is none.
    pub(in crate::director) fn way_to(&self, service: VipKey, id: &str) -> Result<Way, String> {
        let control = self.lock();
        let member = control.member(service, id);
        let member = member.ok_or_else(|| "the backend has been removed".to_owned())?;
        if self.snapshots.load().next_hop(member.index).is_none() {
            return Err(match &member.idle {
                Some(Idle::Unresolved(why)) => why.clone(),
                Some(why) => why.to_string(),
                None => "not looked for yet".to_owned(),
            });
        }
        Ok(Way {
            index: member.index,
            address: member.backend.address(),
            tunnel: match member.backend.forwarding() {
                Forwarding::Tunnel(tunnel) => Some(tunnel.encapsulation),
                _ => None,
            },
        })
    }
}
