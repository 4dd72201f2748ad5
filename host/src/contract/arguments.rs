//! The arguments of a query as parameters of the path and of the query string, which are texts there.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Maximum number of references on the way to the type of a parameter; a longer chain is a circle.
const MAX_REFS: usize = 8;

/// The parameters of a query, from the schema of its arguments.
#[derive(Debug)]
pub(crate) struct Arguments {
    kinds: BTreeMap<String, Kind>,
    /// The lists that the schema requires. An empty list has no parameter, so a missing one is empty.
    required_lists: Vec<String>,
}

/// The kind of value that the text of a parameter is read as.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Kind {
    #[default]
    Text,
    Integer,
    Number,
    Boolean,
    /// Values of one kind, each a parameter of the same name.
    List(Box<Kind>),
    /// A value with a structure, as JSON.
    Json,
}

impl Arguments {
    /// Reads the kinds of the parameters from a schema. An error is a sentence that says why it is malformed.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        if !schema.is_object() {
            return Err("it does not describe an object".to_owned());
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        let kind = |(name, property): (&String, &Value)| (name.clone(), kind_of(schema, property, MAX_REFS));
        let kinds: BTreeMap<_, _> = properties.map(kind).collect();
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let is_list = |name: &&str| matches!(kinds.get(*name), Some(Kind::List(_)));
        let required_lists = required.filter(is_list).map(str::to_owned).collect();
        Ok(Self { kinds, required_lists })
    }

    /// Returns the kind of a parameter; text if the schema does not have it.
    pub(crate) fn kind(&self, name: &str) -> &Kind {
        self.kinds.get(name).unwrap_or(&Kind::Text)
    }

    /// Returns the names of the parameters that may be there more than once.
    pub(crate) fn lists(&self) -> Vec<&str> {
        let lists = self.kinds.iter().filter(|(_, kind)| matches!(kind, Kind::List(_)));
        lists.map(|(name, _)| name.as_str()).collect()
    }

    /// Reads each parameter as the kind in the schema. A text of another kind stays text, so that the check
    /// against the schema reports it.
    pub(crate) fn read<'t>(&self, parameters: impl IntoIterator<Item = (&'t str, &'t str)>) -> Value {
        let empty = || Value::Array(Vec::new());
        let mut arguments: Map<_, _> =
            self.required_lists.iter().map(|name| (name.clone(), empty())).collect();
        for (name, text) in parameters {
            match self.kind(name) {
                Kind::List(items) => {
                    let list = arguments.entry(name).or_insert_with(empty);
                    list.as_array_mut().into_iter().for_each(|list| list.push(items.coerce(text)));
                }
                kind => {
                    arguments.insert(name.to_owned(), kind.coerce(text));
                }
            }
        }
        Value::Object(arguments)
    }
}

impl Kind {
    fn coerce(&self, text: &str) -> Value {
        let read = match self {
            Self::Text | Self::List(_) => None,
            Self::Integer => {
                text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
            }
            Self::Number => text.parse::<serde_json::Number>().map(Value::Number).ok(),
            Self::Boolean => text.parse::<bool>().map(Value::Bool).ok(),
            Self::Json => serde_json::from_str(text).ok(),
        };
        read.unwrap_or_else(|| Value::String(text.to_owned()))
    }
}

/// Returns the kind of a property. One that may be a text is read as a text, because every parameter is one.
fn kind_of(root: &Value, schema: &Value, refs_left: usize) -> Kind {
    let Some(refs_left) = refs_left.checked_sub(1) else { return Kind::Text };
    if let Some(path) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        return root.pointer(path).map_or(Kind::Text, |schema| kind_of(root, schema, refs_left));
    }
    let alternatives = ["anyOf", "oneOf", "allOf"].iter().find_map(|name| schema[*name].as_array());
    if let Some(alternatives) = alternatives {
        let value = alternatives.iter().find(|schema| schema["type"] != "null");
        return value.map_or(Kind::Text, |schema| kind_of(root, schema, refs_left));
    }
    let may_be = |name: &str| match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    match () {
        () if may_be("string") => Kind::Text,
        () if may_be("number") => Kind::Number,
        () if may_be("integer") => Kind::Integer,
        () if may_be("boolean") => Kind::Boolean,
        () if may_be("array") => match kind_of(root, &schema["items"], refs_left) {
            Kind::List(_) | Kind::Json => Kind::Json,
            items => Kind::List(items.into()),
        },
        () if may_be("object") => Kind::Json,
        () => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments() -> Arguments {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["tags"],
            "properties": {
                "text": {"type": "string"}, "limit": {"type": "integer", "minimum": 1},
                "share": {"type": "number"},
                "open": {"type": "boolean"}, "from": {"type": ["integer", "null"]},
                "by": {"$ref": "#/$defs/By"}, "page": {"anyOf": [{"$ref": "#/$defs/Page"}, {"type": "null"}]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "sizes": {"type": ["array", "null"], "items": {"$ref": "#/$defs/Page"}},
                "box": {"type": "object"}, "rows": {"type": "array", "items": {"type": "array"}},
                "circle": {"$ref": "#/$defs/Circle"},
            },
            "$defs": {
                "By": {"enum": ["product", "day"]}, "Page": {"type": "integer"},
                "Circle": {"$ref": "#/$defs/Circle"},
            },
        });
        Arguments::compile(&schema).unwrap()
    }

    #[test]
    fn parameters_are_read_as_the_kind_in_the_schema() {
        for (name, text, value) in [
            ("text", "7", json!("7")),
            ("limit", "7", json!(7)),
            ("share", "0.5", json!(0.5)),
            ("open", "true", json!(true)),
            ("from", "-3", json!(-3)),
            ("by", "day", json!("day")),
            ("page", "2", json!(2)),
            ("sizes", "2", json!([2])),
            ("box", "{\"a\":[1]}", json!({"a": [1]})),
            ("rows", "[[1],[]]", json!([[1], []])),
            ("circle", "7", json!("7")),
        ] {
            assert_eq!(arguments().read([(name, text)])[name], value, "{name}={text}");
        }
        for (name, text) in
            [("limit", "seven"), ("open", "yes"), ("by", "year"), ("color", "red"), ("box", "{")]
        {
            assert_eq!(arguments().read([(name, text)])[name], text, "stays text: {name}={text}");
        }
    }

    #[test]
    fn a_list_is_a_parameter_that_is_repeated() {
        let read = |parameters: &[(&'static str, &'static str)]| arguments().read(parameters.iter().copied());
        let parameters = [("tags", "a,b"), ("sizes", "1"), ("tags", "c"), ("sizes", "x")];
        assert_eq!(read(&parameters), json!({"tags": ["a,b", "c"], "sizes": [1, "x"]}));
        assert_eq!(read(&[]), json!({"tags": []}), "only a required list is there without a parameter");
        assert_eq!(arguments().lists(), ["sizes", "tags"]);
    }

    #[test]
    fn a_schema_that_describes_no_object_is_refused() {
        for schema in [json!(true), json!([])] {
            assert!(Arguments::compile(&schema).is_err(), "{schema}");
        }
    }
}
