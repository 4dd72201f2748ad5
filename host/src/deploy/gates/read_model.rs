//! The gate `read-model`: SQLite accepts the schema of the read model.

use std::future::ready;

use futures::FutureExt as _;
use rusqlite::Connection;

use super::{Check, Examination, Finding, Gate};
use crate::deployed::GateName;
use crate::runtime::{Component, Guarded};

pub(super) const GATE: Gate = Gate {
    name: GateName::ReadModel,
    check: Check::Component(|examination, component| ready(check(examination, component)).boxed()),
};

fn check(examination: &Examination<'_>, component: &Component) -> Finding {
    let Some(model) = &component.manifest().read_model else {
        return Finding::skipped("the component has no read model");
    };
    let made = Connection::open_in_memory()
        .and_then(Guarded::new)
        .and_then(|database| database.make_schema(&model.schema));
    if let Err(error) = made {
        return Finding::refused(format!("SQLite does not accept the schema of the read model: {error}"));
    }
    let version = model.version;
    let before = examination.before(component).and_then(|before| before.manifest().read_model.as_ref());
    Finding::passed(match before {
        Some(running) if running == model => format!("version {version} of the read model is kept"),
        Some(running) => format!(
            "version {version} of the read model is built beside version {}, which answers until then",
            running.version
        ),
        None => format!("version {version} of the read model is built"),
    })
}
