//! The settings of services: what operators write for them, against what manifests ask for.

use std::collections::BTreeMap;

use super::Setting;
use super::schema::Schema;
use crate::model::Json;

/// The largest number of letters by which a slip differs from the name that was meant. Names that differ by
/// more are different names.
const MAX_SLIP: usize = 2;

/// The sentences about what operators have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Slips and values that do not fit. With any, a host does not start, and a deployment is refused.
    pub errors: Vec<String>,
    /// Names that nothing has, and that are no slips either: they may be for a later deployment.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Adds what is wrong with a name that should be one of `known`. A name that is nearly a known one is an
    /// error, unless the operator has written the known one as well (`written`). `place`: the name with its
    /// section.
    pub fn name(&mut self, place: &str, name: &str, known: &[&str], written: &dyn Fn(&str) -> bool) {
        if known.contains(&name) {
            return;
        }
        match nearest(name, known.iter().copied().filter(|known| !written(known))) {
            Some(meant) => self.errors.push(format!("{place} is not known: did you mean {meant}?")),
            None => self.warnings.push(format!("{place} is not known, so it has no effect")),
        }
    }

    /// Adds the sentences of others.
    pub fn extend(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
    }
}

/// Checks the configured values of a service against its settings.
pub fn check(service: &str, settings: &[Setting], values: &BTreeMap<String, Json>) -> Findings {
    let mut findings = Findings::default();
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
    for key in values.keys() {
        let place = format!("services.{service}.{key}");
        findings.name(&place, key, &keys, &|key| values.contains_key(key));
    }
    for Setting { key, schema, required, .. } in settings {
        let place = format!("services.{service}.{key}");
        match values.get(key) {
            None if *required => findings.errors.push(format!("{place} is missing")),
            None => {}
            Some(value) => findings.errors.extend(misfit(&place, schema, value)),
        }
    }
    findings
}

/// Returns a sentence if a value does not follow its schema. It does not show the value, which may be a
/// secret.
fn misfit(place: &str, schema: &Json, value: &Json) -> Option<String> {
    let violations = match Schema::of(schema) {
        Ok(schema) => schema.check(&value.read().ok()?).err()?,
        Err(error) => return Some(format!("the schema of {place} is not sound: {error}")),
    };
    let violation = violations.into_iter().next()?;
    Some(format!("{place}{}: {}", violation.pointer, violation.message))
}

/// Returns the name that was most likely meant by a slip, or none if no name is near.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // In one spelling, so that `card_limit` is as near to `card-limit` as can be.
    let plain = |name: &str| name.to_lowercase().replace('_', "-");
    let wanted = plain(name);
    let near = known.into_iter().filter_map(|known| {
        let meant = plain(known);
        let distance = strsim::damerau_levenshtein(&wanted, &meant);
        // Half of a short name is no slip.
        let is_slip = distance <= MAX_SLIP && 2 * distance < wanted.len().max(meant.len());
        is_slip.then_some((distance, known))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(values: serde_json::Value) -> BTreeMap<String, Json> {
        let values: BTreeMap<String, serde_json::Value> = serde_json::from_value(values).unwrap();
        values.into_iter().map(|(key, value)| (key, Json::of(&value).unwrap())).collect()
    }

    #[test]
    fn a_slip_is_near_and_another_name_is_not() {
        let known = ["card-limit", "points-limit", "url", "gateway-url"];
        for (name, meant) in [
            ("card_limit", Some("card-limit")),
            ("Card-Limit", Some("card-limit")),
            ("card-limti", Some("card-limit")),
            ("cardlimit", Some("card-limit")),
            ("points-limits", Some("points-limit")),
            ("ulr", Some("url")),
            ("ur", Some("url")),
            ("gateway", None),
            ("uri-x", None),
            ("limit", None),
            ("ab", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
    }

    #[test]
    fn configured_values_are_those_that_the_manifest_asks_for_and_follow_their_schemas() {
        let amount = || json!({"type": "integer", "minimum": 0});
        let setting = |key: &str, schema: serde_json::Value, required| Setting {
            key: key.to_owned(),
            description: String::new(),
            schema: Json::of(&schema).unwrap(),
            required,
        };
        let settings = [
            setting("card-limit", amount(), true),
            setting("regions", json!(true), false),
            setting("points-limit", amount(), false),
        ];
        let table: [(_, &[&str], &[&str]); 6] = [
            (json!({"card-limit": 1, "regions": ["north"]}), &[], &[]),
            (json!({}), &["services.payment.card-limit is missing"], &[]),
            (
                json!({"card_limit": 1}),
                &[
                    "services.payment.card_limit is not known: did you mean card-limit?",
                    "services.payment.card-limit is missing",
                ],
                &[],
            ),
            (
                json!({"card-limit": "secret"}),
                &["services.payment.card-limit: it is not of type \"integer\""],
                &[],
            ),
            (
                json!({"card-limit": -1}),
                &["services.payment.card-limit: it is less than the minimum of 0"],
                &[],
            ),
            (
                json!({"card-limit": 1, "card_limit": 1, "gateway": 1}),
                &[],
                &[
                    "services.payment.card_limit is not known, so it has no effect",
                    "services.payment.gateway is not known, so it has no effect",
                ],
            ),
        ];
        for (configured, errors, warnings) in table {
            let found = check("payment", &settings, &values(configured.clone()));
            assert_eq!((&*found.errors, &*found.warnings), (&*to_owned(errors), &*to_owned(warnings)));
        }
    }

    fn to_owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}
