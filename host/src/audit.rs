//! The acts of operators and deployers, as the log has them: who did what, when and why. Deployments, acts on
//! sagas and tokens are events in any case. An act that would leave no event is recorded here, before it is
//! done, in a stream of its own: acts on several hosts never wait for one another.
//!
//! *Invariant:* an act that the log does not take is not done.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::{SharedClock, Time};
use crate::contract::Problem;
use crate::deployed::{Happened, Released};
use crate::error::Chain;
use crate::log::{Append, AppendError, EventLog, MAX_PAGE, ReadError, more_may_follow};
use crate::model::{
    AUDIT, Actor, AuditedAct, Caller, CommandId, InvalidId, Position, Recorded, Role, ServiceName, StreamId,
    Version, event_of, variant_of,
};

/// The dead letters that an entry names; the event has all of them.
const NAMED_LETTERS: usize = 10;

/// The record of acts. Cheap to create: the log is all that it has.
pub struct Audit {
    log: Arc<dyn EventLog>,
    clock: SharedClock,
}

/// An act that nothing else records. The stored event's name is the variant's, its payload the variant's
/// fields. It says what was asked for; the reply of the act, which may fail, is not in the log.
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

    /// Records an act that is about to be done. If this fails, it must not be done.
    pub(crate) async fn record(&self, intended: Intended, by: &Caller) -> Result<(), AuditError> {
        if !self.log.state().takes_appends {
            return Err(AppendError::Unavailable.into());
        }
        let event = event_of(&intended)?;
        let stream = StreamId::new(AUDIT, CommandId::new().as_str())?;
        let append = Append::of_host(stream, Version::START, event, self.clock.now_ms(), by);
        self.log.append(vec![append]).await?;
        Ok(())
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
            let entries = page.iter().filter(wanted).filter_map(AuditEntry::of);
            found.extend(entries.take(limit - found.len()));
            if !more_may_follow(&page, MAX_PAGE) {
                break;
            }
        }
        Ok(found)
    }
}

/// The content of an entry that depends on the kind of the act.
#[derive(Default)]
struct Facts {
    target: String,
    detail: Option<String>,
    grants: Vec<String>,
    reason: Option<String>,
}

/// The members of the entries of journals that record acts.
#[derive(Deserialize)]
struct OfSaga {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// The members of the events of tokens.
#[derive(Deserialize)]
struct OfToken {
    #[serde(default)]
    subject: Option<Actor>,
    #[serde(default)]
    roles: Vec<Role>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

impl AuditEntry {
    /// Returns the entry of an event. `None`: it records no act, but that of a saga which continues by itself
    /// after a deployment.
    fn of(event: &Recorded) -> Option<Self> {
        let act = AuditedAct::of(event)?;
        let by = event.meta.actor.clone();
        if by.as_str().starts_with("saga:") {
            return None;
        }
        // None: a newer host has written the event.
        let facts = Facts::of(act, event);
        let unknown = || Facts { target: event.stream.to_string(), ..Facts::default() };
        let Facts { target, detail, grants, reason } = facts.unwrap_or_else(unknown);
        let (position, time) = (event.position, Time(event.meta.time_ms));
        Some(Self { position, time, by, act, target, detail, grants, reason })
    }
}

impl Facts {
    fn of(act: AuditedAct, event: &Recorded) -> Option<Self> {
        match act {
            AuditedAct::Deploy | AuditedAct::Rollback | AuditedAct::Undeploy => {
                Some(Self::of_deployment(Happened::of(event).ok()?))
            }
            AuditedAct::ReplayProjection
            | AuditedAct::RedriveProjection
            | AuditedAct::RedriveDeadLetters
            | AuditedAct::DiscardDeadLetters => {
                Some(Self::of_intended(variant_of(event.name.as_str(), &event.payload).ok()?))
            }
            AuditedAct::RetrySaga | AuditedAct::SkipStep | AuditedAct::ResolveSaga => {
                let OfSaga { name, reason } = event.payload.read().ok()?;
                Some(Self { target: event.stream.id().to_owned(), detail: name, reason, ..Self::default() })
            }
            AuditedAct::MakeToken | AuditedAct::RevokeToken => {
                let OfToken { subject, roles, note, reason } = event.payload.read().ok()?;
                let roles: Vec<_> = roles.iter().map(Role::as_str).collect();
                let detail = subject.map(|subject| format!("for {subject} [{}]", roles.join(", ")));
                let (target, reason) = (event.stream.id().to_owned(), reason.or(note));
                Some(Self { target, detail, reason, ..Self::default() })
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
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::BoxFuture;

    use super::*;
    use crate::clock::Clock;
    use crate::deployed::Release;
    use crate::log::EmbeddedLog;
    use crate::model::{Json, NewEvent};

    /// A clock that goes on by a second with every look.
    #[derive(Default)]
    struct Ticking(AtomicU64);

    impl Clock for Ticking {
        fn now_ms(&self) -> u64 {
            self.0.fetch_add(1_000, Ordering::Relaxed)
        }

        fn until(&self, _: u64) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    async fn write(log: &dyn EventLog, stream: &str, actor: &str, event: NewEvent) {
        let stream = StreamId::parse(stream).unwrap();
        let before = log.read(&stream, Version::START, MAX_PAGE).await.unwrap().len();
        let expected = Version::START.after(before);
        let append = Append::of_host(stream, expected, event, 0, &Caller::named(actor));
        log.append(vec![append]).await.unwrap();
    }

    fn event(name: &str, payload: &str) -> NewEvent {
        NewEvent { name: name.into(), payload: Json::parse(payload.to_owned()).unwrap() }
    }

    fn line(entry: &AuditEntry) -> String {
        let AuditEntry { by, act, target, detail, grants, reason, .. } = entry;
        format!("{by} {act} {target} {detail:?} {grants:?} {reason:?}")
    }

    #[tokio::test]
    async fn every_act_is_listed_with_its_actor_and_its_reason_and_nothing_else_is() {
        let data = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
        let granted = Release { grants: vec!["service:payment".to_owned()], ..Release::example("2") };
        let services = vec![Released { release: granted, gates: Vec::new() }];
        let deployed = Happened::Deployed { services, note: Some("sale".to_owned()) };
        let undeployed = Happened::Undeployed { release: Release::example("2"), note: None };
        write(&*log, "deployment/services", "ada", event_of(&deployed).unwrap()).await;
        write(&*log, "order/1", "eve", event("deployed", "{}")).await;
        write(&*log, "saga/1", "saga:1", event("started", "{}")).await;
        write(&*log, "saga/1", "ada", event("skipped", r#"{"name":"pay","reason":"by hand"}"#)).await;
        write(&*log, "saga/1", "saga:1", event("resumed", "{}")).await;
        write(&*log, "saga/1", "bob", event("resumed", "{}")).await;
        write(&*log, "saga/2", "bob", event("resolved", r#"{"reason":"refunded"}"#)).await;
        let token = r#"{"sha256":"00","subject":"ci","roles":["deployer"],"note":"the pipeline"}"#;
        write(&*log, "token/t1", "ada", event("token-made", token)).await;
        write(&*log, "token/t1", "ada", event("token-revoked", r#"{"reason":"lost"}"#)).await;
        write(&*log, "audit/1", "ada", event("replay-requested", r#"{"newer":true}"#)).await;
        write(&*log, "deployment/services", "bob", event_of(&undeployed).unwrap()).await;

        let audit = Audit::new(log, Arc::new(Ticking::default()));
        let found = audit.list(Filter { limit: 100, ..Filter::default() }).await.unwrap();
        assert_eq!(
            found.iter().map(line).collect::<Vec<_>>(),
            [
                r#"ada deploy order 2 None ["order: service:payment"] Some("sale")"#,
                r#"ada skip-step 1 Some("pay") [] Some("by hand")"#,
                "bob retry-saga 1 None [] None",
                r#"bob resolve-saga 2 None [] Some("refunded")"#,
                r#"ada make-token t1 Some("for ci [deployer]") [] Some("the pipeline")"#,
                r#"ada revoke-token t1 None [] Some("lost")"#,
                "ada replay-projection audit/1 None [] None",
                "bob undeploy order 2 None [] None",
            ]
        );
    }

    #[tokio::test]
    async fn the_list_has_pages_and_can_be_limited_to_one_operator_and_to_a_time() {
        let data = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
        let audit = Audit::new(log, Arc::new(Ticking::default()));
        for actor in ["ada", "bob", "ada", "bob"] {
            let reason = Some("new column".to_owned());
            let replay = Intended::ReplayRequested { service: "report".into(), from: None, reason };
            audit.record(replay, &Caller::named(actor)).await.unwrap();
        }
        let all = Filter { limit: 9, ..Filter::default() };
        for (filter, expected) in [
            (all.clone(), &[1, 2, 3, 4][..]),
            (Filter { limit: 2, ..all.clone() }, &[1, 2]),
            (Filter { after: Position::new(2), ..all.clone() }, &[3, 4]),
            (Filter { by: Some("bob".into()), ..all.clone() }, &[2, 4]),
            (Filter { by: Some("eve".into()), ..all.clone() }, &[]),
            (Filter { since: Some(Time(2_000)), ..all }, &[3, 4]),
        ] {
            let found = audit.list(filter.clone()).await.unwrap();
            let positions: Vec<_> = found.iter().map(|entry| entry.position.get()).collect();
            assert_eq!(positions, expected, "{filter:?}");
        }
    }

    #[test]
    fn many_dead_letters_are_named_in_part() {
        let letter = |id| Letter {
            id,
            service: "parcels".to_owned(),
            subject: "carrier".to_owned(),
            message_id: format!("m{id}"),
        };
        let letters: Vec<_> = (1..=12).map(letter).collect();
        assert_eq!(named(&letters[..2]), "carrier 1, carrier 2");
        assert!(named(&letters).ends_with("carrier 10, and 2 more"));
    }
}
