//! Garbage for everything that reads input, in tests: `cargo xtask fuzz` sends a million inputs to each.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::fixtures::manifest;
pub(crate) use super::near::{near, near_text};
use super::{
    Access, CommandRef, EventRef, IdSource, Manifest, Problem, ProblemBody, Publication, ReadModel, Readers,
    RouteTable, Saga, Schemas, Setting, Subscription, Target,
};
use crate::model::Json;

/// Fails unless a problem tells a client what is wrong with its input.
pub(crate) fn is_clear(problem: &Problem) -> Result<(), TestCaseError> {
    let body: ProblemBody = serde_json::from_slice(&problem.body()).unwrap();
    prop_assert!(!problem.status().is_server_error(), "{body:?}: {}", problem.log_text());
    is_sentence(&body.detail)?;
    prop_assert!(body.detail.ends_with('.'), "{body:?}");
    Ok(())
}

/// Fails unless a text is for people.
pub(crate) fn is_sentence(text: &str) -> Result<(), TestCaseError> {
    prop_assert!(text.len() > 10 && text.contains(' '), "{text:?} is no sentence");
    prop_assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    Ok(())
}

/// Parts of schemas, names, subjects, paths and SQL.
const WORDS: &[&str] = &[
    "\"$ref\":\"#\"",
    "\"$ref\":\"#/$defs/Line\"",
    "\"$ref\":\"https://example.com/schema\"",
    "\"$id\":\"x:y\"",
    "\"$dynamicRef\":\"#a\"",
    "\"pattern\":\"(a+)+$\"",
    "\"pattern\":\"(?=a)\"",
    "\"format\":\"uri\"",
    "\"type\":\"integer\"",
    "\"type\":[]",
    "\"enum\":[]",
    "\"minimum\":1e999",
    "\"multipleOf\":0",
    "\"not\":{}",
    "\"minLength\":-1",
    "\"maxItems\":1e400",
    "\"if\":false",
    "\"anyOf\":[]",
    "true",
    "null",
    "{}",
    "[]",
    ",",
    "order",
    "admin",
    "kontor",
    "history",
    "token",
    "saga",
    "deployment",
    ".",
    "*",
    ">",
    "$",
    "/",
    "//",
    "{id}",
    "{",
    "}",
    "{*rest}",
    ":id",
    "%2F",
    " ",
    "\u{e9}",
    "\u{0}",
    "-",
    "--",
    "A",
    "config:",
    "https://",
    "@",
];
const NAMES: &[&str] = &["order", "create", "update", "order-created", "details", "place-order"];
const PATHS: &[&str] = &["/orders", "/orders/{id}", "/orders/{id}/details", "/admin/plugins"];
const SUBJECTS: &[&str] = &["carrier.*.received", "shop.{id}.received", "carrier.orders.>"];
const ORIGINS: &[&str] = &["https://payments.example", "http://127.0.0.1:9090", "config:gateway-url"];
const SCHEMAS: &[&str] = &[
    r##"{"type":"object","required":["a"],"properties":{"a":{"type":"array","items":{"$ref":"#/$defs/L"}}},
        "$defs":{"L":{"type":"integer","minimum":1}}}"##,
    r#"{"type":"object","additionalProperties":false,
        "properties":{"id":{"type":"string"},"n":{"type":["integer","null"],"format":"uint32"}}}"#,
    r#"{"oneOf":[{"type":"string","const":"card"},{"type":"string","pattern":"^[a-z]+$"}]}"#,
    r#"{"anyOf":[{"type":"object","patternProperties":{"^x-":{"type":"string"}}},{"type":"null"}]}"#,
];
const VALUES: &[&str] = &[
    r#"{"a":[1,2],"id":"o-1","n":7}"#,
    r#"{"a":[]}"#,
    "\"card\"",
    "null",
    "[]",
    "1e30",
    "-0.0",
    "\"\\u0000\"",
];

/// A change of a manifest.
#[derive(Clone, Debug)]
enum Change {
    Name(usize, String),
    Schema(usize, String),
    Path(usize, String),
    Target(usize, bool, String, String),
    Access(usize, String),
    Subject(bool, String, Option<IdSource>),
    Event(bool, String, String),
    Setting(String, String),
    Permission(usize, String, String),
    Readers(String, String),
}

fn change() -> impl Strategy<Value = Change> {
    let name = || near_text(NAMES, WORDS);
    let (place, text) = (0usize..8, near_text(SUBJECTS, WORDS));
    let source = prop_oneof![
        Just(None),
        any::<u32>().prop_map(|part| Some(IdSource::Part(part % 9))),
        name().prop_map(|name| Some(IdSource::Member(name))),
    ];
    prop_oneof![
        (place.clone(), name()).prop_map(|(place, name)| Change::Name(place, name)),
        (place.clone(), near_text(SCHEMAS, WORDS)).prop_map(|(place, text)| Change::Schema(place, text)),
        (place.clone(), near_text(PATHS, WORDS)).prop_map(|(place, path)| Change::Path(place, path)),
        (place.clone(), any::<bool>(), name(), name())
            .prop_map(|(place, command, one, other)| Change::Target(place, command, one, other)),
        (place.clone(), name()).prop_map(|(place, role)| Change::Access(place, role)),
        (any::<bool>(), text, source).prop_map(|(out, text, source)| Change::Subject(out, text, source)),
        (any::<bool>(), name(), name()).prop_map(|(saga, one, other)| Change::Event(saga, one, other)),
        (name(), near_text(SCHEMAS, WORDS)).prop_map(|(key, schema)| Change::Setting(key, schema)),
        (place, near_text(ORIGINS, WORDS), name())
            .prop_map(|(place, one, other)| Change::Permission(place, one, other)),
        (name(), name()).prop_map(|(owner, role)| Change::Readers(owner, role)),
    ]
}

impl Change {
    fn apply(self, mut manifest: Manifest) -> Manifest {
        match self {
            Self::Name(0, name) => manifest.service = name.as_str().into(),
            Self::Name(1, name) => manifest.aggregates[0].name = name.as_str().into(),
            Self::Name(2, name) => manifest.aggregates[0].events[0].name = name.as_str().into(),
            Self::Name(3, name) => manifest.queries[0].name = name.as_str().into(),
            Self::Name(place, name) => manifest.aggregates[0].commands[place % 2].name = name.as_str().into(),
            Self::Schema(place, text) => {
                // Err: the runtime refuses a component whose schemas are no JSON.
                let Ok(schema) = Json::parse(text) else { return manifest };
                let [command, other] = &mut manifest.aggregates[0].commands[..] else { return manifest };
                let query = &mut manifest.queries[0];
                let places =
                    [&mut command.payload, &mut other.payload, &mut query.arguments, &mut query.answer];
                places.into_iter().nth(place % 4).into_iter().for_each(|place| *place = schema.clone());
            }
            Self::Path(place, path) => manifest.routes[place % 4].path = path,
            Self::Target(place, true, aggregate, command) => {
                let (aggregate, command) = (aggregate.as_str().into(), command.as_str().into());
                manifest.routes[place % 4].target = Target::Command { aggregate, command };
            }
            Self::Target(place, false, query, _) => {
                manifest.routes[place % 4].target = Target::Query(query.as_str().into());
            }
            Self::Access(place, role) => {
                manifest.routes[place % 4].access = Access::Roles(vec![role.as_str().into()]);
            }
            Self::Subject(true, subject, _) => {
                manifest.permissions.subjects.push(subject.replace("{id}", "*"));
                let event = EventRef::new("order", "order-created");
                manifest.publications.push(Publication { event, subject });
            }
            Self::Subject(false, subject, id) => {
                manifest.permissions.subjects.push(subject.clone());
                let (aggregate, command) = ("order".into(), "create".into());
                manifest.subscriptions.push(Subscription { subject, aggregate, command, id });
            }
            Self::Event(true, name, event) => {
                let starts_on = EventRef::new("order", &event);
                manifest.sagas.push(Saga {
                    name: name.as_str().into(),
                    description: String::new(),
                    starts_on,
                });
            }
            Self::Event(false, aggregate, event) => {
                let subscribes = vec![EventRef::new(&aggregate, &event)];
                manifest.read_model = Some(ReadModel { version: 1, schema: String::new(), subscribes });
            }
            Self::Setting(key, schema) => {
                let Ok(schema) = Json::parse(schema) else { return manifest };
                manifest.settings.push(Setting { key, description: String::new(), schema, required: false });
            }
            Self::Permission(place, one, other) => {
                let permissions = &mut manifest.permissions;
                match place % 4 {
                    0 => permissions.http.push(one),
                    1 => permissions.services.push(other),
                    2 => permissions.events.push(EventRef::new(&one, &other)),
                    _ => permissions.commands.push(CommandRef::new(&one, &other)),
                }
            }
            Self::Readers(owner, role) => {
                manifest.aggregates[0].readers = Some(Readers { owner, roles: vec![role.as_str().into()] });
            }
        }
        manifest
    }
}

/// Returns manifests that differ from a good one in a few places.
pub(crate) fn manifests() -> impl Strategy<Value = Manifest> {
    let changed =
        |changes: Vec<Change>| changes.into_iter().fold(manifest(), |good, change| change.apply(good));
    vec(change(), 0..4).prop_map(changed)
}

proptest! {
    #[test]
    fn a_manifest_is_served_or_refused_with_a_sentence(
        manifest in manifests(),
        value in near_text(VALUES, WORDS),
        name in select(NAMES),
    ) {
        if let Err(reason) = manifest.check() {
            return is_sentence(&reason);
        }
        let schemas = match Schemas::of(&manifest) {
            Ok(schemas) => schemas,
            Err(reason) => return is_sentence(&reason),
        };
        if let Err(error) = RouteTable::<()>::new([], [&manifest]) {
            is_sentence(&error.to_string())?;
        }
        manifest.permissions.requests().for_each(drop);
        let (Ok(payload), Ok(arguments)) = (Json::parse(value.clone()), serde_json::from_str(&value)) else {
            return Ok(());
        };
        let checked = [
            schemas.check_payload("order", name, &payload).map(drop),
            schemas.check_arguments(name, &arguments),
            schemas.check_arguments("order", &Value::Null),
        ];
        for violation in checked.into_iter().filter_map(Result::err).flatten() {
            let text = format!("{violation:?}");
            prop_assert!(!violation.message.is_empty(), "{text}");
            prop_assert!(!violation.message.chars().any(char::is_control), "{text}");
        }
    }
}
