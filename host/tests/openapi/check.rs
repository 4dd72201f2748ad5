//! The check of an OpenAPI document, for the unit tests and for those of a running host.

use std::collections::HashSet;

use jsonschema::Validator;
use serde_json::Value;

/// Returns what is wrong with a document, a sentence each: by the official schema, which leaves the JSON
/// Schemas in it out, and by the rules that no schema can express.
pub(crate) fn faults_of(document: &Value) -> Vec<String> {
    let official: Value = serde_json::from_str(include_str!("schema-3.1.json")).unwrap();
    let official: Validator = jsonschema::draft202012::new(&official).unwrap();
    let errors = official.iter_errors(document);
    let mut faults: Vec<_> = errors.map(|error| format!("{}: {error}", error.instance_path())).collect();
    check(document, document, "", &mut faults);
    let mut ids = HashSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_default();
            if !ids.insert(id) {
                faults.push(format!("{id} is the id of {method} {path} and of another operation"));
            }
            check_parameters(path, operation, &mut faults);
        }
    }
    faults
}

/// Checks the schemas and the references below a place.
fn check(document: &Value, place: &Value, path: &str, faults: &mut Vec<String>) {
    let is_schema = path.ends_with("/schema")
        || path.rsplit_once('/').is_some_and(|(before, _)| before == "/components/schemas");
    if is_schema && let Err(error) = jsonschema::draft202012::meta::validate(place) {
        faults.push(format!("{path} is no JSON Schema: {error}"));
    }
    match place {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let found = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                if found.is_none() {
                    faults.push(format!("{path} refers to {reference}, which is not there"));
                }
            }
            members.iter().for_each(|(name, member)| {
                check(document, member, &format!("{path}/{name}"), faults);
            });
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| {
            check(document, item, &format!("{path}/{index}"), faults);
        }),
        _ => {}
    }
}

/// Checks that the parameters of an operation are different, and that those of its path are all there.
fn check_parameters(path: &str, operation: &Value, faults: &mut Vec<String>) {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<_> = parameters.map(|parameter| (&parameter["in"], &parameter["name"])).collect();
    if parameters.iter().collect::<HashSet<_>>().len() < parameters.len() {
        faults.push(format!("{path} has two parameters of one name"));
    }
    let in_path =
        parameters.iter().filter(|(place, _)| *place == "path").filter_map(|(_, name)| name.as_str());
    let placeholders = path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    if placeholders.collect::<HashSet<_>>() != in_path.collect::<HashSet<_>>() {
        faults.push(format!("{path} has other placeholders than its parameters of the path"));
    }
}
