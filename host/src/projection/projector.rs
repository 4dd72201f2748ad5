//! Applies events to one read database.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

use super::database::{Database, is_damage};
use super::database_set::Opened;
use super::tables::{self, Progress, Role};
use crate::contract::ReadModel;
use crate::model::{AggregateName, EventName, LogMark, Position, Recorded, StreamId};
use crate::runtime::{Component, Guarded, ReadSession};

/// Events without a subscription after which the position is committed all the same: a restart reads as many
/// again, which takes some ten milliseconds.
const COMMIT_EVERY: u64 = 10_000;

/// Events that a component gets in one call: fewer than a batch, which is a transaction, because the time and
/// memory of a call are limited.
const EVENTS_A_CALL: usize = 1_000;

/// The reason why a database cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    #[error("the read database is damaged")]
    Damaged,
    /// SQLite failed in a statement of the component, for a reason that is not the component's.
    #[error("the read database cannot be used: {0:?}")]
    Unusable(ErrorCode),
    /// SQLite failed in a statement of the host.
    #[error("the read database cannot be written")]
    Database(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for ProjectError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(code) if is_damage(code) => Self::Damaged,
            _ => Self::Database(error),
        }
    }
}

impl From<ErrorCode> for ProjectError {
    fn from(code: ErrorCode) -> Self {
        if is_damage(code) { Self::Damaged } else { Self::Unusable(code) }
    }
}

/// Applies events to a read database, which no one else fills.
pub(super) struct Projector {
    pub(super) database: Arc<Database>,
    pub(super) component: Component,
    /// The event up to which all are applied, skipped or parked.
    pub(super) mark: LogMark,
    pub(super) subscribed: Subscribed,
    /// `None` if it was lost in a call.
    connection: Option<Guarded>,
    role: Role,
    pub(super) parked: HashSet<StreamId>,
    /// The position in the database.
    committed: Position,
}

/// The names of the events to apply, by aggregate.
pub(super) struct Subscribed(HashMap<AggregateName, HashSet<EventName>>);

impl Subscribed {
    fn new(model: Option<&ReadModel>) -> Self {
        let mut names: HashMap<_, HashSet<_>> = HashMap::new();
        for event in model.iter().flat_map(|model| &model.subscribes) {
            names.entry(event.aggregate.clone()).or_default().insert(event.event.clone());
        }
        Self(names)
    }

    pub(super) fn contains(&self, event: &Recorded) -> bool {
        self.0.get(event.stream.aggregate()).is_some_and(|names| names.contains(&event.name))
    }
}

impl Projector {
    pub(super) fn new(component: Component, Opened { database, writer }: Opened) -> Self {
        Self {
            database,
            subscribed: Subscribed::new(component.manifest().read_model.as_ref()),
            component,
            mark: writer.mark,
            connection: Some(writer.connection),
            role: writer.role,
            parked: writer.parked,
            committed: writer.mark.position,
        }
    }

    /// Continues with another version of the component, which has the same read model.
    pub(super) fn hand_over(&mut self, component: &Component) -> Result<(), ProjectError> {
        if component.digest() != self.component.digest() {
            self.component = component.clone();
            self.assign(self.role)?;
        }
        Ok(())
    }

    /// Records the database's role from now on.
    pub(super) fn assign(&mut self, role: Role) -> Result<(), ProjectError> {
        let component = self.component.digest();
        self.look_up(|connection| tables::set_role(connection, role, component))?;
        self.role = role;
        Ok(())
    }

    /// Applies the next page of the log.
    pub(super) async fn apply(&mut self, page: Vec<Recorded>) -> Result<(), ProjectError> {
        let Some(end) = page.last().map(Recorded::mark) else { return Ok(()) };
        let (skipped, applicable): (Vec<_>, Vec<_>) = page
            .into_iter()
            .filter(|event| self.subscribed.contains(event))
            .partition(|event| self.parked.contains(&event.stream));
        if applicable.is_empty() && skipped.is_empty() {
            self.skip_to(end)?;
        } else {
            let progress = Progress { skipped: &skipped, ..Progress::to(end) };
            if let Err(error) = self.attempt(&applicable, &progress).await? {
                let (service, events) = (&self.component.manifest().service, applicable.len());
                tracing::warn!(%service, events, error, "failed to apply a batch; applying events singly");
                let mut events = [skipped, applicable].concat();
                events.sort_by_key(|event| event.position);
                for event in &events {
                    self.apply_one(event).await?;
                }
            }
        }
        self.mark = end;
        Ok(())
    }

    /// Moves on to `end` with nothing to apply, which is seldom worth a transaction.
    fn skip_to(&mut self, end: LogMark) -> Result<(), ProjectError> {
        if end.position.distance_from(self.committed) >= COMMIT_EVERY {
            self.commit(&Progress::to(end))?;
        }
        Ok(())
    }

    /// Applies an event in a transaction of its own. Parks its stream if that fails.
    async fn apply_one(&mut self, event: &Recorded) -> Result<(), ProjectError> {
        let mark = event.mark();
        let events = std::slice::from_ref(event);
        if self.parked.contains(&event.stream) {
            return self.commit(&Progress { skipped: events, ..Progress::to(mark) });
        }
        let Err(error) = self.attempt(events, &Progress::to(mark)).await? else { return Ok(()) };
        self.park(event, &error, mark)?;
        self.parked.insert(event.stream.clone());
        Ok(())
    }

    /// Records that an event could not be applied, with the mark of the event up to which all others are
    /// applied, skipped or parked.
    pub(super) fn park(&mut self, event: &Recorded, error: &str, mark: LogMark) -> Result<(), ProjectError> {
        let (service, stream) = (&self.component.manifest().service, &event.stream);
        tracing::error!(
            %service,
            %stream,
            event.position = event.position.get(),
            error,
            "failed to apply an event; its stream is parked in this read model until a redrive"
        );
        metrics::counter!("kontor_projection_parked_total", "service" => service.to_string()).increment(1);
        self.commit(&Progress { parked: Some((event, error)), ..Progress::to(mark) })
    }

    /// Applies events and commits the progress with them. The inner error is the reason why the component
    /// failed.
    pub(super) async fn attempt(
        &mut self,
        events: &[Recorded],
        progress: &Progress<'_>,
    ) -> Result<Result<(), String>, ProjectError> {
        if events.is_empty() {
            return self.commit(progress).map(Ok);
        }
        let mut connection = self.begin()?;
        let mut outcome = Ok(());
        for events in events.chunks(EVENTS_A_CALL) {
            connection.begin_call();
            let session = ReadSession { connection };
            let (projected, session) = self.component.project(events, session).await;
            outcome = projected.unwrap_or_else(|fault| Err(format!("{fault}: {}", fault.detail)));
            let Some(session) = session else {
                // The connection is closed, which rolled its transaction back.
                return Ok(outcome.and_then(|()| Err("the connection was lost".to_owned())));
            };
            connection = session.connection;
            if let Some(failure) = connection.storage_error() {
                return Err(failure.into());
            }
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            tables::count_change(&connection)?;
            outcome = commit(&connection, progress)?;
        }
        if outcome.is_ok() {
            self.committed = progress.mark.position;
        } else {
            tables::roll_back(&connection)?;
        }
        self.connection = Some(connection);
        Ok(outcome)
    }

    /// Commits progress alone.
    pub(super) fn commit(&mut self, progress: &Progress<'_>) -> Result<(), ProjectError> {
        let connection = self.begin()?;
        tables::commit(&connection, progress)?;
        self.connection = Some(connection);
        self.committed = progress.mark.position;
        Ok(())
    }

    /// Shows the position to queries and operators.
    pub(super) fn advance(&self) {
        self.database.advance(self.mark.position, self.parked.len());
    }

    /// Reads or writes the host's own tables, outside of a transaction.
    pub(super) fn look_up<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ProjectError> {
        let connection = self.connection.take().map_or_else(|| self.database.writer(), Ok)?;
        let answer = connection.host(question);
        self.connection = Some(connection);
        Ok(answer?)
    }

    /// Takes the connection and begins a transaction. The caller puts it back; if it drops the connection
    /// instead, the transaction is rolled back and the next use opens another connection.
    fn begin(&mut self) -> Result<Guarded, ProjectError> {
        let connection = self.connection.take().map_or_else(|| self.database.writer(), Ok)?;
        tables::begin(&connection)?;
        Ok(connection)
    }
}

/// Commits a batch. The inner error is the reason if the component has made that impossible.
fn commit(connection: &Guarded, progress: &Progress<'_>) -> Result<Result<(), String>, ProjectError> {
    if !connection.in_transaction() {
        return Ok(Err("a statement rolled the transaction back".to_owned()));
    }
    match tables::commit(connection, progress) {
        // A deferred foreign key is violated.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(Err(error.to_string()))
        }
        committed => Ok(Ok(committed?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "
        CREATE TABLE kinds (name TEXT PRIMARY KEY);
        CREATE TABLE products (kind TEXT REFERENCES kinds DEFERRABLE INITIALLY DEFERRED);";

    #[test]
    fn a_batch_that_a_component_made_impossible_to_commit_is_its_own_failure() {
        let table = [
            ("INSERT INTO kinds VALUES ('chair')", None),
            ("INSERT INTO products VALUES ('desk')", Some("FOREIGN KEY constraint failed")),
            ("ROLLBACK", Some("a statement rolled the transaction back")),
        ];
        for (sql, expected) in table {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(tables::SCHEMA).unwrap();
            let database = Guarded::new(connection).unwrap();
            database.make_schema(SCHEMA).unwrap();
            tables::begin(&database).unwrap();
            database.host(|connection| connection.execute_batch(sql)).unwrap();
            let mark = LogMark { position: Position::new(7), ..LogMark::START };
            let committed = commit(&database, &Progress::to(mark)).unwrap();
            assert_eq!(committed.err().as_deref(), expected, "{sql}");
            tables::roll_back(&database).unwrap();
            let position = database.host(tables::position).unwrap();
            assert_eq!(position.get(), if expected.is_none() { 7 } else { 0 }, "{sql}");
        }
    }
}
