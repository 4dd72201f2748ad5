//! The answers of [`Dispatch`](super::Dispatch): those that append no events, and those of repeated commands.

use serde::{Deserialize, Serialize};

use super::turns::Ground;
use super::{Answer, Decided, Effect, Inner};
use crate::aggregate::states::AggregateState;
use crate::aggregate::{Accepted, CommandError};
use crate::clock::millis;
use crate::log::{ANSWERS_KEPT_FOR, Append};
use crate::model::{Command, Intent, Json, Meta, NewEvent, Position, Rejection, SagaId, StreamId, Version};
use crate::runtime::Component;

/// An answer without events, as the log keeps it for a command with a key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kept {
    Rejected(Rejection),
    /// The command changed nothing at this version.
    Unchanged(Version),
}

impl Kept {
    /// Returns an answer to be kept. `None`: nothing was decided.
    fn of(answer: &Answer) -> Option<Json> {
        let kept = match answer {
            Ok(accepted) => Self::Unchanged(accepted.version),
            Err(CommandError::Rejected(rejection)) => Self::Rejected(rejection.clone()),
            Err(_) => return None,
        };
        // Err: impossible, because the type has a JSON form.
        Json::of(&kept).ok()
    }
}

impl Inner {
    /// Returns the effect of an answer that appends no events. The answer to a command with a key is kept. If
    /// appends are pending, or other hosts append too, the log must confirm what it was decided on. A step
    /// that another host may have begun, before this one took over the saga, must not arrive after its
    /// rejection, so the stream is fenced.
    pub(super) fn without_append(
        &self,
        command: &Command,
        Ground { chain, is_on_disk }: Ground,
        state: &AggregateState,
        answer: Answer,
    ) -> Decided {
        let (log, nothing) = (&self.deps.log, Append::nothing(command.stream.clone(), state.version));
        let kept = if command.keyed { Kept::of(&answer) } else { None };
        let appending = match kept {
            Some(kept) => {
                let meta = self.meta(command, self.deps.clock.now_ms()).into();
                Some(log.append_in(chain, vec![Append { meta, answer: Some(kept), ..nothing }]))
            }
            None if is_on_disk && !log.is_shared() => None,
            None if command.journal.is_some() && command.repeatable => {
                Some(log.fence(chain, nothing.stream, state.version))
            }
            None => Some(log.append_in(chain, vec![nothing])),
        };
        (Effect::WithoutAppend(answer), appending)
    }

    /// Returns the metadata of a command, without the component.
    pub(super) fn meta(&self, command: &Command, time_ms: u64) -> Meta {
        Meta {
            command: match command.intent {
                Intent::Decide => command.name.clone(),
                Intent::Compensate { .. } => format!("{}/undo", command.name).into(),
            },
            fingerprint: command.fingerprint(),
            correlation_id: command.origin.correlation_id.clone(),
            causation_id: command.origin.causation_id.clone(),
            time_ms,
            ..Meta::of(command.id.clone(), &command.origin.caller)
        }
    }

    /// Returns the id of the saga that the service of a command starts by its events, which are recorded up
    /// to `position`. Sagas of other services are no part of the reply.
    pub(super) fn saga_started(
        &self,
        (stream, position): (&StreamId, Position),
        events: &[NewEvent],
        meta: &Meta,
    ) -> Option<SagaId> {
        let triggers = self.deps.registry.history().triggers_at(position);
        events.iter().zip(0..).find_map(|(event, index)| {
            let mut started = triggers.started_by(stream, &event.name, index, meta);
            started.find(|(_, trigger)| trigger.own).map(|(id, _)| id)
        })
    }

    /// Returns the effect of a command that changes nothing.
    pub(super) fn unchanged(&self, command: &Command, ground: Ground, state: &AggregateState) -> Decided {
        let answer = without_events(command, state.version, state.view().cloned());
        self.without_append(command, ground, state, Ok(answer))
    }

    /// Gives the answer to a command that changed nothing its position: all it was decided on is on disk now.
    pub(super) fn with_position(&self, mut answer: Accepted) -> Accepted {
        if answer.events.is_empty() {
            answer.position = *self.deps.log.head().borrow();
        }
        answer
    }

    /// Returns the answer to a command that was executed before.
    pub(super) async fn recorded(
        &self,
        command: &Command,
        component: &Component,
        state: &AggregateState,
    ) -> Result<Option<Answer>, CommandError> {
        if state.version > Version::START
            && let Some(accepted) = self.recorded_events(command, component, state).await?
        {
            return Ok(Some(Ok(accepted)));
        }
        match command.keyed {
            true => self.kept(command, component, state).await,
            false => Ok(None),
        }
    }

    /// Returns the answer to a command that has recorded events.
    pub(super) async fn recorded_events(
        &self,
        command: &Command,
        component: &Component,
        state: &AggregateState,
    ) -> Result<Option<Accepted>, CommandError> {
        let events = self.deps.log.find(&command.stream, &command.id).await?;
        let Some(last) = events.last() else {
            return Ok(None);
        };
        check_fingerprint(command, last.meta.fingerprint)?;
        let view = self.view_at(command, component, state, last.version).await?;
        let (version, position, meta) = (last.version, last.position, last.meta.clone());
        let events = events.into_iter().map(|event| NewEvent { name: event.name, payload: event.payload });
        let events = events.collect::<Vec<_>>();
        let saga = self.saga_started((&command.stream, position), &events, &meta);
        Ok(Some(Accepted { stream: command.stream.clone(), version, position, events, view, saga }))
    }

    /// Returns the answer that was kept for a command without events.
    async fn kept(
        &self,
        command: &Command,
        component: &Component,
        state: &AggregateState,
    ) -> Result<Option<Answer>, CommandError> {
        let oldest = self.deps.clock.now_ms().saturating_sub(millis(ANSWERS_KEPT_FOR));
        let kept = self.deps.log.answer(&command.stream, &command.id).await?;
        let Some(kept) = kept.filter(|kept| kept.time_ms >= oldest) else { return Ok(None) };
        check_fingerprint(command, kept.fingerprint)?;
        Ok(match kept.answer.read() {
            Ok(Kept::Rejected(rejection)) => Some(Err(rejection.into())),
            Ok(Kept::Unchanged(version)) => {
                let view = self.view_at(command, component, state, version).await?;
                Some(Ok(without_events(command, version, view)))
            }
            // A later version of Kontor has kept it.
            Err(_) => None,
        })
    }

    /// Returns the view of a command's aggregate at a version up to that of `state`.
    async fn view_at(
        &self,
        command: &Command,
        component: &Component,
        state: &AggregateState,
        version: Version,
    ) -> Result<Option<Json>, CommandError> {
        match version == state.version {
            true => Ok(state.view().cloned()),
            false => Ok(self.deps.states.at(&command.stream, component, version).await?.view().cloned()),
        }
    }
}

/// Fails if the recorded command with this fingerprint is another one.
fn check_fingerprint(command: &Command, recorded: u64) -> Result<(), CommandError> {
    match recorded == command.fingerprint() {
        true => Ok(()),
        false => Err(CommandError::KeyReused { stream: command.stream.clone() }),
    }
}

/// Returns the answer to a command without events. It has no position yet.
fn without_events(command: &Command, version: Version, view: Option<Json>) -> Accepted {
    let (stream, position) = (command.stream.clone(), Position::START);
    Accepted { stream, version, position, events: Vec::new(), view, saga: None }
}
