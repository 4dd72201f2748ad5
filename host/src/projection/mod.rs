//! Fills the read models: each service's own SQLite database, from the events it subscribes to, in the order of the log.
//!
//! *Invariant:* what a component writes for a batch of events and the position of its last event are committed together,
//! so each event takes effect exactly once. *Invariant:* an event that cannot be applied parks its stream, never the
//! projection; trouble of the database parks nothing.

mod database;
mod files;
mod filling;
mod operate;
mod redrive;
mod runner;
mod shelf;
mod standalone;
mod tables;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::SharedClock;
use crate::contract::ReadModel;
use crate::deployed::Components;
use crate::log::EventLog;
use crate::model::{Position, ServiceName};
use crate::runtime::Component;

pub(crate) use database::Database;
pub use operate::{Build, Overview, ParkedStream, Redrive};
use operate::{Building, MAX_REQUESTS, Request};
pub(crate) use runner::Live;
use runner::Runner;
use shelf::Shelf;
pub use standalone::Standalone;

/// Why a read model cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionsError {
    #[error("SQLite does not take the schema of {service}'s read model")]
    Schema { service: ServiceName, source: rusqlite::Error },
    #[error("the read database {} cannot be used", file.display())]
    Database { file: PathBuf, source: rusqlite::Error },
    #[error("the directory {} cannot be used for read databases", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
}

/// The read models of the deployed services.
pub struct Projections {
    /// By service.
    current: ArcSwap<BTreeMap<ServiceName, Arc<Projection>>>,
    dir: PathBuf,
    log: Arc<dyn EventLog>,
    components: Arc<Components>,
    clock: SharedClock,
    /// By service. Held while what is deployed is followed, so that no two fill the same database.
    runners: Mutex<BTreeMap<ServiceName, JoinHandle<()>>>,
    /// Becomes true at shutdown.
    stopping: watch::Sender<bool>,
}

struct Projection {
    service: ServiceName,
    live: Arc<ArcSwap<Live>>,
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
    /// Opens the read databases of the deployed services under `data`, and fills them from now on, each on a thread of its
    /// own. To be called inside a tokio runtime.
    pub async fn start(
        data: &Path,
        log: Arc<dyn EventLog>,
        components: Arc<Components>,
        clock: SharedClock,
    ) -> Result<Self, ProjectionsError> {
        let projections = Self {
            current: ArcSwap::default(),
            dir: files::directory(data)?,
            log,
            components,
            clock,
            runners: Mutex::default(),
            stopping: watch::Sender::new(false),
        };
        projections.follow().await?;
        Ok(projections)
    }

    /// Has the read models follow what is deployed now. That of a new version of a service is built beside the one that
    /// queries ask, and those of services that are gone stay as they are.
    pub async fn follow(&self) -> Result<(), ProjectionsError> {
        let mut runners = self.runners.lock().await;
        if *self.stopping.borrow() {
            return Ok(());
        }
        let deployed = self.components.current();
        let before = self.current.load_full();
        let mut projections = BTreeMap::new();
        for component in deployed.services() {
            let service = &component.manifest().service;
            let projection = match (before.get(service), &component.manifest().read_model) {
                (Some(projection), _) => {
                    // Full: there is something else that it will wake up for.
                    let _ = projection.requests.try_send(Request::Follow);
                    projection.clone()
                }
                (None, Some(model)) => {
                    if let Some(earlier) = runners.remove(service) {
                        ended(earlier).await;
                    }
                    let (projection, runner) = self.open(component, model).await?;
                    runners.insert(service.clone(), runner);
                    Arc::new(projection)
                }
                (None, None) => continue,
            };
            projections.insert(service.clone(), projection);
        }
        // Who fills the read model of a service that is gone ends with nobody left to ask it.
        self.current.store(Arc::new(projections));
        Ok(())
    }

    async fn open(
        &self,
        component: &Component,
        model: &ReadModel,
    ) -> Result<(Projection, JoinHandle<()>), ProjectionsError> {
        let service = component.manifest().service.clone();
        let shelf = Shelf { dir: self.dir.clone(), service: service.clone() };
        let head = *self.log.head().borrow();
        let pair = shelf.open(component, model, head, 0, &self.components).await?;
        let (component, live) = &pair.live;
        self.components.pin_reader(&service, component.digest());
        let live = Live { component: component.clone(), database: live.database.clone() };
        let (tell, position) = watch::channel(live.database.position());
        let live = Arc::new(ArcSwap::from_pointee(live));
        let building = Arc::<ArcSwapOption<Building>>::default();
        let (requests, requested) = mpsc::channel(MAX_REQUESTS);
        let runner = Runner {
            shelf,
            log: self.log.clone(),
            components: self.components.clone(),
            live: live.clone(),
            tell,
            building: building.clone(),
            clock: self.clock.clone(),
            requests: requested,
            followed: None,
        };
        let stop = self.stopping.subscribe();
        let runner = tokio::task::spawn_blocking(|| Handle::current().block_on(runner.run(pair, stop)));
        Ok((Projection { service, live, building, position, requests }, runner))
    }

    /// How far the read model of a service is; none if it has none.
    pub fn position(&self, service: &str) -> Option<Position> {
        Some(*self.projection(service)?.position.borrow())
    }

    /// Waits until the read model of a service has a position, for `limit` at most.
    pub async fn wait(&self, service: &str, at_least: Position, limit: Duration) -> Result<Position, Behind> {
        let Some(projection) = self.projection(service) else {
            return Err(Behind { reached: Position::START });
        };
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
        for (_, runner) in std::mem::take(&mut *self.runners.lock().await) {
            ended(runner).await;
        }
    }

    /// What queries of a service's read model are answered from: of the deployed component, or of the one before it while the
    /// deployed one's read model is being built. None if the service has none.
    pub(crate) fn live(&self, deployed: &Component) -> Option<Arc<Live>> {
        let live = self.projection(deployed.manifest().service.as_str())?.live.load_full();
        match &deployed.manifest().read_model {
            Some(model) if live.database.is_of(model) && live.component.digest() != deployed.digest() => {
                let database = live.database.clone();
                Some(Arc::new(Live { component: deployed.clone(), database }))
            }
            _ => Some(live),
        }
    }

    fn projection(&self, service: &str) -> Option<Arc<Projection>> {
        self.current.load().get(service).cloned()
    }
}

async fn ended(runner: JoinHandle<()>) {
    if let Err(error) = runner.await {
        tracing::error!(%error, "a projection has panicked");
    }
}
