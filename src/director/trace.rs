//! What a director tells of its own accord, for `tracing`: the one place where it is said how.

use super::Event;
use crate::dataplane::Idle;

/// One event of `tracing`, with the event's text as the message.
macro_rules! say {
    ($level:ident, $event:expr, $kind:literal $(, $($fields:tt)+)?) => {
        tracing::$level!(target: "dsrlb", kind = $kind $(, $($fields)+)?, "{}", $event)
    };
}

/// Emits an event. What needs somebody's attention is a warning, or an error if packets are not served for it.
pub(super) fn event(event: &Event) {
    match event {
        Event::BackendActive { service, id } => {
            say!(info, event, "backend-active", service = %service, backend = id);
        }
        Event::BackendIdle { service, id, why } if is_wanted(why) => {
            let state = why.name();
            say!(info, event, "backend-idle", service = %service, backend = id, state, why = %why);
        }
        Event::BackendIdle { service, id, why } => {
            let state = why.name();
            say!(warn, event, "backend-idle", service = %service, backend = id, state, why = %why);
        }
        Event::ConfigApplied(applied) => {
            let (generation, changes) = (applied.generation, &applied.changes);
            say!(
                info,
                event,
                "config-applied",
                generation,
                services_added = changes.services_added.len(),
                services_removed = changes.services_removed.len(),
                services_changed = changes.services_changed.len(),
                backends_added = changes.backends_added.len(),
                backends_removed = changes.backends_removed.len(),
                backends_changed = changes.backends_changed.len()
            );
        }
        Event::ConfigRefused(why) => say!(warn, event, "config-refused", why),
        Event::AllDown { service, what } => {
            say!(error, event, "all-down", service = %service, what);
        }
        Event::Recovered { service } => say!(info, event, "recovered", service = %service),
        Event::LinkChanged { port, up: true } => {
            say!(info, event, "link-changed", port, up = true);
        }
        Event::LinkChanged { port, up: false } => {
            say!(warn, event, "link-changed", port, up = false);
        }
        Event::VipClaimed { vip, mac } => {
            say!(warn, event, "vip-claimed", vip = %vip, mac = %mac);
        }
        Event::ResolverFailed(error) => say!(error, event, "resolver-failed", error),
        Event::WorkerFailed { queue, error } => {
            say!(error, event, "worker-failed", queue, error);
        }
    }
}

/// Emits that another snapshot is in force. Of several in quick succession it may be the last alone.
pub(super) fn snapshot(generation: u64) {
    say!(debug, "another snapshot is in force", "snapshot", generation);
}

/// Whether that is as the operator has it.
fn is_wanted(why: &Idle) -> bool {
    match why {
        Idle::NoWeight | Idle::Draining | Idle::Disabled | Idle::Standby => true,
        Idle::Unhealthy(_)
        | Idle::ClaimsVip { .. }
        | Idle::Unresolved(_)
        | Idle::RoutedVia(_)
        | Idle::WrongFamily
        | Idle::BadMac { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::Applied;
    use super::*;
    use crate::config::Changes;
    use crate::packet::MacAddress;
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing::{Level, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    /// Level and fields of each event.
    type Seen = Arc<Mutex<Vec<(Level, BTreeMap<&'static str, String>)>>>;

    /// An event, and what level and which of its fields it is to have.
    type Case = (Event, Level, &'static [(&'static str, &'static str)]);

    struct Catch(Seen);

    struct Fields(BTreeMap<&'static str, String>);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.insert(field.name(), format!("{value:?}"));
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.insert(field.name(), value.to_owned());
        }
    }

    impl<S: Subscriber> Layer<S> for Catch {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            assert_eq!(event.metadata().target(), "dsrlb");
            let mut fields = Fields(BTreeMap::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push((*event.metadata().level(), fields.0));
        }
    }

    #[test]
    fn each_event_has_its_level_its_fields_and_its_text() {
        let service = "10.0.0.100:80/tcp".parse().unwrap();
        let id = "b1".to_owned();
        let idle = |why| Event::BackendIdle { service, id: "b1".to_owned(), why };
        let refused = Idle::Unhealthy("refused".to_owned());
        let vip = "10.0.0.100".parse().unwrap();
        let mac = MacAddress([2, 0, 0, 0, 0, 7]);
        const OF: &str = "10.0.0.100:80/tcp";
        let backends = |count| vec![(service, id.clone()); count];
        let changes = Changes {
            services_added: vec![service; 1],
            services_removed: vec![service; 2],
            services_changed: vec![service; 3],
            backends_added: backends(4),
            backends_removed: backends(5),
            backends_changed: backends(6),
        };
        let applied = Applied { generation: 7, changes, moved: Vec::new() };
        let cases: Vec<Case> = vec![
            (
                Event::BackendActive { service, id },
                Level::INFO,
                &[("kind", "backend-active"), ("service", OF), ("backend", "b1")],
            ),
            (
                idle(Idle::Draining),
                Level::INFO,
                &[("backend", "b1"), ("state", "draining"), ("why", "draining")],
            ),
            (
                idle(refused),
                Level::WARN,
                &[("kind", "backend-idle"), ("state", "unhealthy"), ("why", "unhealthy: refused")],
            ),
            (
                Event::ConfigApplied(applied),
                Level::INFO,
                &[
                    ("kind", "config-applied"),
                    ("generation", "7"),
                    ("services_added", "1"),
                    ("services_removed", "2"),
                    ("services_changed", "3"),
                    ("backends_added", "4"),
                    ("backends_removed", "5"),
                    ("backends_changed", "6"),
                ],
            ),
            (
                Event::ConfigRefused("no".to_owned()),
                Level::WARN,
                &[("kind", "config-refused"), ("why", "no")],
            ),
            (
                Event::AllDown { service, what: "dropped" },
                Level::ERROR,
                &[("kind", "all-down"), ("service", OF), ("what", "dropped")],
            ),
            (Event::Recovered { service }, Level::INFO, &[("kind", "recovered"), ("service", OF)]),
            (Event::LinkChanged { port: 0, up: true }, Level::INFO, &[("up", "true")]),
            (
                Event::LinkChanged { port: 1, up: false },
                Level::WARN,
                &[("kind", "link-changed"), ("port", "1"), ("up", "false")],
            ),
            (
                Event::VipClaimed { vip, mac },
                Level::WARN,
                &[("vip", "10.0.0.100"), ("mac", "02:00:00:00:00:07")],
            ),
            (
                Event::ResolverFailed("x".to_owned()),
                Level::ERROR,
                &[("kind", "resolver-failed"), ("error", "x")],
            ),
            (
                Event::WorkerFailed { queue: 3, error: "y".to_owned() },
                Level::ERROR,
                &[("kind", "worker-failed"), ("queue", "3"), ("error", "y")],
            ),
        ];
        let seen = Seen::default();
        let subscriber = tracing_subscriber::registry().with(Catch(Arc::clone(&seen)));
        tracing::subscriber::with_default(subscriber, || {
            cases.iter().for_each(|(of, ..)| event(of));
            snapshot(9);
        });
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), cases.len() + 1);
        for ((event, level, fields), (seen_level, seen_fields)) in cases.iter().zip(seen.iter()) {
            assert_eq!(seen_level, level, "{event}");
            assert_eq!(seen_fields["message"], event.to_string());
            for (name, value) in *fields {
                assert_eq!(seen_fields.get(name).map(String::as_str), Some(*value), "{event}");
            }
        }
        let (level, fields) = seen.last().unwrap();
        assert_eq!((*level, fields["generation"].as_str()), (Level::DEBUG, "9"));
    }
}
