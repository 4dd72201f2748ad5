//! JSON Schemas, compiled once a deployment, and the violations of a text.

use std::collections::BTreeMap;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ProblemCode;
use crate::error::printable;
use crate::model::{Json, Normal, NotNormal, Rejection};

/// Maximum number of violations in one problem: enough to correct a form, and a short body.
const MAX_VIOLATIONS: usize = 20;

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
        Self { pointer, message: printable(source.to_string()) }
    }
}

/// A compiled schema.
pub(crate) struct Schema(Validator);

impl Schema {
    /// Compiles a schema of a manifest.
    pub(crate) fn of(schema: &Json) -> Result<Self, String> {
        Self::compile(&schema.read().map_err(|error| printable(error.to_string()))?)
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
            .map_err(|error| printable(error.to_string()))
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
        violations.push(Violation { pointer: printable(pointer), message: printable(message.to_owned()) });
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
    }
}
