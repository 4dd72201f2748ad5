//! Fills the read models: each service's own SQLite database, from the events it subscribes to, in the order of the log.
//!
//! *Invariant:* what a component writes for a batch of events and the position of its last event are committed together,
//! so each event takes effect exactly once. *Invariant:* an event that cannot be applied parks its stream, never the
//! projection; trouble of the database parks nothing.

mod database;
mod filling;
mod operate;
mod redrive;
mod runner;
mod standalone;
mod tables;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::SharedClock;
use crate::deploy::Registry;
use crate::log::EventLog;
use crate::manifest::ReadModel;
use crate::model::Position;

pub(crate) use database::Database;
use database::Opened;
pub use database::ProjectionsError;
pub use operate::{Build, Overview, ParkedStream, Redrive};
use operate::{Building, MAX_REQUESTS, Request};
use runner::Runner;
pub use standalone::Standalone;

/// The read models of the services that ran when this was started.
pub struct Projections {
    /// By service.
    projections: HashMap<Arc<str>, Projection>,
    log: Arc<dyn EventLog>,
    clock: SharedClock,
    runners: Mutex<Vec<JoinHandle<()>>>,
    /// Becomes true at shutdown.
    stopping: watch::Sender<bool>,
}

struct Projection {
    database: Arc<ArcSwap<Database>>,
    building: Arc<ArcSwapOption<Building>>,
    position: watch::Receiver<Position>,
    requests: mpsc::Sender<Request>,
}

/// A read model did not get as far as it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read model is at position {reached}")]
pub struct Behind {
    pub reached: Position,
}

impl Projections {
    /// Opens the read databases of the running services under `data`, and fills them from now on, each on a thread of its
    /// own. To be called inside a tokio runtime.
    pub fn start(
        data: &Path,
        log: Arc<dyn EventLog>,
        registry: Arc<Registry>,
        clock: SharedClock,
    ) -> Result<Self, ProjectionsError> {
        let dir = database::directory(data)?;
        let mut projections = HashMap::new();
        let mut opened = Vec::new();
        for component in registry.current().services() {
            let service = &component.manifest().service;
            let Some(model) = &component.manifest().read_model else { continue };
            let databases = Opened::open(&dir, service, model, *log.head().borrow(), 0)?;
            let (live, writer) = &databases.live;
            let database = Arc::new(ArcSwap::new(live.clone()));
            let building = Arc::<ArcSwapOption<Building>>::default();
            let (tell, position) = watch::channel(writer.position);
            let (requests, requested) = mpsc::channel(MAX_REQUESTS);
            let (asked, shown) = (database.clone(), building.clone());
            let projection = Projection { database: asked, building: shown, position, requests };
            projections.insert(service.clone(), projection);
            let runner = Runner {
                dir: dir.clone(),
                log: log.clone(),
                registry: registry.clone(),
                database,
                tell,
                building,
                clock: clock.clone(),
                requests: requested,
            };
            opened.push((runner, component.clone(), databases));
        }
        let (stopping, stop) = watch::channel(false);
        let threads = opened.into_iter().map(|(runner, component, databases)| {
            let stop = stop.clone();
            tokio::task::spawn_blocking(|| Handle::current().block_on(runner.run(component, databases, stop)))
        });
        let runners = Mutex::new(threads.collect());
        Ok(Self { projections, log, clock, runners, stopping })
    }

    /// How far the read model of a service is; none if it has none.
    pub fn position(&self, service: &str) -> Option<Position> {
        self.projections.get(service).map(|projection| *projection.position.borrow())
    }

    /// Waits until the read model of a service has a position, for `limit` at most.
    pub async fn wait(&self, service: &str, at_least: Position, limit: Duration) -> Result<Position, Behind> {
        let Some(projection) = self.projections.get(service) else { return Err(Behind { reached: 0 }) };
        let mut position = projection.position.clone();
        let waited = tokio::time::timeout(limit, position.wait_for(|position| *position >= at_least)).await;
        match waited {
            Ok(Ok(position)) => Ok(*position),
            // The time is over, or the runner has ended.
            Err(_) | Ok(Err(_)) => Err(Behind { reached: *projection.position.borrow() }),
        }
    }

    /// Applies no more events, and returns when nothing is under way. What was under way is undone; after a restart it comes
    /// again.
    pub async fn close(&self) {
        self.stopping.send_replace(true);
        let runners = std::mem::take(&mut *self.runners.lock().unwrap_or_else(PoisonError::into_inner));
        for runner in runners {
            if let Err(error) = runner.await {
                tracing::error!(%error, "a projection has panicked");
            }
        }
    }

    /// The database for queries of that read model; none if another one is being filled for the service.
    pub(crate) fn database(&self, service: &str, model: &ReadModel) -> Option<Arc<Database>> {
        let database = self.projections.get(service)?.database.load_full();
        database.is_of(model).then_some(database)
    }
}
