//! Keeps one read model filled: page by page of the log, through restarts after trouble, until shutdown.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::database::{Database, ProjectionsError, Writer};
use super::filling::{Filling, Unfilled};
use super::operate::Request;
use crate::deploy::Registry;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::Position;
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
    pub(super) async fn run(mut self, component: Component, writer: Writer, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.keep_filling(component, writer) => {}
        }
    }

    async fn keep_filling(&mut self, mut component: Component, writer: Writer) {
        let service = component.manifest().service.clone();
        let mut opened = Ok(writer);
        loop {
            let ended = match opened {
                Ok(writer) => {
                    let Err(ended) = self.fill(component.clone(), writer).await;
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

    /// Opens the database of a component's read model in the place of the one that was filled so far.
    fn open(&self, component: &Component, anew: bool) -> Result<Writer, Ended> {
        let manifest = component.manifest();
        let model = manifest.read_model.as_ref().ok_or(Ended::NoReadModel)?;
        if anew {
            self.database.load().discard()?;
        }
        let (database, writer) =
            Database::open(&self.dir, &manifest.service, model, *self.log.head().borrow())?;
        self.database.store(Arc::new(database));
        self.tell.send_replace(writer.position);
        Ok(writer)
    }

    async fn fill(&mut self, component: Component, writer: Writer) -> Result<Infallible, Ended> {
        let database = self.database.load_full();
        let mut subscription = Subscription::new(self.log.clone(), writer.position);
        let mut filling = Filling::new(database.clone(), component, writer);
        loop {
            tokio::select! {
                page = subscription.next() => {
                    let page = page?.ok_or(Ended::LogClosed)?;
                    self.follow(&mut filling)?;
                    filling.apply(page).await?;
                    database.advance(filling.position, filling.parked.len());
                    self.tell.send_replace(filling.position);
                }
                () = database.damaged() => return Err(Unfilled::Damaged.into()),
                Some(Request::Redrive { stream, answer }) = self.requests.recv() => {
                    self.follow(&mut filling)?;
                    let redriven = filling.redrive(&*self.log, stream.as_ref()).await?;
                    database.advance(filling.position, filling.parked.len());
                    // Err: nobody waits for it any more.
                    let _ = answer.send(redriven);
                }
            }
        }
    }

    /// Has the events applied by what is deployed now.
    fn follow(&self, filling: &mut Filling) -> Result<(), Unfilled> {
        let deployed = self.registry.current();
        let deployed = deployed.service(&filling.component.manifest().service);
        deployed.map_or(Ok(()), |deployed| filling.follow(deployed))
    }
}
