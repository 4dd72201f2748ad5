//! What a deployment has to pass. Every gate is looked at, as far as those before it let one look, so that whoever deploys
//! learns all at once.

mod compatible;
mod history;
mod permissions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::time::timeout;

use super::report::ServiceReport;
use super::signature::{self, PublicKey};
use crate::clock::millis;
use crate::contract::{Grant, ReservedRoute, RouteTable};
use crate::deployed::{Deployed, Gate, GateName, GateOutcome};
use crate::error::with_causes;
use crate::log::EventLog;
use crate::model::{AggregateName, Digest, StreamId};
use crate::runtime::{Component, Guarded, HttpClient, LoadError, Runtime, Target};
use crate::saga::{ReplayOutcome, ReplayedSaga, Sagas};

use history::Folds;
pub(super) use permissions::{asked, asked_inside};

/// Calls that an aggregate answers before it is let into the host: as many instances are warm then.
const WARM_CALLS: usize = 4;

/// Open sagas that a report names: as many as a person reads. It counts the others.
const MAX_SAGAS_TOLD: usize = 100;

/// What a component is granted, but for what the configuration says of HTTP.
pub(super) type Granted<'a> = dyn Fn(&Component) -> Vec<Grant> + Sync + 'a;

/// What the gates look with.
pub(super) struct Examiner<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) log: &'a Arc<dyn EventLog>,
    pub(super) http: &'a HttpClient,
    /// None: components need not be signed.
    pub(super) trusted: &'a [PublicKey],
    /// How long the streams of the log may take to be folded.
    pub(super) history_limit: Duration,
    pub(super) granted: &'a Granted<'a>,
    /// None before there are any, at a start.
    pub(super) sagas: Option<&'a Sagas>,
}

/// A component to be deployed.
pub struct Upload {
    pub wasm: Vec<u8>,
    pub signature: Option<Vec<u8>>,
}

/// What the operator wants beyond the rule.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Streams of each aggregate that are folded; all of them if not told.
    pub(super) sample: Option<usize>,
    pub(super) allow_breaking: &'a [String],
    /// Whether the version goes back: it has been compatible once, and takes away what came after it.
    pub(super) back: bool,
}

/// A component that has been looked at.
pub(super) struct Candidate {
    pub(super) report: ServiceReport,
    /// None if it does not load.
    pub(super) component: Option<Component>,
    pub(super) wasm: Vec<u8>,
    pub(super) rehearsed: Vec<ReplayedSaga>,
}

/// What a gate has found: a sentence, and single things.
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
}

/// What the gates have found so far. Each takes the time since the one before it.
struct Found {
    gates: Vec<Gate>,
    since: Instant,
}

impl Found {
    fn new() -> Self {
        Self { gates: Vec::new(), since: Instant::now() }
    }

    fn add(&mut self, gate: GateName, Finding { outcome, says, findings }: Finding) {
        let took_ms = millis(self.since.elapsed());
        self.gates.push(Gate { gate, outcome, took_ms, says, findings });
        self.since = Instant::now();
    }
}

impl Examiner<'_> {
    /// Looks at one component.
    pub(super) async fn examine(
        &self,
        Upload { wasm, signature }: Upload,
        running: &Deployed,
        terms: Terms<'_>,
    ) -> Candidate {
        let digest = Digest::of(&wasm);
        let mut found = Found::new();
        let component = self.load(&wasm, &mut found).await;
        found.add(GateName::Signature, self.signed(digest, signature.as_deref()));
        let Some(component) = component else {
            let report = ServiceReport {
                service: "unknown".into(),
                version: String::new(),
                digest,
                replaces: None,
                gates: found.gates,
            };
            return Candidate { report, component: None, wasm, rehearsed: Vec::new() };
        };
        let manifest = component.manifest().clone();
        let before = running.service(manifest.service.as_str());
        found.add(GateName::Compatible, compatible(before, &component, terms));
        let permitted = permissions::check(&component, self.http, &(self.granted)(&component));
        found.add(GateName::Permissions, permitted.map_or_else(Finding::refused, Finding::passed));
        found.add(GateName::ReadModel, read_model(before, &component));
        found.add(GateName::History, self.history(before, &component, terms).await);
        let (replayed, rehearsed) = self.replay(&component).await;
        found.add(GateName::Sagas, replayed);
        found.add(GateName::WarmUp, warm_up(&component).await);
        let report = ServiceReport {
            service: manifest.service.clone(),
            version: manifest.version.clone(),
            digest,
            replaces: before.map(Component::digest),
            gates: found.gates,
        };
        Candidate { report, component: Some(component), wasm, rehearsed }
    }

    async fn load(&self, wasm: &[u8], found: &mut Found) -> Option<Component> {
        let told = |error: &LoadError| Finding::refused(with_causes(error));
        let compiled = match self.runtime.compile(wasm.to_vec()).await {
            Ok(compiled) => compiled,
            Err(error) => {
                found.add(GateName::Component, told(&error));
                return None;
            }
        };
        let says = format!(
            "it is a component of {} KiB that imports and exports what the contract says",
            wasm.len() / 1024
        );
        found.add(GateName::Component, Finding::passed(says));
        match self.runtime.introduce(compiled).await {
            Ok(component) => {
                let manifest = component.manifest();
                let says = format!("it is {} {}", manifest.service, manifest.version);
                found.add(GateName::Manifest, Finding::passed(says));
                Some(component)
            }
            Err(error) => {
                found.add(GateName::Manifest, told(&error));
                None
            }
        }
    }

    fn signed(&self, digest: Digest, signature: Option<&[u8]>) -> Finding {
        if self.trusted.is_empty() {
            return Finding::skipped("no keys are configured: any component is taken");
        }
        match signature {
            None => Finding::refused("it is not signed, and keys are configured: sign it with `kontor sign`"),
            Some(signature) if signature::verify(self.trusted, digest, signature) => {
                Finding::passed("somebody who is trusted has signed it")
            }
            Some(_) => Finding::refused("no trusted key has made this signature of this component"),
        }
    }

    async fn history(&self, before: Option<&Component>, new: &Component, terms: Terms<'_>) -> Finding {
        if new.manifest().aggregates.is_empty() {
            return Finding::skipped("it has no aggregates");
        }
        if terms.allow_breaking.iter().any(|name| name == GateName::History.as_str()) {
            return Finding::skipped("left out: what is in the log may not be readable any more");
        }
        let mut folds = Folds::default();
        match timeout(
            self.history_limit,
            folds.fold(&self.runtime.background(), self.log, before, new, terms.sample),
        )
        .await
        {
            Err(_) => return Finding::refused(self.out_of_time(&folds, terms)).with(folds.findings()),
            Ok(Err(error)) => return Finding::refused(format!("the log cannot be read: {error}")),
            Ok(Ok(())) => {}
        }
        let allowed =
            |aggregate: &AggregateName| terms.allow_breaking.contains(&format!("state:{aggregate}"));
        match (folds.passed(), folds.reshaped.iter().find(|aggregate| !allowed(aggregate))) {
            (true, _) => Finding::passed(format!("it folds {}", folds.says(terms.sample))),
            (false, None) if folds.only_reshaped() => {
                Finding::passed(format!("it folds {}, to other states, which is allowed", folds.says(terms.sample)))
            }
            (false, Some(aggregate)) if folds.only_reshaped() => Finding::refused(format!(
                "the state of {aggregate} has another shape, and its version is the same: raise STATE_VERSION, or name \
                 state:{aggregate} with --allow-breaking if states of the running version can be taken on"
            ))
            .with(folds.findings()),
            _ => Finding::refused(
                "it does not fold what is in the log: have it know the old events, or name history with --allow-breaking if \
                 those aggregates may fail",
            )
            .with(folds.findings()),
        }
    }

    fn out_of_time(&self, folds: &Folds, terms: Terms<'_>) -> String {
        let instead = if terms.back {
            "leave it out with --allow-breaking history"
        } else {
            "fold fewer with --sample"
        };
        format!(
            "it has folded {} when its {} ms were over: {instead}, or raise history_time_ms under [deploy] in kontor.toml",
            folds.says(terms.sample),
            self.history_limit.as_millis()
        )
    }

    async fn replay(&self, component: &Component) -> (Finding, Vec<ReplayedSaga>) {
        let Some(sagas) = self.sagas else {
            return (Finding::skipped("no saga can be open"), Vec::new());
        };
        let rehearsed = match sagas.rehearse(component).await {
            Ok(rehearsed) => rehearsed,
            Err(error) => {
                return (Finding::refused(format!("open sagas cannot be looked at: {error}")), vec![]);
            }
        };
        if rehearsed.is_empty() {
            return (Finding::passed("no saga is open"), rehearsed);
        }
        let count =
            |of: fn(&ReplayOutcome) -> bool| rehearsed.iter().filter(|saga| of(&saga.outcome)).count();
        let clean = count(|course| matches!(course, ReplayOutcome::Clean(_)));
        let under_way = count(|course| matches!(course, ReplayOutcome::UnderWay));
        let diverged = rehearsed.len() - clean - under_way;
        let says = format!(
            "of {} open sagas {clean} move over; {diverged} would go another way and {under_way} are under way: these end on \
             the version that they are on",
            rehearsed.len()
        );
        let stay = rehearsed.iter().filter_map(|saga| match &saga.outcome {
            ReplayOutcome::Diverged(why) => Some(format!("{} {} stays: {why}", saga.name(), saga.id())),
            ReplayOutcome::Clean(_) | ReplayOutcome::UnderWay => None,
        });
        let move_over = rehearsed.iter().filter(|saga| matches!(saga.outcome, ReplayOutcome::Clean(_)));
        let move_over = move_over.map(|saga| format!("{} {} moves over", saga.name(), saga.id()));
        let findings = stay.chain(move_over).take(MAX_SAGAS_TOLD).collect();
        (Finding::passed(says).with(findings), rehearsed)
    }
}

/// Whether all that would run goes together.
pub(super) fn side_by_side(deployed: Result<&Deployed, &String>, reserved: &[ReservedRoute<()>]) -> Gate {
    let mut found = Found::new();
    let together = deployed.map_err(String::clone).and_then(|deployed| {
        let manifests = deployed.services().map(|service| &**service.manifest());
        RouteTable::new(reserved.iter().copied(), manifests)
            .map(|_| deployed.services().count())
            .map_err(|error| with_causes(&error))
    });
    let finding = match together {
        Ok(services) => Finding::passed(format!("the {services} services go together")),
        Err(why) => Finding::refused(format!("these services cannot run side by side: {why}")),
    };
    found.add(GateName::SideBySide, finding);
    found.gates.remove(0)
}

fn compatible(before: Option<&Component>, new: &Component, terms: Terms<'_>) -> Finding {
    let Some(before) = before else {
        return Finding::skipped("the service does not run yet");
    };
    if terms.back {
        return Finding::skipped("it goes back to what was there before");
    }
    let breaks = compatible::breaks(before.manifest(), new.manifest());
    let (allowed, refused): (Vec<_>, Vec<_>) =
        breaks.into_iter().partition(|found| terms.allow_breaking.contains(&found.name));
    let told = |found: &compatible::Break| format!("{}: {}", found.name, found.why);
    match (refused.first(), allowed.is_empty()) {
        (None, true) => Finding::passed("it has all that the running version has"),
        (None, false) => {
            Finding::passed("what it breaks is allowed").with(allowed.iter().map(told).collect())
        }
        (Some(first), _) => Finding::refused(format!(
            "it breaks what the running version promises: put it back, or name it with --allow-breaking {:?}",
            first.name
        ))
        .with(refused.iter().map(told).collect()),
    }
}

fn read_model(before: Option<&Component>, new: &Component) -> Finding {
    let Some(model) = &new.manifest().read_model else {
        return Finding::skipped("it has no read model");
    };
    let made = Connection::open_in_memory()
        .and_then(Guarded::new)
        .and_then(|database| database.make_schema(&model.schema));
    match made {
        Err(error) => Finding::refused(format!("SQLite does not take the schema of its read model: {error}")),
        Ok(()) => match before.and_then(|before| before.manifest().read_model.as_ref()) {
            Some(running) if running == model => {
                Finding::passed(format!("version {} goes on", model.version))
            }
            Some(running) => Finding::passed(format!(
                "version {} is built beside version {}, which is asked until then",
                model.version, running.version
            )),
            None => Finding::passed(format!("version {} is built", model.version)),
        },
    }
}

/// Has instances ready for the first calls.
async fn warm_up(component: &Component) -> Finding {
    let manifest = component.manifest();
    let Some(stream) = manifest
        .aggregates
        .iter()
        .find_map(|aggregate| StreamId::new(aggregate.name.as_str(), "warm-up").ok())
    else {
        return Finding::skipped("it has no aggregates");
    };
    let nothing = Target { stream: &stream, state: None, since: &[] };
    let calls = (0..WARM_CALLS).map(|_| component.evolve(nothing));
    match futures::future::try_join_all(calls).await {
        Ok(_) => Finding::passed(format!("{WARM_CALLS} instances answer")),
        Err(fault) => Finding::refused(format!(
            "it does not say of an aggregate without events that there is none: {fault}: {}",
            fault.cause()
        )),
    }
}
