//! Deployments of other hosts that share the log: what the log says they have put live goes live here too.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::deployer::Deployer;
use super::deployment::{self, AGGREGATE, Deployments, Happened, HistoryError};
use super::registry::Deployed;
use super::swap::GoLive;
use crate::clock::Time;
use crate::error::{CallError, with_causes};
use crate::log::{MAX_PAGE, Subscription};
use crate::model::{Digest, Position};
use crate::runtime::{Component, LoadError};

/// Before a deployment is tried again that this host cannot follow.
const PAUSE: Duration = Duration::from_millis(500);

/// Why this host cannot run what the log says.
#[derive(Debug, thiserror::Error)]
enum BehindError {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("the component {} of {service} cannot be fetched", digest.short())]
    Fetch { service: Arc<str>, digest: Digest, source: io::Error },
    #[error("the component {} of {service} is in no object store", digest.short())]
    Gone { service: Arc<str>, digest: Digest },
    #[error("the component {} of {service} cannot be run", digest.short())]
    Load { service: Arc<str>, digest: Digest, source: LoadError },
    #[error("the services cannot run side by side: {0}")]
    Together(String),
    #[error(transparent)]
    Sagas(#[from] CallError),
}

impl Deployer {
    /// Has run here whatever runs by the log, from a position on. Never ends by itself.
    pub(crate) async fn follow(self: Arc<Self>, after: Position) {
        let mut events = Subscription::new(self.ground.log.clone(), after);
        loop {
            self.catch_up(self.deployments.lock().await).await;
            loop {
                match events.next().await {
                    Ok(Some(page)) => {
                        if page.iter().any(|event| event.stream.aggregate() == AGGREGATE) {
                            break;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "deployments of other hosts are not seen");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Tries until it runs what the log says. What ran before goes on meanwhile.
    async fn catch_up(self: &Arc<Self>, mut deployments: MutexGuard<'_, Deployments>) {
        loop {
            match self.clone().run_what_the_log_says(&mut deployments).await {
                Ok(()) => return self.set_trouble(None),
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::error!(error, "a deployment of another host does not run here");
                    self.set_trouble(Some(format!("this host does not run what was deployed last: {error}")));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn run_what_the_log_says(
        self: Arc<Self>,
        deployments: &mut Deployments,
    ) -> Result<(), BehindError> {
        let mut next = deployments.clone();
        let mut watched = false;
        loop {
            let page = deployment::read(&*self.ground.log, next.version, MAX_PAGE).await?;
            if page.is_empty() {
                break;
            }
            for (event, happened) in page {
                watched = matches!(happened, Happened::Deployed { .. });
                next.take_in(event.version, Time(event.meta.time_ms), &event.meta.actor, happened);
            }
        }
        if next.version == deployments.version {
            return Ok(());
        }
        let deployed = self.deployed_by(&next).await?;
        let before = self.ground.registry.current();
        let is_new = |component: &&Component| {
            let old = before.service(&component.manifest().service);
            old.is_none_or(|old| old.digest() != component.digest())
        };
        let mut components = Vec::new();
        for component in deployed.services().filter(is_new) {
            components.push((component.clone(), self.ground.sagas.rehearse(component).await?));
        }
        *deployments = next;
        self.go_live(deployments, GoLive { deployed, components, watched }).await;
        Ok(())
    }

    /// The components of what runs by the log.
    async fn deployed_by(&self, deployments: &Deployments) -> Result<Deployed, BehindError> {
        let current = self.ground.registry.current();
        let mut services = Vec::new();
        for (service, running) in &deployments.running {
            let digest = running.release.digest;
            if let Some(component) = current.services().find(|component| component.digest() == digest) {
                services.push(component.clone());
                continue;
            }
            let service = service.clone();
            let wasm = match self.ground.store.fetch(digest).await {
                Ok(Some(wasm)) => wasm,
                Ok(None) => return Err(BehindError::Gone { service, digest }),
                Err(source) => return Err(BehindError::Fetch { service, digest, source }),
            };
            let loaded = self.ground.runtime.load(wasm).await;
            services.push(loaded.map_err(|source| BehindError::Load { service, digest, source })?);
        }
        Deployed::new(services).map_err(BehindError::Together)
    }
}
