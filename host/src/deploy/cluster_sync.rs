//! Follows the deployments of other hosts that share the log: their services go live here too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::deployer::Deployer;
use super::signature::{SignatureError, check_running, signed};
use super::swap::GoLive;
use crate::deployed::{Deployed, Deployments, HistoryError, PastError, Release, ServiceConflict};
use crate::error::{Chain, with_causes};
use crate::log::Subscription;
use crate::model::{DEPLOYMENT, Digest, Position, ServiceName, StreamId};
use crate::runtime::Component;
use crate::saga::SagaError;

/// The pause before the next attempt to follow a deployment.
const PAUSE: Duration = Duration::from_millis(500);

/// The reason why this host cannot run what the log names.
#[derive(Debug, thiserror::Error)]
enum BehindError {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("the component of {service} is not available")]
    Component { service: ServiceName, source: PastError },
    #[error(
        "{service} {version} ({}) may not run here without a trusted signature: deploy it signed, or roll it \
         back, through a host that runs it",
        digest.short()
    )]
    Signature { service: ServiceName, version: String, digest: Digest, source: Box<SignatureError> },
    #[error("the services cannot run side by side")]
    Conflict(#[from] ServiceConflict),
    #[error(transparent)]
    Sagas(#[from] SagaError),
}

impl Deployer {
    /// Follows the deployments in the log, from a position on. Ends when the log is closed.
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
                        tracing::error!(
                            error = %Chain(&error),
                            "failed to follow other hosts' deployments; retrying"
                        );
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Retries until this host runs what the log names. The previous services run until then.
    async fn catch_up(self: &Arc<Self>, mut deployments: MutexGuard<'_, Deployments>) {
        loop {
            match self.clone().follow_log(&mut deployments).await {
                Ok(()) => return self.set_warning(None),
                Err(error) => {
                    let warning =
                        format!("this host does not run the last deployment: {}", with_causes(&error));
                    if self.behind().as_deref() != Some(&warning) {
                        tracing::error!("{warning}; retrying");
                        self.set_warning(Some(warning));
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_log(self: Arc<Self>, deployments: &mut Deployments) -> Result<(), BehindError> {
        let mut next = deployments.clone();
        let (log, history) = (&*self.deps.log, self.deps.registry.history());
        let Some(watched) = next.read_on(log, Position::MAX, Some(history)).await? else { return Ok(()) };
        let (deployed, new) = self.deployed_by(&next).await?;
        let mut components = Vec::new();
        for component in new {
            let rehearsed = self.deps.sagas.rehearse(&component, |_, _| ()).await?;
            components.push((component, rehearsed));
        }
        *deployments = next;
        self.go_live(deployments, GoLive { deployed, components, watched }).await;
        Ok(())
    }

    /// Returns the services that the log names, and those of their components that do not run here yet.
    async fn deployed_by(
        &self,
        deployments: &Deployments,
    ) -> Result<(Deployed, Vec<Component>), BehindError> {
        let current = self.deps.registry.current();
        let (mut services, mut new, mut newer) = (Vec::new(), Vec::new(), Vec::new());
        for (service, running) in &deployments.running {
            let get = async |digest| {
                let component = self.deps.components.get(digest).await;
                component.map_err(|source| BehindError::Component { service: service.clone(), source })
            };
            let digest = running.release.digest;
            let runs = current.service(service.as_str()).is_some_and(|old| old.digest() == digest);
            if !runs {
                // Before any code of the component runs.
                self.check_signature(&running.release, None)?;
            }
            let component = get(digest).await?;
            if let Some(kept) = &running.kept {
                newer.push((get(kept.digest).await?, &kept.streams));
            }
            if !runs {
                self.check_signature(&running.release, Some(&component))?;
                new.push(component.clone());
            }
            services.push(component);
        }
        let deployed = Deployed::new(services)?;
        let keep = |deployed: Deployed, (newer, streams): &(Component, &Vec<StreamId>)| {
            deployed.keeping(newer, streams)
        };
        Ok((newer.iter().fold(deployed, keep), new))
    }

    /// Fails if no trusted key has signed a release that another host has deployed. `component`: none if it
    /// is not loaded yet.
    fn check_signature(&self, release: &Release, component: Option<&Component>) -> Result<(), BehindError> {
        let trusted = &self.deps.rules.trusted;
        if trusted.is_empty() {
            return Ok(());
        }
        let envelope = release.envelope.as_deref().map(str::as_bytes);
        let checked = match component {
            Some(component) => {
                check_running(envelope, trusted, component, self.deps.clock.now_ms()).map(drop)
            }
            None => signed(envelope, trusted, release.digest, None).map(drop),
        };
        checked.map_err(|source| BehindError::Signature {
            service: release.service.clone(),
            version: release.version.clone(),
            digest: release.digest,
            source: Box::new(source),
        })
    }
}
