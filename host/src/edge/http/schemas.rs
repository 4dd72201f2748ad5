//! The JSON Schemas of the host's own types, as they are checked and documented.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::json;

/// Returns the settings of all schemas. An integer has a format that other languages know, and its bounds.
pub(super) fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with_transform(RecursiveTransform(bound))
}

fn bound(schema: &mut Schema) {
    let (format, maximum) = match schema.get("format").and_then(serde_json::Value::as_str) {
        Some("uint16") => ("int32", u16::MAX.into()),
        Some("uint32") => ("int64", u32::MAX.into()),
        Some("uint" | "uint64") => ("int64", i64::MAX),
        _ => return,
    };
    schema.insert("format".to_owned(), format.into());
    if schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), json!(maximum));
    }
}
