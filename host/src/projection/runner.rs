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
use super::filling::{Filling, Unfilled};
use super::operate::{Building, Request};
use super::shelf::{Opened, Pair, Shelf};
use super::tables::{Beginning, Role};
use crate::clock::SharedClock;
use crate::deployed::Components;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Digest, Position, Recorded};
use crate::runtime::Component;

/// How long a projection rests after trouble with the disk or the log.
const REST: Duration = Duration::from_secs(1);

/// What queries of a read model are answered from.
pub(crate) struct Live {
    pub(crate) component: Component,
    pub(crate) database: Arc<Database>,
}

/// What keeps a service's read model filled.
pub(super) struct Runner {
    pub(super) shelf: Shelf,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) components: Arc<Components>,
    /// Where queries find it.
    pub(super) live: Arc<ArcSwap<Live>>,
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
pub(super) enum Ended {
    #[error("the log is closed")]
    LogClosed,
    #[error("the service is not deployed any more")]
    Undeployed,
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
    /// Fills the databases until `stop` becomes true or nobody is left to say so. A batch under way then is undone, which is
    /// as good as never begun.
    pub(super) async fn run(mut self, pair: Pair, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.keep_filling(pair) => {}
        }
    }

    async fn keep_filling(&mut self, pair: Pair) {
        let mut opened = Ok(pair);
        loop {
            let ended = match opened {
                Ok(pair) => {
                    let Err(ended) = self.fill(pair).await;
                    ended
                }
                Err(error) => error,
            };
            if let Ended::LogClosed | Ended::Undeployed = ended {
                return;
            }
            let service = &self.shelf.service;
            tracing::error!(%service, error = &ended as &dyn Error, "a projection rests");
            tokio::time::sleep(REST).await;
            opened = self.open(matches!(ended, Ended::Unfilled(Unfilled::Damaged))).await;
        }
    }

    /// Opens the databases again. `anew`: the live one is damaged.
    async fn open(&self, anew: bool) -> Result<Pair, Ended> {
        let before = self.live.load();
        if anew {
            before.database.discard()?;
        }
        let component = self.deployed().unwrap_or_else(|| before.component.clone());
        let model = component.manifest().read_model.as_ref().ok_or(Ended::Undeployed)?;
        let (head, fresh) = (*self.log.head().borrow(), before.database.name().generation + 1);
        Ok(self.shelf.open(&component, model, head, fresh, &self.components).await?)
    }

    /// The component that is deployed now, if it has a read model. If it has none, nobody will ask for this one, and the
    /// version before keeps it for a rollback.
    fn deployed(&self) -> Option<Component> {
        let deployed = self.components.current();
        let component = deployed.service(self.shelf.service.as_str())?;
        component.manifest().read_model.as_ref()?;
        Some(component.clone())
    }

    /// Fills the database that queries ask, and beside it the one that is to take its place: a page of each in turn.
    async fn fill(&mut self, Pair { live, building }: Pair) -> Result<Infallible, Ended> {
        let mut live = self.feed(live);
        let mut building = building.map(|building| self.feed(building));
        self.show(&live);
        self.show_building(building.as_ref());
        self.followed = None;
        loop {
            self.follow(&mut live, &mut building)?;
            // The positions that queries see never go back.
            if let Some(built) = building.take_if(|built| built.filling.position >= live.filling.position) {
                live = self.swap(live, built)?;
            }
            tokio::select! {
                page = live.subscription.next() => {
                    live.apply(page).await?;
                    self.tell.send_replace(live.filling.position);
                }
                page = next_page(&mut building) => {
                    let Some(feed) = &mut building else { continue };
                    match feed.apply(page).await {
                        Err(Ended::Unfilled(error)) => self.give_up(&mut building, &error),
                        // The live one comes upon it too, and what is built so far is gone on with.
                        applied => applied?,
                    }
                }
                () = live.filling.database.damaged() => return Err(Unfilled::Damaged.into()),
                request = self.requests.recv() => match request.ok_or(Ended::Undeployed)? {
                    Request::Follow => {}
                    Request::Redrive { stream, answer } => {
                        let redriven = live.filling.redrive(&*self.log, stream.as_ref()).await?;
                        live.filling.advance();
                        // Err: nobody waits for it any more.
                        let _ = answer.send(redriven);
                    }
                    Request::Replay { beginning, answer } => {
                        let begun = building.is_none();
                        if begun {
                            let component = self.deployed().unwrap_or_else(|| live.filling.component.clone());
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
    fn follow(&mut self, live: &mut Feed, building: &mut Option<Feed>) -> Result<(), Ended> {
        let Some(deployed) = self.deployed().filter(|deployed| self.followed != Some(deployed.digest()))
        else {
            return Ok(());
        };
        self.followed = Some(deployed.digest());
        let model = deployed.manifest().read_model.as_ref();
        let fits = |feed: &Feed| model.is_some_and(|model| feed.filling.database.is_of(model));
        let is_live = fits(live);
        if is_live {
            live.filling.hand_over(&deployed)?;
            self.show(live);
        }
        match building {
            Some(feed) if fits(feed) => feed.filling.hand_over(&deployed)?,
            _ => {
                if let Some(other) = building.take() {
                    tracing::info!(service = %self.shelf.service, "the read model that was being built is not deployed any more");
                    other.filling.database.discard()?;
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
    fn build(&self, component: Component, anew: Option<Beginning>) -> Result<Feed, Ended> {
        let model = component.manifest().read_model.as_ref().ok_or(Ended::Undeployed)?;
        let opened = match anew {
            Some(beginning) => self.shelf.make(model, Role::Building, component.digest(), 0, beginning)?,
            None => self.shelf.build(model, component.digest(), *self.log.head().borrow())?,
        };
        tracing::info!(service = %self.shelf.service, version = model.version, "a read model is being built");
        Ok(self.feed((component, opened)))
    }

    /// Lets go of what was being built. It is tried again with the next version that is deployed, or when somebody asks for
    /// it.
    fn give_up(&self, building: &mut Option<Feed>, error: &Unfilled) {
        self.say_given_up(error);
        if let Some(given_up) = building.take() {
            // Err: the next start removes it.
            let _ = given_up.filling.database.discard();
        }
        self.show_building(None);
    }

    fn say_given_up(&self, error: &(dyn Error + 'static)) {
        tracing::error!(service = %self.shelf.service, error, "building a read model is given up");
    }

    fn feed(&self, (component, opened): (Component, Opened)) -> Feed {
        let subscription = Subscription::in_batches(self.log.clone(), opened.writer.position);
        Feed { subscription, filling: Filling::new(component, opened) }
    }

    /// Puts a database that has caught up in the place of the live one. From the first line on, a start takes it too.
    fn swap(&self, mut live: Feed, mut built: Feed) -> Result<Feed, Ended> {
        built.filling.assign(Role::Live)?;
        self.show_building(None);
        self.show(&built);
        let [new, old] = [&built, &live].map(|feed| feed.filling.database.name());
        if new.version == old.version {
            live.filling.database.retire();
        } else {
            live.filling.assign(Role::Kept)?;
            self.shelf.retain(&[new, old])?;
        }
        tracing::info!(service = %self.shelf.service, version = new.version, "a read model has been built");
        Ok(built)
    }

    fn show(&self, live: &Feed) {
        let Filling { component, database, position, .. } = &live.filling;
        self.components.pin_reader(&self.shelf.service, component.digest());
        self.live.store(Arc::new(Live { component: component.clone(), database: database.clone() }));
        self.tell.send_replace(*position);
    }

    fn show_building(&self, building: Option<&Feed>) {
        self.building.store(building.map(|feed| {
            let database = feed.filling.database.clone();
            Arc::new(Building { from: database.position(), database, since_ms: self.clock.now_ms() })
        }));
    }
}

/// A database with what it is filled from.
struct Feed {
    subscription: Subscription,
    filling: Filling,
}

impl Feed {
    async fn apply(&mut self, page: Result<Option<Vec<Recorded>>, ReadError>) -> Result<(), Ended> {
        self.filling.apply(page?.ok_or(Ended::LogClosed)?).await?;
        self.filling.advance();
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
