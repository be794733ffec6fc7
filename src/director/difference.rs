//! What one plan changes in the one before.

use super::status::Event;
use crate::balancer::{Service, VipKey};
use crate::config::Config;
use crate::dataplane::{Idle, Member, Snapshot};
use crate::verdict::BackendIndex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How many flows are looked at, over all services, to tell what share of them moves.
const SAMPLES: usize = 1 << 22;

/// By service in both snapshots, the share of new flows that go elsewhere, if any does.
pub(super) fn moved(before: &Snapshot, after: &Snapshot) -> Vec<(VipKey, f64)> {
    let was: HashMap<VipKey, &Arc<Service>> =
        before.services.services().iter().map(|service| (service.key(), service)).collect();
    let is = after.services.services().iter();
    let pairs = is.filter_map(|service| Some((service, *was.get(&service.key())?)));
    let rebuilt: Vec<_> = pairs.filter(|(is, was)| !Arc::ptr_eq(is, was)).collect();
    // Enough for a tenth of a per cent of one, and no more than a moment for thousands.
    let samples = (SAMPLES / rebuilt.len().max(1)).clamp(1024, 65_536) as u32;
    let share =
        |(is, was): (&Arc<Service>, &Arc<Service>)| (is.key(), is.moved_since(was, samples));
    rebuilt.into_iter().map(share).filter(|(_, share)| *share > 0.0).collect()
}

/// Of which services all backends went down, or one came back.
pub(super) fn all_down_changes(config: &Config, before: &[Member], after: &[Member]) -> Vec<Event> {
    let down = |members: &[Member]| -> BTreeSet<VipKey> {
        let with = |up: bool| members.iter().filter(move |m| m.idle.is_none() == up);
        let up: BTreeSet<VipKey> = with(true).map(|member| member.service).collect();
        with(false).map(|member| member.service).filter(|key| !up.contains(key)).collect()
    };
    let (was, is) = (down(before), down(after));
    let services = config.services.iter().map(|bound| &bound.service);
    services
        .filter_map(|service| match (was.contains(&service.key), is.contains(&service.key)) {
            (false, true) => {
                Some(Event::AllDown { service: service.key, what: service.when_all_down.as_str() })
            }
            (true, false) => Some(Event::Recovered { service: service.key }),
            _ => None,
        })
        .collect()
}

/// Which backends began or ceased to take new flows.
pub(super) fn changes(before: &[Member], after: &[Member]) -> Vec<Event> {
    let was: HashMap<BackendIndex, &Option<Idle>> =
        before.iter().map(|member| (member.index, &member.idle)).collect();
    let changed =
        after.iter().filter(|member| was.get(&member.index).copied() != Some(&member.idle));
    changed
        .map(|member| {
            let (service, id) = (member.service, member.backend.id().to_owned());
            match member.idle.clone() {
                Some(why) => Event::BackendIdle { service, id, why },
                None => Event::BackendActive { service, id },
            }
        })
        .collect()
}
