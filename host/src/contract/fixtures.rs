//! A small service for unit tests.

use serde_json::json;

use crate::contract::{
    Access, Aggregate, Command, Event, Manifest, Method, Permissions, Query, Route, Target,
};
use crate::model::Json;

fn schema(value: serde_json::Value) -> Json {
    Json::of(&value).unwrap()
}

fn route(method: Method, path: &str, target: Target) -> Route {
    Route { method, path: path.to_owned(), target, access: Access::SignedIn }
}

/// A service `order` with two commands, the view of its aggregate, and a query.
pub(crate) fn manifest() -> Manifest {
    let command = |name: &str, payload| Command {
        name: name.into(),
        description: String::new(),
        payload,
        compensable: true,
    };
    let to = |command: &str| Target::Command { aggregate: "order".into(), command: command.into() };
    let lines = json!({
        "type": "object", "additionalProperties": false, "required": ["lines"],
        "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}}},
        "$defs": {"Line": {"type": "object", "properties": {"quantity": {"type": "integer", "minimum": 1}}}},
    });
    let details = json!({
        "type": "object", "additionalProperties": false, "required": ["id"],
        "properties": {
            "id": {"type": "string"}, "limit": {"type": "integer", "description": "How many."},
            "tag": {"type": ["array", "null"], "items": {"type": "string"}},
        },
    });
    let order = Aggregate {
        name: "order".into(),
        description: "An order.".to_owned(),
        state_version: 1,
        view: schema(json!({"type": "object"})),
        readers: None,
        commands: vec![command("create", schema(lines.clone())), command("update", schema(lines))],
        events: vec![Event {
            name: "order-created".into(),
            description: String::new(),
            payload: schema(json!({})),
        }],
    };
    Manifest {
        service: "order".into(),
        version: "1.0.0".to_owned(),
        description: "Orders.".to_owned(),
        aggregates: vec![order],
        sagas: Vec::new(),
        queries: vec![Query {
            name: "details".into(),
            description: "All about an order.".to_owned(),
            arguments: schema(details),
            answer: schema(json!({"type": "object"})),
        }],
        routes: vec![
            route(Method::Post, "/orders", to("create")),
            route(Method::Put, "/orders/{id}", to("update")),
            route(Method::Get, "/orders/{id}", Target::Query("order".into())),
            route(Method::Get, "/orders/{id}/details", Target::Query("details".into())),
        ],
        read_model: None,
        subscriptions: Vec::new(),
        publications: Vec::new(),
        settings: Vec::new(),
        permissions: Permissions::default(),
    }
}
