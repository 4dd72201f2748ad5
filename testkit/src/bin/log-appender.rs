//! A process for a test to kill: appends to the log in the given directory until it is killed, and prints the
//! id of each acknowledged command on a line.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use kontor::log::EmbeddedLog;
use kontor_testkit::log::work;
use tokio::task::JoinSet;

/// Enough for groups of several appends.
const WORKERS: usize = 32;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = std::env::args().nth(1).ok_or("usage: log-appender <directory>")?;
    let log = Arc::new(EmbeddedLog::open(Path::new(&dir))?);
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let log = log.clone();
        workers.spawn(async move {
            work(&*log, &worker.to_string(), usize::MAX, |command| println!("{command}")).await
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}
