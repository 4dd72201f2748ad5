//! The warnings of parts of the host: logged when they begin and when they end, and shown on /readyz in
//! between.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::with_causes;

/// The warning of one part of the host, which is a sentence while the part cannot work.
pub(crate) struct Warning {
    /// The consequence of a failure: "events are not published".
    consequence: String,
    sentence: Mutex<Option<String>>,
}

impl Warning {
    pub(crate) fn new(consequence: impl Into<String>) -> Self {
        Self { consequence: consequence.into(), sentence: Mutex::default() }
    }

    /// Returns the sentence, or none if the part works.
    pub(crate) fn sentence(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Begins the warning, or replaces its cause.
    pub(crate) fn set(&self, error: &(dyn Error + 'static)) {
        let new = format!("{}: {}", self.consequence, with_causes(error));
        let mut sentence = self.lock();
        if sentence.as_ref() != Some(&new) {
            tracing::warn!("{new}; the host keeps trying");
        }
        *sentence = Some(new);
    }

    /// Begins the warning, or ends it, by the outcome of an attempt.
    pub(crate) fn show<E: Error + 'static>(&self, outcome: Result<(), E>) {
        match outcome {
            Ok(()) => self.clear(),
            Err(error) => self.set(&error),
        }
    }

    /// Ends the warning.
    pub(crate) fn clear(&self) {
        if self.lock().take().is_some() {
            tracing::info!("no longer: {}", self.consequence);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.sentence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
