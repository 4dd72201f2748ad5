//! The acts of operators and deployers, as the log has them: who did what, when and why. Deployments, acts on
//! sagas and tokens are events in any case. An act that would leave no event is recorded here, before it is
//! done, in a stream of its own: acts on several hosts never wait for one another. The stream's second event
//! is the outcome.
//!
//! *Invariant:* an act that the log does not take is not done.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::{SharedClock, Time};
use crate::contract::Problem;
use crate::deployed::{Happened, Released};
use crate::error::Chain;
use crate::identity::TokenEvent;
use crate::log::{Append, AppendError, EventLog, MAX_PAGE, ReadError, more_may_follow};
use crate::model::{
    AUDIT, Actor, AuditedAct, BY_SAGA, Caller, CommandId, InvalidId, Position, Recorded, Role, ServiceName,
    StreamId, Version, event_of, variant_of,
};
use crate::saga::entry::Entry;

/// The dead letters that an entry names; the event has all of them.
const NAMED_LETTERS: usize = 10;

/// The record of acts. Cheap to create: the log is all that it has.
pub struct Audit {
    log: Arc<dyn EventLog>,
    clock: SharedClock,
}

/// An act that nothing else records. The stored event's name is the variant's, its payload the variant's
/// fields. It says what was asked for; [`Ended`] follows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Intended {
    /// A read model is to be built anew.
    ReplayRequested {
        service: ServiceName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Time>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Parked streams of a read model are to be applied again.
    RedriveRequested {
        service: ServiceName,
        /// `None`: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<StreamId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Dead letters are to be sent again.
    DeadLettersRedriveRequested {
        letters: Vec<Letter>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Dead letters are to be removed.
    DeadLettersDiscardRequested { letters: Vec<Letter>, reason: String },
    /// Everything that nothing needs any more is to be removed.
    GarbageCollectionRequested {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// The outcome of an act that was recorded before it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ended {
    Done {},
    Failed { why: String },
}

/// The facts about a dead letter that outlive it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) id: u64,
    pub(crate) service: String,
    pub(crate) subject: String,
    pub(crate) message_id: String,
}

/// The acts to list. A field that is `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The name of the operator or deployer.
    pub by: Option<Actor>,
    /// The time of the first act.
    pub since: Option<Time>,
    /// The position behind which the list begins.
    pub after: Position,
    /// The maximum number of acts.
    pub limit: usize,
}

/// An act of an operator or a deployer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditEntry {
    /// The position of its event in the log.
    pub position: Position,
    /// The time of the act.
    pub time: Time,
    /// The name of the operator or deployer, or of the part of the host that acted.
    pub by: Actor,
    /// The kind of the act.
    pub act: AuditedAct,
    /// The outcome of the act.
    pub outcome: ActOutcome,
    /// The reason why it failed, at least in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The services, the saga, the read model, the dead letters or the token that it was about.
    pub target: String,
    /// The details: a step, a version, a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The permissions that were granted with a deployment, each with its service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// The reason, as the operator gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The outcome of an act. Acts that are events in any case are events only if they took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ActOutcome {
    /// It took effect.
    Done,
    /// It was refused, or failed. A part of it may have taken effect.
    Failed,
    /// It was begun, and its outcome is not in the log: it is in progress, or its host has stopped.
    Unknown,
}

/// The reason why an act is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The event cannot be written as JSON.
    #[error("the event of an act has no JSON form")]
    Encode(#[from] serde_json::Error),
    /// The id of the act cannot be a part of the name of its stream.
    #[error(transparent)]
    Stream(#[from] InvalidId),
    /// The log does not take the event.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        match &error {
            AuditError::Append(error) => error.into(),
            AuditError::Encode(_) | AuditError::Stream(_) => {
                Self::internal().with_log_text(Chain(&error).to_string())
            }
        }
    }
}

impl Audit {
    /// Returns the record of the acts in a log.
    pub fn new(log: Arc<dyn EventLog>, clock: SharedClock) -> Self {
        Self { log, clock }
    }

    /// Records an act, does it, and records its outcome. An act that the log does not take is not done.
    /// `failed`: returns the reason why an act with an answer has failed, at least in part.
    pub(crate) async fn perform<T>(
        &self,
        intended: Intended,
        by: &Caller,
        act: impl Future<Output = Result<T, Problem>>,
        failed: impl FnOnce(&T) -> Option<String>,
    ) -> Result<T, Problem> {
        if !self.log.state().takes_appends {
            return Err((&AppendError::Unavailable).into());
        }
        let stream = StreamId::new(AUDIT, CommandId::new().as_str()).map_err(AuditError::from)?;
        self.record(&stream, Version::START, &intended, by).await?;
        let acted = act.await;
        let failure = match &acted {
            Ok(answer) => failed(answer),
            Err(problem) => Some(problem.log_text().to_owned()),
        };
        let ended = failure.map_or(Ended::Done {}, |why| Ended::Failed { why });
        if let Err(error) = self.record(&stream, Version::START.next(), &ended, by).await {
            tracing::error!(
                error = %Chain(&error), act = %stream,
                "failed to record the outcome of an act; the audit shows it as unknown"
            );
        }
        acted
    }

    async fn record(
        &self,
        stream: &StreamId,
        expected: Version,
        event: &impl Serialize,
        by: &Caller,
    ) -> Result<(), AuditError> {
        let append = Append::of_host(stream.clone(), expected, event_of(event)?, self.clock.now_ms(), by);
        self.log.append(vec![append]).await?;
        Ok(())
    }

    /// Reads the outcome of an act.
    async fn outcome(&self, act: &Recorded) -> Result<(ActOutcome, Option<String>), ReadError> {
        if act.stream.aggregate() != AUDIT {
            return Ok((ActOutcome::Done, None));
        }
        let ended = self.log.read(&act.stream, act.version, 1).await?;
        let ended = ended.first().map(|event| variant_of(event.name.as_str(), &event.payload));
        Ok(match ended {
            Some(Ok(Ended::Done {})) => (ActOutcome::Done, None),
            Some(Ok(Ended::Failed { why })) => (ActOutcome::Failed, Some(why)),
            // Err: a newer host has written the event.
            Some(Err(_)) | None => (ActOutcome::Unknown, None),
        })
    }

    /// Lists acts, the oldest first. Reads the events of acts only, whatever else is in the log.
    pub async fn list(&self, filter: Filter) -> Result<Vec<AuditEntry>, ReadError> {
        let Filter { by, since, mut after, limit } = filter;
        let wanted = |Recorded { meta, .. }: &&Recorded| {
            by.as_ref().is_none_or(|by| meta.actor == *by)
                && since.is_none_or(|since| Time(meta.time_ms) >= since)
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let page = self.log.acts(after, MAX_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            let entries = page.iter().filter(wanted).filter_map(|act| Some((act, AuditEntry::of(act)?)));
            for (act, entry) in entries.take(limit - found.len()) {
                let (outcome, failure) = self.outcome(act).await?;
                found.push(AuditEntry { outcome, failure, ..entry });
            }
            if !more_may_follow(&page, MAX_PAGE) {
                break;
            }
        }
        Ok(found)
    }
}

/// Reads the event of an act. `None`: a newer host has written it.
fn read<T: DeserializeOwned>(event: &Recorded) -> Option<T> {
    variant_of(event.name.as_str(), &event.payload).ok()
}

/// The content of an entry that depends on the kind of the act.
#[derive(Default)]
struct Facts {
    target: String,
    detail: Option<String>,
    grants: Vec<String>,
    reason: Option<String>,
}

impl AuditEntry {
    /// Returns the entry of an event, without its outcome. `None`: it records no act, but that of a saga
    /// which continues by itself after a deployment.
    fn of(event: &Recorded) -> Option<Self> {
        let act = AuditedAct::of(event)?;
        let by = event.meta.actor.clone();
        if by.as_str().starts_with(BY_SAGA) {
            return None;
        }
        let facts = Facts::of(act, event);
        let unknown = || Facts { target: event.stream.to_string(), ..Facts::default() };
        let Facts { target, detail, grants, reason } = facts.unwrap_or_else(unknown);
        let (position, time) = (event.position, Time(event.meta.time_ms));
        let (outcome, failure) = (ActOutcome::Unknown, None);
        Some(Self { position, time, by, act, outcome, failure, target, detail, grants, reason })
    }
}

impl Facts {
    fn of(act: AuditedAct, event: &Recorded) -> Option<Self> {
        match act {
            AuditedAct::Deploy | AuditedAct::Rollback | AuditedAct::Undeploy => {
                Some(Self::of_deployment(read(event)?))
            }
            AuditedAct::ReplayProjection
            | AuditedAct::RedriveProjection
            | AuditedAct::RedriveDeadLetters
            | AuditedAct::DiscardDeadLetters
            | AuditedAct::CollectGarbage => Some(Self::of_intended(read(event)?)),
            AuditedAct::RetrySaga | AuditedAct::SkipStep | AuditedAct::ResolveSaga => {
                let (detail, reason) = match read(event)? {
                    Entry::Resumed { reason } => (None, reason),
                    Entry::Skipped { name, reason } => (Some(name), Some(reason)),
                    Entry::Resolved { reason } => (None, Some(reason)),
                    _ => return None,
                };
                Some(Self { target: event.stream.id().to_owned(), detail, reason, ..Self::default() })
            }
            AuditedAct::MakeToken | AuditedAct::RevokeToken => {
                let (detail, reason) = match read(event)? {
                    TokenEvent::TokenMade { subject, roles, note, .. } => {
                        let roles: Vec<_> = roles.iter().map(Role::as_str).collect();
                        (Some(format!("for {subject} [{}]", roles.join(", "))), note)
                    }
                    TokenEvent::TokenRevoked { reason } => (None, reason),
                };
                Some(Self { target: event.stream.id().to_owned(), detail, reason, ..Self::default() })
            }
        }
    }

    fn of_deployment(happened: Happened) -> Self {
        match happened {
            Happened::Deployed { services, note } => {
                let (mut targets, mut grants) = (Vec::new(), Vec::new());
                for Released { release, .. } in services {
                    targets.push(format!("{} {}", release.service, release.version));
                    grants.extend(release.grants.iter().map(|grant| format!("{}: {grant}", release.service)));
                }
                Self { target: targets.join(", "), grants, reason: note, ..Self::default() }
            }
            Happened::RolledBack { to, reason, note, .. } => Self {
                target: to.service.to_string(),
                detail: Some(format!("to {}", to.version)),
                reason: note.or(Some(reason)),
                ..Self::default()
            },
            Happened::Undeployed { release, note } => Self {
                target: format!("{} {}", release.service, release.version),
                reason: note,
                ..Self::default()
            },
        }
    }

    fn of_intended(intended: Intended) -> Self {
        let (target, detail, reason) = match intended {
            Intended::ReplayRequested { service, from, reason } => {
                let from = from.map(|from| format!("from {}", String::from(from)));
                (service.to_string(), from, reason)
            }
            Intended::RedriveRequested { service, stream, reason } => {
                (service.to_string(), stream.map(|stream| stream.to_string()), reason)
            }
            Intended::DeadLettersRedriveRequested { letters, reason } => (named(&letters), None, reason),
            Intended::DeadLettersDiscardRequested { letters, reason } => {
                (named(&letters), None, Some(reason))
            }
            Intended::GarbageCollectionRequested { reason } => ("garbage".to_owned(), None, reason),
        };
        Self { target, detail, reason, ..Self::default() }
    }
}

/// Returns the first dead letters, each as its subject and its id.
fn named(letters: &[Letter]) -> String {
    let first = letters.iter().take(NAMED_LETTERS);
    let mut names: Vec<_> = first.map(|letter| format!("{} {}", letter.subject, letter.id)).collect();
    if letters.len() > NAMED_LETTERS {
        names.push(format!("and {} more", letters.len() - NAMED_LETTERS));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests;
