//! Tests of the audit.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::*;
use crate::clock::Clock;
use crate::contract::ProblemCode;
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
    let AuditEntry { by, act, outcome, target, detail, grants, reason, .. } = entry;
    format!("{by} {act} {outcome} {target} {detail:?} {grants:?} {reason:?}")
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
    let hash = "00".repeat(32);
    let token = format!(r#"{{"sha256":"{hash}","subject":"ci","roles":["deployer"],"note":"the pipeline"}}"#);
    write(&*log, "token/t1", "ada", event("token-made", &token)).await;
    write(&*log, "token/t1", "ada", event("token-revoked", r#"{"reason":"lost"}"#)).await;
    write(&*log, "audit/1", "ada", event("replay-requested", r#"{"newer":true}"#)).await;
    write(&*log, "deployment/services", "bob", event_of(&undeployed).unwrap()).await;

    let audit = Audit::new(log, Arc::new(Ticking::default()));
    let found = audit.list(Filter { limit: 100, ..Filter::default() }).await.unwrap();
    assert_eq!(
        found.iter().map(line).collect::<Vec<_>>(),
        [
            r#"ada deploy done order 2 None ["order: service:payment"] Some("sale")"#,
            r#"ada skip-step done 1 Some("pay") [] Some("by hand")"#,
            "bob retry-saga done 1 None [] None",
            r#"bob resolve-saga done 2 None [] Some("refunded")"#,
            r#"ada make-token done t1 Some("for ci [deployer]") [] Some("the pipeline")"#,
            r#"ada revoke-token done t1 None [] Some("lost")"#,
            "ada replay-projection unknown audit/1 None [] None",
            "bob undeploy done order 2 None [] None",
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
        audit.perform(replay, &Caller::named(actor), async { Ok(()) }, |()| None).await.unwrap();
    }
    let all = Filter { limit: 9, ..Filter::default() };
    for (filter, expected) in [
        (all.clone(), &[1, 3, 5, 7][..]),
        (Filter { limit: 2, ..all.clone() }, &[1, 3]),
        (Filter { after: Position::new(2), ..all.clone() }, &[3, 5, 7]),
        (Filter { by: Some("bob".into()), ..all.clone() }, &[3, 7]),
        (Filter { by: Some("eve".into()), ..all.clone() }, &[]),
        (Filter { since: Some(Time(4_000)), ..all }, &[5, 7]),
    ] {
        let found = audit.list(filter.clone()).await.unwrap();
        let positions: Vec<_> = found.iter().map(|entry| entry.position.get()).collect();
        assert_eq!(positions, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn an_act_that_fails_after_it_was_recorded_differs_from_one_that_took_effect() {
    let data = tempfile::tempdir().unwrap();
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
    let audit = Audit::new(log, Arc::new(Ticking::default()));
    let ada = Caller::named("ada");
    let redrive = || Intended::RedriveRequested { service: "report".into(), stream: None, reason: None };
    audit.perform(redrive(), &ada, async { Ok(0) }, |_| None).await.unwrap();
    audit.perform(redrive(), &ada, async { Ok(2) }, |left| Some(format!("{left} failed"))).await.unwrap();
    let busy = async { Err::<(), _>(Problem::new(ProblemCode::Busy, "Not now.")) };
    assert_eq!(audit.perform(redrive(), &ada, busy, |()| None).await.unwrap_err().code(), "busy");
    // The host stops while it acts.
    let (begin, begun) = oneshot::channel();
    let endless = async {
        begin.send(()).unwrap();
        std::future::pending::<Result<(), Problem>>().await
    };
    tokio::select! {
        _ = audit.perform(redrive(), &ada, endless, |()| None) => panic!("it has no end"),
        begun = begun => begun.unwrap(),
    }
    let found = audit.list(Filter { limit: 9, ..Filter::default() }).await.unwrap();
    let outcomes: Vec<_> = found.iter().map(|act| (act.outcome, act.failure.as_deref())).collect();
    let expected = [
        (ActOutcome::Done, None),
        (ActOutcome::Failed, Some("2 failed")),
        (ActOutcome::Failed, Some("Not now.")),
        (ActOutcome::Unknown, None),
    ];
    assert_eq!(outcomes, expected);
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
