//! What the director's threads find out: each comes under the lock and goes out as a plan.

use super::{Control, Shared, event, vip_set};
use crate::dataplane::Port;
use crate::dataplane::neighbour::NeighbourEvent;
use crate::director::Event;
use crate::health::HealthEvent;
use crate::packet::icmp::TunnelFeedback;
use crate::packet::{Claim, question};
use std::time::Instant;

impl Shared {
    /// Takes in what the resolver found.
    pub(in crate::director) fn neighbour(&self, event: NeighbourEvent) {
        let mut control = self.lock();
        match event {
            NeighbourEvent::Neighbour { address, state } => {
                if !control.has_backend(address) {
                    return; // removed while it was being looked for
                }
                control.neighbours.insert(address, state);
            }
            NeighbourEvent::LinkChanged { port, link } => {
                control.note([Event::LinkChanged { port, up: link.up }]);
                control.set_port(port, link);
                if link.up && Port(port) == Port::INGRESS {
                    for vip in vip_set(&control.config) {
                        control.announce(vip);
                    }
                }
            }
        }
        self.publish(&mut control);
        drop(control);
        self.tell();
    }

    /// Takes in what routers said about tunnels, and lets go of what they said long ago.
    pub(in crate::director) fn feedback(&self, heard: &[TunnelFeedback]) {
        let mut control = self.lock();
        let now = Instant::now();
        let Control { path_mtus, config, site, .. } = &mut *control;
        let backends = || config.services.iter().flat_map(|s| s.service.all_backends());
        let tunnels = || backends().map(|backend| (backend.address(), backend.forwarding()));
        let mut news = false;
        for feedback in heard {
            news |= path_mtus.learn(feedback, &site.tunnel_sources, tunnels(), now);
        }
        news |=
            path_mtus.expire(now, |address| backends().any(|backend| backend.address() == address));
        if news {
            self.publish(&mut control);
            drop(control);
            self.tell();
        }
    }

    /// Takes in what monitors found, as one change.
    pub(in crate::director) fn health(&self, events: impl IntoIterator<Item = HealthEvent>) {
        let mut control = self.lock();
        let now = Instant::now();
        let mut news = false;
        for HealthEvent { service, id, to, reason, .. } in events {
            // One of a backend that is gone, or about nobody, is no news.
            let Ok(service) = service.parse() else { continue };
            let observed = (to, reason.map(|reason| reason.to_string()));
            news |= control.health.set(service, &id, observed, now);
        }
        if news {
            self.publish(&mut control);
            drop(control);
            self.tell();
        }
    }

    /// Asks the link who has the VIPs whose turn it is, and lets go of claims that nobody keeps up.
    pub(in crate::director) fn ask_for_claims(&self) {
        let mut control = self.lock();
        let (vips, fewer) = control.claims.next_round();
        for vip in vips {
            let frame = question(control.station(), vip).to_vec();
            control.mail.send(Port::INGRESS, frame);
        }
        if fewer {
            self.publish(&mut control);
            drop(control);
            self.tell();
        }
    }

    /// Takes in who was heard to have an address.
    pub(in crate::director) fn claimed(&self, heard: &[Claim]) {
        let mut control = self.lock();
        let own = control.station();
        let others = heard.iter().copied().filter(|claim| claim.mac != own);
        let new = control.claims.hear(others);
        if new.is_empty() {
            return;
        }
        self.publish(&mut control);
        let unknown = new.into_iter().filter(|claim| !control.explains(claim));
        let unknown: Vec<_> = unknown.map(event).collect();
        control.note(unknown);
        drop(control);
        self.tell();
    }

    pub(in crate::director) fn worker_failed(&self, queue: u32, error: String) {
        let mut control = self.lock();
        control.interface.detach();
        control.failure.get_or_insert_with(|| format!("queue {queue}: {error}"));
        control.note([Event::WorkerFailed { queue, error }]);
        drop(control);
        self.tell();
    }
}
