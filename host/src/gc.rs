//! The garbage collection: it removes what only grows and nothing needs any more. All of it is derived from
//! the log, which is never collected.
//!
//! *Invariant:* what a running version, one that may be rolled back to, an open saga or a read model needs
//! is not garbage.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::aggregate::StateCache;
use crate::clock::{SharedClock, Time, millis, milliseconds};
use crate::deploy::FoldMemory;
use crate::deployed::Components;
use crate::error::with_causes;
use crate::garbage::{Collection, Garbage};
use crate::projection::Projections;
use crate::runtime::Runtime;
use crate::saga::{SagaError, Sagas};
use crate::telemetry;
use crate::warning::Warning;

/// The pause before another try while it is unknown what sagas need: the host is behind the log.
const RETRY: Duration = Duration::from_secs(60);

/// The section `[gc]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcOptions {
    /// The time between two collections. The first one is when the host has started. Zero: only
    /// `kontor gc` collects.
    #[serde(rename = "every_ms", deserialize_with = "milliseconds")]
    pub every: Duration,
    /// The time for which a saga that has ended stays in the index, counted from its start.
    #[serde(rename = "ended_sagas_ms", deserialize_with = "milliseconds")]
    pub ended_sagas: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        // A month of lists of ended sagas. Some hundred bytes each, so a million of them are small.
        Self { every: DAY, ended_sagas: 30 * DAY }
    }
}

/// The parts of the host that have garbage.
pub struct GcDeps {
    /// The components by digest.
    pub components: Arc<Components>,
    /// Their compiled code.
    pub runtime: Runtime,
    /// The snapshots of aggregates.
    pub states: Arc<StateCache>,
    /// The index of sagas.
    pub sagas: Arc<Sagas>,
    /// The read databases.
    pub projections: Arc<Projections>,
    /// The states that components have folded in deployments.
    pub(crate) folds: FoldMemory,
    /// The clock by which sagas are old.
    pub clock: SharedClock,
}

/// Collects the garbage of a host.
pub struct Gc {
    deps: GcDeps,
    options: GcOptions,
    /// Held by the collection in progress.
    turn: Mutex<()>,
    warning: Warning,
}

/// A kind of garbage.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum GarbageKind {
    /// Components in the data directory that neither run, may be rolled back to, nor have an open saga.
    Components,
    /// The same in the object store of the hosts that share the log.
    SharedComponents,
    /// The compiled code of such components, and that of other versions of Kontor.
    CompiledCode,
    /// Sagas in the index that ended long ago. Their journals stay in the log.
    EndedSagas,
    /// States of aggregates that no version takes on.
    Snapshots,
    /// States that such components have folded in the gate `history`.
    Folds,
    /// Databases of services that are not deployed any more.
    ReadModels,
}

/// The garbage of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Collected {
    /// The kind.
    pub kind: GarbageKind,
    /// The number of files, rows or objects.
    pub items: u64,
    /// Their size. A database does not get smaller by its rows: it uses the room again.
    pub bytes: u64,
    /// The reason why the rest of the kind could not be removed or counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Gc {
    /// Returns the collector of a host.
    pub fn new(deps: GcDeps, options: GcOptions) -> Self {
        let warning = Warning::new("what nothing needs any more is not removed");
        Self { deps, options, turn: Mutex::default(), warning }
    }

    /// Collects at once, and then from time to time.
    pub(crate) async fn run(self: Arc<Self>) {
        if self.options.every.is_zero() {
            return;
        }
        loop {
            let pause = match self.collect().await {
                Ok(_) => self.options.every,
                Err(SagaError::ShuttingDown) => return,
                Err(error) => {
                    self.warning.set(&error);
                    self.options.every.min(RETRY)
                }
            };
            sleep(pause).await;
        }
    }

    /// Returns the current warning, a sentence.
    pub(crate) fn warning(&self) -> Option<String> {
        self.warning.sentence()
    }

    /// Returns what a collection would remove now.
    pub(crate) async fn dry_run(&self) -> Result<Vec<Collected>, SagaError> {
        self.all(Collection::DryRun).await
    }

    /// Removes the garbage, after a collection that is in progress. Returns what was removed.
    pub(crate) async fn collect(&self) -> Result<Vec<Collected>, SagaError> {
        let _turn = self.turn.lock().await;
        let collected = self.all(Collection::Remove).await?;
        self.report(&collected);
        Ok(collected)
    }

    async fn all(&self, collection: Collection) -> Result<Vec<Collected>, SagaError> {
        let GcDeps { components, runtime, states, sagas, projections, folds, clock } = &self.deps;
        let by_sagas = sagas.needed_components().await?;
        let needed = components.needed(by_sagas.clone());
        let ended = Time(clock.now_ms().saturating_sub(millis(self.options.ended_sagas)));
        let mut all = vec![
            Collected::of(GarbageKind::EndedSagas, sagas.collect(ended, collection).await),
            Collected::of(GarbageKind::Snapshots, states.collect_snapshots(needed.clone(), collection).await),
            Collected::of(GarbageKind::Folds, folds.collect(&needed, collection).await),
            Collected::of(GarbageKind::ReadModels, projections.collect(collection).await),
            Collected::of(GarbageKind::CompiledCode, runtime.collect_code(&needed, collection)),
        ];
        let shared = components.collect_shared(by_sagas.clone(), collection).await.transpose();
        all.extend(shared.map(|shared| Collected::of(GarbageKind::SharedComponents, shared)));
        all.push(Collected::of(GarbageKind::Components, components.collect(by_sagas, collection)));
        Ok(all)
    }

    /// Counts and logs what was removed, and warns about the rest.
    fn report(&self, collected: &[Collected]) {
        for Collected { kind, items, bytes, .. } in collected.iter().filter(|collected| collected.items > 0) {
            metrics::counter!(telemetry::GARBAGE, "kind" => <&str>::from(*kind)).increment(*bytes);
            tracing::info!(%kind, items, bytes, "removed what nothing needs any more");
        }
        self.warning.show(failures(collected).map_or(Ok(()), |failures| Err(Failures(failures))));
    }
}

/// Returns the kinds that could not be removed or counted, each with its reason. `None`: there are none.
pub(crate) fn failures(collected: &[Collected]) -> Option<String> {
    let failures = collected.iter().filter_map(|Collected { kind, failure, .. }| {
        failure.as_ref().map(|failure| format!("{kind}: {failure}"))
    });
    let failures: Vec<_> = failures.collect();
    (!failures.is_empty()).then(|| failures.join("; "))
}

/// The kinds of garbage that could not be removed, each with its reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failures(String);

impl Collected {
    fn of(kind: GarbageKind, outcome: Result<Garbage, impl Error + 'static>) -> Self {
        match outcome {
            Ok(Garbage { items, bytes }) => Self { kind, items, bytes, failure: None },
            Err(error) => Self { kind, items: 0, bytes: 0, failure: Some(with_causes(&error)) },
        }
    }
}
