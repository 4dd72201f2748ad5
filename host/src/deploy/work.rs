//! The deployer's work, from the lock to the report.

use std::sync::Arc;

use super::dependents::dependents;
use super::deployer::Deployer;
use super::error::DeployError;
use super::gates::{Candidate, Examiner, Granted, Origin, Terms, Upload, examine_services};
use super::grants::{self, granted, release};
use super::report::Report;
use super::rules::Options;
use super::swap::Swap;
use crate::deployed::{Deployed, Happened, PastError, Release, Released, Running, ServiceConflict};
use crate::model::{Caller, Rejection};
use crate::runtime::Component;

impl Deployer {
    pub(super) async fn deploy_all(
        self: Arc<Self>,
        uploads: Vec<Upload>,
        options: Options,
        caller: Caller,
    ) -> Result<Report, DeployError> {
        let mut deployments = self.try_lock()?;
        let granted = granted(&deployments, grants::parse(&options.grants)?, options.from_directory);
        let mut candidates = Vec::with_capacity(uploads.len());
        for upload in uploads {
            candidates.push(self.examine(upload, Origin::Upload, &granted, &options).await);
        }
        let (mut report, deployed) = self.pass(&candidates, options.dry_run)?;
        if options.dry_run {
            return Ok(report);
        }
        report.live = true;
        let released = candidates.iter().filter_map(|candidate| {
            let component = candidate.component.as_ref()?;
            let folds_like = deployments.folds_like(component, candidate.folds_alike);
            let envelope = candidate.envelope().or_else(|| deployments.envelope(component));
            let release = Release { folds_like, envelope, ..release(component, &granted(component)) };
            Some(Released { release, gates: candidate.report.gates.clone() })
        });
        let services: Vec<_> = released.collect();
        if services.iter().all(|released| deployments.runs(&released.release)) {
            return Ok(report);
        }
        let happened = Happened::Deployed { services, note: options.note };
        self.clone().swap(&mut deployments, Swap { happened, deployed, candidates }, caller).await?;
        drop(deployments);
        report.hosts = self.hosts().await;
        Ok(report)
    }

    pub(super) async fn rollback_to(
        self: Arc<Self>,
        service: &str,
        to: Option<&str>,
        options: Options,
        caller: Caller,
    ) -> Result<Report, DeployError> {
        let mut deployments = self.try_lock()?;
        let running = deployments.running.get(service).ok_or_else(|| not_running(service))?;
        let (target, from) = (earlier(running, to)?.clone(), running.release.digest);
        let wasm = self.deps.store.fetch(target.digest).await.map_err(DeployError::Store)?;
        let wasm = wasm.ok_or_else(|| gone(&PastError::Gone(target.digest)))?;
        let upload = Upload { wasm, signature: target.envelope.clone().map(String::into_bytes) };
        // The grants of that release; those of the configuration are today's.
        let grants = grants::parse(&target.grants)?;
        let granted = move |_: &Component| grants.clone();
        let candidates = vec![self.examine(upload, Origin::EarlierRelease, &granted, &options).await];
        let (mut report, deployed) = self.pass(&candidates, options.dry_run)?;
        if options.dry_run {
            return Ok(report);
        }
        let reason = format!("{} rolled it back", caller.actor());
        let kept = Vec::new();
        let happened = Happened::RolledBack { to: target, from, reason, note: options.note, kept };
        self.clone().swap(&mut deployments, Swap { happened, deployed, candidates }, caller).await?;
        drop(deployments);
        report.live = true;
        report.hosts = self.hosts().await;
        Ok(report)
    }

    pub(super) async fn remove(
        self: Arc<Self>,
        service: &str,
        options: Options,
        caller: Caller,
    ) -> Result<Release, DeployError> {
        let mut deployments = self.try_lock()?;
        let running = deployments.running.get(service).ok_or_else(|| not_running(service))?;
        let release = running.release.clone();
        let current = self.deps.registry.current();
        let leaving = current.service(service).map(|component| &**component.manifest());
        let others = current.services().map(|component| &**component.manifest());
        let dependents = leaving.map(|leaving| dependents(others, leaving)).unwrap_or_default();
        let is_allowed = options.allow_breaking.iter().any(|name| *name == format!("service:{service}"));
        if !dependents.is_empty() && !is_allowed {
            let dependents = dependents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let message = format!(
                "Other services need {service}: {dependents}. Undeploy them first, or name \
                 service:{service} with --allow-breaking."
            );
            return Err(Rejection::new("service-in-use", message).into());
        }
        let deployed = current.without(service);
        let deployed = deployed.map_err(|error| Rejection::new("service-in-use", error.to_string()))?;
        let happened = Happened::Undeployed { release: release.clone(), note: options.note };
        let swap = Swap { happened, deployed, candidates: Vec::new() };
        self.clone().swap(&mut deployments, swap, caller).await?;
        Ok(release)
    }

    async fn examine(
        &self,
        upload: Upload,
        origin: Origin,
        granted: &Granted<'_>,
        options: &Options,
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
            rules: &deps.rules,
            now_ms: deps.clock.now_ms(),
            granted: &granted,
            memory: &deps.folds,
            sagas: Some(&deps.sagas),
            progress: &self.progress,
        };
        let terms = Terms { sample: options.sample, allow_breaking: &options.allow_breaking, origin };
        examiner.examine(upload, &deps.registry.current(), terms).await
    }

    /// Returns the report and all services that would run, or fails if a gate refuses one of them.
    fn pass(&self, candidates: &[Candidate], dry_run: bool) -> Result<(Report, Deployed), DeployError> {
        let deployed = together(&self.deps.registry.current(), candidates);
        let gates = examine_services(deployed.as_ref(), &self.deps.rules.reserved);
        let services = candidates.iter().map(|candidate| candidate.report.clone()).collect();
        let report = Report { dry_run, live: false, services, gates, hosts: Vec::new() };
        match deployed {
            Ok(deployed) if report.refusal().is_none() => Ok((report, deployed)),
            _ => Err(DeployError::Refused(Box::new(report))),
        }
    }
}

/// Returns the running services with the candidates in the place of theirs.
pub(super) fn together(running: &Deployed, candidates: &[Candidate]) -> Result<Deployed, ServiceConflict> {
    let new: Vec<_> = candidates.iter().filter_map(|candidate| candidate.component.clone()).collect();
    running.with(&new)
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
