use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::manifest;
use crate::db::SqlError;
use crate::{RecordedEvent, json, schema};

/// A private SQLite database that follows from events alone.
pub struct ReadModel {
    /// Raise it whenever the tables or what is written to them change: the host then builds a new database from the first
    /// event on, beside the old one.
    pub version: u32,
    /// SQL statements that make the tables in an empty database.
    pub schema: &'static str,
    followed: Vec<Followed>,
}

/// An aggregate whose events the read model takes.
struct Followed {
    aggregate: &'static str,
    events: fn() -> Vec<schema::Variant>,
    apply: Box<Apply>,
}

type Apply = dyn Fn(&RecordedEvent) -> Result<(), String> + Send + Sync;

impl ReadModel {
    /// A read model that follows nothing yet.
    pub fn new(version: u32, schema: &'static str) -> Self {
        Self { version, schema, followed: Vec::new() }
    }

    /// Takes the events of an aggregate, of this service or another, that are variants of `E`, and writes them with
    /// [`db`](crate::db). Aggregates' events come in the order of the log. An error stops that aggregate's events until
    /// someone has seen to it.
    pub fn follow<E>(
        mut self,
        aggregate: &'static str,
        project: fn(&RecordedEvent, E) -> Result<(), SqlError>,
    ) -> Self
    where
        E: DeserializeOwned + JsonSchema + 'static,
    {
        let apply = move |event: &RecordedEvent| {
            let read = json::read_variant(&event.name, &event.payload).map_err(|error| error.to_string())?;
            project(event, read).map_err(|error| error.to_string())
        };
        self.followed.push(Followed { aggregate, events: schema::variants::<E>, apply: Box::new(apply) });
        self
    }

    pub(crate) fn apply(&self, event: &RecordedEvent) -> Result<(), String> {
        let RecordedEvent { aggregate, aggregate_id, version, name, .. } = event;
        self.followed
            .iter()
            .filter(|followed| followed.aggregate == aggregate)
            .try_for_each(|followed| (followed.apply)(event))
            .map_err(|error| format!("{name}, version {version} of {aggregate} {aggregate_id}: {error}"))
    }

    pub(crate) fn describe(&self) -> manifest::ReadModel {
        let subscribes = self.followed.iter().flat_map(|followed| {
            (followed.events)().into_iter().map(|event| manifest::EventRef {
                aggregate: followed.aggregate.to_owned(),
                event: event.name,
            })
        });
        manifest::ReadModel {
            version: self.version,
            schema: self.schema.to_owned(),
            subscribes: subscribes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Stock {
        StockAdded { quantity: u64 },
        StockCounted {},
    }

    /// Refuses what is above 10, so that the test sees what was read.
    fn project(_: &RecordedEvent, change: Stock) -> Result<(), SqlError> {
        match change {
            Stock::StockAdded { quantity } if quantity > 10 => {
                Err(SqlError(format!("{quantity} is too much")))
            }
            _ => Ok(()),
        }
    }

    fn recorded(aggregate: &str, payload: &str) -> RecordedEvent {
        RecordedEvent {
            position: 7,
            aggregate: aggregate.to_owned(),
            aggregate_id: "p1".to_owned(),
            version: 2,
            name: "stock-added".to_owned(),
            payload: payload.to_owned(),
            id: "c1/0".to_owned(),
            command_id: "c1".to_owned(),
            correlation_id: "r1".to_owned(),
            time_ms: 0,
            actor: "somebody".to_owned(),
        }
    }

    #[test]
    fn the_variants_are_what_it_subscribes_to() {
        let described = ReadModel::new(3, "CREATE …").follow("product", project).describe();
        let events: Vec<_> =
            described.subscribes.iter().map(|event| format!("{} {}", event.aggregate, event.event)).collect();
        assert_eq!(events, ["product stock-added", "product stock-counted"]);
        assert_eq!(described.version, 3);
    }

    #[test]
    fn an_event_that_cannot_be_applied_is_named() {
        let read_model = ReadModel::new(1, "").follow("product", project);
        assert_eq!(read_model.apply(&recorded("product", r#"{"quantity":10,"unknown":1}"#)), Ok(()));
        let table = [
            (r#"{"quantity":11}"#, "stock-added, version 2 of product p1: 11 is too much"),
            (r#"{}"#, "stock-added, version 2 of product p1: missing field `quantity`"),
        ];
        for (payload, error) in table {
            let answer = read_model.apply(&recorded("product", payload)).unwrap_err();
            assert!(answer.starts_with(error), "{answer}");
        }
    }
}
