//! The breaking changes of a new version, compared with the running one. Pure. A change that lets more
//! callers in is one too: it breaks what the operators trust in.

use crate::contract::{Aggregate, Manifest, Readers};
use crate::model::Json;

/// A breaking change. An operator can allow it by its name: `command:order/create`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Break {
    pub(crate) name: String,
    pub(crate) why: &'static str,
}

const GONE: &str = "the running version has it, this one does not";
const OTHER_TRIGGER: &str = "another event starts it";
const OTHER_TARGET: &str = "it leads to another target";
const STRICTER: &str = "it requires more than the running version, or no longer accepts a property";
const NO_UNDO: &str = "it can no longer be undone, and sagas may have to undo it";
const MORE_CALLERS: &str = "callers may use it that the running version turns away";
const MORE_READERS: &str = "callers may see it that the running version turns away";
const DROPPED: &str = "nobody takes its messages any more";
const OTHER_COMMAND: &str = "its messages become other commands, or commands of other aggregates";
const SAME_READ_MODEL: &str = "its tables or events differ, and its version is the same: raise the version";
const STATE_BACK: &str =
    "its state version is lower, so states of the running version would count as outdated";

/// Returns everything that would break if `new` replaced `old`.
pub(crate) fn breaks(old: &Manifest, new: &Manifest) -> Vec<Break> {
    let mut breaks = Breaks::default();
    for aggregate in &old.aggregates {
        match new.aggregate(aggregate.name.as_str()) {
            None => breaks.add(format!("aggregate:{}", aggregate.name), GONE),
            Some(next) => breaks.aggregate(aggregate, next),
        }
    }
    for saga in &old.sagas {
        let next = new.sagas.iter().find(|next| next.name == saga.name);
        breaks.unless(next.is_some(), || format!("saga:{}", saga.name), GONE);
        let same = next.is_none_or(|next| next.starts_on == saga.starts_on);
        breaks.unless(same, || format!("saga:{}", saga.name), OTHER_TRIGGER);
    }
    for query in &old.queries {
        let next = new.query(query.name.as_str());
        breaks.unless(next.is_some(), || format!("query:{}", query.name), GONE);
        let accepted = next.is_none_or(|next| accepts_all(&query.arguments, &next.arguments));
        breaks.unless(accepted, || format!("payload:{}", query.name), STRICTER);
    }
    for route in &old.routes {
        let next = new.routes.iter().find(|next| (next.method, &next.path) == (route.method, &route.path));
        let name = || format!("route:{} {}", route.method, route.path);
        breaks.unless(next.is_some(), name, GONE);
        breaks.unless(next.is_none_or(|next| next.target == route.target), name, OTHER_TARGET);
        let narrow = next.is_none_or(|next| next.access.is_within(&route.access));
        breaks.unless(narrow, || format!("access:{} {}", route.method, route.path), MORE_CALLERS);
    }
    for subscription in &old.subscriptions {
        let name = || format!("subscription:{}", subscription.subject);
        let mut same =
            new.subscriptions.iter().filter(|next| next.subject == subscription.subject).peekable();
        match same.peek() {
            None => breaks.add(name(), DROPPED),
            Some(_) => breaks.unless(same.any(|next| next == subscription), name, OTHER_COMMAND),
        }
    }
    for publication in &old.publications {
        let kept = new.publications.contains(publication);
        breaks.unless(kept, || format!("publication:{}", publication.subject), GONE);
    }
    let read_model = || "read-model".to_owned();
    match (&old.read_model, &new.read_model) {
        (Some(before), Some(next)) if before.version == next.version => {
            breaks.unless(before == next, read_model, SAME_READ_MODEL);
        }
        (before, next) => breaks.unless(before.is_none() || next.is_some(), read_model, GONE),
    }
    breaks.0
}

#[derive(Default)]
struct Breaks(Vec<Break>);

impl Breaks {
    fn add(&mut self, name: String, why: &'static str) {
        self.0.push(Break { name, why });
    }

    fn unless(&mut self, kept: bool, name: impl FnOnce() -> String, why: &'static str) {
        if !kept {
            self.add(name(), why);
        }
    }

    fn aggregate(&mut self, old: &Aggregate, new: &Aggregate) {
        let aggregate = &old.name;
        let narrow = Readers::are_within(new.readers.as_ref(), old.readers.as_ref());
        self.unless(narrow, || format!("readers:{aggregate}"), MORE_READERS);
        self.unless(new.state_version >= old.state_version, || format!("state:{aggregate}"), STATE_BACK);
        for command in &old.commands {
            let name = || format!("command:{aggregate}/{}", command.name);
            let Some(next) = new.command(command.name.as_str()) else {
                self.add(name(), GONE);
                continue;
            };
            self.unless(next.compensable || !command.compensable, name, NO_UNDO);
            let payload = || format!("payload:{aggregate}/{}", command.name);
            self.unless(accepts_all(&command.payload, &next.payload), payload, STRICTER);
        }
        for event in &old.events {
            let known = new.events.iter().any(|next| next.name == event.name);
            self.unless(known, || format!("event:{aggregate}/{}", event.name), GONE);
        }
    }
}

/// Returns whether `new` accepts every object that `old` accepts, judged by the names of the properties:
/// `new` requires no further ones, and accepts all known ones if it accepts only known ones.
fn accepts_all(old: &Json, new: &Json) -> bool {
    let (Ok(old), Ok(new)) = (old.read::<Object>(), new.read::<Object>()) else { return true };
    let required = new.required.iter().all(|name| old.required.contains(name));
    let closed = new.additional_properties == Some(serde_json::Value::Bool(false));
    required && (!closed || old.properties.keys().all(|name| new.properties.contains_key(name)))
}

/// The part of a JSON Schema that names the properties of an object.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    properties: serde_json::Map<String, serde_json::Value>,
    additional_properties: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::*;

    fn json(text: &str) -> Json {
        Json::parse(text.to_owned()).unwrap()
    }

    fn manifest() -> Manifest {
        let command = |name: &str| Command {
            name: name.into(),
            description: String::new(),
            payload: json(
                r#"{"required":["quantity"],"properties":{"quantity":{},"note":{}},"additionalProperties":false}"#,
            ),
            compensable: true,
        };
        let event = |name: &str| Event { name: name.into(), description: String::new(), payload: json("{}") };
        let view = |name: &str| Query {
            name: name.into(),
            description: String::new(),
            arguments: json("{}"),
            answer: json("{}"),
        };
        Manifest {
            service: "inventory".into(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            aggregates: vec![Aggregate {
                name: "product".into(),
                description: String::new(),
                state_version: 2,
                view: json("{}"),
                readers: Some(Readers { owner: "seller".to_owned(), roles: vec!["clerk".into()] }),
                commands: vec![command("add-stock"), command("reserve")],
                events: vec![event("stock-added"), event("reserved")],
            }],
            sagas: vec![Saga {
                name: "restock".into(),
                description: String::new(),
                starts_on: EventRef { aggregate: "product".into(), event: "reserved".into() },
            }],
            queries: vec![view("products")],
            routes: vec![Route {
                method: Method::Get,
                path: "/products".to_owned(),
                target: Target::Query("products".into()),
                access: Access::SignedIn,
            }],
            read_model: Some(ReadModel {
                version: 1,
                schema: "CREATE TABLE p (id)".to_owned(),
                subscribes: vec![],
            }),
            subscriptions: vec![Subscription {
                subject: "stock.*.counted".to_owned(),
                aggregate: "product".into(),
                command: "add-stock".into(),
                id: Some(IdSource::Part(2)),
            }],
            publications: vec![Publication {
                event: EventRef { aggregate: "product".into(), event: "reserved".into() },
                subject: "shop.{id}.reserved".to_owned(),
            }],
            settings: Vec::new(),
            permissions: Permissions::default(),
        }
    }

    #[test]
    fn a_removal_or_a_stricter_schema_breaks_and_an_addition_does_not() {
        type Change = fn(&mut Manifest);
        let table: [(Change, &[&str]); 27] = [
            (|_| {}, &[]),
            (|new| new.aggregates.clear(), &["aggregate:product"]),
            (|new| drop(new.aggregates[0].commands.remove(0)), &["command:product/add-stock"]),
            (|new| new.aggregates[0].commands[1].compensable = false, &["command:product/reserve"]),
            (|new| drop(new.aggregates[0].events.remove(1)), &["event:product/reserved"]),
            (|new| new.aggregates[0].state_version = 1, &["state:product"]),
            (|new| new.aggregates[0].state_version = 3, &[]),
            (
                |new| new.aggregates[0].commands[0].payload = json(r#"{"required":["quantity","why"]}"#),
                &["payload:product/add-stock"],
            ),
            (
                |new| {
                    new.aggregates[0].commands[0].payload =
                        json(r#"{"properties":{"quantity":{}},"additionalProperties":false}"#)
                },
                &["payload:product/add-stock"],
            ),
            (|new| new.aggregates[0].commands[0].payload = json(r#"{"properties":{"quantity":{}}}"#), &[]),
            (|new| new.sagas.clear(), &["saga:restock"]),
            (|new| new.sagas[0].starts_on.event = "stock-added".into(), &["saga:restock"]),
            (|new| new.queries.clear(), &["query:products"]),
            (|new| new.routes[0].path = "/wares".to_owned(), &["route:GET /products"]),
            (|new| new.routes[0].access = Access::Anyone, &["access:GET /products"]),
            (|new| new.routes[0].access = Access::Roles(vec!["clerk".into()]), &[]),
            (|new| new.aggregates[0].readers = None, &["readers:product"]),
            (|new| new.aggregates[0].readers.as_mut().unwrap().roles.clear(), &[]),
            (
                |new| new.aggregates[0].readers.as_mut().unwrap().roles.push("driver".into()),
                &["readers:product"],
            ),
            (|new| new.aggregates[0].readers.as_mut().unwrap().owner = "id".to_owned(), &["readers:product"]),
            (|new| new.subscriptions.clear(), &["subscription:stock.*.counted"]),
            (|new| new.subscriptions[0].command = "reserve".into(), &["subscription:stock.*.counted"]),
            (|new| new.subscriptions[0].id = None, &["subscription:stock.*.counted"]),
            (|new| new.subscriptions.push(new.subscriptions[0].clone()), &[]),
            (|new| new.publications.clear(), &["publication:shop.{id}.reserved"]),
            (|new| new.read_model.as_mut().unwrap().schema.push(' '), &["read-model"]),
            (|new| new.read_model.as_mut().unwrap().version = 2, &[]),
        ];
        for (change, expected) in table {
            let mut new = manifest();
            change(&mut new);
            let names: Vec<_> = breaks(&manifest(), &new).into_iter().map(|found| found.name).collect();
            assert_eq!(names, expected);
        }
    }
}
