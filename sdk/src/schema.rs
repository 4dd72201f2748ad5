//! JSON Schemas (2020-12) of the types that a service is written with.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// Keywords with which a schema says more about an object's members than `properties` does.
const OTHER_MEMBERS: [&str; 5] = ["additionalProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf"];

/// A command or an event, from its enum's schema.
pub(crate) struct Variant {
    pub(crate) name: String,
    /// The doc comment.
    pub(crate) description: String,
    /// The schema of the payload.
    pub(crate) payload: Value,
}

/// Returns the schema of a type as serde reads it.
pub(crate) fn of_input<T: JsonSchema>() -> Schema {
    of::<T>(settings().for_deserialize())
}

/// Returns the schema of a type as serde writes it.
pub(crate) fn of_output<T: JsonSchema>() -> Schema {
    of::<T>(settings().for_serialize())
}

/// Returns the doc comment of the type, or an empty text if it has none.
pub(crate) fn description(schema: &Schema) -> String {
    text_of(schema.get("description"))
}

/// Returns the commands of an enum. A payload that takes no unknown members takes none at any depth: its
/// types need not say so, because events may share them.
pub(crate) fn commands<T: JsonSchema>() -> Vec<Variant> {
    let closed = |mut variant: Variant| {
        if variant.payload.get("additionalProperties") == Some(&Value::Bool(false))
            && let Ok(schema) = (&mut variant.payload).try_into()
        {
            RecursiveTransform(close).transform(schema);
        }
        variant
    };
    variants::<T>().into_iter().map(closed).collect()
}

/// Allows an object no other members than those that its schema names.
fn close(schema: &mut Schema) {
    let is_open = !OTHER_MEMBERS.iter().any(|keyword| schema.get(*keyword).is_some());
    if is_open && schema.get("properties").is_some() {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
}

/// Returns the variants of an enum.
///
/// Panics if one of them has no fields: its payload could not be an object.
pub(crate) fn variants<T: JsonSchema>() -> Vec<Variant> {
    let schema = of_input::<T>();
    match schema.get("oneOf").and_then(Value::as_array) {
        Some(variants) => variants.iter().map(variant).collect(),
        None => panic!("{} has no variants with fields", T::schema_name()),
    }
}

/// Reads an entry of `oneOf`: an object whose only property has the variant's name and holds the payload.
fn variant(schema: &Value) -> Variant {
    let properties = schema.get("properties").and_then(Value::as_object);
    match properties.and_then(|properties| properties.iter().next()) {
        Some((name, payload)) => Variant {
            name: name.clone(),
            description: text_of(schema.get("description")),
            payload: payload.clone(),
        },
        None => panic!("a command or an event without fields is written `Confirm {{}}`: {schema}"),
    }
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Makes every schema stand alone, because the host hands them out one by one.
fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    })
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> Schema {
    settings.into_generator().into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Address {
        #[expect(dead_code, reason = "only its schema is read")]
        region: String,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is read")]
    enum Command {
        /// Plans the delivery.
        ScheduleAt {
            /// Where to.
            address: Address,
            #[schemars(range(min = 1))]
            parcels: u64,
        },
        Cancel {},
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    enum Event {
        Scheduled { address: Address },
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Single {
        OnlyOne {},
    }

    #[derive(Deserialize, JsonSchema)]
    enum Bare {
        Start,
        Stop {},
    }

    #[test]
    fn each_variant_has_its_name_its_doc_comment_and_a_schema_that_stands_alone() {
        let variants = commands::<Command>();
        let names: Vec<_> = variants.iter().map(|variant| variant.name.as_str()).collect();
        assert_eq!(names, ["schedule-at", "cancel"]);
        assert_eq!(variants[0].description, "Plans the delivery.");
        assert_eq!(
            variants[0].payload,
            json!({
                "type": "object",
                "properties": {
                    "address": {
                        "description": "Where to.",
                        "type": "object",
                        "properties": {"region": {"type": "string"}},
                        "required": ["region"],
                        "additionalProperties": false,
                    },
                    "parcels": {"type": "integer", "format": "uint64", "minimum": 1},
                },
                "required": ["address", "parcels"],
                "additionalProperties": false,
            })
        );
        assert_eq!(variants[1].payload, json!({"type": "object", "additionalProperties": false}));
    }

    #[test]
    fn only_commands_that_take_no_unknown_members_are_closed() {
        for event in variants::<Event>().iter().chain(&commands::<Event>()) {
            assert!(!event.payload.to_string().contains("additionalProperties"), "{}", event.payload);
        }
    }

    #[test]
    fn an_enum_with_a_single_variant_is_an_enum_all_the_same() {
        assert_eq!(variants::<Single>()[0].name, "only-one");
    }

    #[test]
    #[should_panic(expected = "written `Confirm {}`")]
    fn a_variant_without_fields_is_a_mistake_that_is_shown() {
        variants::<Bare>();
    }
}
