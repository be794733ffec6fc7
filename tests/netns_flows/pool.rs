//! The pool of a running director, and every way to change it.

use crate::history::{Backends, History};
use crate::lab::Lab;
use crate::random::Random;
use dsrlb::balancer::{AdminState, Maglev, RealServer, Rendezvous, VipKey, VirtualService};
use dsrlb::config::Config;
use dsrlb::director::{Applied, Director};
use dsrlb::flow::{HashInput, HashKey};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any test: what is left of a drain is not cut here.
const DRAIN: Duration = Duration::from_secs(3600);

/// How new flows are shared out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Maglev(usize),
    Rendezvous,
}

/// A service as it is wanted, with backends by their numbers.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub vip: SocketAddr,
    pub weights: BTreeMap<u8, u16>,
    pub admin: BTreeMap<u8, AdminState>,
    pub method: Method,
    pub input: HashInput,
    pub key: HashKey,
}

impl Wanted {
    pub fn new(vip: SocketAddr, backends: impl IntoIterator<Item = u8>) -> Self {
        Self {
            vip,
            weights: backends.into_iter().map(|number| (number, 1)).collect(),
            admin: BTreeMap::new(),
            method: Method::Maglev(1021),
            input: HashInput::FiveTuple,
            key: HashKey::default(),
        }
    }

    pub fn key(&self) -> VipKey {
        format!("{}/tcp", self.vip).parse().unwrap()
    }

    /// Who may be given new flows.
    pub fn taking(&self) -> Backends {
        let weighty = self.weights.iter().filter(|(_, weight)| **weight > 0);
        let takes = |number: &u8| !self.admin.contains_key(number);
        weighty.map(|(number, _)| *number).filter(takes).collect()
    }

    /// Whose flows are cut by a change to this.
    fn cut_by(&self, next: &Self) -> Backends {
        let is_out = |number: &u8| {
            !next.weights.contains_key(number)
                || next.admin.get(number) == Some(&AdminState::Disabled)
        };
        self.weights.keys().copied().filter(is_out).collect()
    }

    /// As it is configured, its backends in any order.
    pub fn service(&self, lab: &Lab, random: &mut Random) -> VirtualService {
        let service = VirtualService::new(self.key()).hash_input(self.input).hash_key(self.key);
        let service = match self.method {
            Method::Maglev(slots) => service.policy(Maglev::with_table_size(slots).unwrap()),
            Method::Rendezvous => service.policy(Rendezvous),
        };
        let mut backends: Vec<u8> = self.weights.keys().copied().collect();
        random.shuffle(&mut backends);
        let add = |service: VirtualService, number| {
            service.backend(server(lab, number, self.weights[&number]))
        };
        backends.into_iter().fold(service, add)
    }
}

fn server(lab: &Lab, number: u8, weight: u16) -> RealServer {
    let host = &lab.backends[usize::from(number) - 1];
    RealServer::new(host.v4.into()).with_id(&host.name).with_weight(weight)
}

/// Services of one director, and what they have been.
pub struct Pool<'a> {
    pub lab: &'a Lab,
    pub director: &'a Director,
    pub services: Vec<(Wanted, Arc<History>)>,
    pub random: Random,
}

impl Pool<'_> {
    /// Applies a whole configuration in which one service is changed.
    pub fn apply(&mut self, number: usize, change: impl FnOnce(&mut Wanted)) -> Applied {
        let mut next = self.services[number].0.clone();
        change(&mut next);
        let mut services = Vec::new();
        for (position, (wanted, _)) in self.services.iter().enumerate() {
            let wanted = if position == number { &next } else { wanted };
            services.push(wanted.service(self.lab, &mut self.random));
        }
        self.random.shuffle(&mut services);
        let director = self.director;
        self.replace(number, next, |_| director.apply(Config::from_iter(services)).unwrap())
    }

    /// Makes a change after which a service is as `next` says.
    fn replace<T>(&mut self, number: usize, next: Wanted, change: impl FnOnce(&Wanted) -> T) -> T {
        let (wanted, history) = &mut self.services[number];
        let cut = wanted.cut_by(&next);
        let changed = history.change(&next.taking(), &cut, || change(&next));
        *wanted = next;
        changed
    }

    pub fn add(&mut self, number: usize, backend: u8, weight: u16) {
        let (lab, director) = (self.lab, self.director);
        let mut next = self.services[number].0.clone();
        next.weights.insert(backend, weight);
        self.replace(number, next, |next| {
            director.add_backend(next.key(), server(lab, backend, weight)).unwrap();
        });
    }

    pub fn remove(&mut self, number: usize, backend: u8) {
        let (lab, director) = (self.lab, self.director);
        let mut next = self.services[number].0.clone();
        next.weights.remove(&backend);
        // What the operator said of it goes with it.
        next.admin.remove(&backend);
        let name = &lab.backends[usize::from(backend) - 1].name;
        self.replace(number, next, |next| director.remove_backend(next.key(), name).unwrap());
    }

    pub fn set_admin(&mut self, number: usize, backend: u8, admin: Option<AdminState>) {
        let (lab, director) = (self.lab, self.director);
        let mut next = self.services[number].0.clone();
        next.admin.remove(&backend);
        next.admin.extend(admin.map(|admin| (backend, admin)));
        let name = &lab.backends[usize::from(backend) - 1].name;
        self.replace(number, next, |next| director.set_admin(next.key(), name, admin).unwrap());
    }

    pub fn drain(&mut self, number: usize, backend: u8) {
        let (lab, director) = (self.lab, self.director);
        let mut next = self.services[number].0.clone();
        next.admin.insert(backend, AdminState::Draining);
        let name = &lab.backends[usize::from(backend) - 1].name;
        self.replace(number, next, |next| drop(director.drain(next.key(), name, DRAIN).unwrap()));
    }
}
