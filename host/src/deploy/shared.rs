//! Deployments of other hosts that share the log: what the log says they have put live goes live here too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::deployer::Deployer;
use super::swap::GoLive;
use crate::deployed::{Deployed, Deployments, HistoryError, PastError};
use crate::error::with_causes;
use crate::log::Subscription;
use crate::model::{DEPLOYMENT, Position, ServiceName};
use crate::runtime::Component;
use crate::saga::SagaError;

/// Before a deployment is tried again that this host cannot follow.
const PAUSE: Duration = Duration::from_millis(500);

/// Why this host cannot run what the log says.
#[derive(Debug, thiserror::Error)]
enum BehindError {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("the component of {service} cannot be had")]
    Component { service: ServiceName, source: PastError },
    #[error("the services cannot run side by side: {0}")]
    Together(String),
    #[error(transparent)]
    Sagas(#[from] SagaError),
}

impl Deployer {
    /// Has run here whatever runs by the log, from a position on. Never ends by itself.
    pub(crate) async fn follow(self: Arc<Self>, after: Position) {
        let mut events = Subscription::new(self.deps.log.clone(), after);
        loop {
            self.catch_up(self.deployments.lock().await).await;
            loop {
                match events.next().await {
                    Ok(Some(page)) => {
                        if page.iter().any(|event| event.stream.aggregate() == DEPLOYMENT) {
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
        let Some(watched) = next.read_on(&*self.deps.log).await? else { return Ok(()) };
        let (deployed, new) = self.deployed_by(&next).await?;
        let mut components = Vec::new();
        for component in new {
            let rehearsed = self.deps.sagas.rehearse(&component).await?;
            components.push((component, rehearsed));
        }
        *deployments = next;
        self.go_live(deployments, GoLive { deployed, components, watched }).await;
        Ok(())
    }

    /// What runs by the log, and which components of it do not run here yet.
    async fn deployed_by(
        &self,
        deployments: &Deployments,
    ) -> Result<(Deployed, Vec<Component>), BehindError> {
        let current = self.deps.registry.current();
        let (mut services, mut new) = (Vec::new(), Vec::new());
        for (service, running) in &deployments.running {
            let digest = running.release.digest;
            let had = self.deps.components.get(digest).await;
            let component =
                had.map_err(|source| BehindError::Component { service: service.clone(), source })?;
            if current.service(service.as_str()).is_none_or(|old| old.digest() != digest) {
                new.push(component.clone());
            }
            services.push(component);
        }
        Ok((Deployed::new(services).map_err(BehindError::Together)?, new))
    }
}
