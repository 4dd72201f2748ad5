//! The runner of one read model: applies page by page of the log, through restarts after failures, until
//! shutdown.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::ProjectionsError;
use super::database::Database;
use super::database_set::{DatabaseSet, LiveAndNext, Opened};
use super::files::Name;
use super::operate::{Building, Request};
use super::projector::{ProjectError, Projector};
use super::tables::{Beginning, Role};
use crate::clock::{SharedClock, deadline_after};
use crate::deployed::Components;
use crate::error::Chain;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Digest, Position, Recorded};
use crate::runtime::Component;
use crate::warning::Warning;

/// The time between two transactions of a projection for which nobody waits: under load, each has the
/// events of many commits.
const LINGER: Duration = Duration::from_millis(10);
/// The pause of a projection after a failure of the disk or the log.
const PAUSE: Duration = Duration::from_secs(1);

/// The component and the database that queries of a read model are answered from.
pub(crate) struct LiveReadModel {
    pub(crate) component: Component,
    pub(crate) database: Arc<Database>,
}

/// Keeps a service's read model filled.
pub(super) struct Runner {
    pub(super) databases: DatabaseSet,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) components: Arc<Components>,
    /// The read model that queries find.
    pub(super) live: Arc<ArcSwap<LiveReadModel>>,
    /// Notifies waiting queries of the live position.
    pub(super) notify: watch::Sender<Position>,
    /// The build that operators see.
    pub(super) building: Arc<ArcSwapOption<Building>>,
    pub(super) clock: SharedClock,
    pub(super) requests: mpsc::Receiver<Request>,
    /// The deployed component that was followed last.
    pub(super) followed: Option<Digest>,
    /// Set while the databases cannot be filled.
    pub(super) warning: Arc<Warning>,
    /// Notified when a query waits for a position.
    pub(super) hurry: Arc<Notify>,
}

/// The reason why the databases are not filled any further.
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
    /// Fills the databases until `stop` becomes true or its sender is dropped. That rolls the unfinished
    /// batch back, as if it had never begun.
    pub(super) async fn run(mut self, opened: LiveAndNext, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            // Err: the sender is dropped, which means the same.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.keep_filled(opened) => {}
        }
    }

    async fn keep_filled(&mut self, opened: LiveAndNext) {
        let mut opened = Ok(opened);
        loop {
            let reason = match opened {
                Ok(opened) => {
                    let Err(reason) = self.fill(opened).await;
                    reason
                }
                Err(reason) => reason,
            };
            if let StopReason::LogClosed | StopReason::Undeployed = reason {
                return;
            }
            self.warning.set(&reason);
            tokio::time::sleep(PAUSE).await;
            opened = match reason {
                StopReason::Projector(ProjectError::Damaged) => self.recreate().await,
                _ => self.reopen().await,
            };
        }
    }

    /// Removes the live database, which is damaged, and opens the databases again.
    async fn recreate(&self) -> Result<LiveAndNext, StopReason> {
        self.live.load().database.discard()?;
        self.reopen().await
    }

    /// Opens the databases again.
    async fn reopen(&self) -> Result<LiveAndNext, StopReason> {
        let before = self.live.load();
        let component = self.deployed().unwrap_or_else(|| before.component.clone());
        let model = component.manifest().read_model.as_ref().ok_or(StopReason::Undeployed)?;
        let min_generation = before.database.name().generation + 1;
        Ok(self.databases.open(&component, model, &*self.log, min_generation, &self.components).await?)
    }

    /// Returns the component that is deployed now, if it has a read model. If it has none, this one is not
    /// asked any more, and the component before keeps it for a rollback.
    fn deployed(&self) -> Option<Component> {
        let deployed = self.components.current();
        let component = deployed.service(self.databases.service.as_str())?;
        component.manifest().read_model.as_ref()?;
        Some(component.clone())
    }

    /// Fills the database that queries ask, and beside it the one that will replace it: a page of each in
    /// turn.
    async fn fill(&mut self, LiveAndNext { live, next }: LiveAndNext) -> Result<Infallible, StopReason> {
        let mut live = self.feed(live);
        let mut next = next.map(|next| self.feed(next));
        self.show(&live);
        self.show_building(next.as_ref());
        self.followed = None;
        let (mut due, hurry) = (deadline_after(Duration::ZERO), self.hurry.clone());
        loop {
            self.follow(&mut live, &mut next)?;
            // The positions that queries see never go back.
            if let Some(built) =
                next.take_if(|next| next.projector.mark.position >= live.projector.mark.position)
            {
                live = self.swap(live, built)?;
            }
            tokio::select! {
                page = next_in_turn(&mut live.subscription, due, &hurry) => {
                    live.apply(page).await?;
                    due = deadline_after(LINGER);
                    self.warning.clear();
                    self.notify.send_replace(live.projector.mark.position);
                }
                page = next_page(&mut next) => {
                    let Some(feed) = &mut next else { continue };
                    match feed.apply(page).await {
                        Err(StopReason::Projector(error)) => self.give_up(&mut next, &error),
                        // The live database meets the same failure, and the build is resumed with it.
                        applied => applied?,
                    }
                }
                () = live.projector.database.damaged() => return Err(ProjectError::Damaged.into()),
                request = self.requests.recv() => {
                    self.process(request.ok_or(StopReason::Undeployed)?, &mut live, &mut next).await?;
                }
            }
        }
    }

    async fn process(
        &self,
        request: Request,
        live: &mut Feed,
        next: &mut Option<Feed>,
    ) -> Result<(), StopReason> {
        match request {
            // Each turn of the loop follows.
            Request::Follow => {}
            Request::Redrive { stream, answer } => {
                let redriven = live.projector.redrive(&*self.log, stream.as_ref()).await?;
                live.projector.advance();
                // Err: the caller does not wait any more.
                let _ = answer.send(redriven);
            }
            Request::Replay { beginning, answer } => {
                let begins = next.is_none();
                if begins {
                    let component = self.deployed().unwrap_or_else(|| live.projector.component.clone());
                    *next = Some(self.replay(component, beginning)?);
                    self.show_building(next.as_ref());
                }
                // Err: the caller does not wait any more.
                let _ = answer.send(begins);
            }
        }
        Ok(())
    }

    /// Makes the deployed component apply the events. If it has another read model, that one is built beside
    /// the live one, which stays with the component that it belongs to.
    fn follow(&mut self, live: &mut Feed, next: &mut Option<Feed>) -> Result<(), StopReason> {
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
        match next {
            Some(feed) if fits(feed) => feed.projector.hand_over(&deployed)?,
            _ => {
                if let Some(other) = next.take() {
                    let service = &self.databases.service;
                    tracing::info!(%service, "read model is not deployed any more; its build ends");
                    other.projector.database.discard()?;
                }
                if !is_live {
                    // A failed build must not stop the live database.
                    *next = self.build(deployed).map_err(|error| self.log_given_up(&error)).ok();
                }
                self.show_building(next.as_ref());
            }
        }
        Ok(())
    }

    /// Begins or resumes the build of a component's read model.
    fn build(&self, component: Component) -> Result<Feed, StopReason> {
        let model = component.manifest().read_model.as_ref().ok_or(StopReason::Undeployed)?;
        let opened = self.databases.build(model, component.digest(), &*self.log)?;
        Ok(self.feed_next(component, opened))
    }

    /// Begins to build a component's read model from a place in the log, in a new database.
    fn replay(&self, component: Component, beginning: Beginning) -> Result<Feed, StopReason> {
        let model = component.manifest().read_model.as_ref().ok_or(StopReason::Undeployed)?;
        let (digest, generation) = (component.digest(), Name::FIRST_GENERATION);
        let opened = self.databases.make(model, Role::Building, digest, generation, beginning)?;
        Ok(self.feed_next(component, opened))
    }

    fn feed_next(&self, component: Component, opened: Opened) -> Feed {
        let (service, version) = (&self.databases.service, opened.database.version());
        tracing::info!(%service, version, "building a read model; it goes live when it has caught up");
        self.feed((component, opened))
    }

    /// Ends a build. The next deployment or replay begins another.
    fn give_up(&self, next: &mut Option<Feed>, error: &ProjectError) {
        self.log_given_up(error);
        if let Some(given_up) = next.take() {
            // Err: the next start removes it.
            let _ = given_up.projector.database.discard();
        }
        self.building.store(None);
    }

    fn log_given_up(&self, error: &(dyn Error + 'static)) {
        let service = &self.databases.service;
        tracing::error!(
            %service,
            error = %Chain(error),
            "failed to build a read model; the live one stays until the next deployment or replay"
        );
    }

    fn feed(&self, (component, opened): (Component, Opened)) -> Feed {
        let subscription = Subscription::in_batches(self.log.clone(), opened.writer.mark.position);
        Feed { subscription, projector: Projector::new(component, opened) }
    }

    /// Replaces the live database by one that has caught up. Once its role is recorded, a restart takes it
    /// too.
    fn swap(&self, mut live: Feed, mut built: Feed) -> Result<Feed, StopReason> {
        built.projector.assign(Role::Live)?;
        self.building.store(None);
        self.show(&built);
        let [new, old] = [&built, &live].map(|feed| feed.projector.database.name());
        if new.version == old.version {
            live.projector.database.retire();
        } else {
            live.projector.assign(Role::Kept)?;
            self.databases.retain(&[new, old])?;
        }
        let service = &self.databases.service;
        tracing::info!(%service, version = new.version, "built a read model; queries see it now");
        Ok(built)
    }

    /// Shows the live database to queries.
    fn show(&self, live: &Feed) {
        let Projector { component, database, mark, .. } = &live.projector;
        self.components.pin_reader(&self.databases.service, component.digest());
        self.live.store(Arc::new(LiveReadModel { component: component.clone(), database: database.clone() }));
        self.notify.send_replace(mark.position);
    }

    /// Shows the database that is being built, if any, to operators.
    fn show_building(&self, next: Option<&Feed>) {
        self.building.store(next.map(|feed| {
            let database = feed.projector.database.clone();
            Arc::new(Building { from: database.position(), database, since_ms: self.clock.now_ms() })
        }));
    }
}

/// A database with the subscription that it is filled from.
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

/// Returns the next page for the live database, once it is due, or when a query waits for it.
async fn next_in_turn(
    subscription: &mut Subscription,
    due: Instant,
    hurry: &Notify,
) -> Result<Option<Vec<Recorded>>, ReadError> {
    tokio::select! {
        () = sleep_until(due) => {}
        () = hurry.notified() => {}
    }
    subscription.next().await
}

/// Returns the next page for the database that is being built. Never resolves if there is none.
async fn next_page(next: &mut Option<Feed>) -> Result<Option<Vec<Recorded>>, ReadError> {
    match next {
        Some(feed) => feed.subscription.next().await,
        None => pending().await,
    }
}
