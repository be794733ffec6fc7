//! The backends, and what their operators do with them.

use dsrlb::balancer::{AdminState, RealServer, ServiceTable, VirtualService};
use dsrlb::dataplane::neighbour::Path;
use dsrlb::dataplane::{Member, Observed, Planner, Site};
use dsrlb::flow::Timestamp;
use dsrlb::packet::MacAddress;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::flows::Random;

/// The virtual IP.
pub const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// More than there will ever be.
pub const SLOTS: usize = 4096;

struct Server {
    number: u16,
    weight: u16,
    /// For how many changes it has been draining.
    draining: Option<u32>,
}

/// Fifty backends at first, and the plan made of them.
pub struct Pool {
    random: Random,
    planner: Planner,
    servers: Vec<Server>,
    came: u16,
    members: Vec<Member>,
    services: Arc<ServiceTable>,
}

impl Pool {
    pub fn new() -> Self {
        let server = |number| Server { number, weight: 10, draining: None };
        let mut pool = Self {
            random: Random(2),
            planner: Planner::new(SLOTS),
            servers: (0..50).map(server).collect(),
            came: 50,
            members: Vec::new(),
            services: Arc::default(),
        };
        pool.plan();
        pool
    }

    /// The services as the packet path sees them.
    pub fn services(&self) -> &Arc<ServiceTable> {
        &self.services
    }

    /// Whether the backend in this slot takes new flows.
    pub fn takes(&self, slot: usize) -> bool {
        self.members.iter().any(|member| member.index.slot() == slot && member.idle.is_none())
    }

    /// Whether the backend in this slot is still there.
    pub fn serves(&self, slot: usize) -> bool {
        self.members.iter().any(|member| member.index.slot() == slot)
    }

    /// One thing that an operator or an autoscaler does.
    pub fn change(&mut self, now: Timestamp) {
        self.planner.at(now);
        for server in &mut self.servers {
            server.draining = server.draining.map(|changes| changes + 1);
        }
        let any = self.random.below(self.servers.len());
        match self.random.below(10) {
            0..3 => {
                self.servers.push(Server { number: self.came, weight: 10, draining: None });
                self.came += 1;
            }
            3..6 if self.servers.len() > 20 => self.servers[any].draining = Some(0),
            6 => self.servers[any].draining = None,
            // What has been drained for half an hour goes, whatever it still has.
            7 => self.servers.retain(|server| server.draining.is_none_or(|changes| changes < 15)),
            _ => self.servers[any].weight = 1 + self.random.below(20) as u16,
        }
        self.plan();
    }

    fn plan(&mut self) {
        let service = VirtualService::new(format!("[{VIP}]:443/tcp").parse().expect("a VIP"));
        let service = self.servers.iter().fold(service, |service, server| {
            let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, server.number);
            let admin = match server.draining {
                Some(_) => AdminState::Draining,
                None => AdminState::Enabled,
            };
            let server = RealServer::new(address.into()).with_weight(server.weight);
            service.backend(server.with_admin(admin))
        });
        let site = Site::new(MacAddress([2, 0, 0, 0, 0, 1]));
        let path = Path::on_link(MacAddress([2, 0, 0, 0, 0, 2]));
        let plan = self.planner.plan([&service], &site, |_, backend| Observed {
            admin: backend.admin(),
            ..Observed::well(path)
        });
        self.members = plan.members;
        self.services = plan.snapshot.services;
    }
}
