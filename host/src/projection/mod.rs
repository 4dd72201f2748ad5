//! Read models: each service's own SQLite database, filled from the events that it subscribes to, in the
//! order of the log.
//!
//! *Invariant:* the rows that a component writes for a batch of events and the position of its last event are
//! committed together, so each event takes effect exactly once. *Invariant:* an event that cannot be applied
//! parks its stream, never the projection; a failure of the database parks nothing.

mod database;
mod database_set;
mod error;
mod files;
mod operate;
mod projector;
mod redrive;
mod runner;
mod standalone;
mod tables;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::SharedClock;
use crate::contract::ReadModel;
use crate::deployed::Components;
use crate::error::Chain;
use crate::garbage::{Collection, Garbage, collect_files};
use crate::log::EventLog;
use crate::model::{Position, ServiceName};
use crate::runtime::Component;
use crate::warning::Warning;

pub(crate) use database::Database;
use database_set::DatabaseSet;
pub use error::{AnswerError, Behind, OperateError, ProjectionsError, ReadModelError, Unusable};
use files::Name;
pub use operate::{Build, Overview, ParkedStream, Redrive};
use operate::{Building, MAX_REQUESTS, Request};
pub(crate) use runner::LiveReadModel;
use runner::Runner;
pub use standalone::Standalone;

/// The parts of a host that the read models use.
pub struct ProjectionDeps {
    /// The log that they are filled from.
    pub log: Arc<dyn EventLog>,
    /// The deployed components, and those before them.
    pub components: Arc<Components>,
    /// The clock that their lag is measured with.
    pub clock: SharedClock,
    /// The largest size of a read database in bytes. A projection that would exceed it stops.
    pub max_bytes: u64,
}

/// The read models of the deployed services.
pub struct Projections {
    /// By service.
    current: ArcSwap<BTreeMap<ServiceName, Arc<Projection>>>,
    dir: PathBuf,
    deps: ProjectionDeps,
    /// The tasks that fill the databases, by service. Locked while the deployed services are followed, so
    /// that no two tasks fill the same database.
    runners: Mutex<BTreeMap<ServiceName, JoinHandle<()>>>,
    /// Becomes true at shutdown.
    stopping: watch::Sender<bool>,
}

/// The read model of one service.
struct Projection {
    service: ServiceName,
    live: Arc<ArcSwap<LiveReadModel>>,
    building: Arc<ArcSwapOption<Building>>,
    position: watch::Receiver<Position>,
    requests: mpsc::Sender<Request>,
    warning: Arc<Warning>,
    /// Notified when a query waits for a position.
    hurry: Arc<Notify>,
}

impl Projections {
    /// Opens the read databases of the deployed services under `data`, and fills them from now on, each on a
    /// thread of its own. Must be called inside a tokio runtime.
    pub async fn start(data: &Path, deps: ProjectionDeps) -> Result<Self, ProjectionsError> {
        let projections = Self {
            current: ArcSwap::default(),
            dir: files::directory(data)?,
            deps,
            runners: Mutex::default(),
            stopping: watch::Sender::new(false),
        };
        projections.follow().await?;
        Ok(projections)
    }

    /// Brings the read models in line with the deployed services. The read model of a new version is built
    /// beside the one that queries ask. The databases of services that are not deployed any more stay as they
    /// are.
    pub async fn follow(&self) -> Result<(), ProjectionsError> {
        let mut runners = self.runners.lock().await;
        if *self.stopping.borrow() {
            return Ok(());
        }
        let deployed = self.deps.components.current();
        let before = self.current.load_full();
        let mut projections = BTreeMap::new();
        for component in deployed.services() {
            let service = &component.manifest().service;
            let projection = match (before.get(service), &component.manifest().read_model) {
                (Some(projection), _) => {
                    // Err: the queue is full; the runner looks for a deployment after each request anyway.
                    let _ = projection.requests.try_send(Request::Follow);
                    projection.clone()
                }
                (None, Some(model)) => {
                    if let Some(earlier) = runners.remove(service) {
                        join(earlier).await;
                    }
                    let (projection, runner) = self.open(component, model).await?;
                    runners.insert(service.clone(), runner);
                    Arc::new(projection)
                }
                (None, None) => continue,
            };
            projections.insert(service.clone(), projection);
        }
        // The runner of a service that is not deployed any more ends, because this drops the sender of its
        // requests.
        self.current.store(Arc::new(projections));
        Ok(())
    }

    async fn open(
        &self,
        component: &Component,
        model: &ReadModel,
    ) -> Result<(Projection, JoinHandle<()>), ProjectionsError> {
        let ProjectionDeps { log, components, clock, max_bytes } = &self.deps;
        let service = component.manifest().service.clone();
        let databases =
            DatabaseSet { dir: self.dir.clone(), service: service.clone(), max_bytes: *max_bytes };
        let opened = databases.open(component, model, &**log, Name::FIRST_GENERATION, components).await?;
        let (component, live) = &opened.live;
        components.pin_reader(&service, component.digest());
        let live = LiveReadModel { component: component.clone(), database: live.database.clone() };
        let (notify, position) = watch::channel(live.database.position());
        let live = Arc::new(ArcSwap::from_pointee(live));
        let building = Arc::<ArcSwapOption<Building>>::default();
        let (requests, requested) = mpsc::channel(MAX_REQUESTS);
        let hurry = Arc::<Notify>::default();
        let warning = Arc::new(Warning::new(format!("the read model of {service} gets no events")));
        let runner = Runner {
            databases,
            log: log.clone(),
            components: components.clone(),
            live: live.clone(),
            notify,
            building: building.clone(),
            clock: clock.clone(),
            requests: requested,
            followed: None,
            warning: warning.clone(),
            hurry: hurry.clone(),
        };
        let stop = self.stopping.subscribe();
        let runner = tokio::task::spawn_blocking(|| Handle::current().block_on(runner.run(opened, stop)));
        Ok((Projection { service, live, building, position, requests, warning, hurry }, runner))
    }

    /// Collects the databases of services that are not deployed any more. One that is deployed again has its
    /// read model filled again.
    pub(crate) async fn collect(&self, collection: Collection) -> io::Result<Garbage> {
        let mut runners = self.runners.lock().await;
        runners.retain(|_, runner| !runner.is_finished());
        let deployed = self.current.load();
        let services: Vec<_> = runners.keys().chain(deployed.keys()).collect();
        collect_files(&self.dir, collection, |file| {
            services.iter().any(|service| files::is_of(file, service.as_str()))
        })
    }

    /// Returns the current warnings, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.current.load().values().filter_map(|projection| projection.warning.sentence()).collect()
    }

    /// Returns the position of a service's read model, or `None` if it has none.
    pub fn position(&self, service: &str) -> Option<Position> {
        Some(*self.projection(service)?.position.borrow())
    }

    /// Fails if the read model of a service is not complete yet, or does not have a position. Returns the
    /// position that it has, or `at_least` if there is none: then the service is being deployed.
    pub fn check(&self, service: &str, at_least: Position) -> Result<Position, Behind> {
        self.projection(service).map_or(Ok(at_least), |projection| projection.check(at_least))
    }

    /// Waits until [`Projections::check`] passes, or `end` resolves.
    pub async fn wait(
        &self,
        service: &str,
        at_least: Position,
        end: impl Future<Output = ()>,
    ) -> Result<Position, Behind> {
        let Some(projection) = self.projection(service) else { return Ok(at_least) };
        if projection.check(at_least).is_err() {
            projection.hurry.notify_one();
        }
        let mut position = projection.position.clone();
        tokio::select! {
            biased;
            // Err: the runner has ended.
            _ = position.wait_for(|_| projection.check(at_least).is_ok()) => {}
            () = end => {}
        }
        projection.check(at_least)
    }

    /// Stops all projections and returns when none works any more. Their unfinished batches are rolled back;
    /// the next start applies them.
    pub async fn close(&self) {
        self.stopping.send_replace(true);
        for (_, runner) in std::mem::take(&mut *self.runners.lock().await) {
            join(runner).await;
        }
    }

    /// Returns the read model that queries of a service are answered from: of the deployed component, or of
    /// the one before it while the deployed one's read model is being built. `None` if the service has none.
    pub(crate) fn live(&self, deployed: &Component) -> Option<Arc<LiveReadModel>> {
        let live = self.projection(deployed.manifest().service.as_str())?.live.load_full();
        match &deployed.manifest().read_model {
            Some(model) if live.database.is_of(model) && live.component.digest() != deployed.digest() => {
                let database = live.database.clone();
                Some(Arc::new(LiveReadModel { component: deployed.clone(), database }))
            }
            _ => Some(live),
        }
    }

    fn projection(&self, service: &str) -> Option<Arc<Projection>> {
        self.current.load().get(service).cloned()
    }
}

impl Projection {
    fn check(&self, at_least: Position) -> Result<Position, Behind> {
        let at_least = at_least.max(self.live.load().database.complete_at());
        let reached = *self.position.borrow();
        if reached < at_least { Err(Behind { reached, at_least }) } else { Ok(reached) }
    }
}

/// Waits for the end of a runner.
async fn join(runner: JoinHandle<()>) {
    if let Err(error) = runner.await {
        tracing::error!(error = %Chain(&error), "projection panicked; its read model had stopped until now");
    }
}
