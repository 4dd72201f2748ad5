//! What keeps a part of messaging from its work: told in the log when it begins and when it ends, and on /readyz meanwhile.

use std::error::Error;
use std::sync::{Mutex, PoisonError};

use crate::error::with_causes;

/// A sentence; none if nothing is wrong.
pub(super) struct Trouble {
    /// What does not work then: "events are not published".
    what: String,
    told: Mutex<Option<String>>,
}

impl Trouble {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), told: Mutex::default() }
    }

    pub(super) fn told(&self) -> Option<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn keep(&self, error: &(dyn Error + 'static)) {
        let sentence = format!("{}: {}", self.what, with_causes(error));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&sentence) {
            tracing::warn!("{sentence}; the host goes on trying");
        }
        *told = Some(sentence);
    }

    pub(super) fn clear(&self) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("no longer: {}", self.what);
        }
    }
}
