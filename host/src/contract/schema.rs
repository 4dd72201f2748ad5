//! JSON Schemas, compiled once a deployment, and the violations of a text.

use std::collections::BTreeMap;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ProblemCode;
use crate::model::{Json, Normal, NotNormal, Rejection};

/// Maximum number of violations in one problem: enough to correct a form, and a short body.
const MAX_VIOLATIONS: usize = 20;
/// Maximum number of `$ref`s on the way to the type of a parameter; a longer chain is a circle.
const MAX_REFS: usize = 8;

/// One place where a payload does not follow its schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Violation {
    /// A JSON pointer into the payload (RFC 6901).
    pub pointer: String,
    /// The violation, without its subject: "is missing".
    pub message: String,
}

impl Violation {
    /// Returns the rejection of a command or a query that a service sends: `invalid-payload` or
    /// `invalid-arguments`. `of`: the name of the schema's owner in the message.
    pub(crate) fn rejection(code: ProblemCode, of: &str, violations: &[Self]) -> Rejection {
        let first = violations.first().map(|Self { pointer, message }| format!(": {pointer} {message}"));
        let message = format!("It does not follow the schema of {of}{}.", first.unwrap_or_default());
        let details = Json::of(&BTreeMap::from([("errors", violations)])).ok();
        Rejection { code: code.name().to_owned(), message, details }
    }
}

impl From<NotNormal> for Violation {
    fn from(NotNormal { pointer, source }: NotNormal) -> Self {
        Self { pointer, message: source.to_string() }
    }
}

/// A compiled schema.
pub(crate) struct Schema(Validator);

impl Schema {
    /// Compiles a schema of a manifest.
    pub(crate) fn of(schema: &Json) -> Result<Self, String> {
        Self::compile(&schema.read().map_err(|error| error.to_string())?)
    }

    /// Compiles a schema. An error is a sentence that says why it is malformed.
    ///
    /// Patterns run in linear time, so no payload can block a thread; look-around in them is refused.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .build(schema)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Checks a JSON text, in which no member may be there more than once. Returns the text with integers
    /// written as such, if that is another one.
    pub(crate) fn check_text(&self, json: &Json) -> Result<Option<Json>, Vec<Violation>> {
        let Normal { value, rewritten } = json.normalized().map_err(|error| vec![error.into()])?;
        self.check(&value)?;
        Ok(rewritten)
    }

    /// Checks a value and returns at most [`MAX_VIOLATIONS`].
    pub(crate) fn check(&self, value: &Value) -> Result<(), Vec<Violation>> {
        // The fast check first: nearly all payloads are valid.
        if self.0.is_valid(value) {
            return Ok(());
        }
        let mut violations = Vec::new();
        for error in self.0.iter_errors(value) {
            explain(&error, &mut violations);
            if violations.len() >= MAX_VIOLATIONS {
                break;
            }
        }
        violations.truncate(MAX_VIOLATIONS);
        Err(violations)
    }
}

/// Adds the violations behind an error: the place and the reason, without a part of the payload.
fn explain(error: &ValidationError<'_>, violations: &mut Vec<Violation>) {
    let at = error.instance_path().as_str();
    let mut violation = |pointer: String, message: &str| {
        violations.push(Violation { pointer, message: message.to_owned() });
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                violation(child(at, name), "is not known here");
            }
        }
        ValidationErrorKind::Required { property: Value::String(name) } => {
            violation(child(at, name), "is missing");
        }
        // The error of a member of an object without any properties.
        ValidationErrorKind::FalseSchema if at.is_empty() => violation(String::new(), "takes no members"),
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match nearest(at, context) {
                Some(errors) => errors.iter().for_each(|error| explain(error, violations)),
                None => violation(at.to_owned(), "is none of the allowed forms"),
            }
        }
        _ => violation(at.to_owned(), &error.masked_with("it").to_string()),
    }
}

/// Returns the errors of the alternative that the payload was most likely meant to be: the one with the
/// fewest errors of those that fit on the surface. None if no alternative fits there.
fn nearest<'e>(
    at: &str,
    alternatives: &'e [Vec<ValidationError<'static>>],
) -> Option<&'e [ValidationError<'static>]> {
    let on_the_surface = |errors: &Vec<ValidationError<'_>>| {
        errors.iter().any(|error| {
            let shape = matches!(
                error.kind(),
                ValidationErrorKind::Type { .. }
                    | ValidationErrorKind::Constant { .. }
                    | ValidationErrorKind::Enum { .. }
            );
            shape && error.instance_path().as_str() == at
        })
    };
    let fitting = alternatives.iter().filter(|errors| !on_the_surface(errors));
    fitting.min_by_key(|errors| errors.len()).map(Vec::as_slice)
}

/// Appends a member's name to a JSON pointer.
fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The arguments of a query, which are texts in the path and in the query string.
pub(crate) struct Arguments {
    /// The `properties` and the `$defs` of the schema, which give the kind of each parameter.
    members: Map<String, Value>,
}

/// The kind of value that the text of a parameter is read as.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
}

impl Arguments {
    /// Compiles the schema of arguments. An error is a sentence that says why it is malformed.
    pub(crate) fn compile(schema: Value) -> Result<Self, String> {
        let Value::Object(mut members) = schema else {
            return Err("it does not describe an object".to_owned());
        };
        members.retain(|member, _| member == "properties" || member == "$defs");
        Ok(Self { members })
    }

    /// Reads each parameter as the kind in the schema. A text of another kind stays text, so that the check
    /// against the schema reports it.
    pub(crate) fn read<'t>(&self, parameters: impl IntoIterator<Item = (&'t str, &'t str)>) -> Value {
        let coerced =
            parameters.into_iter().map(|(name, text)| (name.to_owned(), coerce(self.kind(name), text)));
        Value::Object(coerced.collect())
    }

    fn kind(&self, name: &str) -> Kind {
        let property = self.members.get("properties").and_then(|properties| properties.get(name));
        property.map_or(Kind::Text, |property| self.kind_of(property, MAX_REFS))
    }

    /// Returns the kind of a property. One that may be a text is read as a text, because every parameter is
    /// one.
    fn kind_of(&self, schema: &Value, refs_left: usize) -> Kind {
        let referred =
            schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        if let Some(name) = referred {
            let definition = self.members.get("$defs").and_then(|definitions| definitions.get(name));
            return match (definition, refs_left) {
                (None, _) | (_, 0) => Kind::Text,
                (Some(definition), _) => self.kind_of(definition, refs_left - 1),
            };
        }
        let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        if let Some(alternatives) = alternatives {
            let null = |schema: &&Value| schema.get("type").is_none_or(|name| name != "null");
            return alternatives
                .iter()
                .find(null)
                .map_or(Kind::Text, |schema| self.kind_of(schema, refs_left));
        }
        let may_be = |name: &str| match schema.get("type") {
            Some(Value::String(one)) => one == name,
            Some(Value::Array(several)) => several.iter().any(|one| one == name),
            _ => false,
        };
        match () {
            () if may_be("string") => Kind::Text,
            () if may_be("number") => Kind::Number,
            () if may_be("integer") => Kind::Integer,
            () if may_be("boolean") => Kind::Boolean,
            () => Kind::Text,
        }
    }
}

fn coerce(kind: Kind, text: &str) -> Value {
    let read = match kind {
        Kind::Text => None,
        Kind::Integer => {
            text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
        }
        Kind::Number => text.parse::<serde_json::Number>().map(Value::Number).ok(),
        Kind::Boolean => text.parse::<bool>().map(Value::Bool).ok(),
    };
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_violation_points_at_its_place() {
        let schema = Schema::compile(&json!({
            "type": "object", "additionalProperties": false, "required": ["lines"],
            "properties": {
                "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Line"}},
                "address": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
                "share": {"type": "string", "pattern": "^[01](\\.[0-9]+)?$"},
                "method": {
                    "oneOf": [{"type": "string", "const": "card"}, {"type": "string", "const": "points"}],
                },
            },
            "$defs": {
                "Line": {
                    "type": "object", "additionalProperties": false, "required": ["product_id", "quantity"],
                    "properties": {
                        "product_id": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1},
                    },
                },
                "Address": {
                    "type": "object", "required": ["region"], "properties": {"region": {"type": "string"}},
                },
            },
        }))
        .unwrap();
        let line = json!({"product_id": "p", "quantity": 1});
        assert_eq!(schema.check(&json!({"lines": [line], "address": null})), Ok(()));
        let table = [
            (json!({}), "/lines", "is missing"),
            (json!([]), "", "it is not of type \"object\""),
            (json!({"lines": []}), "/lines", "it has less than 1 item"),
            (json!({"lines": [line], "color~/": 1}), "/color~0~1", "is not known here"),
            (
                json!({"lines": [line, {"product_id": "p", "quantity": 0}]}),
                "/lines/1/quantity",
                "it is less than the minimum of 1",
            ),
            (json!({"lines": [{"product_id": "p"}]}), "/lines/0/quantity", "is missing"),
            (json!({"lines": [line], "address": {}}), "/address/region", "is missing"),
            (json!({"lines": [line], "address": 7}), "/address", "is none of the allowed forms"),
            (json!({"lines": [line], "method": "cash"}), "/method", "is none of the allowed forms"),
            (json!({"lines": [line], "share": "x"}), "/share", "it does not match \"^[01](\\.[0-9]+)?$\""),
        ];
        for (payload, pointer, message) in table {
            let expected = Violation { pointer: pointer.to_owned(), message: message.to_owned() };
            assert_eq!(schema.check(&payload), Err(vec![expected]), "{payload}");
        }
    }

    #[test]
    fn the_violations_of_one_payload_are_limited() {
        let schema = Schema::compile(&json!({"items": {"type": "integer"}})).unwrap();
        let payload = Value::Array(vec![json!("x"); 1_000]);
        assert_eq!(schema.check(&payload).unwrap_err().len(), MAX_VIOLATIONS);
    }

    #[test]
    fn a_malformed_schema_is_refused_with_a_reason() {
        for schema in
            [json!({"type": "strin"}), json!({"pattern": "(?=look)ahead", "type": "string"}), json!(7)]
        {
            let reason = Schema::compile(&schema).err().unwrap();
            assert!(!reason.is_empty(), "{schema}");
        }
        for text in ["true", "[]"] {
            assert!(Arguments::compile(serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_are_read_as_the_kind_in_the_schema() {
        let schema = json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "text": {"type": "string"}, "limit": {"type": "integer", "minimum": 1},
                "share": {"type": "number"},
                "open": {"type": "boolean"}, "from": {"type": ["integer", "null"]},
                "by": {"$ref": "#/$defs/By"}, "page": {"anyOf": [{"$ref": "#/$defs/Page"}, {"type": "null"}]},
            },
            "$defs": {"By": {"enum": ["product", "day"]}, "Page": {"type": "integer"}},
        });
        let arguments = Arguments::compile(schema).unwrap();
        let read = [
            ("text", "7", json!("7")),
            ("limit", "7", json!(7)),
            ("share", "0.5", json!(0.5)),
            ("open", "true", json!(true)),
            ("from", "-3", json!(-3)),
            ("by", "day", json!("day")),
            ("page", "2", json!(2)),
        ];
        for (name, text, value) in read {
            assert_eq!(arguments.read([(name, text)]), json!({name: value}), "{name}={text}");
        }
        for (name, text) in [("limit", "seven"), ("open", "yes"), ("by", "year"), ("color", "red")] {
            assert_eq!(arguments.read([(name, text)]), json!({name: text}), "stays text: {name}={text}");
        }
    }
}
