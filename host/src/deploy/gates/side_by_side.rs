//! The gate `side-by-side`: all services that would run can run together.

use super::{Check, Finding, Gate, Services};
use crate::contract::RouteTable;
use crate::deployed::GateName;
use crate::error::with_causes;

pub(super) const GATE: Gate = Gate { name: GateName::SideBySide, check: Check::Services(check) };

fn check(Services { deployed, reserved }: &Services<'_>) -> Finding {
    let refused = |why: String| Finding::refused(format!("these services cannot run side by side: {why}"));
    let deployed = match deployed {
        Ok(deployed) => deployed,
        Err(conflict) => return refused(conflict.to_string()),
    };
    let manifests = deployed.services().map(|service| &**service.manifest());
    match RouteTable::new(reserved.iter().copied(), manifests) {
        Ok(_) => {
            Finding::passed(format!("the {} services can run side by side", deployed.services().count()))
        }
        Err(error) => refused(with_causes(&error)),
    }
}
