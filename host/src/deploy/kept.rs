//! The streams that stay with a newer version after an automatic rollback, because the version that comes
//! back cannot fold the events in them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use super::deployer::Deployer;
use super::error::DeployError;
use super::swap::Swap;
use crate::clock::millis;
use crate::deployed::{Happened, PastError, Running, Trial};
use crate::error::{Chain, Fault};
use crate::log::{EventLog, MAX_PAGE, ReadError, more_may_follow};
use crate::model::{Caller, Digest, Position, Recorded, Rejection, ServiceName, StreamId, Version};
use crate::runtime::{Component, Folded, Target};

/// The most streams that stay with the newer version. The event of the rollback names each, in far less than
/// the size of an event, and with more of them most of the service would run on the faulty version anyway.
const MAX_KEPT: usize = 1_000;
/// The number of streams that are folded at one time: enough for the cores of most machines, and few among
/// the readers of the log.
const AT_ONCE: usize = 8;
/// The time after a rollback in which calls of the version before it may still write: longer than a call
/// takes, and than other hosts take to follow the rollback.
const LATE: Duration = Duration::from_secs(30);

/// The actor of automatic rollbacks.
pub(super) const ACTOR: &str = "kontor";

impl Deployer {
    /// Returns the streams that the newer version can fold and the older one cannot, and the position up to
    /// which the log was read. Fails if they are too many.
    pub(super) async fn only_newer(
        &self,
        new: &Component,
        old: &Component,
        trial: &Trial,
    ) -> Result<(Vec<StreamId>, Position), DeployError> {
        let limit = self.deps.rules.history_limit;
        let folding = async {
            let mut written: BTreeSet<_> = trial.inherited.iter().cloned().collect();
            let mut read = trial.after;
            loop {
                let page = self.deps.log.read_all(read, MAX_PAGE).await?;
                let Some(last) = page.last() else { break };
                read = last.position;
                written.extend(written_by(new, &page));
            }
            Ok::<_, ReadError>((self.unfoldable(new, old, written).await?, read))
        };
        let (kept, read) = timeout(limit, folding).await.map_err(|_| out_of_time(limit))??;
        if kept.len() > MAX_KEPT { Err(too_many(old).into()) } else { Ok((kept, read)) }
    }

    /// Continues to keep the streams of rollbacks before the host stopped: it may have stopped before those
    /// of the last calls were kept.
    pub(super) async fn keep_again(self: Arc<Self>, running: Running) -> Result<(), PastError> {
        let automatic = running.returned.as_ref().filter(|_| running.by == *ACTOR);
        let Some(returned) = automatic else { return Ok(()) };
        let new = self.deps.components.get(returned.from).await?;
        let old = self.deps.components.get(running.release.digest).await?;
        self.keep_late((new, old), running.clone(), returned.after).await;
        Ok(())
    }

    /// Keeps the streams that calls of the newer version still write after the rollback, because they had
    /// begun before it. `returned`: the version before, as it runs since.
    pub(super) async fn keep_late(
        self: Arc<Self>,
        (new, old): (Component, Component),
        returned: Running,
        mut read: Position,
    ) {
        let until = returned.since.0.saturating_add(millis(LATE));
        let mut kept = returned.kept.clone().map_or_else(Vec::new, |kept| kept.streams);
        let mut head = self.deps.log.head();
        let over = self.deps.clock.until(until);
        tokio::pin!(over);
        loop {
            let page = match self.deps.log.read_all(read, MAX_PAGE).await {
                Ok(page) => page,
                Err(error) => return late(&old, &error.into()),
            };
            let Some(last) = page.last() else {
                tokio::select! {
                    () = &mut over => return,
                    moved = head.wait_for(|head| *head > read) => if moved.is_err() { return },
                }
                continue;
            };
            read = last.position;
            let past = last.meta.time_ms > until;
            let written = written_by(&new, &page).filter(|stream| !kept.contains(stream)).collect();
            let more = match self.unfoldable(&new, &old, written).await {
                Ok(more) => more,
                Err(error) => return late(&old, &error.into()),
            };
            if !more.is_empty() {
                kept.extend(more);
                if let Err(error) = self.keep_more(&new, &old, &returned, &kept).await {
                    return late(&old, &error);
                }
            }
            if past {
                return;
            }
        }
    }

    /// Records that more streams stay with the newer version. The note is still the reason of the rollback.
    async fn keep_more(
        self: &Arc<Self>,
        new: &Component,
        old: &Component,
        Running { release: to, note, .. }: &Running,
        kept: &[StreamId],
    ) -> Result<(), DeployError> {
        if kept.len() > MAX_KEPT {
            return Err(too_many(old).into());
        }
        let mut deployments = self.deployments.lock().await;
        let running = deployments.running.get(&to.service);
        if running.is_none_or(|running| running.release.digest != to.digest) {
            return Ok(());
        }
        let deployed = self.deps.registry.current().keeping(new, kept);
        let reason = "the last calls of the newer version have written more".to_owned();
        let (to, from, kept) = (to.clone(), new.digest(), kept.to_vec());
        let happened = Happened::RolledBack { to, from, reason, note: note.clone(), kept };
        let swap = Swap { happened, deployed, candidates: Vec::new() };
        self.clone().swap(&mut deployments, swap, Caller::named(ACTOR)).await
    }

    /// Returns those of the streams that the newer version can fold and the older one cannot, and no more of
    /// them than is needed to see that they are too many.
    async fn unfoldable(
        &self,
        new: &Component,
        old: &Component,
        streams: BTreeSet<StreamId>,
    ) -> Result<Vec<StreamId>, ReadError> {
        let log = &self.deps.log;
        let has = |stream: &StreamId| old.manifest().aggregate(stream.aggregate()).is_some();
        let folded = stream::iter(streams.into_iter().filter(has)).map(|stream| async move {
            let stays =
                fold(&**log, old, &stream).await?.is_err() && fold(&**log, new, &stream).await?.is_ok();
            Ok(stays.then_some(stream))
        });
        let kept = folded.buffered(AT_ONCE).try_filter_map(async |stays| Ok(stays));
        kept.take(MAX_KEPT + 1).try_collect().await
    }

    /// Shows that a faulty version keeps running.
    pub(super) fn stays_faulty(&self, service: &ServiceName, digest: Digest, error: &str) {
        let digest = digest.short();
        self.set_faulty(Some(format!("{service} {digest} faults and is not rolled back: {error}")));
    }
}

/// Returns the streams that a component has written to, by some events.
fn written_by(component: &Component, events: &[Recorded]) -> impl Iterator<Item = StreamId> {
    let digest = component.digest();
    events.iter().filter(move |event| event.meta.digest == Some(digest)).map(|event| event.stream.clone())
}

/// Folds a whole stream.
async fn fold(
    log: &dyn EventLog,
    component: &Component,
    stream: &StreamId,
) -> Result<Result<Option<Folded>, Fault>, ReadError> {
    let (mut folded, mut version) = (None::<Folded>, Version::START);
    loop {
        let since = log.read(stream, version, MAX_PAGE).await?;
        let Some(last) = since.last() else { return Ok(Ok(folded)) };
        version = last.version;
        let state = folded.as_ref().map(|folded| &folded.state);
        folded = match component.evolve(Target { stream, state, since: &since }).await {
            Ok(folded) => folded,
            Err(fault) => return Ok(Err(fault)),
        };
        if !more_may_follow(&since, MAX_PAGE) {
            return Ok(Ok(folded));
        }
    }
}

fn too_many(old: &Component) -> Rejection {
    let digest = old.digest().short();
    let message = format!(
        "The version before, {digest}, cannot fold more than {MAX_KEPT} of the streams written since."
    );
    Rejection::new("no-way-back", message)
}

fn out_of_time(limit: Duration) -> Rejection {
    let message = format!(
        "The version before has not folded the streams written since within {} ms.",
        limit.as_millis()
    );
    Rejection::new("no-way-back", message)
}

fn late(old: &Component, error: &DeployError) {
    tracing::error!(
        service = %old.manifest().service,
        error = %Chain(error),
        "failed to keep streams with a version that was rolled back; they cannot be read before the next \
         deployment"
    );
}
