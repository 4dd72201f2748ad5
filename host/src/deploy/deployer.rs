//! Deploys services into the running host, and takes them back.
//!
//! *Invariant:* what runs is what the log says. A deployment is on disk before any call sees it, and only one is under way at
//! a time. *Invariant:* the swap itself is one store of a pointer: every call sees all of a deployment or nothing of it, and
//! ends on the version that it began with.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard};

use super::gates::{Candidate, Examiner, Granted, Terms, Upload, asked, asked_inside, side_by_side};
use super::report::Report;
use super::signature::PublicKey;
use super::swap::Swap;
use crate::aggregate::CallError;
use crate::clock::{SharedClock, milliseconds};
use crate::cluster::Cluster;
use crate::contract::{Grant, ReservedRoute};
use crate::deployed::{
    self, Components, Deployed, Deployments, Happened, HistoryEntry, HistoryError, PastError, Registry,
    Release, Released, Running, Store,
};
use crate::log::{AppendError, EventLog, ReadError};
use crate::model::{Actor, Rejection, Version};
use crate::projection::Projections;
use crate::runtime::{Component, HttpClient, Runtime};
use crate::saga::{SagaError, Sagas};

/// What deployments stand on.
pub struct DeployDeps {
    pub log: Arc<dyn EventLog>,
    pub clock: SharedClock,
    pub runtime: Runtime,
    pub store: Store,
    pub registry: Arc<Registry>,
    pub components: Arc<Components>,
    pub http: Arc<HttpClient>,
    pub projections: Arc<Projections>,
    pub sagas: Arc<Sagas>,
    /// Who else runs what is deployed.
    pub nodes: Cluster,
    pub rules: DeployRules,
}

/// What the operator has configured about deployments.
#[derive(Clone, Debug)]
pub struct DeployRules {
    /// Whose signatures count. None: components need not be signed.
    pub trusted: Vec<PublicKey>,
    /// What the configuration grants inside of the host, by service.
    pub grants: BTreeMap<String, Vec<Grant>>,
    /// How long a new version may take to fold what is in the log.
    pub history_limit: Duration,
    pub rollback: RollbackRule,
    /// The routes of the host itself, which no service may have.
    pub reserved: Vec<ReservedRoute<()>>,
}

/// When a new version is taken back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackRule {
    /// How long after the swap it is watched. 0: not at all.
    #[serde(rename = "window_ms", deserialize_with = "milliseconds")]
    pub window: Duration,
    /// The share of its calls that may fault.
    pub percent: u64,
    /// Fewer faults than this are never a reason.
    pub faults: u64,
}

impl Default for RollbackRule {
    fn default() -> Self {
        // A defect that every tenth call meets shows within a minute, and one bad request is no reason.
        Self { window: Duration::from_secs(60), percent: 5, faults: 5 }
    }
}

/// What whoever deploys wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// To look only.
    pub dry_run: bool,
    /// Why, for whoever reads the history.
    pub note: Option<String>,
    /// How many streams of each aggregate are folded; all of them if not told.
    pub sample: Option<usize>,
    /// What may break, by its name: `command:order/create`.
    pub allow_breaking: Vec<String>,
    /// `service:payment`
    pub grants: Vec<String>,
    /// Whether the components come from the host's own directory: whoever writes there grants them what they ask for inside
    /// of the host.
    pub from_directory: bool,
}

/// Why nothing was deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error("{}", .0.why_refused().unwrap_or_default())]
    Refused(Box<Report>),
    #[error("another deployment is under way: try again when it has ended")]
    UnderWay,
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Sagas(#[from] SagaError),
    #[error("the component cannot be kept in the data directory")]
    Store(#[source] io::Error),
}

impl From<HistoryError> for DeployError {
    fn from(error: HistoryError) -> Self {
        Self::Call(history_error(error))
    }
}

impl From<AppendError> for DeployError {
    fn from(error: AppendError) -> Self {
        Self::Call(CallError::Append(error))
    }
}

/// Deploys. One for a host.
pub struct Deployer {
    pub(super) deps: DeployDeps,
    /// What the log says. Held by whoever deploys.
    pub(super) deployments: Mutex<Deployments>,
    /// The same, for whoever wants to know.
    pub(super) told: ArcSwap<Told>,
    /// Why this host does not run what the log says, if that is so.
    trouble: ArcSwapOption<String>,
}

/// What runs, and by which version of the stream of deployments.
pub(super) struct Told {
    version: Version,
    running: Arc<Vec<Running>>,
}

impl Deployer {
    /// `deployments`: what the log says, and what runs.
    pub(crate) fn new(deps: DeployDeps, deployments: Deployments) -> Arc<Self> {
        let told = ArcSwap::from_pointee(Told::of(&deployments));
        Arc::new(Self { deps, deployments: Mutex::new(deployments), told, trouble: ArcSwapOption::empty() })
    }

    /// What runs, by service.
    pub fn running(&self) -> Arc<Vec<Running>> {
        self.told.load().running.clone()
    }

    /// By which version of the stream of deployments it runs.
    pub fn version(&self) -> Version {
        self.told.load().version
    }

    /// A sentence about why this host does not run what the log says, if that is so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.load().as_deref().cloned()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.trouble.store(trouble.map(Arc::new));
    }

    /// Up to `limit` events of the history of deployments behind a version of their stream, each with an entry a service.
    pub async fn history(&self, after: Version, limit: usize) -> Result<Vec<HistoryEntry>, CallError> {
        let events = deployed::history(&*self.deps.log, after, limit).await.map_err(history_error)?;
        Ok(events.into_iter().flat_map(|(event, happened)| HistoryEntry::of(&event, happened)).collect())
    }

    /// Deploys components, all or none. Goes on when the caller stops waiting.
    pub async fn deploy(
        self: &Arc<Self>,
        uploads: Vec<Upload>,
        options: Options,
        actor: &str,
    ) -> Result<Report, DeployError> {
        let (deployer, actor) = (self.clone(), Actor::from(actor));
        on_its_own(async move { deployer.deploy_all(uploads, options, actor).await }).await
    }

    /// Has an earlier release of a service run again: the one before, or the one whose digest begins with `to`. Rejected with
    /// `not-found` or `nothing-to-roll-back`.
    pub async fn roll_back(
        self: &Arc<Self>,
        service: &str,
        to: Option<&str>,
        options: Options,
        actor: &str,
    ) -> Result<Report, DeployError> {
        let (deployer, actor) = (self.clone(), Actor::from(actor));
        let (service, to) = (service.to_owned(), to.map(str::to_owned));
        on_its_own(async move { deployer.go_back(&service, to.as_deref(), options, actor).await }).await
    }

    /// Has a service run no more. Rejected with `not-found` or `service-in-use`.
    pub async fn undeploy(
        self: &Arc<Self>,
        service: &str,
        options: Options,
        actor: &str,
    ) -> Result<Release, DeployError> {
        let (deployer, actor, service) = (self.clone(), Actor::from(actor), service.to_owned());
        on_its_own(async move { deployer.take_away(&service, options, actor).await }).await
    }

    /// Returns when no deployment is under way. None begins as long as what is returned is held.
    pub(crate) async fn close(&self) -> MutexGuard<'_, Deployments> {
        self.deployments.lock().await
    }

    async fn deploy_all(
        self: Arc<Self>,
        uploads: Vec<Upload>,
        options: Options,
        actor: Actor,
    ) -> Result<Report, DeployError> {
        let mut deployments = self.alone()?;
        let granted = granted(&deployments, parse_grants(&options.grants)?, options.from_directory);
        let mut candidates = Vec::with_capacity(uploads.len());
        for upload in uploads {
            candidates.push(self.examine(upload, &granted, &options, false).await);
        }
        let (mut report, deployed) = self.pass(&candidates, options.dry_run)?;
        if options.dry_run {
            return Ok(report);
        }
        report.live = true;
        let released = candidates.iter().filter_map(|candidate| {
            let component = candidate.component.as_ref()?;
            let release = release(component, &granted(component));
            Some(Released { release, gates: candidate.report.gates.clone() })
        });
        let services: Vec<_> = released.collect();
        if services.iter().all(|released| deployments.runs(&released.release)) {
            return Ok(report);
        }
        let happened = Happened::Deployed { services, note: options.note };
        self.clone().swap(&mut deployments, Swap { happened, deployed, candidates }, actor).await?;
        drop(deployments);
        report.hosts = self.hosts().await;
        Ok(report)
    }

    async fn go_back(
        self: Arc<Self>,
        service: &str,
        to: Option<&str>,
        options: Options,
        actor: Actor,
    ) -> Result<Report, DeployError> {
        let mut deployments = self.alone()?;
        let running = deployments.running.get(service).ok_or_else(|| not_running(service))?;
        let (target, from) = (earlier(running, to)?.clone(), running.release.digest);
        let wasm = self.deps.store.fetch(target.digest).await.map_err(DeployError::Store)?;
        let wasm = wasm.ok_or_else(|| gone(&PastError::Gone(target.digest)))?;
        let upload = Upload { wasm, signature: None };
        // What it was granted then, and the configuration grants now.
        let grants = parse_grants(&target.grants)?;
        let granted = move |_: &Component| grants.clone();
        let candidates = vec![self.examine(upload, &granted, &options, true).await];
        let (mut report, deployed) = self.pass(&candidates, options.dry_run)?;
        if options.dry_run {
            return Ok(report);
        }
        let reason = format!("{actor} rolled it back");
        let happened = Happened::RolledBack { to: target, from, reason, note: options.note };
        self.clone().swap(&mut deployments, Swap { happened, deployed, candidates }, actor).await?;
        drop(deployments);
        report.live = true;
        report.hosts = self.hosts().await;
        Ok(report)
    }

    async fn take_away(
        self: Arc<Self>,
        service: &str,
        options: Options,
        actor: Actor,
    ) -> Result<Release, DeployError> {
        let mut deployments = self.alone()?;
        let running = deployments.running.get(service).ok_or_else(|| not_running(service))?;
        let release = running.release.clone();
        let current = self.deps.registry.current();
        let rest: Vec<_> =
            current.services().filter(|other| other.manifest().service != *service).cloned().collect();
        let asks =
            |other: &&Component| other.manifest().permissions.services.iter().any(|name| name == service);
        if let Some(other) = rest.iter().find(asks)
            && !options.allow_breaking.iter().any(|name| *name == format!("service:{service}"))
        {
            let message = format!(
                "The service {} asks {service}: undeploy that first, or name service:{service} with --allow-breaking.",
                other.manifest().service
            );
            return Err(Rejection::new("service-in-use", message).into());
        }
        let deployed = Deployed::new(rest).map_err(|why| Rejection::new("service-in-use", why))?;
        let happened = Happened::Undeployed { release: release.clone(), note: options.note };
        let swap = Swap { happened, deployed, candidates: Vec::new() };
        self.clone().swap(&mut deployments, swap, actor).await?;
        Ok(release)
    }

    fn alone(&self) -> Result<MutexGuard<'_, Deployments>, DeployError> {
        self.deployments.try_lock().map_err(|_| DeployError::UnderWay)
    }

    async fn examine(
        &self,
        upload: Upload,
        granted: &Granted<'_>,
        options: &Options,
        back: bool,
    ) -> Candidate {
        let deps = &self.deps;
        let granted = |component: &Component| {
            let configured = deps.rules.grants.get(component.manifest().service.as_str());
            configured.into_iter().flatten().cloned().chain(granted(component)).collect()
        };
        let examiner = Examiner {
            runtime: &deps.runtime,
            log: &deps.log,
            http: &deps.http,
            trusted: if back { &[] } else { &deps.rules.trusted },
            history_limit: deps.rules.history_limit,
            granted: &granted,
            sagas: Some(&deps.sagas),
        };
        let terms = Terms { sample: options.sample, allow_breaking: &options.allow_breaking, back };
        examiner.examine(upload, &deps.registry.current(), terms).await
    }

    /// The report with all services that would run, unless a gate refuses one of them.
    fn pass(&self, candidates: &[Candidate], dry_run: bool) -> Result<(Report, Deployed), DeployError> {
        let deployed = together(&self.deps.registry.current(), candidates);
        let gates = vec![side_by_side(deployed.as_ref(), &self.deps.rules.reserved)];
        let services = candidates.iter().map(|candidate| candidate.report.clone()).collect();
        let report = Report { dry_run, live: false, services, gates, hosts: Vec::new() };
        match deployed {
            Ok(deployed) if report.refusal().is_none() => Ok((report, deployed)),
            _ => Err(DeployError::Refused(Box::new(report))),
        }
    }
}

impl Told {
    pub(super) fn of(deployments: &Deployments) -> Self {
        let running = deployments.running.values().cloned().collect();
        Self { version: deployments.version, running: Arc::new(running) }
    }
}

/// What services are granted with this deployment, and were with the one that runs. The configuration is not in it, so that
/// what it takes back is gone.
fn granted(
    deployments: &Deployments,
    given: Vec<Grant>,
    from_directory: bool,
) -> impl Fn(&Component) -> Vec<Grant> + use<> {
    let earlier = deployments.running.iter();
    let earlier: HashMap<_, Vec<_>> =
        earlier.map(|(service, running)| (service.clone(), running.release.granted().collect())).collect();
    move |component| {
        let earlier = earlier.get(&component.manifest().service).into_iter().flatten();
        let inside = asked_inside(component).filter(|_| from_directory);
        earlier.chain(&given).cloned().chain(inside).collect()
    }
}

/// The release of a component, with what it asks for of what is granted.
pub(super) fn release(component: &Component, granted: &[Grant]) -> Release {
    let manifest = component.manifest();
    let grants = asked(component).filter(|asked| granted.contains(asked)).map(|grant| grant.to_string());
    Release {
        service: manifest.service.clone(),
        version: manifest.version.clone(),
        digest: component.digest(),
        grants: grants.collect(),
    }
}

/// The running services with the candidates in the place of theirs.
pub(super) fn together(running: &Deployed, candidates: &[Candidate]) -> Result<Deployed, String> {
    let new: Vec<_> = candidates.iter().filter_map(|candidate| candidate.component.clone()).collect();
    running.with(&new)
}

/// Runs to its end whether anybody waits for it or not.
async fn on_its_own<T: Send + 'static>(
    work: impl Future<Output = Result<T, DeployError>> + Send + 'static,
) -> Result<T, DeployError> {
    tokio::spawn(work).await.unwrap_or(Err(CallError::ShuttingDown.into()))
}

fn parse_grants(grants: &[String]) -> Result<Vec<Grant>, Rejection> {
    let parsed = grants.iter().map(|grant| grant.parse::<Grant>());
    parsed.collect::<Result<_, _>>().map_err(|error| Rejection::new("invalid-grant", format!("{error}.")))
}

fn earlier<'a>(running: &'a Running, to: Option<&str>) -> Result<&'a Release, Rejection> {
    let service = &running.release.service;
    let found = match to {
        None => running.before.last(),
        Some(prefix) => {
            let begins = |release: &&Release| release.digest.to_string().starts_with(prefix);
            running.before.iter().rev().find(begins)
        }
    };
    found.ok_or_else(|| {
        let message = match to {
            None => format!("Nothing ran before the first release of {service}."),
            Some(prefix) => format!(
                "No release of {service} before the one that runs has a digest that begins with {prefix}: \
                 `kontor plugins --history` lists them."
            ),
        };
        Rejection::new("nothing-to-roll-back", message)
    })
}

fn not_running(service: &str) -> Rejection {
    Rejection::new("not-found", format!("The service {service} does not run."))
}

fn gone(error: &PastError) -> Rejection {
    Rejection::new("nothing-to-roll-back", format!("It cannot be rolled back: {error}."))
}

fn history_error(error: HistoryError) -> CallError {
    match error {
        HistoryError::Read(error) => CallError::Read(error),
        error @ HistoryError::Format { .. } => CallError::Read(ReadError(Arc::new(error))),
    }
}
