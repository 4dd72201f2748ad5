//! The gates of a deployment. All gates check, unless an earlier one leaves them nothing to check, so that
//! one report lists every problem.
//!
//! A gate is a file with a constant `GATE`, a row of [`GATES`], and a name in [`GateName`].

mod breaks;
mod compatible;
mod component;
mod configuration;
mod folds;
mod history;
mod manifest;
mod memory;
mod permissions;
mod read_model;
mod sagas;
mod side_by_side;
mod signature;
mod warm_up;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::progress::Progress;
use super::report::ServiceReport;
use super::rules::DeployRules;
use super::signature::Envelope;
use crate::clock::Stopwatch;
use crate::contract::{Grant, ReservedRoute};
use crate::deployed::{Deployed, GateName, GateOutcome, GateResult, ServiceConflict};
use crate::log::EventLog;
use crate::model::Digest;
use crate::runtime::{Compiled, Component, HttpClient, Runtime};
use crate::saga::{ReplayedSaga, Sagas};

pub(crate) use memory::FoldMemory;
pub(super) use permissions::requests;

/// All gates, in the order in which they are passed and shown.
const GATES: &[Gate] = &[
    component::GATE,
    manifest::GATE,
    signature::GATE,
    compatible::GATE,
    permissions::GATE,
    configuration::GATE,
    read_model::GATE,
    history::GATE,
    sagas::GATE,
    warm_up::GATE,
    side_by_side::GATE,
];

/// One check that a deployment has to pass.
struct Gate {
    name: GateName,
    check: Check,
}

/// The check of a gate, by its subject. A gate is skipped if an earlier one leaves it no subject.
enum Check {
    /// Checks the upload itself.
    Upload(for<'e> fn(&'e mut Examination<'_>) -> BoxFuture<'e, Finding>),
    /// Checks the compiled code.
    Compiled(for<'e> fn(&'e mut Examination<'_>, Compiled) -> BoxFuture<'e, Finding>),
    /// Checks the component.
    Component(for<'e> fn(&'e mut Examination<'_>, &'e Component) -> BoxFuture<'e, Finding>),
    /// Checks all services that would run, once for all components of a deployment.
    Services(fn(&Services<'_>) -> Finding),
}

/// The grants of a component, without the configuration's grants for HTTP.
pub(super) type Granted<'a> = dyn Fn(&Component) -> Vec<Grant> + Sync + 'a;

/// The host's parts that the gates need.
pub(super) struct Examiner<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) log: &'a Arc<dyn EventLog>,
    pub(super) http: &'a HttpClient,
    pub(super) rules: &'a DeployRules,
    pub(super) granted: &'a Granted<'a>,
    /// The time at which signatures must be valid.
    pub(super) now_ms: u64,
    /// The states that components have folded earlier.
    pub(super) memory: &'a FoldMemory,
    /// None while the host starts, because no sagas run yet.
    pub(super) sagas: Option<&'a Sagas>,
    pub(super) progress: &'a Arc<Progress>,
}

/// A component to be deployed.
pub struct Upload {
    /// The bytes of the component.
    pub wasm: Vec<u8>,
    /// The envelope with the signed statement, if the component is signed.
    pub signature: Option<Vec<u8>>,
}

/// The options of one deployment that concern the gates.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// The number of streams of each aggregate that are folded. None: all of them.
    pub(super) sample: Option<usize>,
    pub(super) allow_breaking: &'a [String],
    pub(super) origin: Origin,
}

/// The origin of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Uploaded to be deployed.
    Upload,
    /// Kept by the host. It ran before, so it was compatible then.
    EarlierRelease,
}

/// A component with the results of its gates.
pub(super) struct Candidate {
    pub(super) report: ServiceReport,
    /// None if the component does not load.
    pub(super) component: Option<Component>,
    pub(super) wasm: Vec<u8>,
    /// See [`Upload::signature`].
    pub(super) signature: Option<Vec<u8>>,
    pub(super) rehearsed: Vec<ReplayedSaga>,
    /// True if it has folded all streams in the log to the same states as the running version.
    pub(super) folds_alike: bool,
}

impl Candidate {
    /// Returns the envelope that is kept with the release.
    pub(super) fn envelope(&self) -> Option<String> {
        // Err: a host without keys accepts anything; nothing of it is kept.
        Envelope::read(self.signature.as_deref()?).ok()?.text().ok()
    }
}

/// The examination of one component: what the gates check, and what they have prepared for later ones.
struct Examination<'e> {
    examiner: &'e Examiner<'e>,
    upload: &'e Upload,
    digest: Digest,
    running: &'e Deployed,
    terms: Terms<'e>,
    /// Set by the gate `component`.
    compiled: Option<Compiled>,
    /// Set by the gate `manifest`.
    component: Option<Component>,
    /// Set by the gate `sagas`.
    rehearsed: Vec<ReplayedSaga>,
    /// Set by the gate `history`.
    folds_alike: bool,
}

/// All services that would run.
struct Services<'e> {
    deployed: Result<&'e Deployed, &'e ServiceConflict>,
    reserved: &'e [ReservedRoute<()>],
}

/// The finding of a gate: a sentence, and its details.
struct Finding {
    outcome: GateOutcome,
    says: String,
    findings: Vec<String>,
}

impl Finding {
    fn passed(says: impl Into<String>) -> Self {
        Self { outcome: GateOutcome::Passed, says: says.into(), findings: Vec::new() }
    }

    fn refused(says: impl Into<String>) -> Self {
        Self { outcome: GateOutcome::Refused, ..Self::passed(says) }
    }

    fn skipped(says: impl Into<String>) -> Self {
        Self { outcome: GateOutcome::Skipped, ..Self::passed(says) }
    }

    fn with(self, findings: Vec<String>) -> Self {
        Self { findings, ..self }
    }

    fn into_result(self, gate: GateName, watch: Stopwatch) -> GateResult {
        let Self { outcome, says, findings } = self;
        let took_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        GateResult { gate, outcome, took_ms, says, findings }
    }
}

impl Gate {
    /// Checks a component. Returns none if an earlier gate leaves nothing to check, or if the gate is for all
    /// services.
    async fn check(&self, examination: &mut Examination<'_>) -> Option<Finding> {
        Some(match self.check {
            Check::Upload(check) => check(examination).await,
            Check::Compiled(check) => {
                let compiled = examination.compiled.take()?;
                check(examination, compiled).await
            }
            Check::Component(check) => {
                let component = examination.component.clone()?;
                check(examination, &component).await
            }
            Check::Services(_) => return None,
        })
    }
}

impl Examination<'_> {
    /// The running version of a component's service.
    fn before(&self, component: &Component) -> Option<&Component> {
        self.running.service(component.manifest().service.as_str())
    }
}

impl Examiner<'_> {
    /// Passes one component through the gates.
    pub(super) async fn examine(&self, upload: Upload, running: &Deployed, terms: Terms<'_>) -> Candidate {
        let digest = Digest::of(&upload.wasm);
        let mut examination = Examination {
            examiner: self,
            upload: &upload,
            digest,
            running,
            terms,
            compiled: None,
            component: None,
            rehearsed: Vec::new(),
            folds_alike: false,
        };
        let mut gates = Vec::new();
        for gate in GATES {
            let watch = Stopwatch::start();
            self.progress.enter(digest, gate.name);
            let finding = gate.check(&mut examination).await;
            gates.extend(finding.map(|finding| finding.into_result(gate.name, watch)));
        }
        self.progress.leave();
        let Examination { component, rehearsed, folds_alike, .. } = examination;
        let manifest = component.as_ref().map(Component::manifest);
        let report = ServiceReport {
            service: manifest.map_or_else(|| "unknown".into(), |manifest| manifest.service.clone()),
            version: manifest.map_or_else(String::new, |manifest| manifest.version.clone()),
            digest,
            replaces: manifest
                .and_then(|manifest| running.service(manifest.service.as_str()))
                .map(Component::digest),
            gates,
        };
        let Upload { wasm, signature } = upload;
        Candidate { report, component, wasm, signature, rehearsed, folds_alike }
    }
}

/// Passes the services that would run through the gates that are for all services.
pub(super) fn examine_services(
    deployed: Result<&Deployed, &ServiceConflict>,
    reserved: &[ReservedRoute<()>],
) -> Vec<GateResult> {
    let services = Services { deployed, reserved };
    let results = GATES.iter().filter_map(|gate| {
        let Check::Services(check) = gate.check else { return None };
        let watch = Stopwatch::start();
        Some(check(&services).into_result(gate.name, watch))
    });
    results.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gates_are_passed_in_the_order_of_their_names() {
        for (place, gate) in GATES.iter().enumerate() {
            assert_eq!(gate.name as usize, place, "{}", gate.name);
        }
    }
}
