//! Keeps one read model filled: page by page of the log, through restarts after trouble, until shutdown.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};

use super::ProjectionsError;
use super::database::Database;
use super::database_set::{DatabaseSet, LiveAndNext, Opened};
use super::operate::{Building, Request};
use super::projector::{ProjectError, Projector};
use super::tables::{Beginning, Role};
use crate::clock::SharedClock;
use crate::deployed::Components;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Digest, Position, Recorded};
use crate::runtime::Component;

/// How long a projection rests after trouble with the disk or the log.
const REST: Duration = Duration::from_secs(1);

/// What queries of a read model are answered from.
pub(crate) struct LiveReadModel {
    pub(crate) component: Component,
    pub(crate) database: Arc<Database>,
}

/// What keeps a service's read model filled.
pub(super) struct Runner {
    pub(super) databases: DatabaseSet,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) components: Arc<Components>,
    /// Where queries find it.
    pub(super) live: Arc<ArcSwap<LiveReadModel>>,
    pub(super) tell: watch::Sender<Position>,
    /// Where operators see what is being built.
    pub(super) building: Arc<ArcSwapOption<Building>>,
    pub(super) clock: SharedClock,
    pub(super) requests: mpsc::Receiver<Request>,
    /// The deployed component that was looked at last.
    pub(super) followed: Option<Digest>,
}

/// Why a database is not filled any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum StopReason {
    #[error("the log is closed")]
    LogClosed,
    #[error("the service is not deployed any more")]
    Undeployed,
    #[error(transparent)]
    Projector(#[from] ProjectError),
    #[error("the damaged read database cannot be removed")]
    Remove(#[from] io::Error),
    #[error(transparent)]
    Open(#[from] ProjectionsError),
    #[error(transparent)]
    Log(#[from] ReadError),
}

impl Runner {
    /// Fills the databases until `stop` becomes true or nobody is left to say so. A batch under way then is undone, which is
    /// as good as never begun.
    pub(super) async fn run(mut self, pair: LiveAndNext, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.keep_filling(pair) => {}
        }
    }

    async fn keep_filling(&mut self, pair: LiveAndNext) {
        let mut opened = Ok(pair);
        loop {
            let reason = match opened {
                Ok(pair) => {
                    let Err(reason) = self.fill(pair).await;
                    reason
                }
                Err(error) => error,
            };
            if let StopReason::LogClosed | StopReason::Undeployed = reason {
                return;
            }
            let service = &self.databases.service;
            tracing::error!(%service, error = &reason as &dyn Error, "a projection rests");
            tokio::time::sleep(REST).await;
            opened = self.open(matches!(reason, StopReason::Projector(ProjectError::Damaged))).await;
        }
    }

    /// Opens the databases again. `anew`: the live one is damaged.
    async fn open(&self, anew: bool) -> Result<LiveAndNext, StopReason> {
        let before = self.live.load();
        if anew {
            before.database.discard()?;
        }
        let component = self.deployed().unwrap_or_else(|| before.component.clone());
        let model = component.manifest().read_model.as_ref().ok_or(StopReason::Undeployed)?;
        let (head, fresh) = (*self.log.head().borrow(), before.database.name().generation + 1);
        Ok(self.databases.open(&component, model, head, fresh, &self.components).await?)
    }

    /// The component that is deployed now, if it has a read model. If it has none, nobody will ask for this one, and the
    /// version before keeps it for a rollback.
    fn deployed(&self) -> Option<Component> {
        let deployed = self.components.current();
        let component = deployed.service(&self.databases.service)?;
        component.manifest().read_model.as_ref()?;
        Some(component.clone())
    }

    /// Fills the database that queries ask, and beside it the one that is to take its place: a page of each in turn.
    async fn fill(&mut self, LiveAndNext { live, building }: LiveAndNext) -> Result<Infallible, StopReason> {
        let mut live = self.feed(live);
        let mut building = building.map(|building| self.feed(building));
        self.show(&live);
        self.show_building(building.as_ref());
        self.followed = None;
        loop {
            self.follow(&mut live, &mut building)?;
            // The positions that queries see never go back.
            if let Some(built) = building.take_if(|built| built.projector.position >= live.projector.position)
            {
                live = self.swap(live, built)?;
            }
            tokio::select! {
                page = live.subscription.next() => {
                    live.apply(page).await?;
                    self.tell.send_replace(live.projector.position);
                }
                page = next_page(&mut building) => {
                    let Some(feed) = &mut building else { continue };
                    match feed.apply(page).await {
                        Err(StopReason::Projector(error)) => self.give_up(&mut building, &error),
                        // The live one comes upon it too, and what is built so far is gone on with.
                        applied => applied?,
                    }
                }
                () = live.projector.database.damaged() => return Err(ProjectError::Damaged.into()),
                request = self.requests.recv() => match request.ok_or(StopReason::Undeployed)? {
                    Request::Follow => {}
                    Request::Redrive { stream, answer } => {
                        let redriven = live.projector.redrive(&*self.log, stream.as_ref()).await?;
                        live.projector.advance();
                        // Err: nobody waits for it any more.
                        let _ = answer.send(redriven);
                    }
                    Request::Replay { beginning, answer } => {
                        let begun = building.is_none();
                        if begun {
                            let component = self.deployed().unwrap_or_else(|| live.projector.component.clone());
                            building = Some(self.build(component, Some(beginning))?);
                            self.show_building(building.as_ref());
                        }
                        let _ = answer.send(begun);
                    }
                },
            }
        }
    }

    /// Has the events applied by what is deployed now. If that has another read model, it is built beside the live one, which
    /// stays with the component that it belongs to.
    fn follow(&mut self, live: &mut Feed, building: &mut Option<Feed>) -> Result<(), StopReason> {
        let Some(deployed) = self.deployed().filter(|deployed| self.followed != Some(deployed.digest()))
        else {
            return Ok(());
        };
        self.followed = Some(deployed.digest());
        let model = deployed.manifest().read_model.as_ref();
        let fits = |feed: &Feed| model.is_some_and(|model| feed.projector.database.is_of(model));
        let is_live = fits(live);
        if is_live {
            live.projector.hand_over(&deployed)?;
            self.show(live);
        }
        match building {
            Some(feed) if fits(feed) => feed.projector.hand_over(&deployed)?,
            _ => {
                if let Some(other) = building.take() {
                    tracing::info!(service = %self.databases.service, "the read model that was being built is not deployed any more");
                    other.projector.database.discard()?;
                }
                if !is_live {
                    // What queries ask goes on whatever is in the way.
                    let built = self.build(deployed, None);
                    *building = built.map_err(|error| self.say_given_up(&error)).ok();
                }
                self.show_building(building.as_ref());
            }
        }
        Ok(())
    }

    /// Begins to build the read model of a component. `anew`: from there on, whatever there is.
    fn build(&self, component: Component, anew: Option<Beginning>) -> Result<Feed, StopReason> {
        let model = component.manifest().read_model.as_ref().ok_or(StopReason::Undeployed)?;
        let opened = match anew {
            Some(beginning) => {
                self.databases.make(model, Role::Building, component.digest(), 0, beginning)?
            }
            None => self.databases.build(model, component.digest(), *self.log.head().borrow())?,
        };
        tracing::info!(service = %self.databases.service, version = model.version, "a read model is being built");
        Ok(self.feed((component, opened)))
    }

    /// Lets go of what was being built. It is tried again with the next version that is deployed, or when somebody asks for
    /// it.
    fn give_up(&self, building: &mut Option<Feed>, error: &ProjectError) {
        self.say_given_up(error);
        if let Some(given_up) = building.take() {
            // Err: the next start removes it.
            let _ = given_up.projector.database.discard();
        }
        self.show_building(None);
    }

    fn say_given_up(&self, error: &(dyn Error + 'static)) {
        tracing::error!(service = %self.databases.service, error, "building a read model is given up");
    }

    fn feed(&self, (component, opened): (Component, Opened)) -> Feed {
        let subscription = Subscription::in_batches(self.log.clone(), opened.writer.position);
        Feed { subscription, projector: Projector::new(component, opened) }
    }

    /// Puts a database that has caught up in the place of the live one. From the first line on, a start takes it too.
    fn swap(&self, mut live: Feed, mut built: Feed) -> Result<Feed, StopReason> {
        built.projector.assign(Role::Live)?;
        self.show_building(None);
        self.show(&built);
        let [new, old] = [&built, &live].map(|feed| feed.projector.database.name());
        if new.version == old.version {
            live.projector.database.retire();
        } else {
            live.projector.assign(Role::Kept)?;
            self.databases.retain(&[new, old])?;
        }
        tracing::info!(service = %self.databases.service, version = new.version, "a read model has been built");
        Ok(built)
    }

    fn show(&self, live: &Feed) {
        let Projector { component, database, position, .. } = &live.projector;
        self.components.pin_reader(&self.databases.service, component.digest());
        self.live.store(Arc::new(LiveReadModel { component: component.clone(), database: database.clone() }));
        self.tell.send_replace(*position);
    }

    fn show_building(&self, building: Option<&Feed>) {
        self.building.store(building.map(|feed| {
            let database = feed.projector.database.clone();
            Arc::new(Building { from: database.position(), database, since_ms: self.clock.now_ms() })
        }));
    }
}

/// A database with what it is filled from.
struct Feed {
    subscription: Subscription,
    projector: Projector,
}

impl Feed {
    async fn apply(&mut self, page: Result<Option<Vec<Recorded>>, ReadError>) -> Result<(), StopReason> {
        self.projector.apply(page?.ok_or(StopReason::LogClosed)?).await?;
        self.projector.advance();
        Ok(())
    }
}

/// Never resolves if nothing is being built.
async fn next_page(building: &mut Option<Feed>) -> Result<Option<Vec<Recorded>>, ReadError> {
    match building {
        Some(feed) => feed.subscription.next().await,
        None => pending().await,
    }
}
