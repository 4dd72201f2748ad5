//! docs/reference/http.md, generated from the rows of the host's own routes. `cargo xtask bless` writes the
//! page anew.

use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::Value;

use super::header_docs::{
    AUTHORIZATION, EXCLUDED_VERSIONS, Header, IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH, KONTOR_ACTOR,
    KONTOR_CSRF, KONTOR_POSITION, KONTOR_SIGNATURE, LAST_EVENT_ID, PREFER, RETRY_AFTER, X_REQUEST_ID,
};
use super::host_routes::{self, SECTIONS};
use super::route::{HostRoute, JSON};
use super::schemas;
use crate::contract::Access;
use crate::model::{OPERATOR, Role};

const HEAD: &str = "\
# HTTP

These are the host's own routes. The routes of the services come from their manifests and stand, with these,
in `GET /openapi.json` and on the page at `/`.

Bodies are JSON. Errors are [problems](problems.md). A list is `{\"items\": […], \"next\": …}`; `next` is the
value of `after` for the next page, or `null`.

The routes below `/admin/`, `/metrics`, `/events` and `/streams` are for operators: where `admin.listen` is
set, only that address and `admin.socket` answer them.

With `[auth]`, *access* names the callers that may use a route: anyone, all that have signed in, or those with
one of these roles.

This page is generated from the rows in `host/src/edge/http/` by `cargo xtask bless`.
";

/// The head of the table of a section.
const TABLE: &str = "| method | path | access | status | summary |\n|---|---|---|---|---|\n";

/// The headers with the kinds of requests that they are sent with.
const HEADERS: [(Header, &str); 13] = [
    (AUTHORIZATION, "all"),
    (KONTOR_CSRF, "requests of browsers"),
    (IDEMPOTENCY_KEY, "commands"),
    (IF_MATCH, "commands"),
    (PREFER, "commands, queries, acts on sagas"),
    (KONTOR_POSITION, "all; in replies"),
    (IF_NONE_MATCH, "queries, `/openapi.json`"),
    (EXCLUDED_VERSIONS, "commands"),
    (KONTOR_ACTOR, "all"),
    (KONTOR_SIGNATURE, "`PUT /admin/plugins`"),
    (X_REQUEST_ID, "all; in replies"),
    (LAST_EVENT_ID, "`GET /events`"),
    (RETRY_AFTER, "in replies"),
];

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (heading, rows) in SECTIONS {
        let _ = write!(page, "\n## {}\n\n{TABLE}", heading);
        for route in rows.iter().flat_map(|rows| rows()) {
            let statuses: Vec<_> = route.statuses.iter().map(|status| status.as_str()).collect();
            let (method, path, statuses) = (route.method, route.path, statuses.join(", "));
            let access = access(&route.access);
            let _ = writeln!(page, "| {method} | `{path}` | {access} | {statuses} | {} |", route.summary);
        }
    }
    page += "\n## Parameters\n\n| route | parameter | meaning |\n|---|---|---|\n";
    for route in host_routes::all() {
        members(&mut page, route, &route.query.as_ref().unwrap().properties);
    }
    page += "\n## Request bodies\n\n| route | member | meaning |\n|---|---|---|\n";
    for route in host_routes::all() {
        let json = route.body.iter().filter(|(media_type, _)| *media_type == JSON);
        for (_, schema) in json {
            let mut settings = schemas::settings().for_deserialize();
            settings.inline_subschemas = true;
            let schema = schema(&mut settings.into_generator());
            members(&mut page, route, schema["properties"].as_object().unwrap_or(&serde_json::Map::new()));
        }
    }
    page += "\n## Headers\n\n| header | sent with | meaning |\n|---|---|---|\n";
    for (Header { name, meaning, .. }, sent_with) in HEADERS {
        let _ = writeln!(page, "| `{name}` | {sent_with} | {meaning} |");
    }
    page
}

/// Returns the callers that may use a route.
fn access(access: &Access) -> String {
    match access {
        Access::Anyone => "anyone".to_owned(),
        Access::SignedIn => "signed in".to_owned(),
        Access::Roles(roles) => {
            let roles = roles.iter().map(Role::as_str).chain([OPERATOR]);
            roles.map(|role| format!("`{role}`")).collect::<Vec<_>>().join(", ")
        }
    }
}

fn members(page: &mut String, route: &HostRoute, properties: &serde_json::Map<String, Value>) {
    let mut name = format!("`{} {}`", route.method, route.path);
    for (member, schema) in properties {
        let meaning = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = writeln!(page, "| {name} | `{member}` | {meaning} |");
        name.clear();
    }
}

#[test]
fn a_snapshot_holds_the_reference_of_the_routes() {
    expect_file!["../../../../docs/reference/http.md"].assert_eq(&page());
}
