//! The compiled schemas of a manifest. Every payload and every argument is checked here on its way to a
//! component, also those of sagas and other services.

use std::collections::HashMap;

use serde_json::Value;

use super::payload::view_arguments;
use super::{Manifest, Schema, Violation};
use crate::model::{AggregateName, CommandName, Json, QueryName};

/// The schemas of the commands and the queries of a service.
#[derive(Default)]
pub struct Schemas {
    commands: HashMap<AggregateName, HashMap<CommandName, Schema>>,
    /// Those for the views of aggregates included.
    queries: HashMap<QueryName, Schema>,
}

impl Schemas {
    /// Compiles the schemas of a manifest. An error is a sentence that names the malformed one.
    pub fn of(manifest: &Manifest) -> Result<Self, String> {
        let mut schemas = Self::default();
        for aggregate in &manifest.aggregates {
            let compiled = aggregate.commands.iter().map(|command| {
                let wrong =
                    |reason| format!("the schema of {}.{} is wrong: {reason}", aggregate.name, command.name);
                Ok((command.name.clone(), Schema::of(&command.payload).map_err(wrong)?))
            });
            schemas.commands.insert(aggregate.name.clone(), compiled.collect::<Result<_, String>>()?);
        }
        let views = manifest.aggregates.iter();
        let views = views.map(|aggregate| (aggregate.name.as_str(), Schema::compile(&view_arguments())));
        let queries = manifest.queries.iter();
        let queries = queries.map(|query| (query.name.as_str(), Schema::of(&query.arguments)));
        // A query may have the name of an aggregate, and then stands in the place of its view.
        for (name, compiled) in views.chain(queries) {
            let compiled =
                compiled.map_err(|reason| format!("the schema of the query {name} is wrong: {reason}"));
            schemas.queries.insert(name.into(), compiled?);
        }
        Ok(schemas)
    }

    /// Checks the payload of a command. Returns its text with integers written as such, if that is another
    /// one. A command that the manifest does not have is not checked.
    pub fn check_payload(
        &self,
        aggregate: &str,
        command: &str,
        payload: &Json,
    ) -> Result<Option<Json>, Vec<Violation>> {
        let schema = self.commands.get(aggregate).and_then(|commands| commands.get(command));
        schema.map_or(Ok(None), |schema| schema.check_text(payload))
    }

    /// Checks the arguments of a query. A query that the manifest does not have is not checked.
    pub fn check_arguments(&self, query: &str, arguments: &Value) -> Result<(), Vec<Violation>> {
        self.queries.get(query).map_or(Ok(()), |schema| schema.check(arguments))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::fixtures::manifest;

    #[test]
    fn payloads_and_arguments_follow_the_schemas_of_the_manifest() {
        let schemas = Schemas::of(&manifest()).unwrap();
        let payload =
            |command, value: Value| schemas.check_payload("order", command, &Json::of(&value).unwrap());
        assert_eq!(payload("create", json!({"lines": [{"quantity": 1}]})), Ok(None));
        let violations = payload("update", json!({"lines": [{"quantity": 0}]})).unwrap_err();
        assert_eq!(violations[0].pointer, "/lines/0/quantity");
        assert_eq!(payload("fly", json!(7)), Ok(None), "dispatch has no such command");
        assert!(schemas.check_arguments("details", &json!({"id": "7", "limit": "many"})).is_err());
        assert!(schemas.check_arguments("order", &json!({"id": 7})).is_err());
        assert_eq!(schemas.check_arguments("order", &json!({"id": "7"})), Ok(()));
    }

    #[test]
    fn a_payload_that_is_too_deep_for_a_value_is_refused_as_such() {
        let mut manifest = manifest();
        manifest.aggregates[0].commands[0].payload = Json::parse("true".to_owned()).unwrap();
        let deep = Json::parse(format!("{}{}", "[".repeat(1_000), "]".repeat(1_000))).unwrap();
        let refused = Schemas::of(&manifest).unwrap().check_payload("order", "create", &deep).unwrap_err();
        assert!(refused[0].message.contains("recursion limit"), "{refused:?}");
    }

    #[test]
    fn a_malformed_schema_is_an_error_with_its_name() {
        let mut manifest = manifest();
        manifest.aggregates[0].commands[0].payload = Json::parse(r#"{"type": "strin"}"#.to_owned()).unwrap();
        let error = Schemas::of(&manifest).err().unwrap();
        assert!(error.starts_with("the schema of order.create is wrong: "), "{error}");
    }
}
