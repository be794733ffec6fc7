//! What one plan changes in the one before.

use super::status::Event;
use crate::balancer::VipKey;
use crate::config::Config;
use crate::dataplane::{Idle, Member};
use crate::verdict::BackendIndex;
use std::collections::{BTreeSet, HashMap};

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
