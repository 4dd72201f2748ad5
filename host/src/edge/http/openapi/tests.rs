//! Tests of the document.

use super::*;
use crate::contract::fixtures::manifest;

#[path = "../../../../tests/openapi/check.rs"]
mod check;

fn document_of(manifest: &Manifest) -> Value {
    document(RouteSet::All, true, [manifest].into_iter())
}

fn json(value: Value) -> Json {
    Json::of(&value).unwrap()
}

/// Returns a manifest with all that is hard to document: several routes to one command and to one query,
/// lists and structures as arguments, a placeholder that the schema does not have, definitions that refer to
/// each other.
fn intricate() -> Manifest {
    let mut manifest = manifest();
    let update = manifest.routes[1].target.clone();
    let details = manifest.routes[3].target.clone();
    let route = |method, path: &str, target: &Target| Route {
        method,
        path: path.to_owned(),
        target: target.clone(),
        access: Access::SignedIn,
    };
    manifest.routes.extend([
        route(Method::Post, "/orders/{id}", &update),
        route(Method::Patch, "/orders/{id}", &update),
        route(Method::Post, "/orders/{id}/change", &update),
        route(Method::Delete, "/orders-id", &update),
        route(Method::Get, "/details/{id}/of/{other}", &details),
        route(Method::Get, "/details-id-of/{other}", &details),
    ]);
    manifest.aggregates[0].view = json(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object", "properties": {"tree": {"$ref": "#/$defs/Tree%3COrder%3E"}, "self": {"$ref": "#"}},
        "$defs": {
            "Tree<Order>": {"type": "array", "items": {"$ref": "#/$defs/Tree_Order_"}},
            "Tree_Order_": {"type": "object", "properties": {"up": {"$ref": "#/properties/tree"}}},
        },
    }));
    manifest.queries[0].arguments = json(json!({
        "type": "object", "required": ["id", "sizes", "tags", "by"],
        "properties": {
            "id": {"type": "integer", "format": "uint32"},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}},
            "sizes": {"type": ["array", "null"], "items": {"type": "integer"}, "minItems": 1},
            "box": {"anyOf": [{"$ref": "#/$defs/Box"}, {"type": "null"}], "description": "A box."},
            "limit": {"type": ["integer", "null"], "format": "int64", "minimum": 1, "default": null},
            "by": {"enum": ["day", null]},
            "again": {"$ref": "#/properties/limit"},
        },
        "$defs": {
            "Tag": {"type": "string"},
            "Box": {"type": "object", "properties": {"in": {"$ref": "#/$defs/Box"}}},
        },
    }));
    manifest
}

#[test]
fn the_documents_follow_the_official_schema_and_all_their_references_lead_somewhere() {
    for manifest in [manifest(), intricate()] {
        assert_eq!(check::faults_of(&document_of(&manifest)), Vec::<String>::new());
    }
}

#[test]
fn several_routes_to_one_target_have_ids_of_their_own() {
    let document = document_of(&intricate());
    let id = |method: &str, path: &str| document["paths"][path][method]["operationId"].clone();
    for (method, path, expected) in [
        ("put", "/orders/{id}", "order.update"),
        ("post", "/orders/{id}", "order.update.orders-id"),
        ("patch", "/orders/{id}", "order.update.orders-id.patch"),
        ("post", "/orders/{id}/change", "order.update.orders-id-change"),
        ("delete", "/orders-id", "order.update.orders-id.delete"),
        ("get", "/orders/{id}/details", "order.details.orders-id-details"),
        ("get", "/details/{id}/of/{other}", "order.details.details-id-of-other"),
        ("get", "/details-id-of/{other}", "order.details.details-id-of-other.get"),
    ] {
        assert_eq!(id(method, path), expected, "{method} {path}");
    }
}

#[test]
fn arguments_have_the_types_in_which_they_are_sent() {
    let document = document_of(&intricate());
    let parameters = &document["paths"]["/details/{id}/of/{other}"]["get"]["parameters"];
    let parameter = |name: &str| {
        let parameters = parameters.as_array().unwrap();
        parameters.iter().find(|parameter| parameter["name"] == name).unwrap().clone()
    };
    for (name, place, required, schema) in [
        (
            "id",
            "path",
            true,
            json!({"type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX}),
        ),
        ("other", "path", true, json!({"type": "string", "minLength": 1})),
        (
            "tags",
            "query",
            false,
            json!({"type": "array", "items": {"$ref": "#/components/schemas/arguments.order.details.Tag"}}),
        ),
        ("sizes", "query", true, json!({"type": "array", "items": {"type": "integer"}, "minItems": 1})),
        (
            "limit",
            "query",
            false,
            json!({"type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX}),
        ),
        ("by", "query", true, json!({"enum": ["day"]})),
    ] {
        let parameter = parameter(name);
        let found = (&parameter["in"], &parameter["required"], &parameter["schema"]);
        assert_eq!(found, (&json!(place), &json!(required), &schema), "{name}");
    }
    let in_box =
        json!({"application/json": {"schema": {"$ref": "#/components/schemas/arguments.order.details.Box"}}});
    assert_eq!(parameter("box")["content"], in_box);
    assert_eq!((&parameter("box")["description"], parameter("box").get("schema")), (&json!("A box."), None));
}

#[test]
fn a_reply_has_the_view_as_its_state_or_none_and_its_headers() {
    let document = document_of(&manifest());
    let responses = &document["paths"]["/orders"]["post"]["responses"];
    let schema = &responses["202"]["content"]["application/json"]["schema"];
    assert_eq!(schema, &json!({"$ref": "#/components/schemas/reply.order"}));
    let state = &document["components"]["schemas"]["reply.order"]["properties"]["state"];
    assert_eq!(state["anyOf"], json!([{"$ref": "#/components/schemas/view.order"}, {"type": "null"}]));
    let headers = |status: &str| {
        let headers = responses[status]["headers"].as_object().unwrap();
        headers.keys().map(String::as_str).collect::<HashSet<_>>()
    };
    let all = ["ETag", "Kontor-Position", "Link", "Location", "Preference-Applied", "X-Request-Id"];
    assert_eq!(headers("202"), HashSet::from(all));
    assert_eq!(responses["412"], json!({"$ref": "#/components/responses/PreconditionFailed"}));
    let problem = &document["components"]["responses"]["Unauthorized"];
    assert_eq!(problem["headers"]["WWW-Authenticate"]["required"], true);
    let schema = &problem["content"]["application/problem+json"]["schema"];
    assert_eq!(schema, &json!({"$ref": "#/components/schemas/Problem"}));
}

#[test]
fn schemas_have_the_forms_that_all_tools_read() {
    let mut manifest = manifest();
    manifest.aggregates[0].view = json(json!({
        "type": "object", "title": "Order",
        "properties": {
            "any": true,
            "list": {"type": "array", "items": true},
            "state": {
                "description": "The state.",
                "oneOf": [
                    {"const": "open", "type": "string", "description": "It is\nopen."},
                    {"const": "paid", "type": "string"},
                ],
            },
            "mixed": {"oneOf": [{"const": "all", "type": "string"}, {"type": "integer"}]},
        },
    }));
    let mixed = json!({"oneOf": [{"const": "all", "type": "string"}, {"type": "integer"}]});
    let description = "The state.\n\n- `open`: It is open.";
    let expected = json!({
        "type": "object",
        "properties": {
            "any": {}, "list": {"type": "array", "items": {}}, "mixed": mixed,
            "state": {"type": "string", "enum": ["open", "paid"], "description": description},
        },
    });
    assert_eq!(document_of(&manifest)["components"]["schemas"]["view.order"], expected);
}

#[test]
fn a_body_is_required_unless_the_empty_object_will_do() {
    let mut manifest = manifest();
    let order = &mut manifest.aggregates[0];
    order.commands[1].payload =
        json(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    let document = document_of(&manifest);
    let body = |method: &str, path: &str| document["paths"][path][method]["requestBody"]["required"].clone();
    for (method, path, required) in [
        ("post", "/orders", true),
        ("put", "/orders/{id}", false),
        ("put", "/admin/plugins", true),
        ("post", "/admin/sagas/{id}/skip", true),
        ("post", "/admin/sagas/{id}/retry", false),
    ] {
        assert_eq!(body(method, path), required, "{method} {path}");
    }
    manifest.routes[1].method = Method::Delete;
    let document = document_of(&manifest);
    assert_eq!(document["paths"]["/orders/{id}"]["delete"].get("requestBody"), None);
}

#[test]
fn a_host_that_identifies_nobody_requires_no_sign_in() {
    let security = |authenticates| {
        let document = document(RouteSet::All, authenticates, [&manifest()].into_iter());
        document["paths"]["/orders"]["post"]["security"].clone()
    };
    assert_eq!(security(true), json!([{"token": []}, {"session": []}]));
    assert_eq!(security(false), json!([]));
}

#[test]
fn a_status_that_a_reply_and_problems_have_is_that_of_both() {
    let document = document_of(&manifest());
    let content = document["paths"]["/readyz"]["get"]["responses"]["503"]["content"].as_object().unwrap();
    assert_eq!(content.keys().collect::<Vec<_>>(), ["application/json", "application/problem+json"]);
    let see_other = &document["paths"]["/auth/sign-in"]["get"]["responses"]["303"];
    assert_eq!(see_other.get("content"), None);
    assert_eq!(see_other["headers"]["Location"], json!({"$ref": "#/components/headers/Location"}));
}

#[test]
fn a_command_has_its_payload_and_its_headers() {
    let document = document_of(&manifest());
    let operation = &document["paths"]["/orders/{id}"]["put"];
    assert_eq!(operation["operationId"], "order.update");
    assert_eq!(operation["tags"], json!(["order"]));
    let payload = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(payload, "#/components/schemas/command.order.update");
    assert_eq!(operation["parameters"][0]["name"], "id");
    assert_eq!(operation["parameters"][0]["in"], "path");
}

#[test]
fn a_query_has_its_arguments_where_they_stand() {
    let document = document_of(&manifest());
    let parameters = &document["paths"]["/orders/{id}/details"]["get"]["parameters"];
    assert_eq!((&parameters[0]["name"], &parameters[0]["in"]), (&json!("id"), &json!("path")));
    assert_eq!((&parameters[1]["name"], &parameters[1]["in"]), (&json!("limit"), &json!("query")));
    assert_eq!(parameters[1]["description"], "How many.");
    assert_eq!(parameters[1]["required"], false);
}

#[test]
fn an_act_of_an_operator_has_its_reason_and_its_actor() {
    let document = document_of(&manifest());
    let operation = &document["paths"]["/admin/sagas/{id}/resolve"]["post"];
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body, &json!({"$ref": "#/components/schemas/ResolveRequest"}));
    assert_eq!(document["components"]["schemas"]["ResolveRequest"]["required"], json!(["reason"]));
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let names: Vec<_> = parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "Kontor-Actor", "Prefer", "Kontor-Position"]);
}

#[test]
fn a_deployment_has_its_components_and_its_options() {
    let document = document_of(&manifest());
    let operation = &document["paths"]["/admin/plugins"]["put"];
    let content = operation["requestBody"]["content"].as_object().unwrap();
    assert_eq!(content.keys().collect::<Vec<_>>(), ["application/wasm", "multipart/form-data"]);
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let names: Vec<_> = parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect();
    let options = ["allow-breaking", "dry-run", "grant", "note", "sample"];
    let headers = ["Kontor-Actor", "Kontor-Signature", "Kontor-Position"];
    assert_eq!(names, [&options[..], &headers].concat());
    assert_eq!(
        operation["parameters"][2]["schema"],
        json!({"type": "array", "items": {"type": "string"}, "default": []})
    );
}

#[test]
fn a_host_route_has_the_status_and_the_type_of_its_reply() {
    let document = document_of(&manifest());
    let responses = &document["paths"]["/admin/projections/{service}/replay"]["post"]["responses"];
    let schema = &responses["202"]["content"]["application/json"]["schema"];
    assert_eq!(schema, &json!({"$ref": "#/components/schemas/ProjectionOverview"}));
    assert_eq!(responses["200"], Value::Null);
}

#[test]
fn a_snapshot_holds_the_document() {
    let document = document_of(&manifest());
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    expect_test::expect_file!["../snapshots/openapi.json"].assert_eq(&text);
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::Schemas;
    use crate::contract::fuzz::manifests;

    proptest! {
        #[test]
        fn the_document_has_every_route_of_a_manifest_that_is_served(manifest in manifests()) {
            let served = manifest.check().is_ok() && Schemas::of(&manifest).is_ok();
            let mut document = Parts::new();
            for route in manifest.routes.iter().filter(|_| served) {
                let operation = document.operation(&manifest, route);
                prop_assert!(operation["responses"]["200"].is_object(), "{}: {}", route.path, operation);
            }
        }
    }
}
