//! The last use of each token at this host. It is no truth, so it is not in the log: a file in the data
//! directory has it, which may be deleted at any time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
}

impl Uses {
    /// Returns the last uses, in milliseconds since 1970-01-01 UTC by the id of the token, and their file.
    pub(super) fn open(data: &Path, clock: SharedClock) -> (HashMap<String, u64>, Self) {
        let file = data.join(FILE);
        // Err: there is none, or it is damaged; then no use is known.
        let uses = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        (uses.unwrap_or_default(), Self { file, clock })
    }

    /// Writes the file once a minute.
    pub(super) async fn follow(self: Arc<Self>, tokens: Arc<Tokens>) {
        loop {
            self.clock.until(self.clock.now_ms().saturating_add(USE_STEP_MS)).await;
            self.write(&tokens).await;
        }
    }

    /// Writes the file.
    pub(super) async fn write(&self, tokens: &Tokens) {
        let (uses, file) = (tokens.uses(), self.file.clone());
        if uses.is_empty() {
            return;
        }
        // Err: the task has panicked, which it does not.
        let written = tokio::task::spawn_blocking(move || replace(&file, &uses)).await.unwrap_or(Ok(()));
        if let Err(error) = written {
            tracing::warn!(
                error = %Chain(&error),
                "failed to keep the last uses of tokens; a list may miss some after a restart"
            );
        }
    }
}

fn replace(file: &Path, uses: &HashMap<String, u64>) -> io::Result<()> {
    let text = serde_json::to_vec(uses)?;
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}
