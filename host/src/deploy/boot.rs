//! What runs when a host starts: what the log says, and the services of the operator's directory that the log does not know.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::deployer::{self, DeployError, DeployRules};
use super::directory::{self, DirectoryError};
use super::gates::{Candidate, Examiner, Terms, Upload, asked_inside, side_by_side};
use super::swap;
use crate::clock::SharedClock;
use crate::contract::Grant;
use crate::deployed::{Deployed, Deployments, Gate, GateOutcome, Happened, HistoryError, Released, Store};
use crate::log::EventLog;
use crate::model::{Digest, ServiceName, Version};
use crate::runtime::{Component, HttpClient, LoadError, Runtime};

/// Who deploys what stands in the directory at a start.
const ACTOR: &str = "kontor serve";

/// What a start needs.
pub(crate) struct Boot<'a> {
    pub(crate) log: &'a Arc<dyn EventLog>,
    pub(crate) clock: &'a SharedClock,
    pub(crate) runtime: &'a Runtime,
    pub(crate) store: &'a Store,
    pub(crate) http: &'a HttpClient,
    pub(crate) rules: &'a DeployRules,
    /// The directory of the operator's components.
    pub(crate) plugins: &'a Path,
}

/// What runs from the start.
pub struct Booted {
    pub(crate) deployments: Deployments,
    pub(crate) deployed: Deployed,
    /// Files of the directory that do not run, because the log knows their services otherwise, a sentence each.
    pub differing: Vec<String>,
}

/// Why a host cannot start with its services.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(
        "the component {} of {service}, which runs by the log, is neither in the data directory nor in {}: put it there",
        digest.short(), dir.display()
    )]
    Gone { service: ServiceName, digest: Digest, dir: PathBuf },
    #[error("the component {} of {service}, which runs by the log, cannot be run", digest.short())]
    Load { service: ServiceName, digest: Digest, source: LoadError },
    #[error("the components of the past cannot be had")]
    Store(#[source] io::Error),
    #[error("{} cannot be deployed: it is refused at the gate {}: {}", file.display(), gate.gate, told(gate))]
    Refused { file: PathBuf, gate: Box<Gate> },
    #[error("{}", .0.says)]
    SideBySide(Box<Gate>),
    #[error("these services cannot run side by side: {0}")]
    Together(String),
    #[error("the deployment cannot be recorded")]
    Record(#[from] DeployError),
}

/// Has everything run that the log says, and deploys the services of the directory that it does not know.
pub(crate) async fn boot(boot: Boot<'_>) -> Result<Booted, BootError> {
    loop {
        match boot_once(&boot).await {
            // Another host that shares the log has deployed something meanwhile.
            Err(BootError::Record(DeployError::UnderWay)) => {}
            booted => return booted,
        }
    }
}

async fn boot_once(boot: &Boot<'_>) -> Result<Booted, BootError> {
    let mut deployments = Deployments::load(&**boot.log).await?;
    let files = directory::read(boot.plugins, deployments.version == Version::START)?;
    let by_digest: HashMap<_, _> = files.iter().map(|(_, wasm)| (Digest::of(wasm), wasm)).collect();
    let mut running = Vec::new();
    for (service, known) in &deployments.running {
        let digest = known.release.digest;
        running.push(boot.load(service, digest, by_digest.get(&digest).copied()).await?);
    }
    let running = Deployed::new(running).map_err(BootError::Together)?;
    let (mut candidates, mut differing) = (Vec::new(), Vec::new());
    for (file, wasm) in files {
        let digest = Digest::of(&wasm);
        if running.services().any(|service| service.digest() == digest) {
            continue;
        }
        if let Some(known) = boot.known(&wasm, &deployments).await {
            let file = file.display();
            differing.push(format!(
                "{file} ({}) {known}, so it does not run: `kontor deploy {file}` deploys it",
                digest.short()
            ));
            continue;
        }
        let candidate = boot.examine(&file, wasm, &running).await?;
        refuse(file, &candidate)?;
        candidates.push(candidate);
    }
    let deployed = deployer::together(&running, &candidates);
    let gate = side_by_side(deployed.as_ref(), &boot.rules.reserved);
    if gate.outcome == GateOutcome::Refused {
        return Err(BootError::SideBySide(Box::new(gate)));
    }
    boot.record(&mut deployments, &candidates).await?;
    boot.http.follow(deployments.origins());
    Ok(Booted { deployments, deployed: deployed.map_err(BootError::Together)?, differing })
}

impl Boot<'_> {
    /// A component that runs by the log. `file`: its bytes, if they stand in the directory.
    async fn load(
        &self,
        service: &ServiceName,
        digest: Digest,
        file: Option<&Vec<u8>>,
    ) -> Result<Component, BootError> {
        let kept = match file {
            Some(file) => Some(file.clone()),
            None => self.store.fetch(digest).await.map_err(BootError::Store)?,
        };
        let wasm = kept.ok_or_else(|| BootError::Gone {
            service: service.clone(),
            digest,
            dir: self.plugins.to_owned(),
        })?;
        self.store.keep_for_all(&wasm).await.map_err(BootError::Store)?;
        let loaded = self.runtime.load(wasm).await;
        loaded.map_err(|source| BootError::Load { service: service.clone(), digest, source })
    }

    /// What the log knows about the service of a component that does not run; none if it is new.
    async fn known(&self, wasm: &[u8], deployments: &Deployments) -> Option<String> {
        if deployments.version == Version::START {
            return None;
        }
        // Err: the gates say it.
        let component = self.runtime.load(wasm.to_vec()).await.ok()?;
        let service = &component.manifest().service;
        if deployments.running.contains_key(service) {
            return Some(format!("is another version of {service} than the one that was deployed last"));
        }
        let undeployed = deployments.undeployed.contains(service);
        undeployed.then(|| format!("is {service}, which was undeployed"))
    }

    async fn examine(&self, file: &Path, wasm: Vec<u8>, running: &Deployed) -> Result<Candidate, BootError> {
        let signature = directory::signature(file)?;
        let examiner = Examiner {
            runtime: self.runtime,
            log: self.log,
            http: self.http,
            trusted: &self.rules.trusted,
            history_limit: self.rules.history_limit,
            granted: &granted_here,
            sagas: None,
        };
        let terms = Terms { sample: None, allow_breaking: &[], back: false };
        Ok(examiner.examine(Upload { wasm, signature }, running, terms).await)
    }

    async fn record(&self, deployments: &mut Deployments, candidates: &[Candidate]) -> Result<(), BootError> {
        let mut services = Vec::new();
        for candidate in candidates {
            let Some(component) = &candidate.component else { continue };
            self.store.keep_for_all(&candidate.wasm).await.map_err(BootError::Store)?;
            let release = deployer::release(component, &granted_here(component));
            services.push(Released { release, gates: candidate.report.gates.clone() });
        }
        if !services.is_empty() {
            let happened = Happened::Deployed { services, note: None };
            swap::record(&**self.log, self.clock, deployments, happened, ACTOR.into()).await?;
        }
        Ok(())
    }
}

/// Whoever puts a component into the host's own directory grants it what it asks for inside of the host.
fn granted_here(component: &Component) -> Vec<Grant> {
    asked_inside(component).collect()
}

fn refuse(file: PathBuf, candidate: &Candidate) -> Result<(), BootError> {
    match candidate.report.gates.iter().find(|gate| gate.outcome == GateOutcome::Refused) {
        None => Ok(()),
        Some(gate) => Err(BootError::Refused { file, gate: Box::new(gate.clone()) }),
    }
}

/// The sentence of a gate with what it has found.
fn told(gate: &Gate) -> String {
    match gate.findings.first() {
        None => gate.says.clone(),
        Some(first) => format!("{} ({first})", gate.says),
    }
}
