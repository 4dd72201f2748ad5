//! Keeps one read model filled: page by page of the log, through restarts after trouble, until shutdown.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};

use super::database::{Database, Opened, ProjectionsError, Writer};
use super::filling::{Filling, Unfilled};
use super::operate::{Building, Request};
use super::tables;
use crate::clock::SharedClock;
use crate::deploy::Registry;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Position, Recorded};
use crate::runtime::Component;

/// How long a projection rests after trouble with the disk or the log.
const REST: Duration = Duration::from_secs(1);

/// What keeps a service's read model filled.
pub(super) struct Runner {
    pub(super) dir: PathBuf,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) registry: Arc<Registry>,
    /// Where queries find the database.
    pub(super) database: Arc<ArcSwap<Database>>,
    pub(super) tell: watch::Sender<Position>,
    /// Where operators see what is being built.
    pub(super) building: Arc<ArcSwapOption<Building>>,
    pub(super) clock: SharedClock,
    pub(super) requests: mpsc::Receiver<Request>,
}

/// Why a database is not filled any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the log is closed")]
    LogClosed,
    #[error("the service has no read model any more")]
    NoReadModel,
    #[error(transparent)]
    Unfilled(#[from] Unfilled),
    #[error("the damaged read database cannot be removed")]
    Remove(#[from] io::Error),
    #[error(transparent)]
    Open(#[from] ProjectionsError),
    #[error(transparent)]
    Log(#[from] ReadError),
}

impl Runner {
    /// Fills the database until `stop` becomes true or nobody is left to say so. A batch under way then is undone, which is
    /// as good as never begun.
    pub(super) async fn run(mut self, component: Component, opened: Opened, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.keep_filling(component, opened) => {}
        }
    }

    async fn keep_filling(&mut self, mut component: Component, opened: Opened) {
        let service = component.manifest().service.clone();
        let mut opened = Ok(opened);
        loop {
            let ended = match opened {
                Ok(opened) => {
                    let Err(ended) = self.fill(component.clone(), opened).await;
                    ended
                }
                Err(error) => error,
            };
            match &ended {
                Ended::LogClosed => return,
                Ended::Unfilled(Unfilled::Replaced) => tracing::info!(%service, "{ended}"),
                trouble => {
                    tracing::error!(%service, error = trouble as &dyn std::error::Error, "a projection rests");
                    tokio::time::sleep(REST).await;
                }
            }
            let deployed = self.registry.current();
            let deployed =
                deployed.service(&service).filter(|deployed| deployed.manifest().read_model.is_some());
            if let Some(deployed) = deployed {
                component = deployed.clone();
            }
            opened = self.open(&component, matches!(ended, Ended::Unfilled(Unfilled::Damaged)));
        }
    }

    /// Opens the databases of a component's read model in the place of those that were filled so far.
    fn open(&self, component: &Component, anew: bool) -> Result<Opened, Ended> {
        let manifest = component.manifest();
        let model = manifest.read_model.as_ref().ok_or(Ended::NoReadModel)?;
        let before = self.database.load();
        if anew {
            before.discard()?;
        }
        let head = *self.log.head().borrow();
        Ok(Opened::open(&self.dir, &manifest.service, model, head, before.generation() + 1)?)
    }

    /// Fills the database that queries ask, and beside it the one that is to take its place: a page of each in turn.
    async fn fill(&mut self, component: Component, opened: Opened) -> Result<Infallible, Ended> {
        let mut live = self.feed(component.clone(), opened.live);
        self.show(&live);
        let mut building = opened.building.map(|building| self.feed(component.clone(), building));
        self.show_building(building.as_ref());
        loop {
            // The positions that queries see never go back.
            if let Some(built) = building.take_if(|built| built.filling.position >= live.filling.position) {
                live = self.swap(live, built)?;
                self.show_building(None);
            }
            tokio::select! {
                page = live.subscription.next() => {
                    self.apply(&mut live, page).await?;
                    self.tell.send_replace(live.filling.position);
                }
                page = next_page(&mut building) => {
                    let Some(feed) = &mut building else { continue };
                    match self.apply(feed, page).await {
                        Ok(()) => {}
                        Err(Ended::Unfilled(error)) => {
                            let service = &component.manifest().service;
                            let error = &error as &dyn std::error::Error;
                            tracing::error!(%service, error, "building the read model anew is given up");
                            // Err: the next build removes it.
                            let _ = feed.filling.database.discard();
                            building = None;
                            self.show_building(None);
                        }
                        // The live one comes upon it too, and what is built so far is gone on with.
                        Err(ended) => return Err(ended),
                    }
                }
                () = live.filling.database.damaged() => return Err(Unfilled::Damaged.into()),
                Some(request) = self.requests.recv() => match request {
                    Request::Redrive { stream, answer } => {
                        self.follow(&mut live.filling)?;
                        let redriven = live.filling.redrive(&*self.log, stream.as_ref()).await?;
                        live.filling.advance();
                        // Err: nobody waits for it any more.
                        let _ = answer.send(redriven);
                    }
                    Request::Replay { answer } => {
                        let begun = building.is_none();
                        if begun {
                            let service = &component.manifest().service;
                            let made = live.filling.database.build_beside(service)?;
                            building = Some(self.feed(live.filling.component.clone(), made));
                            self.show_building(building.as_ref());
                        }
                        let _ = answer.send(begun);
                    }
                },
            }
        }
    }

    fn feed(&self, component: Component, (database, writer): (Arc<Database>, Writer)) -> Feed {
        let subscription = Subscription::in_batches(self.log.clone(), writer.position);
        Feed { subscription, filling: Filling::new(database, component, writer) }
    }

    async fn apply(
        &self,
        feed: &mut Feed,
        page: Result<Option<Vec<Recorded>>, ReadError>,
    ) -> Result<(), Ended> {
        let page = page?.ok_or(Ended::LogClosed)?;
        self.follow(&mut feed.filling)?;
        feed.filling.apply(page).await?;
        feed.filling.advance();
        Ok(())
    }

    /// Puts a database that has caught up in the place of the live one. From the commit on, a start takes it too.
    fn swap(&self, live: Feed, mut built: Feed) -> Result<Feed, Unfilled> {
        built.filling.look_up(|connection| tables::set_building(connection, false))?;
        self.show(&built);
        live.filling.database.retire();
        tracing::info!(service = %built.filling.component.manifest().service, "a read model has been built anew");
        Ok(built)
    }

    fn show(&self, live: &Feed) {
        self.database.store(live.filling.database.clone());
        self.tell.send_replace(live.filling.position);
    }

    fn show_building(&self, building: Option<&Feed>) {
        self.building.store(building.map(|feed| {
            let database = feed.filling.database.clone();
            Arc::new(Building { from: database.position(), database, since_ms: self.clock.now_ms() })
        }));
    }

    /// Has the events applied by what is deployed now.
    fn follow(&self, filling: &mut Filling) -> Result<(), Unfilled> {
        let deployed = self.registry.current();
        let deployed = deployed.service(&filling.component.manifest().service);
        deployed.map_or(Ok(()), |deployed| filling.follow(deployed))
    }
}

/// A database with what it is filled from.
struct Feed {
    subscription: Subscription,
    filling: Filling,
}

/// Never resolves if nothing is being built.
async fn next_page(building: &mut Option<Feed>) -> Result<Option<Vec<Recorded>>, ReadError> {
    match building {
        Some(feed) => feed.subscription.next().await,
        None => pending().await,
    }
}
