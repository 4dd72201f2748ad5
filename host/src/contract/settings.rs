//! The settings of services: what operators write for them, against what manifests ask for.

use std::collections::BTreeMap;

use super::Setting;
use super::schema::Schema;
use crate::model::Json;

/// The largest number of letters by which a slip differs from the name that was meant. Names that differ by
/// more are different names.
const MAX_SLIP: usize = 2;

/// A sentence about a key that operators have written, or should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The names of the key's tables, and its own. The last one may be an item of a list.
    pub key: Vec<String>,
    /// The sentence, which names the key.
    pub says: String,
}

/// The sentences about what operators have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Slips and values that do not fit. With any, a host does not start, and a deployment is refused.
    pub errors: Vec<Finding>,
    /// Names that nothing has, and that are no slips either: they may be for a later deployment.
    pub warnings: Vec<Finding>,
}

impl Finding {
    /// Returns a sentence about a key: `services.payment.card-limit is missing`.
    fn new(key: &[&str], says: &str) -> Self {
        let says = format!("{}{says}", shown(key));
        Self { key: key.iter().map(|name| (*name).to_owned()).collect(), says }
    }
}

impl Findings {
    /// Adds what is wrong with a name that should be one of `known`. A name that is nearly a known one is an
    /// error, unless the operator has written the known one as well (`written`). `key`: the key that has the
    /// name.
    pub fn name(&mut self, key: &[&str], name: &str, known: &[&str], written: &dyn Fn(&str) -> bool) {
        if known.contains(&name) {
            return;
        }
        match nearest(name, known.iter().copied().filter(|known| !written(known))) {
            Some(meant) => self.error(key, &format!(" is not known: did you mean {meant}?")),
            None => self.unknown(key),
        }
    }

    /// Adds a warning about a name that nothing has.
    fn unknown(&mut self, key: &[&str]) {
        self.warnings.push(Finding::new(key, " is not known, so it has no effect"));
    }

    /// Adds an error. `says`: the sentence behind the key.
    fn error(&mut self, key: &[&str], says: &str) {
        self.errors.push(Finding::new(key, says));
    }

    /// Adds the sentences of others.
    pub fn extend(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
    }
}

/// Returns a key as TOML writes it: `retries.steps."place-order/pay"`.
fn shown(key: &[&str]) -> String {
    let is_bare = |name: &str| name.chars().all(|letter| letter.is_alphanumeric() || "-_".contains(letter));
    let names = key.iter().map(|name| if is_bare(name) { (*name).to_owned() } else { format!("{name:?}") });
    names.collect::<Vec<_>>().join(".")
}

/// Checks the configured values of a service against its settings.
pub fn check(service: &str, settings: &[Setting], values: &BTreeMap<String, Json>) -> Findings {
    let mut findings = Findings::default();
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
    for key in values.keys() {
        findings.name(&["services", service, key], key, &keys, &|key| values.contains_key(key));
    }
    for Setting { key, schema, required, .. } in settings {
        let place = ["services", service, key];
        match values.get(key) {
            None if *required => findings.error(&place, " is missing"),
            None => {}
            Some(value) => misfit(schema, value).iter().for_each(|says| findings.error(&place, says)),
        }
    }
    findings
}

/// Checks the steps whose retries are configured, `<saga>/<step>`, against the sagas that there are. Steps
/// are named in the code of sagas only.
pub fn check_retried<'s>(steps: impl Iterator<Item = &'s str> + Clone, sagas: &[&str]) -> Findings {
    let mut findings = Findings::default();
    for step in steps.clone() {
        let key = ["retries", "steps", step];
        let written = |known: &str| steps.clone().any(|step| step.split('/').next() == Some(known));
        match (step.split_once('/'), step.strip_suffix('*')) {
            (Some((saga, _)), _) => findings.name(&key, saga, sagas, &written),
            (None, Some(prefix)) if sagas.iter().any(|saga| saga.starts_with(prefix)) => {}
            // It may match a saga of a later deployment.
            (None, Some(_)) => findings.unknown(&key),
            (None, None) => findings.error(&key, " is no step: write \"<saga>/<step>\""),
        }
    }
    findings
}

/// Returns the end of a sentence if a value does not follow its schema. It does not show the value, which may
/// be a secret.
fn misfit(schema: &Json, value: &Json) -> Option<String> {
    let violations = match Schema::of(schema) {
        Ok(schema) => schema.check(&value.read().ok()?).err()?,
        Err(error) => return Some(format!(" has a schema that is not sound: {error}")),
    };
    let violation = violations.into_iter().next()?;
    Some(format!("{}: {}", violation.pointer, violation.message))
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
            let says = |findings: Vec<Finding>| findings.into_iter().map(|finding| finding.says);
            assert!(says(found.errors).eq(errors.iter().copied()), "{configured}");
            assert!(says(found.warnings).eq(warnings.iter().copied()), "{configured}");
        }
    }
}
