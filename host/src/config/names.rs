//! The names in the configuration, against the services that there are.

use std::collections::{BTreeMap, HashMap};

use super::Config;
use crate::contract::{Findings, Manifest, settings};
use crate::model::Json;

impl Config {
    /// Compares services, keys and sagas in the configuration with the manifests of services. `others`: those
    /// of which only the names count. `values`: those of [`Config::service_configuration`].
    pub fn findings(
        &self,
        manifests: &[&Manifest],
        others: &[&Manifest],
        values: &HashMap<String, BTreeMap<String, Json>>,
    ) -> Findings {
        let known = [manifests, others].concat();
        let services: Vec<&str> = known.iter().map(|manifest| manifest.service.as_str()).collect();
        let mut findings = Findings::default();
        let mut section = |tables: &[&str], names: Vec<&str>| {
            for name in &names {
                let key = [tables, &[*name]].concat();
                findings.name(&key, name, &services, &|known| names.contains(&known));
            }
        };
        section(&["services"], self.services.keys().map(String::as_str).collect());
        section(&["secrets"], self.secrets.keys().map(String::as_str).collect());
        section(&["grants"], self.grants.keys().map(String::as_str).collect());
        for (service, grants) in &self.grants {
            let asked = grants.services.iter().map(String::as_str).collect();
            section(&["grants", service, "services"], asked);
        }
        let sagas = known.iter().flat_map(|manifest| &manifest.sagas).map(|saga| saga.name.as_str());
        let steps = self.retries.steps.keys().map(String::as_str);
        findings.extend(settings::check_retried(steps, &sagas.collect::<Vec<_>>()));
        for manifest in manifests {
            let (service, none) = (manifest.service.as_str(), BTreeMap::new());
            let values = values.get(service).unwrap_or(&none);
            findings.extend(settings::check(service, &manifest.settings, values));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fixtures;
    use crate::contract::{EventRef, Finding, Saga, Setting};

    #[test]
    fn names_that_are_nearly_right_are_errors_and_others_are_warnings() {
        let mut manifest = fixtures::manifest();
        manifest.settings = vec![Setting {
            key: "card-limit".to_owned(),
            description: String::new(),
            schema: Json::of(&true).unwrap(),
            required: false,
        }];
        manifest.sagas = vec![Saga {
            name: "place-order".into(),
            description: String::new(),
            starts_on: EventRef { aggregate: "order".into(), event: "order-created".into() },
        }];
        let retry = "{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }";
        let says = |findings: Vec<Finding>| findings.into_iter().map(|finding| finding.says).collect();
        let says =
            |Findings { errors, warnings }| -> (Vec<String>, Vec<String>) { (says(errors), says(warnings)) };
        let error = |text: &str| (Some(text.to_owned()), None);
        let warning = |text: &str| (None, Some(text.to_owned()));
        let no_effect = |place: &str| warning(&format!("{place} is not known, so it has no effect"));
        let table = [
            ("[services.order]\ncard-limit = 1".to_owned(), (None, None)),
            ("[services.oder]".to_owned(), error("services.oder is not known: did you mean order?")),
            ("[services.payment]".to_owned(), no_effect("services.payment")),
            ("[services.order]\n[services.orders]".to_owned(), no_effect("services.orders")),
            ("[grants.Order]".to_owned(), error("grants.Order is not known: did you mean order?")),
            ("[secrets.payment]".to_owned(), no_effect("secrets.payment")),
            (
                "[grants.order]\nservices = ['ordr']".to_owned(),
                error("grants.order.services.ordr is not known: did you mean order?"),
            ),
            (
                "[services.order]\ncard_limit = 1".to_owned(),
                error("services.order.card_limit is not known: did you mean card-limit?"),
            ),
            ("[services.order]\ncolor = 1".to_owned(), no_effect("services.order.color")),
            (format!("[retries.steps]\n'place-order/pay' = {retry}"), (None, None)),
            (format!("[retries.steps]\n'place-*' = {retry}"), (None, None)),
            (format!("[retries.steps]\n'ship-*' = {retry}"), no_effect("retries.steps.\"ship-*\"")),
            (
                format!("[retries.steps]\n'place-oder/pay' = {retry}"),
                error("retries.steps.\"place-oder/pay\" is not known: did you mean place-order?"),
            ),
            (format!("[retries.steps]\n'no/such' = {retry}"), no_effect("retries.steps.\"no/such\"")),
            (
                format!("[retries.steps]\npay = {retry}"),
                error("retries.steps.pay is no step: write \"<saga>/<step>\""),
            ),
        ];
        for (file, (error, warning)) in table {
            let config = Config::parse(&file).unwrap();
            let values = config.service_configuration().unwrap();
            let found = config.findings(&[&manifest], &[], &values);
            let expected = (Vec::from_iter(error), Vec::from_iter(warning));
            assert_eq!(says(found), expected, "{file}");
            // The names of services that are known otherwise count, and their settings do not.
            let elsewhere = config.findings(&[], &[&manifest], &values);
            let in_settings = file.contains("_limit") || file.contains("color");
            assert_eq!(says(elsewhere), if in_settings { Default::default() } else { expected }, "{file}");
        }
    }
}
