//! A read model and its queries without a host around them, for tests and measurements of services.

use std::path::Path;
use std::sync::Arc;

use super::database_set::DatabaseSet;
use super::projector::Projector;
use super::tables::Progress;
use super::{AnswerError, ProjectionsError, ReadModelError, files};
use crate::error::Chain;
use crate::model::{Caller, Json, Recorded};
use crate::runtime::{Ask, Component, QueryCall, ReadSession};

/// One component with its read database, which is made and filled as in a host, but by its caller instead of
/// from a log.
pub struct Standalone {
    component: Component,
    /// `None` if the component has no read model.
    projector: Option<Projector>,
}

impl Standalone {
    /// Opens or makes the read database under `data`.
    pub fn open(data: &Path, component: Component) -> Result<Self, ProjectionsError> {
        let manifest = component.manifest();
        let projector = match &manifest.read_model {
            None => None,
            Some(model) => {
                let databases = DatabaseSet {
                    dir: files::directory(data)?,
                    service: manifest.service.clone(),
                    max_bytes: u64::MAX,
                };
                let opened = databases.open_live(component.digest(), model)?;
                Some(Projector::new(component.clone(), opened))
            }
        };
        Ok(Self { component, projector })
    }

    /// Applies events, all of which the read model must subscribe to, in one transaction. The error says why
    /// none of them took effect.
    pub async fn project(&mut self, events: &[Recorded]) -> Result<(), String> {
        let projector = self.projector.as_mut().ok_or("the service has no read model")?;
        let Some(last) = events.last() else { return Ok(()) };
        let progress = Progress::to(last.mark());
        projector.attempt(events, &progress).await.map_err(|error| Chain(&error).to_string())?
    }

    /// Answers a query, which may ask other services through `ask`. Blocks while SQLite works.
    pub async fn answer(
        &self,
        query: &str,
        arguments: &Json,
        (caller, time_ms): (Caller, u64),
        ask: Arc<dyn Ask>,
    ) -> Result<Json, AnswerError> {
        let service = &self.component.manifest().service;
        let database = self.projector.as_ref().map(|projector| &projector.database);
        let read = database.map(|database| database.begin_read()).transpose();
        let read = read.map_err(|error| ReadModelError { service: service.clone(), reason: error.into() })?;
        let read_model = read.map(|(connection, _)| ReadSession { connection });
        let call = QueryCall { id: "standalone".into(), time_ms, caller, depth: 0, ask, read_model };
        let answered = self.component.answer(&query.into(), arguments, call).await;
        if let (Some(database), Some(session)) = (database, answered.read_model) {
            database.end_read(session.connection);
        }
        Ok(answered.answer??)
    }
}
