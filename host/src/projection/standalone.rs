//! A read model and its queries without a host around them: what tests and measurements of services run.

use std::path::Path;
use std::sync::Arc;

use super::filling::Filling;
use super::shelf::Shelf;
use super::tables::Progress;
use super::{ProjectionsError, files};
use crate::aggregate::CallError;
use crate::model::{Json, Position, Recorded};
use crate::runtime::{Ask, Component, QueryCall, ReadSession};

/// One component with its read database, which is made and filled as in a host, but by hand instead of from a log.
pub struct Standalone {
    component: Component,
    /// None if the component has no read model.
    filling: Option<Filling>,
}

impl Standalone {
    /// `data`: where the read database is, or is made.
    pub fn open(data: &Path, component: Component) -> Result<Self, ProjectionsError> {
        let manifest = component.manifest();
        let filling = match &manifest.read_model {
            None => None,
            Some(model) => {
                let shelf = Shelf { dir: files::directory(data)?, service: manifest.service.clone() };
                let opened = shelf.open_alone(component.digest(), model, Position::MAX)?;
                Some(Filling::new(component.clone(), opened))
            }
        };
        Ok(Self { component, filling })
    }

    /// Applies events, all that the read model follows, in one transaction. The error says why nothing of it took effect.
    pub async fn project(&mut self, events: &[Recorded]) -> Result<(), String> {
        let filling = self.filling.as_mut().ok_or("the service has no read model")?;
        let Some(last) = events.last() else { return Ok(()) };
        let progress = Progress::to(last.position);
        filling.attempt(events, &progress).await.map_err(|unfilled| unfilled.to_string())?
    }

    /// Answers a query, which may ask other services through `ask`. Blocks while SQLite works.
    pub async fn answer(
        &self,
        query: &str,
        arguments: &Json,
        time_ms: u64,
        ask: Arc<dyn Ask>,
    ) -> Result<Json, CallError> {
        let service = &self.component.manifest().service;
        let database = self.filling.as_ref().map(|filling| &filling.database);
        let read = database.map(|database| database.begin_read()).transpose();
        let read = read
            .map_err(|error| CallError::ReadModel { service: service.clone(), reason: error.to_string() })?;
        let read_model = read.map(|(connection, _)| ReadSession { connection });
        let call = QueryCall { id: "standalone".into(), time_ms, depth: 0, ask, read_model };
        let answered = self.component.answer(&query.into(), arguments, call).await;
        if let (Some(database), Some(session)) = (database, answered.read_model) {
            database.end_read(session.connection);
        }
        Ok(answered.answer??)
    }
}
