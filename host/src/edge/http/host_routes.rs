//! All of the host's own routes, by section of the reference.

use std::sync::LazyLock;

use super::route::HostRoute;
use super::{audit, dead_letters, events, openapi, ops, plugins, problems, projections, sagas, streams};
use crate::contract::ReservedRoute;

/// Returns the rows of one file.
pub(super) type Rows = fn() -> Vec<HostRoute>;

/// The sections of the reference with the rows in them.
pub(super) const SECTIONS: [(&str, &[Rows]); 3] = [
    (
        "The API",
        &[ops::api_routes, openapi::routes, problems::routes, events::routes, streams::routes, sagas::routes],
    ),
    ("Health", &[ops::health_routes]),
    (
        "Operators",
        &[
            plugins::routes,
            sagas::operator_routes,
            projections::routes,
            ops::cluster_routes,
            dead_letters::routes,
            audit::routes,
        ],
    ),
];

/// The rows of all sections, in the order of the reference.
static HOST_ROUTES: LazyLock<Vec<HostRoute>> = LazyLock::new(|| {
    let rows = SECTIONS.iter().flat_map(|(_, rows)| rows.iter());
    rows.flat_map(|rows| rows()).collect()
});

pub(super) fn all() -> impl Iterator<Item = &'static HostRoute> {
    HOST_ROUTES.iter()
}

/// Returns the host's own routes, for a table with those of the services. An error is a sentence that says
/// which schema of a row is wrong.
pub(super) fn host_routes() -> Result<Vec<ReservedRoute<&'static HostRoute>>, String> {
    all().try_for_each(HostRoute::check)?;
    Ok(all().map(|route| route.reserved(route)).collect())
}

/// Returns the paths of the host's own routes, which no service may have.
pub fn reserved_routes() -> Vec<ReservedRoute<()>> {
    all().map(|route| route.reserved(())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_of_all_rows_compile_and_every_row_is_documented() {
        host_routes().unwrap();
        for route in all() {
            assert!(route.summary.ends_with('.'), "{}", route.path);
            assert!(!route.reply.is_empty(), "{}", route.path);
        }
    }
}
