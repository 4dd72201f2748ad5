//! The schemas of the manifests as components of the document.
//!
//! The definitions of a schema become components of their own, because many tools follow references to
//! components only. The other references, which count from the schema's root, are rewritten to count from the
//! document's.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::model::Json;

/// The path of the components in the document.
pub(super) const PATH: &str = "/components/schemas";

/// The member of a schema with its definitions.
const DEFINITIONS: &str = "$defs";

#[derive(Default)]
pub(super) struct Components {
    schemas: Map<String, Value>,
}

impl Components {
    pub(super) fn into_schemas(self) -> Map<String, Value> {
        self.schemas
    }

    /// Adds a component and returns a reference to it.
    pub(super) fn insert(&mut self, name: &str, schema: Value) -> Value {
        self.schemas.insert(name.to_owned(), schema);
        reference(name)
    }

    /// Adds a schema of a manifest as a component and returns a reference to it.
    pub(super) fn of_manifest(&mut self, name: &str, schema: &Json) -> Value {
        let schema = self.hoisted(name, schema.read().unwrap_or(Value::Bool(true)));
        self.insert(name, schema)
    }

    /// Returns the properties of a schema. `name`: that of the component which it would be.
    pub(super) fn properties(&mut self, name: &str, schema: Value) -> Map<String, Value> {
        let mut schema = self.hoisted(name, schema);
        let refers_to_itself = schema.to_string().contains(&format!("\"#{PATH}/{name}/"));
        if refers_to_itself {
            self.insert(name, schema.clone());
        }
        match schema["properties"].take() {
            Value::Object(properties) => properties,
            _ => Map::new(),
        }
    }

    /// Makes components of the definitions of a schema, and has its references count from the document.
    fn hoisted(&mut self, name: &str, mut schema: Value) -> Value {
        let definitions = schema.as_object_mut().and_then(|members| {
            // Generators would name two types alike whose titles are alike.
            members.remove("title");
            members.remove("$schema");
            members.remove(DEFINITIONS)
        });
        let Some(Value::Object(definitions)) = definitions else {
            rebase(&mut schema, name, &Map::new());
            return schema;
        };
        let mut names = Map::new();
        for key in definitions.keys() {
            let known = |component: &String| names.values().any(|name: &Value| name == component);
            let plain: String = key.chars().map(|char| if is_plain(char) { char } else { '_' }).collect();
            let numbered = (2..).map(|number| format!("{name}.{plain}{number}"));
            let mut candidates = std::iter::once(format!("{name}.{plain}")).chain(numbered);
            let component = candidates.find(|component| !known(component));
            names.insert(key.clone(), json!(component));
        }
        for (key, mut definition) in definitions {
            rebase(&mut definition, name, &names);
            if let Some(component) = names[&key].as_str() {
                self.schemas.insert(component.to_owned(), definition);
            }
        }
        rebase(&mut schema, name, &names);
        schema
    }
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#{PATH}/{component}")})
}

/// Returns whether a character may be in the name of a component.
fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || "._-".contains(char)
}

/// Rewrites the references in a schema to count from the root of the document, and states the bounds of its
/// integers. `names`: the names of the components of its definitions.
fn rebase(schema: &mut Value, component: &str, names: &Map<String, Value>) {
    match schema {
        Value::Object(members) => {
            bound(members);
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" => {
                        if let Some(place) = text.strip_prefix('#') {
                            *text = format!("#{PATH}/{}", rebased(place, component, names));
                        }
                    }
                    other => rebase(other, component, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, component, names)),
        _ => {}
    }
}

/// Returns the place of a part of a schema, below the components.
fn rebased(place: &str, component: &str, names: &Map<String, Value>) -> String {
    let in_definition =
        place.strip_prefix('/').and_then(|rest| rest.strip_prefix(DEFINITIONS)?.strip_prefix('/'));
    let Some(in_definition) = in_definition else { return format!("{component}{place}") };
    let (key, rest) = match in_definition.split_once('/') {
        Some((key, rest)) => (key, format!("/{rest}")),
        None => (in_definition, String::new()),
    };
    match names.get(&unescaped(key)).and_then(Value::as_str) {
        Some(name) => format!("{name}{rest}"),
        None => format!("{component}{place}"),
    }
}

/// Returns the name behind a part of a pointer in a URI (RFC 6901, 6).
fn unescaped(part: &str) -> String {
    let decoded: Cow<'_, str> = percent_decode_str(part).decode_utf8_lossy();
    decoded.replace("~1", "/").replace("~0", "~")
}

/// States the bounds of an integer, which follow from its format.
fn bound(schema: &mut Map<String, Value>) {
    let (minimum, maximum) = match schema.get("format").and_then(Value::as_str) {
        Some("int8") => (json!(i8::MIN), json!(i8::MAX)),
        Some("int16") => (json!(i16::MIN), json!(i16::MAX)),
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        Some("int" | "int64") => (json!(i64::MIN), json!(i64::MAX)),
        Some("uint8") => (json!(0), json!(u8::MAX)),
        Some("uint16") => (json!(0), json!(u16::MAX)),
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("uint" | "uint64") => (json!(0), json!(u64::MAX)),
        _ => return,
    };
    for (keyword, exclusive, bound) in
        [("minimum", "exclusiveMinimum", minimum), ("maximum", "exclusiveMaximum", maximum)]
    {
        if !schema.contains_key(keyword) && !schema.contains_key(exclusive) {
            schema.insert(keyword.to_owned(), bound);
        }
    }
}

/// Rewrites the schemas below a place in the forms that all tools read: `true` as `{}`, and alternatives that
/// are texts as an `enum`.
pub(super) fn spell_out(place: &mut Value) {
    match place {
        Value::Object(members) => {
            list_texts(members);
            for (name, member) in members {
                match (name.as_str(), &mut *member) {
                    ("schema" | "items", Value::Bool(true)) => *member = json!({}),
                    ("properties", Value::Object(schemas)) => schemas.values_mut().for_each(spell_out_schema),
                    ("anyOf" | "oneOf" | "allOf", Value::Array(schemas)) => {
                        schemas.iter_mut().for_each(spell_out_schema);
                    }
                    _ => spell_out(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(spell_out),
        _ => {}
    }
}

/// Rewrites a schema in the same way.
pub(super) fn spell_out_schema(schema: &mut Value) {
    match schema {
        Value::Bool(true) => *schema = json!({}),
        other => spell_out(other),
    }
}

/// Replaces alternatives that are texts by an `enum`. Their descriptions become a part of that of the schema.
fn list_texts(schema: &mut Map<String, Value>) {
    let Some(alternatives) = schema.get("oneOf").and_then(Value::as_array) else { return };
    let is_text = |one: &Value| {
        let only = |name: &String| ["const", "description", "type"].contains(&name.as_str());
        one["const"].is_string() && one.as_object().is_some_and(|members| members.keys().all(only))
    };
    if !alternatives.iter().all(is_text) {
        return;
    }
    let texts: Vec<_> = alternatives.iter().map(|one| one["const"].clone()).collect();
    let meanings = alternatives.iter().filter_map(|one| {
        Some(format!("- `{}`: {}", one["const"].as_str()?, one["description"].as_str()?.replace('\n', " ")))
    });
    let own = schema.get("description").and_then(Value::as_str).map(|own| own.to_owned() + "\n");
    let description = own.into_iter().chain(meanings).collect::<Vec<_>>().join("\n");
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(texts));
    if !description.is_empty() {
        schema.insert("description".to_owned(), json!(description));
    }
}

/// Returns a schema without `null`: a parameter that has no value is not there.
pub(super) fn without_null(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else { return schema };
    if members.get("default").is_some_and(Value::is_null) {
        members.remove("default");
    }
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = &types[..] {
            let one = one.clone();
            members.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = members.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for keyword in ["anyOf", "oneOf"] {
        let Some(Value::Array(alternatives)) = members.get_mut(keyword) else { continue };
        alternatives.retain(|schema| schema["type"] != "null");
        if let [Value::Object(one)] = &alternatives[..] {
            let one = one.clone();
            members.remove(keyword);
            for (name, member) in one {
                members.entry(name).or_insert(member);
            }
        }
    }
    schema
}
