//! STUB, being written. Asking services.

use std::sync::Arc;

use crate::error::CallError;
use crate::model::{Json, Position, Version};

#[derive(Clone, Debug)]
pub struct Answer {
    pub body: Json,
    /// The stream's version, if the query was for the view of one aggregate.
    pub version: Option<Version>,
    /// The log's position that the answer reflects at least.
    pub position: Position,
}

pub struct Queries {}

impl Queries {
    /// Asks `service` its query `query` (or the view of one of its aggregates, arguments `{"id": …}`).
    /// `at_least`: wait until the read model has that position (read your writes).
    pub async fn ask(
        &self,
        _service: &str,
        _query: &str,
        _arguments: Json,
        _at_least: Option<Position>,
    ) -> Result<Answer, CallError> {
        todo!()
    }
}

pub type SharedQueries = Arc<Queries>;
