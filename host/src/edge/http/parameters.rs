//! The query string: each parameter once unless it is a list, percent-decoded.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::headers::decimal;
use super::schemas;
use crate::contract::{Problem, Schema};

/// The parameters of a request, in their order.
#[derive(Debug)]
pub(super) struct Parameters<'r>(Vec<(Cow<'r, str>, Cow<'r, str>)>);

impl<'r> Parameters<'r> {
    /// Reads a query string. A repeated parameter is refused, because it is unclear which value counts.
    pub(super) fn parse(query: Option<&'r str>) -> Result<Self, Problem> {
        Self::parse_with_lists(query, &[])
    }

    /// Reads a query string in which the parameters `lists` may be repeated.
    pub(super) fn parse_with_lists(query: Option<&'r str>, lists: &[&str]) -> Result<Self, Problem> {
        let mut parameters = Self(Vec::new());
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            match lists.contains(&&*name) {
                true => parameters.0.push((name, value)),
                false => parameters.add(name, value)?,
            }
        }
        Ok(parameters)
    }

    /// Adds a parameter from another source.
    pub(super) fn add(&mut self, name: Cow<'r, str>, value: Cow<'r, str>) -> Result<(), Problem> {
        if self.get(&name).is_some() {
            return Err(Problem::invalid_parameter(format!("The parameter {name} is repeated.")));
        }
        self.0.push((name, value));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Returns all values of a parameter that is a list.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// Reads a parameter that is true or false; false if it is absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            Some("true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(_) => {
                Err(Problem::invalid_parameter(format!("The parameter {name} must be true or false.")))
            }
        }
    }

    /// Reads a parameter that is a number, if it is present.
    pub(super) fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let refused = || Problem::invalid_parameter(format!("The parameter {name} must be a whole number."));
        decimal(text).ok_or_else(refused).map(Some)
    }

    /// Refuses parameters with other names.
    pub(super) fn only(self, names: &[&str]) -> Result<Self, Problem> {
        match self.0.iter().find(|(name, _)| !names.contains(&&**name)) {
            None => Ok(self),
            Some((name, _)) => {
                let known = names.join(", ");
                Err(Problem::invalid_parameter(format!("This route has no parameter {name}, only {known}.")))
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// The parameters of a host route, by the schema of their type.
pub(super) struct QuerySchema {
    /// The JSON Schema of each parameter, by its name.
    pub(super) properties: Map<String, Value>,
    check: Schema,
}

/// The form of a parameter's text.
enum Form {
    Text,
    Number,
    Flag,
    /// Texts, each a parameter of its own.
    List,
    /// One of these texts.
    Choice(Vec<String>),
}

impl QuerySchema {
    /// Returns the parameters of a type, whose fields are texts, numbers, flags, lists of texts and plain
    /// enums; none for `()`. An error is a sentence that says what is wrong with the schema.
    pub(super) fn of<Q: JsonSchema>() -> Result<Self, String> {
        let mut settings = schemas::settings().for_deserialize();
        settings.inline_subschemas = true;
        let schema = settings.into_generator().into_root_schema_for::<Q>().to_value();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        Ok(Self { properties, check: Schema::compile(&schema)? })
    }

    /// Reads the text behind the question mark. A route without parameters ignores it.
    pub(super) fn read<Q: DeserializeOwned>(&self, query: Option<&str>) -> Result<Q, Problem> {
        let value = match self.properties.is_empty() {
            true => Value::Null,
            false => self.value(query)?,
        };
        self.check.check(&value).map_err(|violations| {
            let (name, message) = violations
                .first()
                .map(|violation| (violation.pointer.trim_start_matches('/'), violation.message.as_str()))
                .unwrap_or_default();
            Problem::invalid_parameter(format!("The parameter {name} cannot be used: {message}."))
        })?;
        serde_json::from_value(value)
            .map_err(|error| Problem::invalid_parameter(format!("The parameters cannot be read: {error}.")))
    }

    fn value(&self, query: Option<&str>) -> Result<Value, Problem> {
        let forms = self.properties.iter().map(|(name, schema)| (name.as_str(), Form::of(schema)));
        let forms: Vec<_> = forms.collect();
        let names: Vec<_> = forms.iter().map(|(name, _)| *name).collect();
        let lists = forms.iter().filter(|(_, form)| matches!(form, Form::List));
        let lists: Vec<_> = lists.map(|(name, _)| *name).collect();
        let parameters = Parameters::parse_with_lists(query, &lists)?.only(&names)?;
        let mut members = Map::new();
        for (name, form) in forms {
            if let Some(text) = parameters.get(name) {
                members.insert(name.to_owned(), form.value(&parameters, name, text)?);
            }
        }
        Ok(Value::Object(members))
    }
}

impl Form {
    fn of(schema: &Value) -> Self {
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.as_slice(),
            kind => std::slice::from_ref(kind),
        };
        let has = |kind: &str| kinds.iter().any(|known| known == kind);
        match choices(schema) {
            _ if has("integer") => Self::Number,
            _ if has("boolean") => Self::Flag,
            _ if has("array") => Self::List,
            choices if choices.is_empty() => Self::Text,
            choices => Self::Choice(choices),
        }
    }

    fn value(&self, parameters: &Parameters<'_>, name: &str, text: &str) -> Result<Value, Problem> {
        Ok(match self {
            Self::Number => parameters.number::<u64>(name)?.into(),
            Self::Flag => parameters.flag(name)?.into(),
            Self::List => parameters.all(name).into(),
            Self::Choice(known) if !known.iter().any(|known| known == text) => {
                let known = known.join(", ");
                let detail = format!("The parameter {name} must be one of {known}.");
                return Err(Problem::invalid_parameter(detail));
            }
            Self::Choice(_) | Self::Text => text.into(),
        })
    }
}

/// Returns the texts that an enum's schema allows.
fn choices(schema: &Value) -> Vec<String> {
    let list = |member: &str| schema[member].as_array().into_iter().flatten();
    let texts = list("enum").chain(schema.get("const")).filter_map(Value::as_str).map(str::to_owned);
    let alternatives = list("oneOf").chain(list("anyOf")).flat_map(choices);
    texts.chain(alternatives).collect()
}

fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    let refused = |_| Problem::invalid_parameter("The query string is not UTF-8.");
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced)
            .decode_utf8()
            .map(|text| text.into_owned().into())
            .map_err(refused);
    }
    percent_decode_str(text).decode_utf8().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        for (query, expected) in [
            ("", vec![]),
            ("a=1&b=2", vec![("a", "1"), ("b", "2")]),
            ("a=x%20y+z%2B", vec![("a", "x y z+")]),
            ("n%C3%A4me=%26", vec![("näme", "&")]),
            ("flag&&a=b=c", vec![("flag", ""), ("a", "b=c")]),
        ] {
            let parameters = Parameters::parse(Some(query)).unwrap();
            assert_eq!(parameters.iter().collect::<Vec<_>>(), expected, "{query}");
        }
        for refused in ["a=1&a=2", "a=1&%61=2", "a=%FF"] {
            assert_eq!(
                Parameters::parse(Some(refused)).unwrap_err().code(),
                "invalid-parameter",
                "{refused}"
            );
        }
    }

    #[test]
    fn only_lists_may_be_repeated() {
        let parse = |query| Parameters::parse_with_lists(Some(query), &["grant"]);
        for (query, values) in
            [("", vec![]), ("grant=a", vec!["a"]), ("grant=b&note=x&grant=a", vec!["b", "a"])]
        {
            assert_eq!(parse(query).unwrap().all("grant"), values, "{query}");
        }
        assert!(parse("note=x&note=y").is_err(), "the others are there once");
    }

    #[test]
    fn flags_are_true_or_false() {
        let flag = |query| Parameters::parse(Some(query)).unwrap().flag("dry-run");
        for (query, value) in [("", false), ("dry-run=false", false), ("dry-run=true", true)] {
            assert_eq!(flag(query).unwrap(), value, "{query}");
        }
        for refused in ["dry-run", "dry-run=1"] {
            assert_eq!(flag(refused).unwrap_err().code(), "invalid-parameter", "{refused}");
        }
    }

    #[test]
    fn the_parameters_of_a_host_route_follow_their_type() {
        use crate::api::{DeployQuery, PageQuery, SagaListQuery};
        use crate::saga::SagaState;

        let deploy = |query: &str| QuerySchema::of::<DeployQuery>().unwrap().read::<DeployQuery>(Some(query));
        let expected = DeployQuery {
            dry_run: true,
            note: Some("spring sale".to_owned()),
            sample: Some(9),
            allow_breaking: vec!["x".to_owned()],
            grant: vec!["a".to_owned(), "b".to_owned()],
        };
        let query = "dry-run=true&note=spring%20sale&sample=9&grant=a&allow-breaking=x&grant=b";
        assert_eq!(deploy(query).unwrap(), expected);
        assert_eq!(deploy("").unwrap(), DeployQuery::default());
        let long = format!("note={}", "ä".repeat(crate::api::MAX_REASON_LENGTH + 1));
        for refused in ["dry-run=yes", "sample=0", "sample=all", "note=a&note=b", "force=true", &long] {
            assert_eq!(deploy(refused).unwrap_err().code(), "invalid-parameter", "{refused}");
        }

        let sagas =
            |query: &str| QuerySchema::of::<SagaListQuery>().unwrap().read::<SagaListQuery>(Some(query));
        let list = sagas("state=parked&saga=place-order&after=x&limit=7").unwrap();
        assert_eq!((list.state, list.limit), (Some(SagaState::Parked), Some(7)));
        assert_eq!((list.saga.as_deref(), list.after.as_deref()), (Some("place-order"), Some("x")));
        let refused = sagas("state=Parked").unwrap_err();
        assert_eq!(refused.code(), "invalid-parameter");
        assert!(refused.log_text().contains("one of running, waiting, "), "{}", refused.log_text());

        let page = QuerySchema::of::<PageQuery<u64>>().unwrap();
        assert_eq!(page.read::<PageQuery<u64>>(Some("after=9")).unwrap().after, Some(9));
        for refused in ["limit=0", "after=x", "after=-1"] {
            assert!(page.read::<PageQuery<u64>>(Some(refused)).is_err(), "{refused}");
        }
        let none = QuerySchema::of::<()>().unwrap();
        assert!(none.read::<()>(Some("anything=7")).is_ok(), "a route without parameters ignores them");
    }

    #[test]
    fn numbers_and_names_are_checked() {
        let parse = |query| Parameters::parse(Some(query)).unwrap();
        assert_eq!(parse("limit=7").number("limit").unwrap(), Some(7_u64));
        assert_eq!(parse("").number::<u64>("limit").unwrap(), None);
        for refused in ["limit=", "limit=-1", "limit=x"] {
            assert!(parse(refused).number::<u64>("limit").is_err(), "{refused}");
        }
        assert!(parse("limit=7").only(&["limit", "after"]).is_ok());
        assert!(parse("limt=7").only(&["limit", "after"]).is_err());
    }
}
