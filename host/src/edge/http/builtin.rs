//! The host's own routes, with what the API document says of each.

use serde_json::{Value, json};

use crate::contract::{Method, ReservedRoute, Schema};
use crate::saga::timeline::ActName;

/// What the host itself answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builtin {
    Page,
    OpenApi,
    Events,
    Stream,
    Saga,
    Health,
    Ready,
    Metrics,
    Plugins,
    PluginHistory,
    Sagas,
    SagaTimeline,
    Projections,
    Projection,
    DeadLetters,
    Cluster,
}

/// One of the host's own routes.
pub(super) struct BuiltinRoute {
    pub(super) does: Does,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// What may stand in the query string: a name, and what it is for.
    pub(super) parameters: &'static [(&'static str, &'static str)],
}

pub(super) enum Does {
    Answer(Builtin),
    /// What a person does about a saga, and the schema of the request's body.
    Act(ActName, fn() -> Value),
    /// The schema of the request's body.
    Operate(Operation, fn() -> Value),
    /// Puts components in the place of those that run.
    Deploy,
    /// Takes a service out.
    Undeploy,
}

/// A route of the host's own with the schema of its request's body compiled.
pub(super) enum HostAction {
    Builtin(Builtin),
    /// What a person does about a saga, and the schema of the request's body.
    Act(ActName, Schema),
    /// The schema of the request's body.
    Operate(Operation, Schema),
    /// Puts components in the place of those that run.
    Deploy,
    /// Takes a service out.
    Undeploy,
}

/// What an operator has the host do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Has a read model go on with parked streams.
    Redrive,
    /// Has a read model built anew.
    Replay,
    /// Has dead letters carried out.
    RedriveMessages,
    /// Has dead letters removed.
    DiscardMessages,
    /// Goes back to a component that ran before.
    RollBack,
}

/// The longest reason that a person may give for an act, in characters. It stays in the log for ever.
pub(super) const MAX_REASON_LENGTH: usize = 1_000;

const AFTER: (&str, &str) = ("after", "Where to go on: the `next` of the page before.");
const LIMIT: (&str, &str) = ("limit", "How many at most: 100 unless told, and never more than 1000.");

const NOTE: (&str, &str) = ("note", "Why. It stays in the log.");
const ALLOW_BREAKING: (&str, &str) =
    ("allow-breaking", "What may break, such as `command:order/create`. May be there more than once.");

pub(super) const BUILTINS: [BuiltinRoute; 26] = [
    get(Builtin::Page, "/", "This API as a page"),
    get(Builtin::OpenApi, "/openapi.json", "This API as an OpenAPI document"),
    get(
        Builtin::Events,
        "/events",
        "All events: as they come (server-sent events), or a page of them as JSON",
    )
    .with(&[AFTER, LIMIT]),
    get(
        Builtin::Stream,
        "/streams/{aggregate}/{id}",
        "The history of an aggregate, or its state at a version",
    )
    .with(&[AFTER, LIMIT, ("at", "The version to show the state at.")]),
    get(Builtin::Saga, "/sagas/{id}", "The state of a saga"),
    get(Builtin::Health, "/healthz", "Whether the process is up"),
    get(Builtin::Ready, "/readyz", "Whether the host can take traffic"),
    get(Builtin::Metrics, "/metrics", "Metrics in the Prometheus text format"),
    get(Builtin::Plugins, "/admin/plugins", "The services that are deployed"),
    BuiltinRoute {
        does: Does::Deploy,
        path: "/admin/plugins",
        summary: "Proves components against the history of this host, and puts them in the place of those that run",
        parameters: &[
            ("dry-run", "`true`: say what would be, and change nothing."),
            NOTE,
            ("sample", "How many streams of each aggregate to fold: all unless told."),
            ALLOW_BREAKING,
            (
                "grant",
                "What a service may do, such as `service:payment` or `http:https://payments.example`. May be there more than once.",
            ),
        ],
    },
    get(
        Builtin::PluginHistory,
        "/admin/plugins/history",
        "What was deployed, rolled back and taken out, newest last",
    )
    .with(&[AFTER, LIMIT]),
    operate(
        Operation::RollBack,
        "/admin/plugins/{service}/rollback",
        "Puts the component that ran before in the place of the one that runs",
        rollback_body,
    ),
    BuiltinRoute {
        does: Does::Undeploy,
        path: "/admin/plugins/{service}",
        summary: "Takes a service out; its events stay in the log",
        parameters: &[NOTE, ALLOW_BREAKING],
    },
    get(Builtin::Sagas, "/admin/sagas", "The sagas, newest first").with(&[
        ("state", "Only those in this state, such as `parked`."),
        ("saga", "Only those of this name, such as `place-order`."),
        AFTER,
        LIMIT,
    ]),
    get(
        Builtin::SagaTimeline,
        "/admin/sagas/{id}",
        "What a saga did, step by step, and what persons did about it",
    ),
    act(ActName::Retry, "/admin/sagas/{id}/retry", "Has a parked saga try again what failed", empty_body),
    act(ActName::Skip, "/admin/sagas/{id}/skip", "Leaves out what failed in a parked saga", skip_body),
    act(
        ActName::Resolve,
        "/admin/sagas/{id}/resolve",
        "Ends a parked saga that was seen to by hand",
        resolve_body,
    ),
    get(Builtin::Projections, "/admin/projections", "The read models: how far they are, and what is parked"),
    get(Builtin::Projection, "/admin/projections/{service}", "A read model, and its parked streams")
        .with(&[AFTER, LIMIT]),
    operate(
        Operation::Redrive,
        "/admin/projections/{service}/redrive",
        "Has a read model apply the events of parked streams again, from the one that failed",
        redrive_body,
    ),
    operate(
        Operation::Replay,
        "/admin/projections/{service}/replay",
        "Builds a read model anew beside the live one, and puts it in its place when it is as far",
        replay_body,
    ),
    get(Builtin::Cluster, "/admin/nodes", "The hosts that share the log, and how they are"),
    get(Builtin::DeadLetters, "/admin/dead-letters", "Messages of NATS that could not become commands")
        .with(&[("service", "Only those for this service."), AFTER, LIMIT]),
    operate(
        Operation::RedriveMessages,
        "/admin/dead-letters/redrive",
        "Has dead letters carried out after all, up to 1000 at once, and removes those that are",
        messages_body,
    ),
    operate(
        Operation::DiscardMessages,
        "/admin/dead-letters/discard",
        "Removes dead letters that are never to be carried out, up to 1000 at once",
        messages_body,
    ),
];

const fn get(builtin: Builtin, path: &'static str, summary: &'static str) -> BuiltinRoute {
    BuiltinRoute { does: Does::Answer(builtin), path, summary, parameters: &[] }
}

const fn act(act: ActName, path: &'static str, summary: &'static str, body: fn() -> Value) -> BuiltinRoute {
    BuiltinRoute { does: Does::Act(act, body), path, summary, parameters: &[] }
}

const fn operate(
    operation: Operation,
    path: &'static str,
    summary: &'static str,
    body: fn() -> Value,
) -> BuiltinRoute {
    BuiltinRoute { does: Does::Operate(operation, body), path, summary, parameters: &[] }
}

impl BuiltinRoute {
    const fn with(self, parameters: &'static [(&'static str, &'static str)]) -> Self {
        Self { parameters, ..self }
    }

    pub(super) fn method(&self) -> Method {
        match self.does {
            Does::Answer(_) => Method::Get,
            Does::Act(..) | Does::Operate(..) => Method::Post,
            Does::Deploy => Method::Put,
            Does::Undeploy => Method::Delete,
        }
    }

    /// An error is a sentence that says what is wrong with the schema of the body.
    fn action(&self) -> Result<HostAction, String> {
        match self.does {
            Does::Answer(builtin) => Ok(HostAction::Builtin(builtin)),
            Does::Act(act, body) => Schema::compile(&body()).map(|body| HostAction::Act(act, body)),
            Does::Operate(operation, body) => {
                Schema::compile(&body()).map(|body| HostAction::Operate(operation, body))
            }
            Does::Deploy => Ok(HostAction::Deploy),
            Does::Undeploy => Ok(HostAction::Undeploy),
        }
    }
}

/// The host's own routes, to be put into a table with those of the services.
pub(super) fn host_routes() -> Result<Vec<ReservedRoute<HostAction>>, String> {
    let route = |route: &BuiltinRoute| {
        Ok(ReservedRoute { method: route.method(), path: route.path, handle: route.action()? })
    };
    BUILTINS.iter().map(route).collect()
}

/// The paths of the host's own routes, which no service may have.
pub fn reserved_routes() -> Vec<ReservedRoute<()>> {
    let route = |route: &BuiltinRoute| ReservedRoute { method: route.method(), path: route.path, handle: () };
    BUILTINS.iter().map(route).collect()
}

fn empty_body() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

fn skip_body() -> Value {
    let step = json!({
        "type": "string",
        "description": "The name of the step that failed, or whose undo did. May be left out if there is only one.",
    });
    json!({
        "type": "object", "additionalProperties": false, "required": ["reason"],
        "properties": {"step": step, "reason": reason()},
    })
}

fn resolve_body() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["reason"],
        "properties": {"reason": reason()},
    })
}

fn redrive_body() -> Value {
    let stream = json!({
        "type": "string", "description": "Only this stream. May be left out.", "examples": ["order/A-1"],
    });
    json!({"type": "object", "additionalProperties": false, "properties": {"stream": stream}})
}

fn replay_body() -> Value {
    let from = json!({
        "type": "string", "format": "date-time", "examples": ["2026-11-01T00:00:00Z"],
        "description": "Only with the events that were recorded then or later. Left out: with all.",
    });
    json!({"type": "object", "additionalProperties": false, "properties": {"from": from}})
}

fn messages_body() -> Value {
    let id = json!({"type": "integer", "minimum": 1, "description": "Only this one. May be left out."});
    let service = json!({
        "type": "string", "pattern": "^[a-z0-9-]+$", "description": "Only those for this service. May be left out.",
    });
    json!({"type": "object", "additionalProperties": false, "properties": {"id": id, "service": service}})
}

fn rollback_body() -> Value {
    let to = json!({
        "type": "string", "pattern": "^[0-9a-f]{1,64}$",
        "description": "The digest to go back to, or as much of its beginning as no other has. Left out: the one before.",
    });
    let breaks = json!({
        "type": "array", "items": {"type": "string"}, "description": "What may break, such as `command:order/create`.",
    });
    let note = json!({"type": "string", "maxLength": MAX_REASON_LENGTH, "description": NOTE.1});
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {"to": to, "note": note, "allow_breaking": breaks},
    })
}

fn reason() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": MAX_REASON_LENGTH, "pattern": r"\S",
        "description": "Why. It stays in the saga's journal.", "examples": ["refunded by hand, ticket 4711"],
    })
}
