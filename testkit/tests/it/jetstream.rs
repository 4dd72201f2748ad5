//! The log on JetStream with several hosts, and with servers that fail.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kontor::log::{Append, AppendError, EmbeddedLog, EventLog, JetStreamLog, JetStreamOptions, SyncPolicy};
use kontor::model::{AppendChain, CommandId, Meta, Position, Recorded, StreamId, Version};
use kontor_testkit::log::{audit, happened, work};
use kontor_testkit::nats::NatsServer;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

const ROUNDS: usize = 200;

fn options(servers: &[NatsServer]) -> JetStreamOptions {
    JetStreamOptions {
        monitoring: servers.iter().map(NatsServer::monitoring_url).collect(),
        ..JetStreamOptions::default()
    }
}

async fn connect(servers: &[NatsServer]) -> async_nats::Client {
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>();
    async_nats::connect(urls).await.unwrap()
}

async fn open(servers: &[NatsServer], dir: &Path) -> JetStreamLog {
    JetStreamLog::open(connect(servers).await, &options(servers), servers.len(), dir).await.unwrap()
}

/// Returns the error of a log that cannot be opened.
async fn refusal(server: &NatsServer, options: &JetStreamOptions, replicas: usize, dir: &Path) -> String {
    let client = async_nats::connect(server.url()).await.unwrap();
    let opened = JetStreamLog::open(client, options, replicas, dir).await;
    opened.err().expect("the log must not open").to_string()
}

/// Returns all events, once the copy has `at_least` of them.
async fn everything(log: &dyn EventLog, at_least: Position) -> Vec<Recorded> {
    log.head().wait_for(|head| *head >= at_least).await.unwrap();
    kontor_testkit::log::everything(log).await
}

/// Runs two workers on each of two logs. Every promise must be kept, and both logs must be equal in the end.
async fn work_at_both(first: &JetStreamLog, second: &JetStreamLog, name: &str) {
    let acknowledged = Mutex::new(Vec::new());
    let acknowledge = |command: &CommandId| acknowledged.lock().unwrap().push(command.clone());
    let names = ["a", "b", "c", "d"].map(|worker| format!("{name}-{worker}"));
    let [a, b, c, d] = &names;
    let ended = tokio::join!(
        work(first, a, ROUNDS, acknowledge),
        work(first, b, ROUNDS, acknowledge),
        work(second, c, ROUNDS, acknowledge),
        work(second, d, ROUNDS, acknowledge),
    );
    for ended in [ended.0, ended.1, ended.2, ended.3] {
        ended.unwrap();
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    let head = (*first.head().borrow()).max(*second.head().borrow());
    assert_eq!(everything(first, head).await, everything(second, head).await, "both copies are the same");
    assert!(audit(first, &acknowledged).await >= acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_write_one_log() {
    let servers = [NatsServer::start()];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = open(&servers, dirs[0].path()).await;
    let second = open(&servers, dirs[1].path()).await;
    work_at_both(&first, &second, "w").await;
    let head = *first.head().borrow();
    let late = open(&servers, dirs[2].path()).await;
    assert_eq!(
        everything(&late, head).await,
        everything(&first, head).await,
        "a host that comes late gets all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_loses_nothing() {
    let mut servers = [NatsServer::start()];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = open(&servers, dirs[0].path()).await;
    let second = open(&servers, dirs[1].path()).await;
    for round in 0..3 {
        let name = format!("w{round}");
        let mut head = first.head();
        let middle = head.borrow().after(ROUNDS);
        let working = work_at_both(&first, &second, &name);
        let killing = async {
            head.wait_for(|head| *head > middle).await.unwrap();
            tokio::task::block_in_place(|| servers[0].restart());
        };
        tokio::join!(working, killing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_without_the_server_that_leads() {
    let mut servers = NatsServer::cluster();
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = open(&servers, dirs[0].path()).await;
    let second = open(&servers, dirs[1].path()).await;
    let context = async_nats::jetstream::new(connect(&servers).await);
    let mut head = first.head();
    let working = work_at_both(&first, &second, "w");
    let killing = async {
        head.wait_for(|head| *head > Position::START.after(ROUNDS)).await.unwrap();
        let stream = context.get_stream(&JetStreamOptions::default().stream).await.unwrap();
        let leader =
            stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()).unwrap();
        let leader = servers.iter_mut().find(|server| server.name() == leader).unwrap();
        tokio::task::block_in_place(|| leader.kill());
    };
    tokio::join!(working, killing);
}

/// A leader that is deposed answers for up to ten seconds as if it were not.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_its_majority_confirms_no_version() {
    let mut servers = NatsServer::cluster();
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let all = open(&servers, dirs[0].path()).await;
    let written = all.append(vec![append("a", 0, "first")]).await.unwrap();
    let context = async_nats::jetstream::new(connect(&servers).await);
    let stream = context.get_stream(&JetStreamOptions::default().stream).await.unwrap();
    let leader = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()).unwrap();

    let leading = servers.iter().find(|server| server.name() == leader).unwrap().url();
    let client = async_nats::connect(leading).await.unwrap();
    let log = JetStreamLog::open(client.clone(), &options(&servers), 3, dirs[1].path()).await.unwrap();
    log.head().wait_for(|head| *head == written.position).await.unwrap();
    let confirm = || log.append(vec![Append::nothing(append("a", 1, "").stream, Version::new(1))]);
    confirm().await.expect("the leader has its majority");
    servers.iter_mut().filter(|server| server.name() != leader).for_each(NatsServer::kill);
    while log.state().takes_appends {
        tokio::task::yield_now().await;
    }
    let asked = client.request("$JS.API.STREAM.MSG.GET.kontor-log", r#"{"last_by_subj": ">"}"#.into()).await;
    let answer = String::from_utf8(asked.unwrap().payload.to_vec()).unwrap();
    assert!(answer.contains("kontor-log.commits"), "the leader still answers: {answer}");
    let confirmed = confirm().await;
    assert!(matches!(confirmed, Err(AppendError::Unavailable)), "{confirmed:?}");
}

/// Returns the append of one event by a command with this id.
fn append(stream: &str, expected: u64, command: &str) -> Append {
    let append =
        happened(StreamId::new("thing", stream).unwrap(), Version::new(expected), &[("done", json!({}))]);
    let command_id = CommandId::from(command.to_owned());
    Append { meta: Arc::new(Meta { command_id, ..Meta::clone(&append.meta) }), ..append }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_copy_that_fails_leaves_no_hole() {
    let servers = [NatsServer::start()];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = open(&servers, dirs[0].path()).await;
    let second = open(&servers, dirs[1].path()).await;
    let copy = Connection::open(dirs[1].path().join("events.db")).unwrap();
    let trigger = "CREATE TRIGGER disk_error BEFORE INSERT ON events WHEN new.command_id = 'bad'
        BEGIN SELECT raise(ROLLBACK, 'the disk is gone'); END";
    copy.execute_batch(trigger).unwrap();

    let before = first.append(vec![append("a", 0, "good")]).await.unwrap().position;
    second.head().wait_for(|head| *head == before).await.unwrap();
    first.append(vec![append("a", 1, "bad")]).await.unwrap();
    let mut last = before;
    for number in 0..100 {
        last = first.append(vec![append(&format!("b{number}"), 0, "good")]).await.unwrap().position;
    }
    assert_eq!(*second.head().borrow(), before, "nothing is copied behind what could not be copied");

    copy.execute_batch("DROP TRIGGER disk_error").unwrap();
    assert_eq!(everything(&second, last).await, everything(&first, last).await, "both copies are the same");
    second.append(vec![append("a", 2, "next")]).await.expect("the host takes appends again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_applied_stops_the_host_which_says_so() {
    let newer = r#"{"format": 4, "lanes": []}"#;
    let foreign = "hello";
    for (payload, why) in [
        (newer, "format 4, and this version of Kontor knows 3: update this host"),
        (foreign, "it was not written by Kontor"),
    ] {
        let servers = [NatsServer::start()];
        let dir = TempDir::new().unwrap();
        let log = open(&servers, dir.path()).await;
        log.append(vec![append("a", 0, "before")]).await.unwrap();
        let context = async_nats::jetstream::new(connect(&servers).await);
        context.publish("kontor-log.thing.x", payload.into()).await.unwrap().await.unwrap();
        let behind = log.append(vec![append("a", 1, "behind")]).await;
        assert!(matches!(behind, Err(AppendError::Failed(_) | AppendError::Unavailable)), "{behind:?}");

        let state = log.state();
        let reason = state.stopped.expect("the host has stopped");
        assert!(reason.contains("message 2 of the log's stream") && reason.contains(why), "{reason}");
        assert!(!state.takes_appends);
        assert!(matches!(log.append(vec![append("b", 0, "late")]).await, Err(AppendError::Unavailable)));
        assert_eq!(log.head().borrow().get(), 1, "nothing is left out");
        drop(log);
        let refusal = refusal(&servers[0], &options(&servers), 1, dir.path()).await;
        assert!(refusal.contains(why), "{refusal}");
    }
}

/// Returns the payload of a message as older versions of Kontor wrote it: one event on top of a version.
fn older_message(format: u32, stream: &str, (part, parts): (u32, u32), expected: u64) -> String {
    json!({
        "format": format, "stream": stream, "part": part, "parts": parts,
        "commits": [{
            "expected": expected,
            "meta": {
                "command_id": format!("{stream}@{expected}"), "command": "do", "fingerprint": 1,
                "correlation_id": "c", "causation_id": null, "digest": null, "time_ms": 1, "actor": "ada"
            },
            "events": [{"name": "done", "payload": {}}]
        }]
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_older_version_goes_on() {
    let servers = [NatsServer::start()];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let log = open(&servers, dirs[0].path()).await;
    let context = async_nats::jetstream::new(connect(&servers).await);
    let older = [
        (1, "thing/x", (1, 1), 0),
        (2, "thing/x", (1, 1), 1),
        (1, "thing/x", (1, 2), 2),
        (1, "thing/y", (2, 2), 0),
        // It came in just before its host met the first message of this version.
        (1, "thing/x", (1, 1), 7),
    ];
    for (format, stream, part, expected) in older {
        let subject = format!("kontor-log.{}", stream.replace('/', "."));
        let payload = older_message(format, stream, part, expected);
        context.publish(subject, payload.into()).await.unwrap().await.unwrap();
    }
    let last = log.append(vec![append("x", 3, "next")]).await.unwrap().position;
    assert_eq!(last.get(), 5, "what did not fit is left out");
    let late = open(&servers, dirs[1].path()).await;
    assert_eq!(everything(&late, last).await, everything(&log, last).await, "by every host");
}

/// The first host cannot follow the stream for a while, as if it was cut off with an append under way.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_begun_before_a_fence_does_not_arrive_after_it() {
    let servers = [NatsServer::start()];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = open(&servers, dirs[0].path()).await;
    let second = open(&servers, dirs[1].path()).await;
    let thing = StreamId::new("thing", "a").unwrap();
    let end = first.append(vec![append("a", 0, "before")]).await.unwrap().position;
    second.head().wait_for(|head| *head == end).await.unwrap();

    let copy = Connection::open(dirs[0].path().join("events.db")).unwrap();
    copy.execute_batch("BEGIN IMMEDIATE").unwrap();
    second.fence(AppendChain::new(), thing.clone(), Version::new(1)).await.unwrap();
    let late = first.append(vec![append("a", 1, "late")]);
    copy.execute_batch("COMMIT").unwrap();
    match late.await {
        Err(AppendError::Fenced { stream }) => assert_eq!(stream, thing),
        other => panic!("it must not arrive after the fence, but: {other:?}"),
    }
    first.append(vec![append("a", 1, "again")]).await.expect("it is decided again, behind the fence");
    let conflict = second.fence(AppendChain::new(), thing, Version::new(1)).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    second.append(vec![append("a", 2, "next")]).await.expect("own fences are in nobody's way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_copy_differs_stops_when_another_one_publishes() {
    let servers = [NatsServer::start()];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = open(&servers, dirs[0].path()).await;
    for version in 0..3 {
        first.append(vec![append("a", version, &format!("c{version}"))]).await.unwrap();
    }
    drop(open(&servers, dirs[1].path()).await);
    let copy = Connection::open(dirs[1].path().join("events.db")).unwrap();
    copy.execute_batch("DELETE FROM events WHERE position = 3").unwrap();
    drop(copy);

    let second = open(&servers, dirs[1].path()).await;
    first.append(vec![append("b", 0, "next")]).await.unwrap();
    let behind = second.append(vec![append("c", 0, "behind")]).await;
    assert!(matches!(behind, Err(AppendError::Failed(_) | AppendError::Unavailable)), "{behind:?}");
    let reason = second.state().stopped.expect("the host has stopped");
    assert!(reason.contains("has another event at position 3 than this one"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_safe_is_refused_with_what_to_do() {
    let server = NatsServer::start();
    let dir = TempDir::new().unwrap();
    let safe = options(std::slice::from_ref(&server));
    let table = [
        (JetStreamOptions { monitoring: Vec::new(), ..safe.clone() }, 1, "jetstream.sync = \"interval\""),
        (safe.clone(), 3, "3 servers or more"),
        (JetStreamOptions { stream: "theirs".to_owned(), ..safe.clone() }, 1, "can be purged"),
    ];
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let theirs = async_nats::jetstream::stream::Config {
        name: "theirs".to_owned(),
        subjects: vec!["theirs.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(theirs).await.unwrap();
    for (options, replicas, message) in table {
        let refusal = refusal(&server, &options, replicas, dir.path()).await;
        assert!(refusal.contains(message), "{refusal}");
    }
    let lazy = JetStreamOptions { monitoring: Vec::new(), sync: SyncPolicy::Interval, ..safe };
    let client = async_nats::connect(server.url()).await.unwrap();
    drop(JetStreamLog::open(client, &lazy, 1, dir.path()).await.unwrap());
    let embedded = EmbeddedLog::open(dir.path()).err().unwrap().to_string();
    assert!(embedded.contains("is a copy of another log"), "{embedded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_holds_something_else_is_refused() {
    let servers = [NatsServer::start()];
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    work(&log, "w", 1, |_| {}).await.unwrap();
    drop(log);
    let refusal = refusal(&servers[0], &options(&servers), 1, dir.path()).await;
    assert!(refusal.contains("holds a log of its own, so it cannot become a copy"), "{refusal}");
}
