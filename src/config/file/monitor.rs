//! From what a file says of a monitor to the monitor: the one place where kinds get their code.

use super::probing::{Monitor as MonitorTable, MonitorKind};
use crate::balancer::VipKey;
use crate::error::ConfigProblem;
use crate::health::{IcmpEcho, Monitor, MonitorBinding};
use std::sync::Arc;

/// A service's monitor, with its policy and way.
pub(super) fn binding(
    service: &VipKey,
    table: &MonitorTable,
) -> Result<MonitorBinding, ConfigProblem> {
    let monitor = monitor(service, table)?;
    Ok(MonitorBinding { monitor, policy: table.policy(), through: table.through() })
}

/// The monitor itself. `table` has been examined: what its kind needs is there.
fn monitor(service: &VipKey, table: &MonitorTable) -> Result<Arc<dyn Monitor>, ConfigProblem> {
    match table.kind {
        MonitorKind::Ping => Ok(Arc::new(IcmpEcho::new())),
        // TEMPORARY, until the monitors of these kinds are merged. `table.port_for(service)` is the
        // port to ask.
        MonitorKind::Http
        | MonitorKind::Https
        | MonitorKind::Tcp
        | MonitorKind::Udp
        | MonitorKind::Neighbour => Err(ConfigProblem {
            path: format!("service {service}: monitor: kind"),
            value: table.kind.to_string(),
            expected: "not built in yet; ping is".to_owned(),
        }),
    }
}
