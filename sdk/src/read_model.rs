//! Read models: a service's private database, filled from events.

use std::fmt::Display;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::manifest;
use crate::db::SqlError;
use crate::{RecordedEvent, json, schema};

/// A private SQLite database that follows from events alone.
///
/// `B` is kept in memory while a batch of events is applied; it is `()` if each event is written by itself.
pub struct ReadModel<B = ()> {
    /// The version of the tables. Raise it whenever they or the rows written to them change: the host then
    /// builds a new database from the first event on, beside the old one.
    pub version: u32,
    /// SQL statements that make the tables in an empty database.
    pub schema: &'static str,
    followed: Vec<Followed<B>>,
}

/// An aggregate whose events the read model takes.
struct Followed<B> {
    aggregate: &'static str,
    events: fn() -> Vec<schema::Variant>,
    apply: Box<Apply<B>>,
}

type Apply<B> = dyn Fn(&mut B, &RecordedEvent) -> Result<(), String> + Send + Sync;

/// The rows that a batch of events changes, in memory: read at once, changed by one event after the other,
/// written at once. A row that several of the events change is written only once.
pub trait Batch: Sized + 'static {
    /// Reads the rows that the events change with [`db`](crate::db).
    fn read(events: &[RecordedEvent]) -> Result<Self, SqlError>;

    /// Writes the changed rows.
    fn write(self) -> Result<(), SqlError>;
}

/// Keeps nothing: each event is written by itself.
impl Batch for () {
    fn read(_: &[RecordedEvent]) -> Result<Self, SqlError> {
        Ok(())
    }

    fn write(self) -> Result<(), SqlError> {
        Ok(())
    }
}

impl ReadModel {
    /// Declares a read model that follows no aggregate yet.
    pub fn new(version: u32, schema: &'static str) -> Self {
        Self::in_batches(version, schema)
    }

    /// Follows the events of an aggregate, of this service or another, that are variants of `E`. `project`
    /// writes an event with [`db`](crate::db). Events come in the order of the log. After an error the host
    /// holds back the later events of that aggregate until an operator has dealt with it.
    pub fn follow<E>(
        self,
        aggregate: &'static str,
        project: fn(&RecordedEvent, E) -> Result<(), SqlError>,
    ) -> Self
    where
        E: DeserializeOwned + JsonSchema + 'static,
    {
        self.fold(aggregate, move |(), event, change| project(event, change))
    }
}

impl<B: Batch> ReadModel<B> {
    /// Declares a read model that takes events in batches. It writes far less while the host catches up, when
    /// a batch is hundreds of events.
    pub fn in_batches(version: u32, schema: &'static str) -> Self {
        Self { version, schema, followed: Vec::new() }
    }

    /// Follows the events of an aggregate that are variants of `E`, as [`ReadModel::follow`] does. `project`
    /// changes the batch instead of the database.
    pub fn fold<E>(
        mut self,
        aggregate: &'static str,
        project: impl Fn(&mut B, &RecordedEvent, E) -> Result<(), SqlError> + Send + Sync + 'static,
    ) -> Self
    where
        E: DeserializeOwned + JsonSchema + 'static,
    {
        let apply = move |batch: &mut B, event: &RecordedEvent| {
            let read = json::read_variant(&event.name, &event.payload).map_err(|error| error.to_string())?;
            project(batch, event, read).map_err(|error| error.to_string())
        };
        self.followed.push(Followed { aggregate, events: schema::variants::<E>, apply: Box::new(apply) });
        self
    }

    fn apply(&self, batch: &mut B, event: &RecordedEvent) -> Result<(), String> {
        self.followed
            .iter()
            .filter(|followed| followed.aggregate == event.aggregate)
            .try_for_each(|followed| (followed.apply)(batch, event))
            .map_err(|error| blame(event, &error))
    }
}

/// Returns the error with the event that could not be applied.
fn blame(event: &RecordedEvent, error: &impl Display) -> String {
    let RecordedEvent { aggregate, aggregate_id, version, name, .. } = event;
    format!("{name}, version {version} of {aggregate} {aggregate_id}: {error}")
}

/// A read model with the type of its batches erased.
pub(crate) trait Projection: Send + Sync {
    fn describe(&self) -> manifest::ReadModel;

    fn project(&self, events: &[RecordedEvent]) -> Result<(), String>;
}

impl<B: Batch> Projection for ReadModel<B> {
    fn describe(&self) -> manifest::ReadModel {
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

    fn project(&self, events: &[RecordedEvent]) -> Result<(), String> {
        // The error of a whole batch names no event. The host then applies the events one by one.
        let failed = |error: SqlError| match events {
            [event] => blame(event, &error),
            _ => error.to_string(),
        };
        let mut batch = B::read(events).map_err(failed)?;
        events.iter().try_for_each(|event| self.apply(&mut batch, event))?;
        batch.write().map_err(failed)
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
            via: None,
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
        let apply = |payload| read_model.project(&[recorded("product", payload)]);
        assert_eq!(apply(r#"{"quantity":10,"unknown":1}"#), Ok(()));
        let table = [
            (r#"{"quantity":11}"#, "stock-added, version 2 of product p1: 11 is too much"),
            (r#"{}"#, "stock-added, version 2 of product p1: missing field `quantity`"),
        ];
        for (payload, error) in table {
            let answer = apply(payload).unwrap_err();
            assert!(answer.starts_with(error), "{answer}");
        }
    }
}
