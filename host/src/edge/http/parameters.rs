//! The query string: each parameter once unless it is a list, percent-decoded.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::headers::decimal;
use crate::contract::Problem;

/// The parameters of a request, in their order.
#[derive(Debug)]
pub(super) struct Parameters<'r>(Vec<(Cow<'r, str>, Cow<'r, str>)>);

impl<'r> Parameters<'r> {
    /// A repeated parameter is refused, because there would be no telling which one counts.
    pub(super) fn parse(query: Option<&'r str>) -> Result<Self, Problem> {
        Self::parse_with_lists(query, &[])
    }

    /// The parameters with the names of `lists` may be there any number of times.
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

    /// Adds one that comes from elsewhere.
    pub(super) fn add(&mut self, name: Cow<'r, str>, value: Cow<'r, str>) -> Result<(), Problem> {
        if self.get(&name).is_some() {
            return Err(Problem::invalid_parameter(format!("The parameter {name} is there more than once.")));
        }
        self.0.push((name, value));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// All values of a parameter that is a list.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// A parameter that is true or false; false if it is not there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            Some("true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(_) => {
                Err(Problem::invalid_parameter(format!("The parameter {name} must be true or false.")))
            }
        }
    }

    /// A parameter that is a number, if it is there.
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
                Err(Problem::invalid_parameter(format!("There is no parameter {name} here, only {known}.")))
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
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
    fn lists_may_have_any_number_of_values() {
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
