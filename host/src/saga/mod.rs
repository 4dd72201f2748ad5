//! STUB, being written. Sagas.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::CallError;
use crate::model::Rejection;

/// A UUID made from the event that started it and the saga's name.
pub type SagaId = Arc<str>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SagaState {
    Running,
    Unwinding,
    Parked,
    Completed,
    Compensated,
}

impl SagaState {
    pub fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

/// What a client may know of a saga.
#[derive(Clone, Debug, Serialize)]
pub struct SagaStatus {
    pub id: SagaId,
    pub service: Arc<str>,
    pub name: Arc<str>,
    pub state: SagaState,
    /// Why it unwinds or unwound.
    pub reason: Option<Rejection>,
}

pub struct Sagas {}

impl Sagas {
    /// None if no such saga was ever started.
    pub async fn status(&self, _id: &str) -> Result<Option<SagaStatus>, CallError> {
        todo!()
    }

    /// The status when the saga has ended, or after `limit` as it stands then.
    pub async fn wait(&self, _id: &str, _limit: Duration) -> Result<Option<SagaStatus>, CallError> {
        todo!()
    }
}
