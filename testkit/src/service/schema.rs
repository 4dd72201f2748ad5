//! Checks against the manifest's schemas, as the host makes them.

use jsonschema::{Draft, PatternOptions};
use kontor::model::Json;
use serde_json::Value;

/// Checks `value` against its schema. The error has one line for each violation. `what`: the name of the
/// value.
pub(super) fn check(what: &str, schema: &Json, value: &Json) -> Result<(), String> {
    let text = |error: serde_json::Error| format!("{what} or its schema is not JSON: {error}");
    let (schema, value): (Value, Value) = (schema.read().map_err(text)?, value.read().map_err(text)?);
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .build(&schema)
        .map_err(|error| format!("the schema of {what} is not sound: {error}"))?;
    let violations: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| format!("\n  at {:?}: {error}", error.instance_path().as_str()))
        .collect();
    match violations.is_empty() {
        true => Ok(()),
        false => Err(format!("{what} is not as its schema says: {value}{}", violations.concat())),
    }
}
