//! From what a file says of a monitor to the monitor: the one place where kinds get their code.

use super::probing::{Monitor as MonitorTable, MonitorKind};
use crate::balancer::VipKey;
use crate::error::{ConfigProblem, ParseError};
use crate::health::{Answer, IcmpEcho, Monitor, MonitorBinding, TcpConnect, UdpRequest};
use std::num::NonZeroU16;
use std::sync::Arc;

/// What a monitor of a service is made of.
struct Spec<'a> {
    service: &'a VipKey,
    table: &'a MonitorTable,
}

/// A service's monitor, with its policy and way.
pub(super) fn binding(
    service: &VipKey,
    table: &MonitorTable,
) -> Result<MonitorBinding, ConfigProblem> {
    let monitor = Spec { service, table }.monitor()?;
    Ok(MonitorBinding { monitor, policy: table.policy(), through: table.through() })
}

impl Spec<'_> {
    /// The monitor itself. The table has been examined: what its kind needs is there.
    fn monitor(&self) -> Result<Arc<dyn Monitor>, ConfigProblem> {
        Ok(match self.table.kind {
            MonitorKind::Ping => Arc::new(IcmpEcho::new()),
            MonitorKind::Tcp => Arc::new(TcpConnect::new(self.port()?)),
            MonitorKind::Udp => {
                let request = self.table.request.clone().map(|request| request.0);
                let monitor = UdpRequest::new(self.port()?, request.unwrap_or_default());
                let monitor = monitor.map_err(|error| self.refuse("request", &error))?;
                let answer = self.table.response.clone().map(|wanted| Answer::Contains(wanted.0));
                Arc::new(monitor.expect(answer.unwrap_or_default()))
            }
            MonitorKind::Http | MonitorKind::Https => self.http()?,
            MonitorKind::Neighbour => self.neighbour()?,
        })
    }

    #[cfg(feature = "http")]
    fn http(&self) -> Result<Arc<dyn Monitor>, ConfigProblem> {
        use crate::health::{Http, Verification};
        let table = self.table;
        let mut http = match table.kind {
            MonitorKind::Https => Http::https(self.port()?),
            _ => Http::new(self.port()?),
        };
        if let Some(host) = &table.host {
            http = http.host(host).map_err(|error| self.refuse("host", &error))?;
        }
        if let Some(path) = &table.path {
            http = http.path(path).map_err(|error| self.refuse("path", &error))?;
        }
        if let Some(method) = &table.method {
            http = http.method(method).map_err(|error| self.refuse("method", &error))?;
        }
        if let Some(status) = &table.status {
            http = http.status(status.clone()).map_err(|error| self.refuse("status", &error))?;
        }
        if let Some(body) = &table.body {
            http = http.body_contains(body.as_bytes());
        }
        if let Some(pem) = &table.authorities {
            let authorities = Verification::authorities(pem);
            http = http.verify(authorities.map_err(|error| self.refuse("authorities", &error))?);
        }
        if table.verify == Some(false) {
            http = http.verify(Verification::Nothing);
        }
        Ok(Arc::new(http))
    }

    #[cfg(not(feature = "http"))]
    fn http(&self) -> Result<Arc<dyn Monitor>, ConfigProblem> {
        let expected = "not in this program, which was built without dsrlb's feature `http`";
        Err(self.problem("kind", self.table.kind.to_string(), expected))
    }

    #[cfg(all(feature = "af-xdp", target_os = "linux"))]
    fn neighbour(&self) -> Result<Arc<dyn Monitor>, ConfigProblem> {
        Ok(Arc::new(crate::dataplane::neighbour::NeighbourReachable))
    }

    #[cfg(not(all(feature = "af-xdp", target_os = "linux")))]
    fn neighbour(&self) -> Result<Arc<dyn Monitor>, ConfigProblem> {
        let expected = "not in this program, which was built without dsrlb's feature `af-xdp`";
        Err(self.problem("kind", self.table.kind.to_string(), expected))
    }

    fn port(&self) -> Result<NonZeroU16, ConfigProblem> {
        let expected = "needed, as the service has none of its own to probe";
        self.table
            .port_for(self.service)
            .ok_or_else(|| self.problem("port", "none".to_owned(), expected))
    }

    fn refuse(&self, key: &str, error: &ParseError) -> ConfigProblem {
        self.problem(key, error.text().to_owned(), error.expected())
    }

    fn problem(&self, key: &str, value: String, expected: &str) -> ConfigProblem {
        let path = format!("service {}: monitor: {key}", self.service);
        ConfigProblem { path, value, expected: expected.to_owned() }
    }
}
