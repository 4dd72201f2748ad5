//! All of the host's own routes, by section of the reference.

use std::sync::LazyLock;

use super::route::HostRoute;
use super::{
    audit, dead_letters, events, gc, openapi, ops, plugins, problems, projections, sagas, sign_in, streams,
    tokens,
};
use crate::contract::ReservedRoute;

/// Returns the rows of one file.
pub(super) type Rows = fn() -> Vec<HostRoute>;

/// The sections of the reference with the rows in them.
pub(super) const SECTIONS: [(&str, &[Rows]); 4] = [
    (
        "The API",
        &[ops::api_routes, openapi::routes, problems::routes, events::routes, streams::routes, sagas::routes],
    ),
    ("Signing in", &[sign_in::routes]),
    ("Health", &[ops::health_routes]),
    (
        "Operators",
        &[
            plugins::routes,
            sagas::operator_routes,
            projections::routes,
            ops::cluster_routes,
            dead_letters::routes,
            gc::routes,
            tokens::routes,
            audit::routes,
        ],
    ),
];

/// The rows of all sections, in the order of the reference.
static HOST_ROUTES: LazyLock<Vec<HostRoute>> = LazyLock::new(|| {
    let rows = SECTIONS.iter().flat_map(|(_, rows)| rows.iter());
    rows.flat_map(|rows| rows()).collect()
});

/// The host's own routes that a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteSet {
    All,
    /// Those that are not for operators alone: the others have a listener of their own.
    Public,
}

impl RouteSet {
    /// Returns the rows in the set, in the order of the reference.
    pub(super) fn rows(self) -> impl Iterator<Item = &'static HostRoute> {
        all().filter(move |route| self == Self::All || !route.for_operators)
    }

    /// Returns its routes, for a table with those of the services. An error is a sentence that says which
    /// schema of a row is wrong.
    pub(super) fn reserved(self) -> Result<Vec<ReservedRoute<&'static HostRoute>>, String> {
        self.rows().try_for_each(HostRoute::check)?;
        Ok(self.rows().map(|route| route.reserved(route)).collect())
    }
}

pub(super) fn all() -> impl Iterator<Item = &'static HostRoute> {
    HOST_ROUTES.iter()
}

/// Returns the paths of the host's own routes, which no service may have.
pub fn reserved_routes() -> Vec<ReservedRoute<()>> {
    all().map(|route| route.reserved(())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{ProblemCode, RESERVED_PARTS, first_part};
    use crate::edge::http::route::has_body;
    use crate::edge::metrics::STATUSES;

    #[test]
    fn the_schemas_of_all_rows_compile_and_every_row_is_documented() {
        RouteSet::All.reserved().unwrap();
        for route in all() {
            assert!(route.summary.ends_with('.'), "{}", route.path);
            let has_body = route.statuses.iter().any(|status| has_body(*status));
            assert_eq!(!route.reply.is_empty(), has_body, "{}", route.path);
            assert!(RESERVED_PARTS.contains(&first_part(route.path)), "{}", route.path);
        }
    }

    #[test]
    fn the_metrics_know_every_status_of_a_row_and_of_a_problem() {
        let problems = ProblemCode::ALL.iter().map(|code| code.status());
        for status in all().flat_map(|route| route.statuses.clone()).chain(problems) {
            assert!(STATUSES.contains(&status.as_u16()), "{status}");
        }
    }

    #[test]
    fn the_routes_of_operators_are_all_that_show_or_change_more_than_a_client_needs() {
        let public: Vec<_> = RouteSet::Public.rows().map(|route| route.path).collect();
        let expected = [
            "/",
            "/openapi.json",
            "/problems/{code}",
            "/sagas/{id}",
            "/auth/sign-in",
            "/auth/callback",
            "/auth/sign-out",
            "/auth/me",
            "/healthz",
            "/readyz",
        ];
        assert_eq!(public, expected);
    }
}
