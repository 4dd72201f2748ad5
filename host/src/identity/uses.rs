//! The last use of each token at this host. It is no truth, so it is not in the log: a file in the data
//! directory has it, which may be deleted at any time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use super::tokens::{Tokens, USE_STEP_MS};
use crate::clock::SharedClock;
use crate::error::Chain;

/// The name of the file.
const FILE: &str = "token-uses.json";

/// The file with the last uses.
pub(super) struct Uses {
    file: PathBuf,
    clock: SharedClock,
    /// The uses that the file has.
    written: Mutex<HashMap<String, u64>>,
}

impl Uses {
    /// Returns the last uses, in milliseconds since 1970-01-01 UTC by the id of the token, and their file.
    pub(super) fn open(data: &Path, clock: SharedClock) -> (HashMap<String, u64>, Self) {
        let file = data.join(FILE);
        // Err: there is none, or it is damaged; then no use is known.
        let uses = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let uses: HashMap<String, u64> = uses.unwrap_or_default();
        (uses.clone(), Self { file, clock, written: Mutex::new(uses) })
    }

    /// Writes the file once a minute, if a token was used.
    pub(super) async fn follow(self: Arc<Self>, tokens: Arc<Tokens>) {
        loop {
            self.clock.until(self.clock.now_ms().saturating_add(USE_STEP_MS)).await;
            self.write(&tokens).await;
        }
    }

    /// Writes the file, unless it has these uses already.
    pub(super) async fn write(self: &Arc<Self>, tokens: &Tokens) {
        let (file, uses) = (self.clone(), tokens.uses());
        // Err: the task has panicked, which it does not.
        let replaced = tokio::task::spawn_blocking(move || file.replace(uses)).await.unwrap_or(Ok(()));
        if let Err(error) = replaced {
            tracing::warn!(
                error = %Chain(&error),
                "failed to keep the last uses of tokens; a list may miss some after a restart"
            );
        }
    }

    fn replace(&self, uses: HashMap<String, u64>) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if uses == *written {
            return Ok(());
        }
        let new = self.file.with_extension("new");
        fs::write(&new, serde_json::to_vec(&uses)?)?;
        fs::rename(new, &self.file)?;
        *written = uses;
        Ok(())
    }
}
