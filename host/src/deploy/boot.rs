//! Starts the services of a host: those that the log names, and those of the operator's directory that are
//! new to the log.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{self, DirectoryError};
use super::gates::{Candidate, Examiner, FoldMemory, Origin, Terms, Upload, examine_services};
use super::rules::DeployRules;
use super::signature::{SignatureError, check_earlier, check_running, signed};
use super::{grants, work};
use crate::clock::SharedClock;
use crate::contract::Grant;
use crate::deployed::{
    Deployed, DeploymentHistory, Deployments, GateOutcome, GateResult, Happened, HistoryError, RecordError,
    Release, Released, ServiceConflict, Store,
};
use crate::log::EventLog;
use crate::model::{Caller, Digest, ServiceName, Version};
use crate::runtime::{Component, HttpClient, LoadError, Runtime};

/// The actor of the deployments from the directory.
const ACTOR: &str = "kontor serve";

/// The parts of the host that a start needs.
pub(crate) struct Boot<'a> {
    pub(crate) log: &'a Arc<dyn EventLog>,
    pub(crate) clock: &'a SharedClock,
    pub(crate) runtime: &'a Runtime,
    pub(crate) store: &'a Store,
    pub(crate) http: &'a HttpClient,
    pub(crate) rules: &'a DeployRules,
    pub(crate) folds: &'a FoldMemory,
    /// The directory of the operator's components.
    pub(crate) plugins: &'a Path,
}

/// The services that run from the start.
pub struct Booted {
    /// The deployments in the log.
    pub(crate) deployments: Deployments,
    /// The services that run.
    pub(crate) deployed: Deployed,
    /// The same, as commands and replies depend on them.
    pub(crate) history: DeploymentHistory,
    /// A sentence for each file of the directory that does not run, because the log has another version of
    /// its service.
    pub differing: Vec<String>,
}

/// The reason why a host cannot start with its services.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The components of the directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The deployments in the log cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A component is missing.
    #[error(
        "the component {} of {service}, which the log names, is neither in the data directory nor in {}: put \
         it there",
        digest.short(), dir.display()
    )]
    Gone {
        /// The service.
        service: ServiceName,
        /// The digest of the component.
        digest: Digest,
        /// The operator's directory.
        dir: PathBuf,
    },
    /// A component does not load.
    #[error("the component {} of {service}, which the log names, cannot be run", digest.short())]
    Load {
        /// The service.
        service: ServiceName,
        /// The digest of the component.
        digest: Digest,
        /// The cause.
        source: LoadError,
    },
    /// The signature of a component that the log names is missing or not trusted any more.
    #[error(
        "{service} ({}) may not run without a trusted signature: put its component with one into {}, as \
         {service}.wasm and {service}.wasm.sig",
        digest.short(), dir.display()
    )]
    Signature {
        /// The service.
        service: ServiceName,
        /// The digest of the component.
        digest: Digest,
        /// The operator's directory.
        dir: PathBuf,
        /// The cause.
        source: Box<SignatureError>,
    },
    /// The store of components fails.
    #[error("the components of the deployed services cannot be read or kept")]
    Store(#[source] io::Error),
    /// Gates refuse components of the directory.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// A gate for all services refuses them.
    #[error("{}", .0.says)]
    SideBySide(Box<GateResult>),
    /// The services that the log names do not fit together.
    #[error("these services cannot run side by side")]
    Conflict(#[from] ServiceConflict),
    /// The deployment of the directory's services is not in the log.
    #[error("the deployment cannot be recorded")]
    Record(#[from] RecordError),
}

/// A component of the directory that a gate refuses.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be deployed: the gate {} refuses it: {}", file.display(), gate.gate, sentence(gate))]
pub struct Refusal {
    /// The file.
    pub file: PathBuf,
    /// The result of the gate.
    pub gate: GateResult,
}

/// The files of the directory, each with its bytes.
type ByDigest<'a> = HashMap<Digest, (&'a Path, &'a Vec<u8>)>;

/// Starts the services that the log names, and deploys those of the directory that are new to it.
pub(crate) async fn boot(boot: Boot<'_>) -> Result<Booted, BootError> {
    loop {
        match boot_once(&boot).await {
            // Another host that shares the log has deployed something at the same time: start again with
            // that.
            Err(BootError::Record(RecordError::Conflict)) => {}
            booted => return booted,
        }
    }
}

async fn boot_once(boot: &Boot<'_>) -> Result<Booted, BootError> {
    let (mut deployments, history) = Deployments::load(&**boot.log).await?;
    let files = directory::read(boot.plugins, deployments.version == Version::START)?;
    let by_digest: ByDigest<'_> =
        files.iter().map(|(file, wasm)| (Digest::of(wasm), (&**file, wasm))).collect();
    let bytes = |digest: Digest| by_digest.get(&digest).map(|(_, wasm)| *wasm);
    let (mut running, mut outdated) = (Vec::new(), BTreeMap::new());
    for (service, known) in &deployments.running {
        let digest = known.release.digest;
        match boot.load(service, digest, bytes(digest)).await {
            // The directory may have the service's component for this version of the contract.
            Err(error @ BootError::Load { source: LoadError::OtherContract { .. }, .. }) => {
                outdated.insert(service.clone(), error);
            }
            loaded => running.push(loaded?),
        }
    }
    let mut running = Deployed::new(running)?;
    let envelopes = boot.check_signatures(&deployments, &running, &by_digest)?;
    for (service, known) in &deployments.running {
        let Some(kept) = &known.kept else { continue };
        boot.check_kept(service, kept.digest, &by_digest).await?;
        let newer = boot.load(service, kept.digest, bytes(kept.digest)).await?;
        running = running.keeping(&newer, &kept.streams);
    }
    let (mut candidates, mut differing, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for (file, wasm) in files {
        let digest = Digest::of(&wasm);
        if running.services().any(|service| service.digest() == digest) {
            continue;
        }
        if let Some(known) = boot.known(&wasm, &deployments, &mut outdated).await {
            let file = file.display();
            differing.push(format!(
                "{file} ({}) {known}, so it does not run: `kontor deploy {file}` deploys it",
                digest.short()
            ));
            continue;
        }
        let candidate = boot.examine(&file, wasm, &running).await?;
        refusals.extend(refusals_of(&file, &candidate));
        candidates.push(candidate);
    }
    if !refusals.is_empty() {
        return Err(BootError::Refused(refusals));
    }
    if let Some((_, error)) = outdated.pop_first() {
        return Err(error);
    }
    let deployed = work::together(&running, &candidates);
    let gates = examine_services(deployed.as_ref(), &boot.rules.reserved);
    if let Some(gate) = gates.into_iter().find(|gate| gate.outcome == GateOutcome::Refused) {
        return Err(BootError::SideBySide(Box::new(gate)));
    }
    boot.record(&mut deployments, &history, &running, envelopes, &candidates).await?;
    boot.http.follow(deployments.origins());
    boot.runtime.enforce_grants(boot.rules.configured_grants());
    boot.runtime.grant(deployments.grants());
    Ok(Booted { deployments, deployed: deployed?, history, differing })
}

impl Boot<'_> {
    /// Loads a component that the log names. `file` has its bytes if the directory has the component.
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

    /// Checks the signature of each component that the log names. Returns the envelopes, by service, that
    /// replace those of the log: they are beside the same components in the directory.
    fn check_signatures(
        &self,
        deployments: &Deployments,
        running: &Deployed,
        files: &ByDigest<'_>,
    ) -> Result<HashMap<ServiceName, String>, BootError> {
        let mut envelopes = HashMap::new();
        if self.rules.trusted.is_empty() {
            return Ok(envelopes);
        }
        for (service, known) in &deployments.running {
            let Some(component) = running.service(service.as_str()) else { continue };
            let kept = known.release.envelope.as_deref().map(str::as_bytes);
            let Err(source) = self.check_signature(kept, component) else { continue };
            let digest = component.digest();
            match self.check_signature(beside(files, digest)?.as_deref(), component) {
                Ok(envelope) => envelopes.insert(service.clone(), envelope),
                Err(_) => return Err(self.unsigned(service, digest, source)),
            };
        }
        Ok(envelopes)
    }

    /// Fails if no trusted key has signed a component. Returns the envelope.
    fn check_signature(
        &self,
        signature: Option<&[u8]>,
        component: &Component,
    ) -> Result<String, SignatureError> {
        Ok(check_running(signature, &self.rules.trusted, component, self.clock.now_ms())?.text()?)
    }

    /// Fails if a component may not run for the streams that stay with it.
    async fn check_kept(
        &self,
        service: &ServiceName,
        digest: Digest,
        files: &ByDigest<'_>,
    ) -> Result<(), BootError> {
        let trusted = &self.rules.trusted;
        let Err(source) = check_earlier(&**self.log, digest, trusted).await else { return Ok(()) };
        match signed(beside(files, digest)?.as_deref(), trusted, digest, None) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.unsigned(service, digest, source)),
        }
    }

    fn unsigned(&self, service: &ServiceName, digest: Digest, source: SignatureError) -> BootError {
        let (service, dir) = (service.clone(), self.plugins.to_owned());
        BootError::Signature { service, digest, dir, source: Box::new(source) }
    }

    /// Returns what the log says about the service of a component that does not run, or none if the service
    /// is new, or is one of the `outdated` ones, which the component then replaces.
    async fn known(
        &self,
        wasm: &[u8],
        deployments: &Deployments,
        outdated: &mut BTreeMap<ServiceName, BootError>,
    ) -> Option<String> {
        if deployments.version == Version::START {
            return None;
        }
        // Err: the gates report it.
        let component = self.runtime.load(wasm.to_vec()).await.ok()?;
        let service = &component.manifest().service;
        if outdated.remove(service).is_some() {
            return None;
        }
        if deployments.running.contains_key(service) {
            return Some(format!("is another version of {service} than the one that was deployed last"));
        }
        let undeployed = deployments.undeployed.contains_key(service);
        undeployed.then(|| format!("is {service}, which was undeployed"))
    }

    async fn examine(&self, file: &Path, wasm: Vec<u8>, running: &Deployed) -> Result<Candidate, BootError> {
        let signature = directory::signature(file)?;
        let examiner = Examiner {
            runtime: self.runtime,
            log: self.log,
            http: self.http,
            rules: self.rules,
            now_ms: self.clock.now_ms(),
            granted: &granted_here,
            memory: self.folds,
            sagas: None,
            progress: &Arc::default(),
        };
        let terms = Terms { sample: None, allow_breaking: &[], origin: Origin::Upload };
        Ok(examiner.examine(Upload { wasm, signature }, running, terms).await)
    }

    /// Records the deployment of the candidates, and the releases of which the log does not have the sagas or
    /// the envelope yet.
    async fn record(
        &self,
        deployments: &mut Deployments,
        history: &DeploymentHistory,
        running: &Deployed,
        mut envelopes: HashMap<ServiceName, String>,
        candidates: &[Candidate],
    ) -> Result<(), BootError> {
        let old = deployments.running.values().map(|known| &known.release);
        let again = old.filter_map(|release| {
            let component = running.service(release.service.as_str())?;
            let envelope = envelopes.remove(&release.service);
            if release.sagas.is_some() && envelope.is_none() {
                return None;
            }
            let sagas = Release::of(component, Vec::new()).sagas;
            let envelope = envelope.or_else(|| release.envelope.clone());
            let release = Release { sagas, envelope, ..release.clone() };
            Some(Released { release, gates: Vec::new() })
        });
        let mut services: Vec<_> = again.collect();
        for candidate in candidates {
            let Some(component) = &candidate.component else { continue };
            self.store.keep_for_all(&candidate.wasm).await.map_err(BootError::Store)?;
            let envelope = candidate.envelope();
            let release = Release { envelope, ..grants::release(component, &granted_here(component)) };
            services.push(Released { release, gates: candidate.report.gates.clone() });
        }
        if !services.is_empty() {
            let happened = Happened::Deployed { services, note: None };
            let now = self.clock.now_ms();
            let position = deployments.record(&**self.log, now, happened, Caller::named(ACTOR)).await?;
            history.add(position, deployments);
        }
        Ok(())
    }
}

/// Returns the signature beside the file with that content, if there is one.
fn beside(files: &ByDigest<'_>, digest: Digest) -> Result<Option<Vec<u8>>, DirectoryError> {
    Ok(files.get(&digest).map(|(file, _)| directory::signature(file)).transpose()?.flatten())
}

/// Returns what a component of the host's own directory requests inside the host. All of it is granted,
/// because only the operator writes there.
fn granted_here(component: &Component) -> Vec<Grant> {
    component.manifest().permissions.internal().collect()
}

/// Returns the refusals of a component: all at once, so that the next start does not meet another one.
fn refusals_of(file: &Path, candidate: &Candidate) -> impl Iterator<Item = Refusal> {
    let refused = candidate.report.gates.iter().filter(|gate| gate.outcome == GateOutcome::Refused);
    refused.map(|gate| Refusal { file: file.to_owned(), gate: gate.clone() })
}

/// The largest number of findings of one gate in an error: more than an operator reads in one line.
const MAX_SHOWN: usize = 20;

/// Returns the sentence of a gate with its findings.
fn sentence(gate: &GateResult) -> String {
    let GateResult { says, findings, .. } = gate;
    if findings.is_empty() {
        return says.clone();
    }
    let shown = findings[..findings.len().min(MAX_SHOWN)].join("; ");
    match findings.len().saturating_sub(MAX_SHOWN) {
        0 => format!("{says} ({shown})"),
        more => format!("{says} ({shown}; and {more} more)"),
    }
}
